"""A request and an answer as httpx has them, made of what is here already.

Enters: a method, a URL, a status, header lines, a body. Leaves: an `httpx.Request`, an `httpx.Response`. httpx's own
constructors copy the URL, index the lines and look for what else they could be given: more than all that is asked of
them here. What nobody asks for is not made; whoever does ask finds what httpx would have made.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import httpx

from .request import Ready

if TYPE_CHECKING:
    from .body import Body


class Prepared(httpx.Request):
    """A request that is `ready`, which is all that one of these has; nothing of it can be changed but `headers`, and once
    those were asked for they count, changed or not."""

    ready: Ready

    @property
    def method(self) -> str:  # type: ignore[override]
        """As httpx has it."""
        return self.ready.method

    @property
    def url(self) -> httpx.URL:  # type: ignore[override]
        """As httpx has it."""
        return self.ready.url

    @property
    def extensions(self) -> dict[str, Any]:  # type: ignore[override]
        """See `transport`."""
        return {"target": self.ready.target, "fresh": self.ready.fresh}

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """The lines, as httpx has them."""
        self.ready.changed = True
        length = self.ready.length
        framing = [] if length is None else [(b"content-length", b"%d" % length)]
        return httpx.Headers([*self.ready.lines, *self.ready.own_lines, *framing])

    @cached_property
    def stream(self) -> httpx.AsyncByteStream:  # type: ignore[override]
        """The body, as httpx has it."""
        return _Given(self.ready.body)


class Opened(httpx.Response):
    """An answer whose head is here, and whose `body` comes. Of its head nothing can be changed but `headers`, and once those
    were asked for they count, changed or not."""

    body: Body

    # What httpx keeps of an answer besides, as it is at the beginning.
    next_request = None
    is_closed = False
    is_stream_consumed = False
    default_encoding = "utf-8"
    _request = None
    _num_bytes_downloaded = 0

    @property
    def status_code(self) -> int:  # type: ignore[override]
        """As httpx has it."""
        return self.body.answer.status

    @property
    def extensions(self) -> dict[str, Any]:  # type: ignore[override]
        """As httpx has them."""
        answer = self.body.answer
        return {"http_version": answer.version, "reason_phrase": answer.reason}

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]
        """The lines, as httpx has them."""
        self.body.changed = True
        return httpx.Headers(self.body.answer.headers)

    @cached_property
    def stream(self) -> httpx.AsyncByteStream:  # type: ignore[override]
        """The body, as httpx has it."""
        return _Coming(self.body)

    @cached_property
    def history(self) -> list[httpx.Response]:  # type: ignore[override]
        """None was followed."""
        return []


# As `object` makes them: a constructor in Python would be what is left of Python in what every request passes.
blank_request: Final[Callable[[], Prepared]] = partial(object.__new__, Prepared)
"""Makes a request that is yet to be given what is `ready`."""
blank_answer: Final[Callable[[], Opened]] = partial(object.__new__, Opened)
"""Makes an answer that is yet to be given its `body`."""


class _Given(httpx.AsyncByteStream):
    def __init__(self, body: bytes | AsyncIterable[bytes]) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._body, bytes):
            yield self._body
            return
        async for piece in self._body:
            yield piece


class _Coming(httpx.AsyncByteStream):
    def __init__(self, body: Body) -> None:
        self._body = body

    def __aiter__(self) -> Body:
        return self._body

    async def aclose(self) -> None:
        self._body.close()
