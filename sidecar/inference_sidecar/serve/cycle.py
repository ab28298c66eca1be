"""One request and its answer on an app's connection, between ASGI and HTTP/1.1's bytes.

Enters: what the parser finds of a request's body, and ASGI's messages of its answer. Leaves: ASGI's messages of the
request, and bytes. The head goes down with the first of the body, in one piece. Must not read sockets, nor decide
when a connection ends: it says whether it may go on.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from ..accept import Line
from ..records import Headers
from ..telemetry import LOGGER
from ..upstream.request import TOKEN, VALUE_BYTES

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

HIGH_WATER: Final = 64 * 1024
"""Bytes of a body that may wait here before no more is read."""

STATUS_LINES: Final[dict[int, bytes]] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}

_BARE: Final = (204, 304)
_FAILED: Final = b"Internal Server Error"


class Wire(Line):
    """The connection, as a request on it needs it."""

    full: bool
    """What is written now would have to wait for the app to take what was written before."""

    @property
    def closing(self) -> bool:
        """Whether it is gone, or is being closed."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes."""
        raise NotImplementedError

    def write_soon(self, data: bytes) -> None:
        """Send bytes, within this turn of the loop."""
        raise NotImplementedError

    async def room(self) -> None:
        """Returns when it is no longer full, or gone."""
        raise NotImplementedError

    def listen(self, *, on: bool) -> None:
        """Whether more of the body is wanted."""
        raise NotImplementedError

    def ended(self, cycle: Cycle) -> None:
        """The answer is whole."""
        raise NotImplementedError


class Cycle:
    """Created with a request's head, fed with its body, run once.

    `keep_alive`: another request may follow. `complete`: the answer is whole. `expects`: the app waits for a word
    before it sends the body.
    """

    def __init__(self, wire: Wire, scope: Message, *, keep_alive: bool, expects: bool) -> None:
        self.keep_alive = keep_alive
        self.complete = False
        self._wire = wire
        self._scope = scope
        self._expects = expects
        self._bare = scope["method"] == "HEAD"
        self._old = scope["http_version"] == "1.0"
        self._pieces: list[bytes] = []
        self._size = 0
        self._more = True
        self._told = False  # of the request's end, or of the app's
        self._waiter: asyncio.Future[None] | None = None
        self._head: bytes | None = None  # until the first of the body
        self._begun = False
        self._chunked = False
        self._left: int | None = None  # of what the answer's content-length promises

    # The request's body

    def feed(self, piece: bytes) -> None:
        """A piece of it."""
        if self.complete:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > HIGH_WATER:
            self._wire.listen(on=False)
        self.wake()

    def end(self) -> None:
        """It is whole."""
        self._more = False
        self.wake()

    def wake(self) -> None:
        """Something has changed for who waits for it."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """ASGI's: what has come of the body, and whether there is more; or that the app is gone."""
        wire = self._wire
        if self._expects:
            self._expects = False
            if not self._begun and not wire.gone:
                wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._pieces or wire.gone or self.complete or (not self._more and not self._told)):
            wire.listen(on=True)
            self._waiter = wire.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if wire.gone or self.complete:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._taken(), "more_body": self._more}

    def take(self) -> bytes | None:
        """See `accept.Line`."""
        if self._more or self._told or self._expects or self.complete or self._wire.gone:
            return None
        return self._taken()

    def _taken(self) -> bytes:
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._size = 0
        self._told = not self._more
        return body

    # The answer

    async def send(self, message: Message) -> None:
        """ASGI's. Returns when there is room for more."""
        wire = self._wire
        if wire.full:
            await wire.room()
        if wire.gone:
            return
        kind = message["type"]
        if not self._begun and kind == "http.response.start":
            self.begin(message["status"], message.get("headers", ()))
        elif self._begun and not self.complete and kind == "http.response.body":
            self.piece(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"ASGI message '{kind}' is out of place.")

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """All of the answer, now."""
        self.begin(status, headers)
        self.piece(body, more=False)

    def piece(self, body: bytes, *, more: bool) -> None:
        """A piece of the answer's body, now."""
        wire = self._wire
        head = self._head or b""
        self._head = None
        if self._bare:
            body = b""
        elif self._chunked:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("An answer's body is not as long as its content-length.")
        if head or body:
            wire.write_soon(head + body)
        if not more:
            self.complete = True
            self.wake()
            wire.ended(self)

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The answer's head, which leaves with the first of its body."""
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        names = []
        values = []
        closes = coded = False
        for name, value in headers:
            name = name.lower()  # noqa: PLW2901
            names.append(name)
            values.append(value)
            lines.append(name + b": " + value + b"\r\n")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                coded = value.lower() == b"chunked"
            elif name == b"connection":
                closes = b"close" in [option.strip() for option in value.lower().split(b",")]
        if b"".join(names).translate(None, TOKEN) or b"".join(values).translate(None, VALUE_BYTES):
            raise RuntimeError("An answer's header cannot be written as HTTP/1.1.")
        self._begun = True
        self._expects = False
        if status in _BARE:
            self._bare = True
        elif self._left is None and not coded and not self._bare:
            # Before 1.1 there are no chunks: there the end of the connection is the body's.
            coded = not self._old
            self.keep_alive = self.keep_alive and coded
            if coded:
                lines.append(b"transfer-encoding: chunked\r\n")
        self._chunked = coded
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def start(self, app: App) -> Awaitable[None]:
        """Have the app answer. When it has, that is to be told by `over`, or where it raised by `failed`."""
        return app(self._scope, self.receive, self.send)

    def over(self) -> None:
        """The app has returned. What it left unsaid becomes a 500, or a connection that is cut."""
        if not self.complete and not self._wire.closing:
            LOGGER.error("an ASGI application returned before its answer was whole")
            self._fail()

    def failed(self) -> None:
        """The app raised what is being handled: as `over`."""
        LOGGER.exception("exception in an ASGI application")
        self._fail()

    def _fail(self) -> None:
        if self._begun or self._wire.closing:
            self._wire.close()
            return
        length = b"%d" % len(_FAILED)
        self.begin(
            500, [(b"content-type", b"text/plain"), (b"content-length", length), (b"connection", b"close")]
        )
        self.piece(_FAILED, more=False)
