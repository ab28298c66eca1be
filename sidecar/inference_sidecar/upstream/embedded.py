"""The embedded upstream behind the same interface as a real one: `provider: echo`.

Enters: an `httpx.Request`. Leaves: an `httpx.Response`. No socket is opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import unquote

import httpx

from .. import echo


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk


class EchoTransport(httpx.AsyncBaseTransport):
    """Hands requests to `echo.answer`."""

    connections = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer below /v1, as an upstream would."""
        body = await request.aread()
        target: bytes = request.extensions["target"]
        path = unquote(target.partition(b"?")[0].decode("ascii")).removeprefix("/v1")
        answer = await echo.answer(request.method, path, body)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Chunks(answer.chunks))
