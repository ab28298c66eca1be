"""What a request adds to /metrics, on real sockets, against the upstream's ledger and what the app saw.

Covers: each operation and provider; tokens as they were reported, and only those; times and gaps of a stream whose
pauses are known; a stream of 100,000 chunks; refusals before and after something went up; the app that leaves;
retries; keep-alive comments.
Left out: faults (test_faults), sums over a mixed load (test_ledger), models (test_metrics_models), what is true at one
moment only (test_metrics_state), the forms of the text (test_metrics).
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from harness import answers
from harness.client import Client
from harness.metrics import Scrape, measured
from harness.process import Sidecar, Start, chat_body
from harness.upstream import HANG, RESET, SCENARIO, Pause, ScriptedUpstream

DURATION = "gen_ai_client_operation_duration_seconds"
TOKENS = "gen_ai_client_token_usage"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
PER_CHUNK = "gen_ai_client_operation_time_per_output_chunk_seconds"
FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"
PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"
REQUESTS = "inference_sidecar_requests_total"
GEN_AI = (DURATION, TOKENS, FIRST_CHUNK, PER_CHUNK, FIRST_TOKEN, PER_TOKEN)

SLACK_SECS = 0.2
"""The app has its last byte a moment before the request is over."""

ROLE = answers.delta({"role": "assistant", "content": ""})
WORD = answers.delta({"content": "x"})
STOP = answers.delta({}, "stop")


def labels_of(delta: Scrape, name: str) -> dict[str, str]:
    """The labels of the one series that changed."""
    ((labels, _),) = delta.series(name)
    return labels


def no_gen_ai(delta: Scrape) -> bool:
    return not any(delta.sum(f"{name}_count") for name in GEN_AI)


def test_a_plain_chat(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start()
    scenario = upstream.plan([answers.json_answer(answers.completion(model="gpt-4-0613"))])
    with measured(sidecar) as delta, sidecar.requests() as lines:
        began = time.monotonic()
        sidecar.chat(scenario)
        took = time.monotonic() - began
    own = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4",
    }
    gen_ai = {
        **own,
        "gen_ai_response_model": "gpt-4-0613",
        "server_address": "127.0.0.1",
        "server_port": str(upstream.port),
    }
    assert delta.series(f"{DURATION}_count") == [(gen_ai, 1)]
    ((labels, seconds),) = delta.series(f"{DURATION}_sum")
    assert labels == gen_ai
    assert 0 < seconds < took + SLACK_SECS
    assert seconds * 1000 == pytest.approx(lines[0]["duration_ms"], abs=0.01)
    assert delta.series(f"{TOKENS}_sum", gen_ai_token_type="input") == [
        ({**gen_ai, "gen_ai_token_type": "input"}, 10)
    ]
    assert delta.series(f"{TOKENS}_sum", gen_ai_token_type="output") == [
        ({**gen_ai, "gen_ai_token_type": "output"}, 3)
    ]
    assert delta.series(REQUESTS) == [({**own, "outcome": "completed"}, 1)]
    assert not any(delta.sum(f"{name}_count") for name in (FIRST_CHUNK, PER_CHUNK, FIRST_TOKEN, PER_TOKEN))
    assert delta.sum("inference_sidecar_streams_total") == delta.sum("inference_sidecar_retries_total") == 0


def test_a_stream_whose_pauses_are_known(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """Times are of when chunks came: a pause before the first chunk, one before the first output, and between."""
    usage = answers.usage_event(usage={"prompt_tokens": 4, "completion_tokens": 11, "total_tokens": 15})
    parts = [ROLE, WORD, WORD, STOP, usage + answers.DONE]
    pauses = [0.2, 0.3, 0.1, 0.0, 0.0]
    script: list[Any] = [answers.sse_head()]
    for pause, part in zip(pauses, parts, strict=True):
        script += [Pause(pause), answers.chunk(part)]
    scenario = upstream.plan([*script, answers.END])
    with measured(sidecar) as delta, sidecar.requests() as lines:
        began = time.monotonic()
        sidecar.chat(scenario, stream=True)
        took = time.monotonic() - began
    line, exchange = lines[0], upstream.only(scenario)
    assert exchange.received_at is not None
    assert exchange.finished_at is not None
    first_chunk, first_token = delta.sum(f"{FIRST_CHUNK}_sum"), delta.sum(f"{FIRST_TOKEN}_sum")
    gaps, duration = delta.sum(f"{PER_CHUNK}_sum"), delta.sum(f"{DURATION}_sum")
    assert [delta.sum(f"{name}_count") for name in GEN_AI] == [1, 2, 1, 3, 1, 1]
    # The upstream slept at least so long; a chunk may have been late, but none came before it was sent.
    assert 0.2 <= first_chunk < first_token < duration < took + SLACK_SECS
    assert first_token >= 0.5
    assert first_token * 1000 == pytest.approx(line["time_to_first_token_ms"], abs=0.01)
    assert duration >= exchange.finished_at - exchange.received_at - 0.01
    assert first_chunk + gaps == pytest.approx(duration, abs=0.1), (
        "the gaps are what is between first and last"
    )
    assert first_chunk + gaps >= 0.6, "whatever came late, the last chunk was sent after all pauses"
    short = delta.sum(f"{PER_CHUNK}_bucket", le="0.01")
    assert short <= 2, "the gaps of 0.3 s and 0.1 s are longer"
    assert delta.sum(f"{PER_TOKEN}_sum") == pytest.approx((duration - first_token) / 10)
    pace = delta.sum("inference_sidecar_stream_tokens_per_second_sum")
    assert pace == pytest.approx(10 / (duration - first_token))
    stream = delta.sum("inference_sidecar_stream_duration_seconds_sum")
    assert gaps - 0.001 <= stream <= duration - first_chunk + 0.01
    assert delta.sum("inference_sidecar_stream_chunks_total") == 4, "the usage was the sidecar's own wish"


@pytest.mark.timeout(240)
def test_a_hundred_thousand_chunks(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    count = 100_000
    lump = answers.chunk(WORD * 1000)
    tail = answers.chunk(WORD * 999 + STOP + answers.DONE)
    scenario = upstream.plan([answers.sse_head(), *[lump] * (count // 1000 - 1), tail, answers.END])
    with measured(sidecar) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert answer.ended == "whole"
    assert delta.sum("inference_sidecar_stream_chunks_total") == count
    assert delta.sum(f"{PER_CHUNK}_count") == count - 1
    assert delta.sum(f"{FIRST_CHUNK}_count") == delta.sum(f"{FIRST_TOKEN}_count") == 1
    assert delta.sum(f"{PER_CHUNK}_sum") == pytest.approx(
        delta.sum(f"{DURATION}_sum") - delta.sum(f"{FIRST_CHUNK}_sum"), rel=0.2
    )


CALLS: dict[str, tuple[str, dict[str, Any], bytes, str, dict[str, float]]] = {
    "embeddings": (
        "/v1/embeddings",
        {"model": "gpt-4", "input": "x"},
        answers.json_answer(answers.embeddings()),
        "embeddings",
        {"input": 5},
    ),
    "responses": (
        "/v1/responses",
        {"model": "gpt-4", "input": "x"},
        answers.json_answer(answers.response_object()),
        "responses",
        {"input": 7, "output": 2},
    ),
    "responses-stream": (
        "/v1/responses",
        {"model": "gpt-4", "input": "x", "stream": True},
        b"".join(answers.sse(answers.response_events())),
        "responses",
        {"input": 7, "output": 2},
    ),
    "completions": (
        "/v1/completions",
        {"model": "gpt-4", "prompt": "x"},
        answers.json_answer({"choices": [{"text": "y", "index": 0, "finish_reason": "stop"}], "model": "m"}),
        "text_completion",
        {},
    ),
    "only-a-total": (
        "/v1/completions",
        {"model": "gpt-4", "prompt": "x"},
        answers.json_answer({"choices": [], "usage": {"total_tokens": 5}}),
        "text_completion",
        {},
    ),
    "zero-output": (
        "/v1/completions",
        {"model": "gpt-4", "prompt": "x"},
        answers.json_answer({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 0}}),
        "text_completion",
        {"input": 4, "output": 0},
    ),
    "images": (
        "/v1/images/generations",
        {"model": "gpt-4", "prompt": "x"},
        answers.json_answer({"data": []}),
        "images.generations",
        {},
    ),
    "moderations": (
        "/v1/moderations",
        {"input": "x"},
        answers.json_answer({"results": []}),
        "moderations",
        {},
    ),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_operations_and_their_tokens(sidecar: Sidecar, upstream: ScriptedUpstream, name: str) -> None:
    path, body, answer, operation, tokens = CALLS[name]
    scenario = upstream.plan([answer])
    with measured(sidecar) as delta:
        assert sidecar.call("POST", path, body, None, scenario).status == 200
    assert labels_of(delta, f"{DURATION}_count")["gen_ai_operation_name"] == operation
    assert labels_of(delta, REQUESTS)["gen_ai_operation_name"] == operation
    assert ("gen_ai_request_model" in labels_of(delta, REQUESTS)) is ("model" in body)
    assert delta.sum(f"{TOKENS}_count") == len(tokens)
    for kind, count in tokens.items():
        assert delta.sum(f"{TOKENS}_count", gen_ai_token_type=kind) == 1, kind
        assert delta.sum(f"{TOKENS}_sum", gen_ai_token_type=kind) == count
    streams = 1 if body.get("stream") else 0
    assert delta.sum("inference_sidecar_streams_total", gen_ai_operation_name=operation) == streams
    chunks = len(answers.response_events()) if streams else 0
    assert delta.sum(f"{PER_CHUNK}_count") == max(chunks - 1, 0)
    assert delta.sum(f"{FIRST_TOKEN}_count", gen_ai_operation_name=operation) == streams


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/v1/models", "models"),
        ("GET", "/v1/models/gpt-4", "models"),
        ("GET", "/v1/files", "files"),
        ("DELETE", "/v1/files/f", "files"),
        ("POST", "/v1/responses/resp_1/cancel", "responses"),
        ("GET", "/v1/videos/v", "videos"),
        ("GET", "/v1/made-up", "_OTHER"),
    ],
)
def test_what_is_no_work_of_a_model(
    sidecar: Sidecar, upstream: ScriptedUpstream, method: str, path: str, operation: str
) -> None:
    scenario = upstream.plan([answers.json_answer({"object": "list", "data": []})])
    with measured(sidecar) as delta:
        assert sidecar.call(method, path, scenario=scenario).status == 200
    assert len(upstream.of(scenario)) == 1
    assert no_gen_ai(delta)
    assert (
        delta.sum(REQUESTS, gen_ai_operation_name=operation, outcome="completed") == delta.sum(REQUESTS) == 1
    )


def test_refusals_are_no_operation(sidecar: Sidecar) -> None:
    """Nothing went to the provider: they count as requests, by their reason."""
    with measured(sidecar, 3) as delta:
        assert sidecar.chat(temperature=9).status == 400
        assert sidecar.chat(headers={"host": "evil.example"}).status == 403
        assert sidecar.chat(model="made-up-and-refused", n=0).status == 400
    assert no_gen_ai(delta)
    assert delta.sum(REQUESTS) == delta.sum(REQUESTS, outcome="refused", gen_ai_operation_name="chat") == 3
    assert delta.sum(REQUESTS, error_type="invalid_request") == 2
    assert delta.sum(REQUESTS, error_type="forbidden_host") == 1
    assert "made-up-and-refused" not in delta.values("gen_ai_request_model")


def test_a_refusal_in_the_middle_of_an_upload_is_an_operation(
    start: Start, upstream: ScriptedUpstream
) -> None:
    """It went up in part: the provider was tried."""
    sidecar = start({"server": {"max_body_bytes": 100_000}})
    scenario = upstream.plan([answers.json_answer({})])
    with measured(sidecar) as delta, Client(sidecar.port) as client:
        headers = {SCENARIO: scenario, "content-type": "audio/wav", "transfer-encoding": "chunked"}
        client.send(client.head_of("POST", "/v1/audio/transcriptions", headers))
        sender = client.send_aside(b"".join(answers.chunk(b"x" * 10_000) for _ in range(30)) + answers.END)
        assert client.answer().status == 413
    sender.join(5)
    labels = {"gen_ai_operation_name": "audio.transcriptions", "error_type": "body_too_large"}
    assert delta.sum(f"{DURATION}_count", **labels) == delta.sum(f"{DURATION}_count") == 1
    assert delta.sum(REQUESTS, outcome="refused", **labels) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_the_app_leaves(sidecar: Sidecar, upstream: ScriptedUpstream, stream: bool) -> None:
    events = [ROLE, WORD, WORD]
    script: list[Any] = [answers.sse_head(), *map(answers.chunk, events)] if stream else []
    scenario = upstream.plan([*script, HANG])
    with measured(sidecar) as delta, sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=stream or None), {SCENARIO: scenario})
        upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].received_at, "request")
        if stream:
            client.head()
            client.until(WORD)
        client.leave()
    assert delta.sum(f"{DURATION}_count", error_type="cancelled") == delta.sum(f"{DURATION}_count") == 1
    assert delta.sum(REQUESTS, outcome="cancelled", error_type=None) == delta.sum(REQUESTS) == 1
    assert delta.sum("inference_sidecar_streams_total", outcome="cancelled") == (1 if stream else 0)
    chunks = delta.sum("inference_sidecar_stream_chunks_total")
    assert (chunks in (2, 3)) if stream else chunks == 0
    assert delta.sum(f"{PER_CHUNK}_count", error_type="cancelled") == max(chunks - 1, 0)
    assert delta.sum(f"{FIRST_TOKEN}_count") == (1 if stream else 0)
    assert delta.sum(f"{TOKENS}_count") == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streaming"])
def test_retries(sidecar: Sidecar, upstream: ScriptedUpstream, stream: bool) -> None:
    busy = [answers.error(503, "busy", "server_error", None)]
    good = (
        answers.sse(answers.chat_events(usage=True))
        if stream
        else [answers.json_answer(answers.completion())]
    )
    scenario = upstream.plan(busy, [RESET], good)
    with measured(sidecar) as delta:
        assert sidecar.chat(scenario, stream=stream or None).status == 200
    assert len(upstream.of(scenario)) == 3
    assert labels_of(delta, "inference_sidecar_retries_total") == {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4",
    }
    assert delta.sum("inference_sidecar_retries_total") == 2
    assert delta.sum(f"{DURATION}_count", error_type=None) == delta.sum(f"{DURATION}_count") == 1
    assert delta.sum(f"{TOKENS}_sum") == 13


def test_comments_are_no_chunks(start: Start, upstream: ScriptedUpstream) -> None:
    """A comment goes down before the first chunk: the stream has begun, and no chunk has come."""
    sidecar = start({"inference": {"keepalive_comment_secs": 0.05}})
    scenario = upstream.plan([Pause(0.4), *answers.sse(answers.chat_events())])
    with measured(sidecar) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert answer.body.startswith(b": keep-alive\n\n")
    chunks = len(answers.chat_events()) - 1
    assert delta.sum("inference_sidecar_stream_chunks_total") == chunks
    assert delta.sum(f"{PER_CHUNK}_count") == chunks - 1
    assert delta.sum(f"{FIRST_CHUNK}_sum") >= 0.4
    assert delta.sum("inference_sidecar_stream_duration_seconds_sum") >= 0.2, (
        "it began with the first comment"
    )


def test_providers(start: Start, upstream: ScriptedUpstream) -> None:
    azure = start({"inference": {"provider": "azure", "api_version": "2024-06-01"}}, base_url=upstream.url)
    with measured(azure) as delta:
        azure.chat(upstream.plan([answers.json_answer(answers.completion())]))
    labels = labels_of(delta, f"{DURATION}_count")
    assert (labels["gen_ai_provider_name"], labels["server_port"]) == ("azure.ai.openai", str(upstream.port))
    echo = start({"inference": {"provider": "echo", "base_url": None, "api_key": None}})
    with measured(echo) as delta:
        assert echo.chat(stream=True).status == 200
    labels = labels_of(delta, f"{DURATION}_count")
    assert labels["gen_ai_provider_name"] == "echo"
    assert not {"server_address", "server_port"} & set(labels), "there is no server"
    assert delta.sum(f"{TOKENS}_count") == 2
    assert delta.sum("inference_sidecar_upstream_connections") == 0
