"""The official SDK in front of the sidecar: it must not be able to tell it from OpenAI.

Covers: sync and async; chat plain, streaming, with tools and with usage; responses, embeddings, models, files, audio;
its exceptions for each kind of failure; retries that do not multiply; a cut stream; Azure's client; an SDK's key that
never goes up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio

from harness import answers
from harness.evidence import AsyncTapTransport, TapTransport
from harness.process import Sidecar, Start
from harness.upstream import CLOSE, RESET, SCENARIO, ScriptedUpstream

ASKED: Any = [{"role": "user", "content": "Hello!"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
SAID = "Once upon a time"


@pytest.fixture
def client(sidecar: Sidecar) -> Iterator[openai.OpenAI]:
    with httpx2.Client(transport=TapTransport()) as http:
        yield openai.OpenAI(
            base_url=f"http://127.0.0.1:{sidecar.port}/v1", api_key="sk-of-the-app", http_client=http
        )


@pytest_asyncio.fixture
async def async_client(sidecar: Sidecar) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(transport=AsyncTapTransport()) as http:
        url = f"http://127.0.0.1:{sidecar.port}/v1"
        yield openai.AsyncOpenAI(base_url=url, api_key="sk-of-the-app", http_client=http)


def scene(upstream: ScriptedUpstream, *scripts: Any) -> dict[str, str]:
    return {SCENARIO: upstream.plan(*scripts)}


def test_chat(client: openai.OpenAI, sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    headers = scene(upstream, [answers.json_answer(answers.completion(), "x-request-id: req_up")])
    made = client.chat.completions.create(
        model="gpt-4", messages=ASKED, temperature=0.5, extra_headers=headers
    )
    assert made.choices[0].message.content == "Paris."
    assert made.usage is not None
    assert made.usage.total_tokens == 13
    assert made._request_id == "req_up"
    assert upstream.only(headers[SCENARIO]).header("authorization") == f"Bearer {sidecar.key}"


def test_raw_headers_are_there(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    good = answers.json_answer(
        answers.completion(), "x-ratelimit-remaining-requests: 7", "openai-version: 2020-10-01"
    )
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4", messages=ASKED, extra_headers=scene(upstream, [good])
    )
    assert raw.headers["x-ratelimit-remaining-requests"] == "7"
    assert raw.headers["openai-version"] == "2020-10-01"


def test_streaming(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="gpt-4", messages=ASKED, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_streaming_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 13


def test_tools_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4", messages=ASKED, tools=TOOLS) as stream:
        made = stream.get_final_completion()
    calls = made.choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"Paris"}')
    assert made.choices[0].finish_reason == "tool_calls"


def test_responses(client: openai.OpenAI) -> None:
    assert client.responses.create(model="gpt-4", input="Hello!").output_text == "Paris."
    events = list(client.responses.create(model="gpt-4", input="Hello!", stream=True))
    assert [event.type for event in events][-1] == "response.completed"


def test_embeddings(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    headers = scene(upstream, [answers.json_answer(answers.embeddings())])
    made = client.embeddings.create(
        model="text-embedding-3-small", input=["a"], encoding_format="float", extra_headers=headers
    )
    assert made.data[0].embedding == [0.25, -0.5, 1.0]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(answers.MODELS)
    assert client.models.retrieve("gpt-4").id == "gpt-4"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such")


def test_files(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    entry = {
        "id": "file-1", "object": "file", "bytes": 6, "created_at": 1, "filename": "a.jsonl",
        "purpose": "batch", "status": "processed",
    }  # fmt: skip
    headers = scene(upstream, [answers.json_answer(entry)])
    made = client.files.create(file=("a.jsonl", b"line1\n"), purpose="batch", extra_headers=headers)
    assert made.id == "file-1"
    exchange = upstream.only(headers[SCENARIO])
    assert b"line1\n" in exchange.body
    assert (exchange.header("content-type") or "").startswith("multipart/form-data; boundary=")
    headers = scene(upstream, [answers.answer(200, b"\x00\xffbinary", kind="application/octet-stream")])
    assert client.files.content("file-1", extra_headers=headers).read() == b"\x00\xffbinary"
    headers = scene(upstream, [answers.json_answer({"id": "file-1", "object": "file", "deleted": True})])
    assert client.files.delete("file-1", extra_headers=headers).deleted


def test_audio(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    sound = bytes(range(256)) * 400
    headers = scene(upstream, [answers.chunked_head(200, "audio/mpeg"), answers.chunk(sound), answers.END])
    speech = client.audio.speech
    with speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="x", extra_headers=headers
    ) as response:
        assert b"".join(response.iter_bytes()) == sound
    headers = scene(upstream, [answers.json_answer({"text": "hello"})])
    made = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", sound), extra_headers=headers)
    assert made.text == "hello"
    assert sound in upstream.only(headers[SCENARIO]).body


async def test_async(async_client: openai.AsyncOpenAI) -> None:
    made = await async_client.chat.completions.create(model="gpt-4", messages=ASKED)
    assert made.choices[0].message.content == "Paris."
    stream = await async_client.chat.completions.create(model="gpt-4", messages=ASKED, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID
    events = await async_client.responses.create(model="gpt-4", input="Hello!", stream=True)
    assert [event.type async for event in events][-1] == "response.completed"


async def test_an_async_app_that_leaves_a_stream(
    async_client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    gate = upstream.gate()
    events = answers.chat_events()
    headers = scene(upstream, [answers.sse_head(), answers.chunk(events[1]), gate])
    stream = await async_client.chat.completions.create(
        model="gpt-4", messages=ASKED, stream=True, extra_headers=headers
    )
    assert (await anext(aiter(stream))).choices[0].delta.content == "Once"
    await stream.close()
    upstream.closing(upstream.only(headers[SCENARIO]))


FAILURES: list[tuple[Any, type[openai.APIStatusError]]] = [
    ([answers.error(401, "no", "invalid_request_error", "invalid_api_key")], openai.AuthenticationError),
    ([answers.error(403, "no", "invalid_request_error", "denied")], openai.PermissionDeniedError),
    ([answers.error(404, "no", "invalid_request_error", "model_not_found")], openai.NotFoundError),
    ([answers.rate_limited()], openai.RateLimitError),
    ([answers.error(503, "no", "server_error", None)], openai.InternalServerError),
    ([answers.html_502()], openai.InternalServerError),
    ([RESET], openai.InternalServerError),
]


@pytest.mark.parametrize(("script", "kind"), FAILURES, ids=lambda value: getattr(value, "__name__", ""))
def test_failures_are_the_sdks_own_exceptions(
    client: openai.OpenAI, upstream: ScriptedUpstream, script: Any, kind: type[openai.APIStatusError]
) -> None:
    """Retries included: four tries by the sidecar, and none by the SDK on top."""
    headers = scene(upstream, script)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="gpt-4", messages=ASKED, extra_headers=headers)
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) >= {"message", "type", "param", "code"}
    tries = 1 if caught.value.status_code in (401, 403, 404) else 4
    assert len(upstream.of(headers[SCENARIO])) == tries


def test_a_refusal_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4", messages=ASKED, temperature=3)
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("end", [[CLOSE], [RESET], [answers.END]], ids=["cut", "reset", "clean"])
def test_a_cut_stream_raises(client: openai.OpenAI, upstream: ScriptedUpstream, end: Any) -> None:
    """What came is delivered, and then the SDK knows."""
    events = answers.chat_events()[:2]
    gate = upstream.gate()
    headers = scene(upstream, [answers.sse_head(), *(answers.chunk(each) for each in events), gate, *end])
    stream = client.chat.completions.create(model="gpt-4", messages=ASKED, stream=True, extra_headers=headers)
    chunks = iter(stream)
    assert next(chunks).choices[0].delta.content == ""
    assert next(chunks).choices[0].delta.content == "Once"
    gate.open()
    with pytest.raises(openai.APIError) as caught:
        next(chunks)
    assert caught.value.code in ("upstream_disconnected", "upstream_protocol_error")


@pytest.mark.parametrize("deployment", [None, "dep"])
def test_azures_client(start: Start, upstream: ScriptedUpstream, deployment: str | None) -> None:
    base = f"{upstream.url}/openai/deployments/dep" if deployment else upstream.url
    sidecar = start({"inference": {"provider": "azure"}}, base_url=base)
    with httpx2.Client(transport=TapTransport()) as http:
        client = openai.AzureOpenAI(
            azure_endpoint=f"http://127.0.0.1:{sidecar.port}",
            api_key="of-the-app",
            api_version="2024-10-21",
            http_client=http,
        )
        headers = scene(
            upstream, [answers.json_answer(answers.completion())], answers.sse(answers.chat_events())
        )
        made = client.chat.completions.create(model="dep", messages=ASKED, extra_headers=headers)
        assert made.choices[0].message.content == "Paris."
        stream = client.chat.completions.create(
            model="dep", messages=ASKED, stream=True, extra_headers=headers
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == SAID
    for exchange in upstream.of(headers[SCENARIO]):
        assert exchange.target == "/openai/deployments/dep/chat/completions?api-version=2024-10-21"
        assert exchange.header("api-key") == sidecar.key


def test_the_embedded_upstream(start: Start) -> None:
    """provider: echo, without key or network."""
    sidecar = start({"inference": {"provider": "echo", "api_key": None, "base_url": None}})
    with httpx2.Client(transport=TapTransport()) as http:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{sidecar.port}/v1", api_key="x", http_client=http)
        made = client.chat.completions.create(model="gpt-4", messages=ASKED)
        assert "Hello!" in (made.choices[0].message.content or "")
        stream = client.chat.completions.create(model="gpt-4", messages=ASKED, stream=True)
        assert "Hello!" in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        called = client.chat.completions.create(model="gpt-4", messages=ASKED, tools=TOOLS)
        assert called.choices[0].message.tool_calls
        assert "gpt-4" in [model.id for model in client.models.list()]
    assert sidecar.health()["tokens"]["total"] > 0
