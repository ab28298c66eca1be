"""An answer that has begun: its head, and its body piece by piece.

Enters: a response whose head and first piece are here. Leaves: the rest, or an `UpstreamError`; the connection, given back.
Must not retry: what is here may be on its way to the app.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import httpx

from ..errors import UpstreamDisconnected, UpstreamProtocolError
from ..records import Headers
from .wire import Wire

if TYPE_CHECKING:
    from .body import Body

MAX_ERROR_BODY = 1024 * 1024
"""Bytes of an error's body that are read; what is longer is cut, and then is no JSON."""


class Answer:
    """An answer whose head and first body byte have arrived; its body piece by piece.

    `first` is the first piece of the body, empty where there is no body. `whole`: `first` is all of it. `cut`: of an
    error's body no more came, or no more was taken. `deadline` is the loop time until which a plain answer has to be
    complete. `exhausted`: further tries would have been right, but their number is used up. `usage_dropped`: the
    sidecar's wish for usage was refused and taken back.
    """

    __slots__ = (
        "_given", "_more", "_response", "_rest", "_wire", "attempts", "closed", "cut", "deadline", "exhausted", "first", "headers",
        "status", "usage_dropped", "whole",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        headers: Headers,
        first: bytes,
        rest: Body | None,
        more: Callable[[], Awaitable[bytes | None]] | None,
        wire: Wire,
        response: httpx.Response,
    ) -> None:
        """`rest` is what the body is read from, where that is one of ours; else `more` gives its next piece."""
        self.status = status
        self.headers = headers
        self.first = first
        self.whole = not first or (rest is not None and rest.ended)
        self.cut = False
        self.deadline = 0.0
        self.attempts = 1
        self.exhausted = False
        self.usage_dropped = False
        self.closed = False
        self._more = more
        self._rest = rest
        self._wire = wire
        self._response = response
        self._given = False

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, its name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def take_first(self) -> bytes:
        """The body's first piece, which `next` then leaves out."""
        self._given = True
        return self.first

    async def next(self) -> bytes | None:
        """The body's next piece, None at its end. Raises UpstreamError."""
        if not self._given:
            return self.take_first() or None
        return None if self.whole else await following(self._rest, self._more)

    @property
    def pours(self) -> bool:
        """Whether `pour` can be used, and `first` was taken."""
        return self._given and (self.whole or self._rest is not None)

    async def pour(self, sink: Callable[[bytes], bool]) -> bool:
        """The body after `first`: each piece to `sink` as it arrives, to the end (True) or until `sink` says False.
        Raises UpstreamError."""
        if self.whole or self._rest is None:
            return True
        return await self._rest.pour(sink)

    async def read(self) -> None:
        """Take the body into `first`, up to a bound. One that breaks off is still an answer: its status came whole."""
        body = bytearray(self.first)
        try:
            while not self.whole and len(body) <= MAX_ERROR_BODY:
                piece = await following(self._rest, self._more)
                if piece is None:
                    break
                body += piece
        except (UpstreamDisconnected, UpstreamProtocolError):
            self.cut = True
        self.cut = self.cut or len(body) > MAX_ERROR_BODY
        self.first, self.whole = bytes(body[:MAX_ERROR_BODY]), True

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end, close it where it was not."""
        if not self.closed:
            self.closed = True
            await self._wire.close(self._response)

    def close_now(self) -> bool:
        """As `aclose`, where that takes no waiting; False where it does, and nothing was done."""
        self.closed = self.closed or self._wire.close_now(self._response)
        return self.closed

    def drop(self) -> None:
        """As `aclose`, for whoever cannot wait."""
        if not self.closed:
            self.closed = True
            self._wire.drop(self._response)


def following(
    body: Body | None, more: Callable[[], Awaitable[bytes | None]] | None
) -> Awaitable[bytes | None]:
    """The next piece of an answer's body, None at its end."""
    if body is not None:
        return body.next()
    assert more is not None, "a body is read from something"
    return more()
