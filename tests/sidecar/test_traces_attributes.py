"""What spans say, value by value, against what went up, what came down, and who was asked.

Covers: every attribute of a chat, plain and streamed; parameters; usage with its details; responses, embeddings,
completions, lists of models, unknown paths, Azure's paths and provider; the resource; that no attribute, event or
header holds a key, whichever variables ask for headers; the log line's ids; messages by setting, and never without.
Left out: GenAI metrics (test_metrics…).
"""

from __future__ import annotations

import http.client
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from harness import answers
from harness.otlp import OtlpSink, Span
from harness.process import Sidecar, Start, chat_body
from harness.traces import EXPORT, Tree, tree
from harness.upstream import SCENARIO, ScriptedUpstream

DETAILED = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROMPT = "a-private-prompt"


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as running:
        yield running


@pytest.fixture(scope="module")
def environ(sink: OtlpSink) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, **EXPORT}


@pytest.fixture(scope="module")
def traced(environ: dict[str, str], start: Start) -> Sidecar:
    return start(environ=environ)


def genai(span: Span) -> dict[str, Any]:
    return {name: value for name, value in span.attributes.items() if name.startswith(("gen_ai.", "openai."))}


def chat(sink: OtlpSink, sidecar: Sidecar, scenario: str | None = None, **fields: Any) -> Tree:
    with sidecar.requests() as lines:
        sidecar.chat(scenario, headers={"user-agent": "an-app/1.0"}, **fields)
    return tree(sink, lines[0], 1)


def test_a_plain_chat(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream) -> None:
    whole = {**answers.completion(model="gpt-4-0613"), "usage": DETAILED, "service_tier": "default"}
    scenario = upstream.plan([answers.json_answer(whole, "x-request-id: req_up")])
    asked = {
        "temperature": 1,
        "top_p": 0.5,
        "max_tokens": 200,
        "frequency_penalty": 0.25,
        "presence_penalty": -1,
        "stop": ["END", "STOP"],
        "seed": 42,
        "n": 2,
        "service_tier": "flex",
    }
    found = chat(sink, traced, scenario, **asked)
    (exchange,) = upstream.of(scenario)
    assert genai(found.model_call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4",
        "gen_ai.request.stream": False,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.max_tokens": 200,
        "gen_ai.request.frequency_penalty": 0.25,
        "gen_ai.request.presence_penalty": -1.0,
        "gen_ai.request.stop_sequences": ["END", "STOP"],
        "gen_ai.request.seed": 42,
        "openai.request.service_tier": "flex",
        "openai.api.type": "chat_completions",
        "gen_ai.response.model": "gpt-4-0613",
        "gen_ai.response.id": "chatcmpl-123",
        "gen_ai.response.finish_reasons": ["stop"],
        "openai.response.system_fingerprint": "fp_1",
        "openai.response.service_tier": "default",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 40,
    }
    own = {
        name: value
        for name, value in found.model_call.attributes.items()
        if name not in genai(found.model_call)
    }
    assert own == {
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "inference_sidecar.attempts": 1,
        "inference_sidecar.outcome": "completed",
        "inference_sidecar.upstream.request_id": "req_up",
    }
    request_id = found.server.attributes.pop("inference_sidecar.request.id")
    assert request_id.startswith("req_")
    assert found.server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "user_agent.original": "an-app/1.0",
        "inference_sidecar.outcome": "completed",
    }
    assert found.attempts[0].attributes == {
        "http.request.method": "POST",
        "url.full": f"{upstream.url}{exchange.target}",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": upstream.port,
        "network.protocol.version": "1.1",
    }


def test_a_streamed_chat(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream) -> None:
    events = [
        *answers.chat_events(done=False, usage=False),
        answers.usage_event(usage=DETAILED),
        answers.DONE,
    ]
    gate = upstream.gate()
    scenario = upstream.plan(
        [answers.sse_head(), gate, *(answers.chunk(each) for each in events), answers.END]
    )
    with traced.requests() as lines, traced.connect() as client:
        body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello!"}], "stream": True}
        client.request("POST", "/v1/chat/completions", body, {"x-scenario": scenario})
        assert gate.reached.wait(5)
        assert not client.socket.settimeout(0.15)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(10)
        gate.open()
        client.answer()
    found = tree(sink, lines[0], 1)
    told = genai(found.model_call)
    first = told.pop("gen_ai.response.time_to_first_chunk")
    assert 0.15 <= first <= lines[0]["duration_ms"] / 1000
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4",
        "gen_ai.request.stream": True,
        "openai.api.type": "chat_completions",
        "gen_ai.response.model": "gpt-4",
        "gen_ai.response.id": "chatcmpl-123",
        "gen_ai.response.finish_reasons": ["stop"],
        "openai.response.system_fingerprint": "fp_1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 40,
    }
    # The call lasts to the stream's true end, the attempt to the head; the event is where the attribute says.
    assert found.attempts[0].end_ns - found.attempts[0].start_ns < 0.15e9
    assert found.model_call.end_ns - found.model_call.start_ns > 0.15e9
    (at,) = [at for name, at, _ in found.model_call.events if name == "inference_sidecar.first_chunk"]
    assert (at - found.server.start_ns) / 1e9 == pytest.approx(first, abs=0.005)
    (end,) = found.model_call.named("inference_sidecar.end")
    assert end["inference_sidecar.stream.chunks"] == 5


def test_usage_that_was_not_reported_is_not_told(
    sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream
) -> None:
    whole = answers.completion()
    del whole["usage"]
    found = chat(sink, traced, upstream.plan([answers.json_answer(whole)]))
    assert not [name for name in found.model_call.attributes if name.startswith("gen_ai.usage.")]


OTHERS: dict[str, tuple[str, str, Any, str, str, dict[str, Any]]] = {
    # method, target, body → server's name, call's name, some of the call's attributes
    "responses": (
        "POST", "/v1/responses", {"model": "gpt-4", "input": "Hello!", "max_output_tokens": 99},
        "POST /v1/responses", "responses gpt-4",
        {
            "gen_ai.operation.name": "responses", "openai.api.type": "responses", "gen_ai.response.id": "resp_1",
            "gen_ai.usage.input_tokens": 7, "gen_ai.usage.cache_read.input_tokens": 0,
            "gen_ai.usage.reasoning.output_tokens": 0, "gen_ai.request.max_tokens": 99,
            "gen_ai.response.finish_reasons": ["completed"],
        },
    ),
    "embeddings": (
        "POST", "/v1/embeddings",
        {"model": "text-embedding-3-small", "input": "x", "encoding_format": "float", "dimensions": 3},
        "POST /v1/embeddings", "embeddings text-embedding-3-small",
        {
            "gen_ai.operation.name": "embeddings", "gen_ai.usage.input_tokens": 5,
            "gen_ai.request.encoding_formats": ["float"], "gen_ai.embeddings.dimension.count": 3,
        },
    ),
    "models": ("GET", "/v1/models", None, "GET /v1/models", "models", {"inference_sidecar.operation": "models"}),
    "model": (
        "GET", "/v1/models/gpt-4", None, "GET /v1/models/{model}", "models",
        {"inference_sidecar.operation": "models"},
    ),
    "files": (
        "GET", "/v1/files/file-1/content?a=b", None, "GET /v1/{path}", "files",
        {"inference_sidecar.operation": "files", "error.type": "upstream_http_404"},
    ),
    "unknown": (
        "PROPFIND", "/v1/made/up", None, "HTTP /v1/{path}", "_OTHER", {"inference_sidecar.operation": "_OTHER"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_endpoints(sink: OtlpSink, traced: Sidecar, name: str) -> None:
    method, target, body, server, call, some = OTHERS[name]
    with traced.requests() as lines:
        traced.call(method, target, body)
    found = tree(sink, lines[0], 1)
    assert (found.server.name, found.model_call.name) == (server, call)
    assert {key: found.model_call.attributes.get(key) for key in some} == some
    if "inference_sidecar.operation" in some:
        assert genai(found.model_call) == {}
    assert "?" not in str(found.server.attributes) + str(found.attempts[0].attributes)


def test_azure(sink: OtlpSink, environ: dict[str, str], start: Start, upstream: ScriptedUpstream) -> None:
    base = f"{upstream.url}/openai/deployments/mine"
    sidecar = start({"inference": {"provider": "azure"}}, base_url=base, environ=environ)
    with sidecar.requests(2) as lines:
        sidecar.chat()
        sidecar.call(
            "POST", "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
            {"messages": [{"role": "user", "content": "Hello!"}]},
        )  # fmt: skip
    first, second = (tree(sink, line, 1) for line in lines)
    assert first.server.name == "POST /v1/chat/completions"
    assert second.server.name == "POST /openai/deployments/{deployment}/chat/completions"
    for found in (first, second):
        assert found.model_call.attributes["gen_ai.provider.name"] == "azure.ai.openai"
        assert found.attempts[0].attributes["url.full"] == f"{base}/chat/completions"


def test_echo_has_no_server(sink: OtlpSink, environ: dict[str, str], start: Start) -> None:
    sidecar = start({"inference": {"provider": "echo", "api_key": None}}, environ=environ)
    found = chat(sink, sidecar)
    assert found.model_call.attributes["gen_ai.provider.name"] == "echo"
    assert "server.address" not in found.model_call.attributes


def test_the_resource(sink: OtlpSink, environ: dict[str, str], start: Start) -> None:
    attributes = "k8s.pod.name=a-pod,k8s.namespace.name=a%20space,service.name=overridden,service.version=9"
    own = {"OTEL_RESOURCE_ATTRIBUTES": attributes, "OTEL_SERVICE_NAME": "my-app"}
    resource = chat(sink, start(environ={**environ, **own})).server.resource
    assert {name: resource[name] for name in resource if not name.startswith("telemetry.sdk.")} == {
        "service.name": "my-app",
        "service.version": "9",
        "service.instance.id": resource["service.instance.id"],
        "k8s.pod.name": "a-pod",
        "k8s.namespace.name": "a space",
    }
    assert resource["telemetry.sdk.language"] == "python"
    assert len(resource["service.instance.id"]) == 36


def test_no_variable_puts_a_header_on_a_span(
    sink: OtlpSink, environ: dict[str, str], start: Start, upstream: ScriptedUpstream
) -> None:
    """Not even those that ask for all of them: one is the key. That none came out is searched for after the test."""
    own = {
        f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{side}": ".*" for side in ("REQUEST", "RESPONSE")
    }
    sidecar = start(
        {"inference": {"extra_headers": {"x-tenant": "hidden-value"}}}, environ={**environ, **own}
    )
    told = f"x-echo: {sidecar.key}"
    scenario = upstream.plan(
        [answers.json_answer(answers.completion(), told, f"x-request-id: {sidecar.key}")]
    )
    found = chat(sink, sidecar, scenario)
    assert upstream.of(scenario)[0].header("x-tenant") == "hidden-value"
    for span in (found.server, found.model_call, *found.attempts):
        assert not [name for name in span.attributes if ".header." in name]
        assert "hidden-value" not in str(span.attributes)


def unwatched(
    sidecar: Sidecar, scenario: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> None:
    """One chat whose answer rightly has the key in it: bytes of a good answer go down as they came."""
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=10)
    lines = {"content-type": "application/json", SCENARIO: scenario, **(headers or {})}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), lines)
    assert sidecar.key.encode() in _inflated(connection.getresponse().read())
    connection.close()


def _inflated(body: bytes) -> bytes:
    return zlib.decompress(body, 31) if body.startswith(b"\x1f\x8b") else body


def test_the_key_is_masked_wherever_the_upstream_says_it(
    sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream
) -> None:
    whole = {
        **answers.completion(model=traced.key),
        "id": traced.key,
        "system_fingerprint": traced.key,
        "service_tier": traced.key,
    }
    whole["choices"][0]["finish_reason"] = traced.key
    scenario = upstream.plan([answers.json_answer(whole, f"x-request-id: {traced.key}")])
    with traced.requests() as lines:
        unwatched(traced, scenario, chat_body())
    found = tree(sink, lines[0], 1)
    assert found.model_call.attributes["gen_ai.response.id"] == "***"
    assert found.model_call.attributes["gen_ai.response.finish_reasons"] == ["***"]


def test_what_is_no_text_spoils_no_batch(sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream) -> None:
    """JSON can escape half of a surrogate pair, which protobuf does not take."""
    whole = json.dumps({**answers.completion(), "id": "\ud800", "system_fingerprint": 7}).encode()
    scenario = upstream.plan([answers.answer(200, whole)])
    found = chat(sink, traced, scenario, stop=["\udfff", "END"])
    told = genai(found.model_call)
    assert told["gen_ai.response.id"] == "?"
    assert told["gen_ai.request.stop_sequences"] == ["?", "END"]
    assert "openai.response.system_fingerprint" not in told


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [
        {"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]},
    {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
]  # fmt: skip
ASKED = [
    {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
    {"role": "user", "parts": [{"type": "text", "content": PROMPT}, {"type": "image_url"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "call_0", "name": "weather", "arguments": "{}"}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_0", "response": "sunny"}]},
]


def test_no_content_unasked(sink: OtlpSink, traced: Sidecar) -> None:
    found = chat(sink, traced, messages=MESSAGES)
    for span in (found.server, found.model_call, *found.attempts):
        assert PROMPT not in str(span)
        assert "Paris" not in str(span)


@pytest.fixture(scope="module")
def telling(environ: dict[str, str], start: Start) -> Sidecar:
    return start(environ={**environ, CAPTURE: "true"})


def content(found: Tree, which: str) -> Any:
    return json.loads(found.model_call.attributes[f"gen_ai.{which}.messages"])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_content_of_a_plain_chat(
    sink: OtlpSink, telling: Sidecar, upstream: ScriptedUpstream, packed: bool
) -> None:
    body = answers.dense(answers.completion(f"Paris, {telling.key}"))
    machine = zlib.compressobj(wbits=31)
    coded = machine.compress(body) + machine.flush()
    answer = answers.answer(200, coded, "content-encoding: gzip") if packed else answers.answer(200, body)
    with telling.requests() as lines:
        unwatched(
            telling,
            upstream.plan([answer]),
            {"model": "gpt-4", "messages": MESSAGES},
            {"accept-encoding": "gzip"} if packed else {},
        )
    found = tree(sink, lines[0], 1)
    assert content(found, "input") == ASKED
    assert content(found, "output") == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Paris, ***"}], "finish_reason": "stop"}
    ]


def test_content_of_a_streamed_chat(sink: OtlpSink, telling: Sidecar) -> None:
    found = chat(sink, telling, stream=True)
    assert content(found, "output") == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Once upon a time"}],
            "finish_reason": "stop",
        }
    ]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    found = chat(sink, telling, stream=True, tools=tools)
    assert content(found, "output") == [
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'}
            ],
            "finish_reason": "tool_calls",
        }
    ]


def test_content_is_bounded(sink: OtlpSink, telling: Sidecar, upstream: ScriptedUpstream) -> None:
    long = "x" * 1_000_000
    many = [{"role": "user", "content": f"{number} " + "y" * 5000} for number in range(50)]
    scenario = upstream.plan(answers.sse(answers.chat_events([long])))
    found = chat(sink, telling, scenario, messages=[*many, {"role": "user", "content": long}], stream=True)
    asked = content(found, "input")
    assert len(found.model_call.attributes["gen_ai.input.messages"]) < 50_000
    assert asked[-1]["parts"][0]["content"] == "x" * 8192 + "…"
    assert asked[-2]["parts"][0]["content"].startswith("49 ")
    assert len(found.model_call.attributes.get("gen_ai.output.messages", "")) < 50_000
