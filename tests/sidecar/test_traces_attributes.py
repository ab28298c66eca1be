"""What spans say, value by value, against what went up, what came down, and who was asked.

Covers: every attribute of a chat, plain and streamed; parameters; usage with its details; responses, embeddings,
completions, lists of models, unknown paths, Azure's paths and provider; the resource; that no attribute, event or
header holds a key, whichever variables ask for headers.
Left out: messages (test_traces_content), metrics (test_metrics_…).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import answers
from harness.otlp import OtlpSink, Span
from harness.process import Sidecar, Start, chat_body
from harness.traces import Tree, tree, unwatched
from harness.upstream import ScriptedUpstream

DETAILED = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 40},
}


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
