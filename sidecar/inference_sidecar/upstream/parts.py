"""A request and an answer as httpx has them, made of what is here already.

Enters: a method, a URL, a status, header lines, a body. Leaves: an `httpx.Request`, an `httpx.Response`. httpx's own
constructors copy the URL, index the lines and look for what else they could be given: more than all that is asked of
them here. What nobody asks for is not made; whoever does ask finds what httpx would have made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import Any, Protocol

import httpx

from ..records import Headers


class Readable(Protocol):
    """An answer's body as it comes: an iterator that can be ended early. `ended`: no more is going to come."""

    @property
    def ended(self) -> bool: ...

    def __aiter__(self) -> Readable: ...

    async def __anext__(self) -> bytes: ...

    async def next(self) -> bytes | None:
        """The next piece, None at the end: what iterating gives, without what that costs."""

    def here(self) -> bytes:
        """What has come and was not given; b"" where that is nothing."""

    async def pour(self, sink: Callable[[bytes], bool]) -> bool:
        """Each piece to `sink` as it comes: to the end (True), or until `sink` says False."""

    def close(self) -> None: ...


class Prepared(httpx.Request):
    """A request whose `lines` are complete together with its `own_lines`, framing and Host included: of the former it is
    expected that the next request has the same, the latter come last. `body` is whole, or is read once.

    `lines` are None once `headers` was asked for: from then on those count, changed or not.
    """

    def __init__(
        self,
        method: str,
        url: httpx.URL,
        lines: Headers,
        own_lines: Headers,
        body: bytes | AsyncIterator[bytes],
        extensions: dict[str, Any],
    ) -> None:
        self.method = method.upper()
        self.url = url
        self.lines: Headers | None = lines
        self.own_lines = own_lines
        self.body = body
        self.extensions = extensions

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """The lines, as httpx has them."""
        lines, self.lines = self.lines, None
        return httpx.Headers([*(lines or ()), *self.own_lines])

    @cached_property
    def stream(self) -> httpx.AsyncByteStream:  # type: ignore[override]
        """The body, as httpx has it."""
        return _Given(self.body)


class Opened(httpx.Response):
    """An answer whose head is here, and whose `body` comes. `lines` as a request's."""

    # What httpx keeps of an answer besides, as it is at the beginning.
    next_request = None
    is_closed = False
    is_stream_consumed = False
    default_encoding = "utf-8"
    _request = None
    _num_bytes_downloaded = 0

    def __init__(self, status: int, lines: Headers, body: Readable, extensions: dict[str, Any]) -> None:
        self.status_code = status
        self.lines: Headers | None = lines
        self.body = body
        self.extensions = extensions

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """The lines, as httpx has them."""
        lines, self.lines = self.lines, None
        return httpx.Headers(lines)

    @cached_property
    def stream(self) -> httpx.AsyncByteStream:  # type: ignore[override]
        """The body, as httpx has it."""
        return _Coming(self.body)

    @cached_property
    def history(self) -> list[httpx.Response]:  # type: ignore[override]
        """None was followed."""
        return []


class _Given(httpx.AsyncByteStream):
    def __init__(self, body: bytes | AsyncIterator[bytes]) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._body, bytes):
            yield self._body
            return
        async for piece in self._body:
            yield piece


class _Coming(httpx.AsyncByteStream):
    def __init__(self, body: Readable) -> None:
        self._body = body

    def __aiter__(self) -> Readable:
        return self._body

    async def aclose(self) -> None:
        self._body.close()
