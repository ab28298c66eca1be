"""The fault matrix: what an upstream can do wrong, at each phase of an answer, plain and streaming.

Covers: refuse, reset, hang, truncate, garbage, HTML 502, slow drip; at connect, headers, first chunk, mid-chunk,
before [DONE]; for each the status, the body or events, the figures, the metrics, the log line, and that no
connection stays.
Left out: refuse beyond connect (there is no connection left to refuse), before [DONE] for plain answers, and an
HTML page after a stream's head, which the garbage rows stand for. Ends that are no fault: test_stream_ends.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from harness import answers
from harness.client import Answer
from harness.faults import EVENTS, GARBAGE, HEAD, JSON, PLAIN, PLAIN_HEAD, STREAMING, Case
from harness.metrics import Scrape, measured
from harness.process import Sidecar, Start
from harness.upstream import CLOSE, HANG, RESET, Drip, ScriptedUpstream


def check_http(case: Case, answer: Answer) -> None:
    assert (answer.status, answer.ended) == (case.status, "whole")
    assert answer.error["code"] == case.code
    assert answer.header("content-length") is not None


def check_event(case: Case, answer: Answer) -> None:
    """Whole events as they came, then one error event, then a clean end of the transfer."""
    assert (answer.status, answer.ended) == (case.status, "whole")
    sent = b"".join(EVENTS[: case.whole_events])
    assert answer.body.startswith(sent)
    tail = answer.body[len(sent) :]
    assert tail.startswith(b"data: "), "the error event is glued to something"
    assert tail.endswith(b"\n\n")
    assert tail.count(b"data: ") == 1
    assert b"[DONE]" not in tail
    assert set(answer.data[-1]["error"]) >= {"message", "type", "param", "code"}
    assert answer.data[-1]["error"]["code"] == case.code


def check_cut(case: Case, answer: Answer) -> None:
    assert answer.status == case.status
    assert answer.ended in ("cut", "reset"), "a broken transfer must not look whole"
    assert JSON.startswith(answer.body)


def check_metrics(case: Case, error: str, tries: int, line: dict[str, object], delta: Scrape) -> None:
    """Every metric that a failed request adds to, and no other one."""
    streamed = case.down == "event"
    chunks = min(case.whole_events, len(EVENTS) - 1) if streamed else 0
    has_output = chunks > 1  # the first chunk says only whose turn it is
    gen_ai = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "error_type": error}
    counts = {
        "gen_ai_client_operation_duration_seconds": 1,
        "gen_ai_server_request_duration_seconds": 1,
        "gen_ai_client_operation_time_to_first_chunk_seconds": 1 if chunks else 0,
        "gen_ai_client_operation_time_per_output_chunk_seconds": max(chunks - 1, 0),
        "gen_ai_server_time_to_first_token_seconds": 1 if has_output else 0,
        "gen_ai_server_time_per_output_token_seconds": 0,
        "gen_ai_client_token_usage": 0,
        "inference_sidecar_stream_duration_seconds": 1 if streamed else 0,
        "inference_sidecar_stream_tokens_per_second": 0,
    }
    assert {name: delta.sum(f"{name}_count") for name in counts} == counts
    for name in list(counts)[:4]:
        assert delta.sum(f"{name}_count", **gen_ai) == counts[name], name
    for name in ("gen_ai_client_operation_duration", "gen_ai_server_request_duration"):
        assert delta.sum(f"{name}_seconds_sum") * 1000 == pytest.approx(line["duration_ms"], abs=0.01)
    first = delta.sum("gen_ai_server_time_to_first_token_seconds_sum") * 1000
    assert first == pytest.approx(line.get("time_to_first_token_ms", 0), abs=0.01)
    assert delta.sum("inference_sidecar_requests_total") == 1
    assert delta.sum("inference_sidecar_requests_total", outcome="failed", **gen_ai) == 1
    assert delta.sum("inference_sidecar_retries_total") == tries - 1
    assert delta.sum("inference_sidecar_streams_total") == counts["inference_sidecar_stream_duration_seconds"]
    assert delta.sum("inference_sidecar_streams_total", outcome="failed") == (1 if streamed else 0)
    assert delta.sum("inference_sidecar_stream_chunks_total") == chunks
    assert delta.sum("inference_sidecar_active_requests") == 0


def run(sidecar: Sidecar, upstream: ScriptedUpstream, case: Case, *, stream: bool) -> None:
    scenario = upstream.plan(case.script)
    with measured(sidecar) as metrics, sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.chat(scenario, stream=stream or None)
    {"http": check_http, "event": check_event, "cut": check_cut}[case.down](case, answer)
    error = f"upstream_http_{case.status}" if case.code == "upstream_http_error" else case.code
    assert (lines[0]["end"], lines[0]["error"], lines[0]["status"]) == ("failed", error, case.status)
    assert lines[0]["attempts"] == len(upstream.of(scenario))
    if case.attempts is not None:
        assert len(upstream.of(scenario)) == case.attempts
    check_metrics(case, error, len(upstream.of(scenario)), lines[0], metrics)
    started = 1 if case.down == "event" else 0
    assert {name: delta[name] for name in ("errors.total", f"errors.by_type.{error}")} == {
        "errors.total": 1,
        f"errors.by_type.{error}": 1,
    }
    assert delta["requests.streaming"] == (1 if stream else 0)
    streams = [delta[f"streams.{name}"] for name in ("started", "completed", "failed", "cancelled")]
    assert streams == [started, 0, started, 0]
    if case.code != "upstream_http_error":
        for exchange in upstream.of(scenario):
            upstream.closing(exchange)


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_plain(hasty: Sidecar, upstream: ScriptedUpstream, case: Case) -> None:
    run(hasty, upstream, case, stream=False)


@pytest.mark.parametrize("case", STREAMING, ids=lambda case: case.name)
def test_streaming(hasty: Sidecar, upstream: ScriptedUpstream, case: Case) -> None:
    run(hasty, upstream, case, stream=True)


def test_a_slow_stream_is_no_fault(hasty: Sidecar, upstream: ScriptedUpstream) -> None:
    """Slow drip after the head: longer than timeout_secs as a whole, never idle: it comes down whole."""
    body = b"".join(EVENTS)
    drip = Drip(answers.chunk(body), size=len(body) // 12, gap=0.1)
    scenario = upstream.plan([HEAD, drip, answers.END])
    with hasty.figures(1) as delta:
        answer = hasty.chat(scenario, stream=True)
    assert (answer.status, answer.ended, answer.body) == (200, "whole", body)
    assert delta["errors.total"] == 0
    assert delta["streams.completed"] == 1


# The connect phase: an upstream that answers, or not, before it has read anything.


@pytest.fixture(scope="module")
def moody() -> Iterator[ScriptedUpstream]:
    """An upstream of its own: what it does on accept holds for every connection."""
    with ScriptedUpstream(answers.typical) as running:
        yield running


@pytest.fixture(scope="module")
def moody_sidecar(start: Start, moody: ScriptedUpstream) -> Sidecar:
    http = {"timeout_secs": 1, "connect_timeout_secs": 0.5, "max_idle_connections": 0}
    return start({"inference": {"http": http}}, base_url=f"{moody.url}/v1")


ON_ACCEPT = [
    Case("hang", [HANG], "upstream_timeout"),
    Case("truncate", [CLOSE], "upstream_disconnected"),
    Case("garbage", [GARBAGE, CLOSE], "upstream_protocol_error"),
    Case("html", [answers.html_502(), HANG], "upstream_http_error", status=502),
    Case("drip", [Drip(PLAIN_HEAD, gap=0.1)], "upstream_timeout"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
@pytest.mark.parametrize("case", ON_ACCEPT, ids=lambda case: case.name)
def test_connect(moody_sidecar: Sidecar, moody: ScriptedUpstream, case: Case, stream: bool) -> None:
    moody.on_accept = case.script
    with moody_sidecar.figures(1) as delta, moody_sidecar.requests() as lines:
        answer = moody_sidecar.chat(stream=stream or None)
    check_http(case, answer)
    error = f"upstream_http_{case.status}" if case.code == "upstream_http_error" else case.code
    assert (lines[0]["end"], lines[0]["error"]) == ("failed", error)
    assert (delta["errors.total"], delta[f"errors.by_type.{error}"]) == (1, 1)
    moody.until(lambda: moody.open_connections() == 0, "every connection closed")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_connect_reset(moody_sidecar: Sidecar, moody: ScriptedUpstream, stream: bool) -> None:
    """Whether the reset is seen while connecting or just after is up to the kernel; it is tried again."""
    moody.on_accept = [RESET]
    seen = len(moody.connections)
    with moody_sidecar.figures(1) as delta:
        answer = moody_sidecar.chat(stream=stream or None)
    assert answer.status == 500
    assert answer.error["code"] in ("upstream_disconnected", "upstream_connect_error")
    assert delta["errors.total"] == 1
    assert len(moody.connections) == seen + 4


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_connect_refused(start: Start, stream: bool) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        # Bound but deaf: the port stays ours, so that nobody else answers there.
        with closing(socket.socket()) as holder:
            server.close()
            holder.bind(("127.0.0.1", port))
            sidecar = start(base_url=f"http://127.0.0.1:{port}/v1")
            with measured(sidecar) as metrics, sidecar.figures(1) as delta, sidecar.requests() as lines:
                answer = sidecar.chat(stream=stream or None)
    check_metrics(
        Case("refused", [], "upstream_connect_error"), "upstream_connect_error", 4, lines[0], metrics
    )
    assert (answer.status, answer.error["code"]) == (500, "upstream_connect_error")
    assert lines[0]["attempts"] == 4
    assert answer.header("x-should-retry") == "false"
    assert delta["errors.by_type.upstream_connect_error"] == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_connect_hangs(start: Start, stream: bool) -> None:
    """A listener whose queue is full: the connection is never established."""
    with (
        closing(socket.socket()) as listener,
        closing(socket.socket()) as first,
        closing(socket.socket()) as other,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for filler in (first, other):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        http = {"connect_timeout_secs": 0.3, "max_retries": 0}
        sidecar = start({"inference": {"http": http}}, base_url=f"http://127.0.0.1:{port}/v1")
        with sidecar.figures(1) as delta:
            answer = sidecar.chat(stream=stream or None)
    assert (answer.status, answer.error["code"]) == (500, "upstream_connect_error")
    assert delta["errors.by_type.upstream_connect_error"] == 1


def test_an_unknown_host_is_a_connect_error_without_the_key(start: Start) -> None:
    http = {"max_retries": 0}
    sidecar = start({"inference": {"http": http}}, base_url="http://upstream.invalid/v1")
    answer = sidecar.chat()
    assert (answer.status, answer.error["code"]) == (500, "upstream_connect_error")
