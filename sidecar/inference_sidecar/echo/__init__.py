"""The embedded upstream (`provider: echo`): answers as OpenAI would, with no network and no key.

Enters: a request's method, its path below /v1, its body. Leaves: an `Answer`, and never an exception: what
cannot be answered is an error in OpenAI's shape. It says back what was said to it, calls the first tool that
it is offered, fills in a schema that it is given. Must not open a socket, nor know who asks.

Its tokens are words, each with the blanks before it. A prompt counts the words of its messages, and one for
each part that is no text; an answer counts the words of its choices, and one for the name of a called tool.
A stream sends one token a chunk, so that plain and streamed answers have the same usage.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from ..records import Headers
from .chat import Chat, Json
from .read import DEFAULT_MODEL, BadRequestError, error, read

MODELS: Final = (DEFAULT_MODEL, "gpt-3.5-turbo", "gpt-4")
PAUSE_S: Final = 0.012
"""Between the chunks of a stream, so that it is seen to be one."""

_CREATED: Final = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it would come from a server: its head, then its body chunk by chunk."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]


async def answer(method: str, path: str, body: bytes) -> Answer:
    """Answers chat and models; all else is 404."""
    started = time.perf_counter()
    try:
        return _answer(method, path.partition("?")[0], body, started)
    except BadRequestError as refused:
        return _plain(refused.status, refused.body, started)
    except RecursionError:
        return _plain(400, error("The body is nested too deeply."), started)


def _answer(method: str, path: str, body: bytes, started: float) -> Answer:
    allowed = "POST" if path == "/chat/completions" else "GET"
    name = path.removeprefix("/models/") if path.startswith("/models/") else None
    if allowed == "GET" and name is None and path != "/models":
        message = (
            f"Unknown URL: {method} /v1{path}. The echo upstream answers /v1/chat/completions and /v1/models."
        )
        raise BadRequestError(message, status=404, code="unknown_url")
    if method != allowed:
        message = f"Not allowed to {method} on /v1{path}; use {allowed}."
        raise BadRequestError(message, status=405, code="method_not_supported")
    if allowed == "POST":
        chat = read(body)
        return _streamed(chat, started) if chat.stream else _plain(200, chat.completion(), started)
    if name is None:
        return _plain(200, {"object": "list", "data": [_model(one) for one in MODELS]}, started)
    if name not in MODELS:
        message = f"The model '{name[:256]}' does not exist; echo has {', '.join(MODELS)}."
        raise BadRequestError(message, "model", status=404, code="model_not_found")
    return _plain(200, _model(name), started)


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "inference-sidecar"}


def _plain(status: int, body: Json, started: float) -> Answer:
    text = json.dumps(body).encode()
    headers = [*_headers(b"application/json", started), (b"content-length", b"%d" % len(text))]
    return Answer(status, headers, _once(text))


def _streamed(chat: Chat, started: float) -> Answer:
    return Answer(200, _headers(b"text/event-stream; charset=utf-8", started), _events(chat))


def _headers(content_type: bytes, started: float) -> Headers:
    return [
        (b"content-type", content_type),
        (b"openai-processing-ms", b"%d" % ((time.perf_counter() - started) * 1000)),
        (b"openai-version", b"2020-10-01"),
        (b"x-request-id", f"req_{secrets.token_hex(16)}".encode()),
    ]


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _events(chat: Chat) -> AsyncIterator[bytes]:
    for chunk in chat.chunks():
        if chunk is None:
            await asyncio.sleep(PAUSE_S)
        else:
            yield b"data: %s\n\n" % json.dumps(chunk, separators=(",", ":")).encode()
    yield b"data: [DONE]\n\n"
