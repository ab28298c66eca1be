"""The spans of every outcome: exactly one SERVER, one CLIENT for the call, one for each attempt, none left open.

Covers: the fault matrix, plain and streaming; refusals; the app leaving in each phase; retries; a stream cut by the
upstream, by its own error event, by the process's end; names, parents, times, status, error.type, events; each against
the scripted upstream's ledger and the request's log line.
Left out: the values of attributes (test_traces_attributes), whose trace it is (test_traces_context), export that
fails (test_export).
"""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from harness import answers
from harness.faults import EVENTS, GARBAGE, PLAIN, STREAMING, Case
from harness.otlp import OtlpSink
from harness.process import Sidecar, Start, chat_body
from harness.traces import tree
from harness.upstream import CLOSE, HANG, RESET, SCENARIO, Script, ScriptedUpstream

HTTP = {"timeout_secs": 1, "stream_idle_timeout_secs": 0.7, "connect_timeout_secs": 0.5, "max_retries": 3}
ROUTE = "POST /v1/chat/completions"


@pytest.fixture(scope="module")
def traced(sink: OtlpSink, environ: dict[str, str], start: Start) -> Sidecar:
    # `sink` comes first, so that it outlives the sidecar's last export.
    return start({"inference": {"http": HTTP}}, environ=environ)


def had_head(case: Case) -> str | None:
    """error.type of an attempt that got no good head; None where the head was good."""
    if case.name == "first-html" or case.name == "headers-html":
        return "502"
    if not case.name.startswith("headers-"):
        return None
    return {
        "upstream_disconnected": "UpstreamDisconnected",
        "upstream_protocol_error": "UpstreamProtocolError",
        "upstream_timeout": "cancelled",
    }[case.code]


def run(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, case: Case, *, stream: bool) -> None:
    scenario = upstream.plan(case.script)
    with traced.requests() as lines:
        traced.chat(scenario, stream=stream or None)
    found = tree(sink, lines[0], len(upstream.of(scenario)))
    error = f"upstream_http_{case.status}" if case.code == "upstream_http_error" else case.code
    assert (found.server.name, found.model_call.name) == (ROUTE, "chat gpt-4")
    for span in (found.server, found.model_call):
        assert (span.status, span.attributes["error.type"]) == ("error", error)
    # What the upstream said is told in no span; what the sidecar itself says is.
    assert bool(found.model_call.description) == (case.code != "upstream_http_error")
    kind = had_head(case)
    for attempt in found.attempts:
        assert attempt.name == "POST"
        assert (attempt.status, attempt.attributes.get("error.type")) == ("error" if kind else "unset", kind)
    retries = found.model_call.named("inference_sidecar.retry")
    assert [retry["inference_sidecar.retry.reason"] for retry in retries] == [error] * (
        len(found.attempts) - 1
    )
    assert all(retry["inference_sidecar.retry.wait_s"] > 0 for retry in retries)
    streamed = case.down == "event"
    assert len(found.model_call.named("inference_sidecar.first_chunk")) == (1 if streamed else 0)
    ends = found.model_call.named("inference_sidecar.end")
    assert [(end["inference_sidecar.outcome"], end["inference_sidecar.stream.chunks"]) for end in ends] == (
        [("failed", min(case.whole_events, 5))] if streamed else []
    )


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_plain(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, case: Case) -> None:
    run(sink, traced, upstream, case, stream=False)


@pytest.mark.parametrize("case", STREAMING, ids=lambda case: case.name)
def test_streaming(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, case: Case) -> None:
    run(sink, traced, upstream, case, stream=True)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_completed(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, stream: bool) -> None:
    scenario = upstream.plan(answers.sse(EVENTS) if stream else [answers.json_answer(answers.completion())])
    with traced.requests() as lines:
        traced.chat(scenario, stream=stream or None)
    found = tree(sink, lines[0], 1)
    for span in (found.server, found.model_call, *found.attempts):
        assert span.status == "unset"
        assert "error.type" not in span.attributes
    assert len(found.model_call.named("inference_sidecar.first_chunk")) == (1 if stream else 0)


def test_retry_then_success(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan(
        [answers.rate_limited("retry-after-ms: 30")], [RESET], [answers.json_answer(answers.completion())]
    )
    with traced.requests() as lines:
        assert traced.chat(scenario).status == 200
    found = tree(sink, lines[0], 3)
    assert (found.server.status, found.model_call.status) == ("unset", "unset")
    assert [attempt.status for attempt in found.attempts] == ["error", "error", "unset"]
    assert [attempt.attributes.get("http.response.status_code") for attempt in found.attempts] == [
        429,
        None,
        200,
    ]
    first, second = found.model_call.named("inference_sidecar.retry")
    assert first["inference_sidecar.retry.reason"] == "upstream_http_429"
    assert first["inference_sidecar.retry.wait_s"] == pytest.approx(0.03)
    assert second["inference_sidecar.retry.reason"] == "upstream_disconnected"
    assert found.model_call.attributes["inference_sidecar.attempts"] == 3
    exchanges = upstream.of(scenario)
    gap = exchanges[1].head_at - (exchanges[0].finished_at or 0)
    apart = (found.attempts[1].start_ns - found.attempts[0].end_ns) / 1e9
    assert 0.03 <= apart <= gap + 0.05


def test_a_refusal_makes_no_call(sink: OtlpSink, traced: Sidecar) -> None:
    """400 is the app's fault: the span says why, and is no error of the server's."""
    with traced.requests() as lines:
        assert traced.chat(temperature=9).status == 400
    found = tree(sink, lines[0], 0, called=False)
    assert (found.server.name, found.server.status) == (ROUTE, "unset")
    assert found.server.attributes["error.type"] == "invalid_request"


@pytest.mark.parametrize("status", [400, 404])
def test_an_error_of_the_upstream_is_one_of_the_call(
    sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, status: int
) -> None:
    scenario = upstream.plan([answers.error(status, "a private word", "invalid_request_error", None)])
    with traced.requests() as lines:
        assert traced.chat(scenario).status == status
    found = tree(sink, lines[0], 1)
    assert (found.server.status, found.model_call.status, found.attempts[0].status) == (
        "unset",
        "error",
        "error",
    )
    assert found.model_call.attributes["error.type"] == f"upstream_http_{status}"
    assert found.model_call.description == ""


@pytest.mark.parametrize("events", [EVENTS[:1], EVENTS[:3]], ids=["early", "late"])
def test_an_error_event_of_the_upstream(
    sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, events: list[bytes]
) -> None:
    told = answers.event({"error": {"message": "a private word", "type": "x", "code": "y"}})
    scenario = upstream.plan(answers.sse([*events, told]))
    with traced.requests() as lines:
        traced.chat(scenario, stream=True)
    found = tree(sink, lines[0], 1)
    for span in (found.server, found.model_call):
        assert (span.status, span.attributes["error.type"]) == ("error", "upstream_error_event")
        assert span.description == ""


LEAVING: dict[str, tuple[bool, Script, bytes | None, str | None]] = {
    # stream, script, what the app has read when it leaves, error.type of the attempt
    "plain-awaited": (False, [HANG], None, "cancelled"),
    "plain-head-only": (False, [answers.head(200, "content-length: 9"), HANG], None, None),
    "stream-awaited": (True, [HANG], None, "cancelled"),
    "stream-head-only": (True, [answers.sse_head(), HANG], None, None),
    "between-events": (
        True,
        [answers.sse_head(), *(answers.chunk(each) for each in EVENTS[:3]), HANG],
        EVENTS[2],
        None,
    ),
}


@pytest.mark.parametrize("phase", list(LEAVING))
def test_the_app_leaves(
    sink: OtlpSink, environ: dict[str, str], start: Start, upstream: ScriptedUpstream, phase: str
) -> None:
    traced = start(environ=environ)
    stream, script, read, kind = LEAVING[phase]
    scenario = upstream.plan(script)
    with traced.requests() as lines:
        client = traced.connect()
        client.request("POST", "/v1/chat/completions", chat_body(stream=stream), {SCENARIO: scenario})
        upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].received_at, "request")
        if read is not None:
            client.head()
            client.until(read)
        elif kind is None:
            upstream.until(lambda: upstream.of(scenario)[0].connection.sent_bytes, "the head")
            # The head is on its way through loopback; nothing tells when the sidecar has read it.
            client.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.socket.recv(1)
        client.leave()
    found = tree(sink, lines[0], 1)
    assert lines[0]["end"] == "cancelled"
    for span in (found.server, found.model_call):
        assert (span.status, span.attributes["error.type"]) == ("error", "cancelled")
    (attempt,) = found.attempts
    assert (attempt.status, attempt.attributes.get("error.type")) == ("error" if kind else "unset", kind)


def test_the_app_leaves_while_a_retry_is_waited_for(
    sink: OtlpSink, environ: dict[str, str], start: Start, upstream: ScriptedUpstream
) -> None:
    traced = start(environ=environ)
    scenario = upstream.plan([answers.rate_limited("retry-after: 5")])
    with traced.requests() as lines:
        client = traced.connect()
        client.request("POST", "/v1/chat/completions", chat_body(), {SCENARIO: scenario})
        upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].finished_at, "429")
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.leave()
    found = tree(sink, lines[0], 1)
    assert found.model_call.attributes["error.type"] == "cancelled"
    (retry,) = found.model_call.named("inference_sidecar.retry")
    assert retry["inference_sidecar.retry.wait_s"] == 5


def test_left_after_done_is_no_error(
    sink: OtlpSink, environ: dict[str, str], start: Start, upstream: ScriptedUpstream
) -> None:
    traced = start(environ=environ)
    scenario = upstream.plan([answers.sse_head(), *(answers.chunk(each) for each in EVENTS), HANG])
    with traced.requests() as lines, traced.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        client.head()
        client.until(answers.DONE)
    found = tree(sink, lines[0], 1)
    assert (found.server.status, found.model_call.status) == ("unset", "unset")


def test_the_process_ends(
    sink: OtlpSink, environ: dict[str, str], spawn: Start, upstream: ScriptedUpstream
) -> None:
    """What is cut at the process's end has its spans ended and sent before it is gone."""
    traced = spawn(
        {"server": {"drain_timeout_secs": 0.3}}, environ={**environ, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    )
    streaming = upstream.plan([answers.sse_head(), answers.chunk(EVENTS[0]), HANG])
    hanging = upstream.plan([HANG])
    with traced.requests(2) as lines, traced.connect() as stream, traced.connect() as plain:
        stream.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: streaming})
        stream.head()
        stream.until(EVENTS[0])
        plain.request("POST", "/v1/chat/completions", chat_body(), {SCENARIO: hanging})
        upstream.until(lambda: upstream.of(hanging), "the plain request")
        traced.terminate()
        stream.until(b'"error"')
        plain.answer()
    assert traced.wait() == 0
    assert not traced.faults()
    for line in lines:
        found = tree(sink, line, 1)
        for span in (found.server, found.model_call):
            assert (span.status, span.attributes["error.type"]) == ("error", "shutting_down")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
@pytest.mark.parametrize(
    ("script", "kind"),
    [([HANG], "cancelled"), ([CLOSE], "UpstreamDisconnected"), ([GARBAGE, CLOSE], "UpstreamProtocolError")],
    ids=["hang", "truncate", "garbage"],
)
def test_a_fault_while_connecting(
    sink: OtlpSink, environ: dict[str, str], start: Start, script: Script, kind: str, stream: bool
) -> None:
    with ScriptedUpstream(answers.typical) as moody:
        http = {**HTTP, "max_idle_connections": 0}
        traced = start({"inference": {"http": http}}, base_url=f"{moody.url}/v1", environ=environ)
        moody.on_accept = script
        with traced.requests() as lines:
            traced.chat(stream=stream or None)
        found = tree(sink, lines[0], len(moody.connections))
    for attempt in found.attempts:
        assert (attempt.status, attempt.attributes["error.type"]) == ("error", kind)


def test_connection_refused(sink: OtlpSink, environ: dict[str, str], start: Start) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))  # bound but deaf: nobody else answers there
        port = holder.getsockname()[1]
        traced = start(base_url=f"http://127.0.0.1:{port}/v1", environ=environ)
        with traced.requests() as lines:
            assert traced.chat().status == 500
    found = tree(sink, lines[0], 4)
    assert found.model_call.attributes["error.type"] == "upstream_connect_error"
    assert {attempt.attributes["error.type"] for attempt in found.attempts} == {"UpstreamConnectError"}


def test_what_is_not_of_the_api_has_no_span(sink: OtlpSink, traced: Sidecar) -> None:
    """An unknown URL, a preflight, /health and the admin port: nothing that /health counts as a request."""
    before = len(sink.spans)
    traced.call("GET", "/elsewhere")
    traced.call(
        "OPTIONS",
        "/v1/chat/completions",
        headers={"origin": "http://localhost:1", "access-control-request-method": "POST"},
    )
    traced.health()
    traced.admin("/metrics")
    with traced.requests() as lines:
        traced.chat()
    tree(sink, lines[0], 1)
    assert len(sink.spans) == before + 3
