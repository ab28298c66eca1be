"""The embedded upstream as the official SDK reads it, over a real socket.

Covers: chats, parsed answers, streams, tool calls in a stream, models, errors.
Not covered: every shape of an answer (test_echo); the way to it through the sidecar.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from openai import AsyncOpenAI, NotFoundError
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from inference_sidecar import echo

HELLO = [{"role": "user", "content": "Hello big world"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def serve(request: Request) -> StreamingResponse:
    made = await echo.answer(request.method, request.url.path.removeprefix("/v1"), await request.body())
    response = StreamingResponse(made.chunks, status_code=made.status)
    response.raw_headers = made.headers
    return response


@pytest.fixture
async def sdk() -> AsyncIterator[AsyncOpenAI]:
    app = Starlette(routes=[Route("/{path:path}", serve, methods=["GET", "POST"])])
    config = uvicorn.Config(app, lifespan="off", ws="none", log_level="warning")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        port = listening.getsockname()[1]
        async with AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
        ) as client:
            yield client
        server.should_exit = True
        await serving


class Weather(BaseModel):
    """A place as a language model is asked for it."""

    city: str
    days: list[int]
    wind: Wind | None


class Wind(BaseModel):
    """How hard it blows."""

    knots: float


async def test_the_official_sdk_reads_chats(sdk: AsyncOpenAI) -> None:
    plain = await sdk.chat.completions.create(model="gpt-4", messages=HELLO, n=2)
    parsed = await sdk.chat.completions.parse(model="gpt-4", messages=HELLO, response_format=Weather)

    assert [choice.message.content for choice in plain.choices] == ["You said: Hello big world"] * 2
    assert plain.usage is not None
    assert plain.usage.total_tokens == 13
    assert plain._request_id is not None
    assert parsed.choices[0].message.parsed == Weather(city="example", days=[], wind=Wind(knots=0))


async def test_the_official_sdk_reads_streams(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(
        model="gpt-4", messages=HELLO, stream_options={"include_usage": True}
    ) as streamed:
        final = await streamed.get_final_completion()
    called = await sdk.chat.completions.create(model="gpt-4", messages=HELLO, tools=[WEATHER], stream=True)
    calls = [chunk.choices[0].delta.tool_calls async for chunk in called]

    assert final.choices[0].message.content == "You said: Hello big world"
    assert final.usage is not None
    assert final.usage.total_tokens == 8
    assert "".join(call[0].function.arguments for call in calls if call) == '{"city": "example"}'


async def test_the_official_sdk_reads_models_and_errors(sdk: AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["echo", "gpt-3.5-turbo", "gpt-4"]
    assert (await sdk.models.retrieve("echo")).owned_by == "inference-sidecar"
    with pytest.raises(NotFoundError) as caught:
        await sdk.embeddings.create(model="echo", input="x")
    assert caught.value.code == "unknown_url"
