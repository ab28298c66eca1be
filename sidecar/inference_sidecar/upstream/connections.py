"""The connections of `asyncio_transport`: who has one, which are idle, and the bodies that are read from them.

Enters: a prepared `httpx.Request`. Leaves: an open `httpx.Response`, or an `UpstreamError`.
Must not open a connection: whoever makes this says how.

- Whoever holds a place may have a connection; a place is given back once, by whatever ends its request. Who
  waits for one is served in the order of coming.
- A connection is in exactly one place: with one request, or idle, or closed.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Final

import httpx

from ..errors import Unwritable, UpstreamError, UpstreamProtocolError
from ..records import Headers
from .connection import Connection
from .framing import Answer
from .parts import Opened, Prepared
from .request import Beginning, RequestHead

SURPLUS_SECS: Final = 1.0
"""How long a connection beyond those that may be idle waits for the next request: where more requests than that are
under way, one follows the other at once, and each would open a connection of its own."""

_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host, port."""


class Places:
    """How many may do something at once. Who comes later waits, and is given the place of whoever leaves first.

    As asyncio.Semaphore, which spends five calls on a request where nobody waits.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for a place, of which there is none now. Cancelled, it has none."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except BaseException:
            if not place.cancelled():
                self.leave()  # it was given, in the very moment of the cancelling
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def take(self) -> bool:
        """Take a place, if there is one."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        """Give a place back: to who has waited longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class Connections:
    """As `AsyncioTransport` has it; `connect` opens a connection, and is called by whoever has a place."""

    def __init__(
        self,
        connect: Callable[[Origin], Awaitable[Connection]],
        *,
        keep_alive: float,
        max_idle: int,
        max_connections: int,
    ) -> None:
        self.open: set[Connection] = set()
        self.idle: dict[Connection, None] = {}  # in the order of their becoming idle
        self._connect = connect
        self._keep_alive = keep_alive
        self._max_idle = max_idle
        self._places = Places(max_connections)
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweeps_at = math.inf  # what it itself does not tell on uvloop, where that is nearly now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._url: httpx.URL | None = None  # the last request's, and its origin: most have the same
        self._origin: Origin = ("", "", 0)
        self._beginning: Beginning | None = None  # the last head's

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Raises UpstreamError, and what `request.stream` itself raises. Waits for a place without bound."""
        url, extensions = request.url, request.extensions
        if url is not self._url:
            self._url = url
            self._origin = (url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        origin = self._origin
        fresh = bool(extensions.get("fresh"))
        try:
            head = self._head(request, extensions.get("target") or url.raw_path)
        except (Unwritable, UnicodeError):
            raise _unwritable(origin, sent=False) from None
        body: bytes | AsyncIterable[bytes]
        if isinstance(request, Prepared):
            body = request.body
        else:
            stream = request.stream
            body = b"".join(stream) if isinstance(stream, httpx.SyncByteStream) else stream
        if not self._places.take():
            await self._places.wait()
        connection: Connection | None = None
        try:
            if not fresh:
                connection = self._take(origin)
            if connection is None:
                connection = await self._connect(origin)
            answer = await connection.exchange(request.method, head, body)
        except BaseException as exc:
            self.give_back(connection, keep=False)
            if isinstance(exc, Unwritable):
                raise _unwritable(origin, sent=True) from None
            raise
        return Opened(
            answer.status,
            answer.headers,
            Body(self, connection, answer, keep=not fresh),
            {"http_version": answer.version, "reason_phrase": answer.reason},
        )

    def _head(self, request: httpx.Request, target: bytes) -> RequestHead:
        """Raises Unwritable, UnicodeError."""
        lines: Headers | None = None
        own: Headers = []
        if isinstance(request, Prepared):
            lines, own = request.lines, request.own_lines
        if lines is None:
            lines, own = request.headers.raw, []
        method, beginning = request.method.encode("ascii"), self._beginning
        if beginning is None or not beginning.again(method, target, lines):
            beginning = self._beginning = Beginning(method, target, lines)
        return RequestHead(beginning, own)

    def opened(self, connection: Connection) -> None:
        """There is one more."""
        self.open.add(connection)

    def closed(self, connection: Connection) -> None:
        """There is one less."""
        self.open.discard(connection)
        self.idle.pop(connection, None)

    def yield_one(self) -> None:
        """Close the connection that has been idle longest, if there is one."""
        for connection in self.idle:
            connection.close()
            return

    def close(self) -> None:
        """Close all, those as well that are still being read."""
        self._sweep_at(math.inf)
        for connection in list(self.open):
            connection.close()

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def _take(self, origin: Origin) -> Connection | None:
        """The idle connection that was used last, if there is one that may serve."""
        now = self._now()
        for connection in reversed(list(self.idle)):
            if connection.origin != origin:
                continue
            if connection.idle_until > now and connection.alive():
                del self.idle[connection]
                connection.idle = False
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection | None, *, keep: bool, kept_for: int | None = None) -> None:
        """The end of a request, whatever it was: its connection becomes idle or closes, its place is free."""
        self._places.leave()
        if connection is None:
            return
        keep_alive = self._keep_alive if kept_for is None else min(self._keep_alive, kept_for - 1)
        if not keep or not connection.usable or keep_alive <= 0 or not self._max_idle:
            connection.close()
            return
        if len(self.idle) >= self._max_idle:
            keep_alive = min(keep_alive, SURPLUS_SECS)
        connection.idle = True
        connection.idle_until = self._now() + keep_alive
        self.idle[connection] = None
        if connection.idle_until < self._sweeps_at:
            self._sweep_at(connection.idle_until)

    def _sweep(self) -> None:
        """Close what was idle for its time; come again when the next may be due."""
        self._sweep_at(math.inf)
        now = self._now()
        for connection in [one for one in self.idle if one.idle_until <= now]:
            connection.close()
        if self.idle:
            self._sweep_at(min([one.idle_until for one in self.idle]))

    def _sweep_at(self, when: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeps_at = when
        self._sweeper = None if when == math.inf else asyncio.get_running_loop().call_at(when, self._sweep)


class Body:
    """An answer's body. Frees the place once: at its end, at a failure, or when it is closed."""

    def __init__(
        self, connections: Connections, connection: Connection, answer: Answer, *, keep: bool
    ) -> None:
        self._answer = answer
        self._connections = connections
        self._connection: Connection | None = connection
        self._keep = keep

    @property
    def ended(self) -> bool:
        """See `parts.Readable`: the last piece was the end, too."""
        return self._connection is None

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def next(self) -> bytes | None:
        """See `parts.Readable`."""
        connection = self._connection
        if connection is None:
            return None
        try:
            piece = await connection.read(self._answer)
        except BaseException:
            self.close()
            raise
        if connection.drained(self._answer):
            self.close()
        return piece or None

    def here(self) -> bytes:
        """See `parts.Readable`."""
        connection = self._connection
        if connection is None:
            return b""
        piece = connection.here()
        if connection.drained(self._answer):
            self.close()
        return piece

    async def pour(self, sink: Callable[[bytes], bool]) -> bool:
        """The rest of the body, piece by piece, as `Connection.pour` does."""
        connection = self._connection
        if connection is None:
            return True
        try:
            ended = await connection.pour(self._answer, sink)
        except BaseException:
            self.close()
            raise
        if ended:
            self.close()
        return ended

    def close(self) -> None:
        """Give the connection back, where that has not been done."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.give_back(connection, keep=self._keep, kept_for=self._answer.kept_for)


def name_of(origin: Origin) -> str:
    """As messages say it."""
    _, host, port = origin
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unwritable(origin: Origin, *, sent: bool) -> UpstreamError:
    return UpstreamProtocolError(
        f"The request to {name_of(origin)} cannot be written as HTTP/1.1.", sent=sent
    )
