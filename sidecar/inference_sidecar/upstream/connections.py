"""The connections of `asyncio_transport`: who has one, and which are idle.

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
from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from ..errors import Unwritable, UpstreamError, UpstreamProtocolError
from .body import Body, Home
from .connection import Connection
from .parts import Prepared, blank_answer
from .request import Beginning, Lines, Ready, RequestHead

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


class Connections(Home):
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
        ready = request.ready if isinstance(request, Prepared) else _ready(request)
        url = ready.url
        if url is not self._url:
            self._url = url
            self._origin = (url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        origin = self._origin
        fresh = ready.fresh
        try:
            head = self._head(ready, tuple(request.headers.raw) if ready.changed else ready.lines)
        except (Unwritable, UnicodeError):
            raise _unwritable(origin, sent=False) from None
        if not self._places.take():
            await self._places.wait()
        connection: Connection | None = None
        try:
            if not fresh:
                connection = self._take(origin)
            if connection is None:
                connection = await self._connect(origin)
            answer = await connection.exchange(
                head, ready.body, bare=ready.method == "HEAD", meanwhile=ready.meanwhile
            )
        except BaseException as exc:
            self.give_back(connection, keep=False)
            if isinstance(exc, Unwritable):
                raise _unwritable(origin, sent=True) from None
            raise
        response = blank_answer()
        response.body = Body(self, connection, answer, keep=not fresh)
        return response

    def _head(self, ready: Ready, lines: Lines) -> RequestHead:
        """Raises Unwritable, UnicodeError."""
        method, target, beginning = ready.method.encode("ascii"), ready.target, self._beginning
        if beginning is None or not beginning.again(method, target, lines):
            beginning = self._beginning = Beginning(method, target, lines)
        if ready.changed:
            return RequestHead(beginning)
        return RequestHead(beginning, ready.own_lines, ready.length)

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
        if not self.idle:
            return None
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
        """See `Home`: the connection becomes idle or closes, its place is free."""
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


def _ready(request: httpx.Request) -> Ready:
    """A request of httpx's own."""
    extensions, stream = request.extensions, request.stream
    return Ready(
        request.method,
        request.url,
        extensions.get("target") or request.url.raw_path,
        tuple(request.headers.raw),
        [],
        b"".join(stream) if isinstance(stream, httpx.SyncByteStream) else stream,
        fresh=bool(extensions.get("fresh")),
    )


def name_of(origin: Origin) -> str:
    """As messages say it."""
    _, host, port = origin
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unwritable(origin: Origin, *, sent: bool) -> UpstreamError:
    return UpstreamProtocolError(
        f"The request to {name_of(origin)} cannot be written as HTTP/1.1.", sent=sent
    )
