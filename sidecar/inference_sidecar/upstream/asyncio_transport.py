"""The way to an upstream on asyncio's loop alone: a pool of `Connection`s, bounded, behind httpx's interface.

Enters: a prepared `httpx.Request`. Leaves: an open `httpx.Response` whose stream gives the body's bytes as
they came (chunks undone, nothing decoded), or an `UpstreamError`. Must not retry, follow redirects, keep
cookies, know a proxy, or measure time but for two bounds: opening a connection, and keeping an idle one.

`request.extensions` and cancelling are as in `transport`, whose place this takes where no proxy is.

- Whoever holds a place may have a connection; a place is given back once, by whatever ends its request. Who
  waits for one is served in the order of coming.
- A connection is in exactly one place: with one request, or idle, or closed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, Callable
from typing import Final

import httpx

from ..errors import Unwritable, UpstreamConnectError, UpstreamError, UpstreamProtocolError, UpstreamTLSError
from .connection import Connection
from .dial import dial, reason
from .framing import Answer
from .link import Link, Secure
from .parts import NO_LINES, Lines, Whole
from .request import RequestHead

SURPLUS_SECS: Final = 1.0
"""How long a connection beyond those that may be idle waits for the next request: where more requests than that are
under way, one follows the other at once, and each would open a connection of its own."""

_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host, port."""


class AsyncioTransport(httpx.AsyncBaseTransport):
    """At most `max_connections` are open at once; who comes later waits for a place, first come first served.

    Opening one may for a moment take a second socket, where a host has several addresses and the first is
    slow. Of idle ones `max_idle` are kept, each for `keep_alive` seconds, or for a second less than its peer
    says; those beyond it for `SURPLUS_SECS`. `ssl_context` may be None where the upstream is plain HTTP.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None,
        connect_timeout: float,
        keep_alive: float,
        max_idle: int,
        max_connections: int,
    ) -> None:
        self._ssl_context = ssl_context
        self._connect_timeout = connect_timeout
        self._keep_alive = keep_alive
        self._max_idle = max_idle
        self._max_connections = max_connections
        self._places = asyncio.Semaphore(max_connections)
        self._links: set[Link] = set()
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in the order of their becoming idle
        self._sweeper: asyncio.TimerHandle | None = None
        self._clock: Callable[[], float] | None = None
        self._url: httpx.URL | None = None  # the last request's, and its origin: most have the same
        self._origin: Origin = ("", "", 0)

    @property
    def connections(self) -> int:
        """Sockets open right now, idle ones and those being opened included."""
        return len(self._links)

    @property
    def usage(self) -> tuple[int, int]:
        """Sockets that are in use or being opened, and those that are idle."""
        return len(self._links) - len(self._idle), len(self._idle)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises UpstreamError, and what `request.stream` itself raises. Waits for a place without bound."""
        url, extensions, stream = request.url, request.extensions, request.stream
        if url is not self._url:
            self._url = url
            self._origin = (url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        origin = self._origin
        try:
            target = extensions.get("target") or url.raw_path
            head = RequestHead(request.method.encode("ascii"), target, request.headers.raw)
        except (Unwritable, UnicodeError):
            raise _unwritable(origin, sent=False) from None
        body: bytes | AsyncIterable[bytes]
        if isinstance(stream, Whole):
            body = stream.data
        else:
            body = b"".join(stream) if isinstance(stream, httpx.SyncByteStream) else stream
        await self._places.acquire()
        connection: Connection | None = None
        try:
            if not extensions.get("fresh"):
                connection = self._take(origin)
            if connection is None:
                connection = await self._connect(origin)
            answer = await connection.exchange(request.method, head, body)
        except BaseException as exc:
            self._give_back(connection, keep=False)
            if isinstance(exc, Unwritable):
                raise _unwritable(origin, sent=True) from None
            raise
        response = httpx.Response(
            answer.status,
            headers=NO_LINES,
            stream=_Body(self, connection, answer, keep=not extensions.get("fresh")),
            extensions={"http_version": answer.version, "reason_phrase": answer.reason},
        )
        response.headers = Lines(answer.headers)
        return response

    async def aclose(self) -> None:
        """Close everything, answers that are still being read included: their readers see a disconnect."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.close()
        for link in list(self._links):
            link.close()

    def _now(self) -> float:
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time
        return self._clock()

    def _take(self, origin: Origin) -> Connection | None:
        """The idle connection that was used last, if there is one that may serve."""
        now = self._now()
        for connection in reversed(list(self._idle)):
            if connection.origin != origin:
                continue
            if connection.idle_until > now and connection.alive():
                del self._idle[connection]
                connection.idle = False
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        """Raises UpstreamConnectError or UpstreamTLSError. Who has a place may open a connection: where all
        sockets are taken, an idle one gives way."""
        scheme, host, port = origin
        name = _name(origin)
        if len(self._links) >= self._max_connections and self._idle:
            next(iter(self._idle)).close()
        clock = asyncio.timeout(self._connect_timeout)
        link: Link | None = None
        try:
            async with clock:
                link = await dial(host, port, self._links)
                secure = None
                if scheme == "https":
                    assert self._ssl_context is not None, "an https upstream has a context"
                    secure = Secure(link, self._ssl_context, host)
                    await secure.handshake()
        except BaseException as exc:
            if link is not None:
                link.close()
            if clock.expired() and isinstance(exc, TimeoutError):
                why = f"No connection to {name} within {self._connect_timeout:g} s."
                raise UpstreamConnectError(why) from None
            if not isinstance(exc, OSError | UnicodeError):
                raise
            handshake = "TLS handshake: " if link is not None else ""
            kind = UpstreamTLSError if isinstance(exc, ssl.SSLError) else UpstreamConnectError
            raise kind(f"No connection to {name}: {handshake}{reason(exc)}.") from exc
        connection = Connection(link, secure, origin, name, self._closed)
        self._open.add(connection)
        return connection

    def _closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _give_back(self, connection: Connection | None, *, keep: bool, kept_for: int | None = None) -> None:
        """The end of a request, whatever it was: its connection becomes idle or closes, its place is free."""
        self._places.release()
        if connection is None:
            return
        keep_alive = self._keep_alive if kept_for is None else min(self._keep_alive, kept_for - 1)
        if not keep or not connection.usable or keep_alive <= 0 or not self._max_idle:
            connection.close()
            return
        if len(self._idle) >= self._max_idle:
            keep_alive = min(keep_alive, SURPLUS_SECS)
        connection.idle = True
        connection.idle_until = self._now() + keep_alive
        self._idle[connection] = None
        if self._sweeper is not None and self._sweeper.when() > connection.idle_until:
            self._sweeper.cancel()
            self._sweeper = None
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_at(connection.idle_until, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for its time; come again when the next may be due."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one in self._idle if one.idle_until <= now]:
            connection.close()
        due = min((one.idle_until for one in self._idle), default=None)
        self._sweeper = None if due is None else loop.call_at(due, self._sweep)


class _Body(httpx.AsyncByteStream):
    """The body as httpx sees it. Frees the place once: at its end, at a failure, or when it is closed."""

    def __init__(
        self, transport: AsyncioTransport, connection: Connection, answer: Answer, *, keep: bool
    ) -> None:
        self._transport = transport
        self._connection: Connection | None = connection
        self._answer = answer
        self._keep = keep

    @property
    def ended(self) -> bool:
        """Whether no more is going to come: the last piece was the end, too."""
        return self._connection is None

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def next(self) -> bytes | None:
        """The next piece, None at the end: what iterating gives, without what that costs."""
        connection = self._connection
        if connection is None:
            return None
        try:
            piece = await connection.read(self._answer)
        except BaseException:
            self._release()
            raise
        if connection.drained(self._answer):
            self._release()
        return piece or None

    async def pour(self, sink: Callable[[bytes], bool]) -> bool:
        """The rest of the body, piece by piece, as `Connection.pour` does."""
        connection = self._connection
        if connection is None:
            return True
        try:
            ended = await connection.pour(self._answer, sink)
        except BaseException:
            self._release()
            raise
        if ended:
            self._release()
        return ended

    async def aclose(self) -> None:
        self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport._give_back(  # noqa: SLF001  the two are one piece
                connection, keep=self._keep, kept_for=self._answer.kept_for
            )


def _name(origin: Origin) -> str:
    _, host, port = origin
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unwritable(origin: Origin, *, sent: bool) -> UpstreamError:
    return UpstreamProtocolError(f"The request to {_name(origin)} cannot be written as HTTP/1.1.", sent=sent)
