"""The way to an upstream on asyncio's loop alone: a pool of `Connection`s, bounded, behind httpx's interface.

Enters: a prepared `httpx.Request`. Leaves: an open `httpx.Response` whose stream gives the body's bytes as
they came (chunks undone, nothing decoded), or an `UpstreamError`. Must not retry, follow redirects, keep
cookies, know a proxy, or measure time but for two bounds: opening a connection, and keeping an idle one.

`request.extensions` and cancelling are as in `transport`, whose place this takes where no proxy is. What each
request passes is in `connections`; here is what httpx wants to see of it, and how a connection is opened.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

import httpx

from ..errors import UpstreamConnectError, UpstreamTLSError
from .connection import Connection
from .connections import Connections, Origin, name_of
from .dial import dial, reason
from .link import CHUNK, Link, Secure


class AsyncioTransport(httpx.AsyncBaseTransport):
    """At most `max_connections` are open at once; who comes later waits for a place, first come first served.

    Opening one may for a moment take a second socket, where a host has several addresses and the first is
    slow. Of idle ones `max_idle` are kept, each for `keep_alive` seconds, or for a second less than its peer
    says; those beyond it for `connections.SURPLUS_SECS`. `ssl_context` may be None where the upstream is plain HTTP.
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
        self._max_connections = max_connections
        self._links: set[Link] = set()
        self._room = memoryview(bytearray(CHUNK))
        self._connections = Connections(
            self._connect, keep_alive=keep_alive, max_idle=max_idle, max_connections=max_connections
        )
        # Below is what httpx wants to see; who calls it with each request need not pass by way of it.
        self.handle_async_request = self._connections.send  # type: ignore[method-assign]

    @property
    def connections(self) -> int:
        """Sockets open right now, idle ones and those being opened included."""
        return len(self._links)

    @property
    def usage(self) -> tuple[int, int]:
        """Sockets that are in use or being opened, and those that are idle."""
        idle = len(self._connections.idle)
        return len(self._links) - idle, idle

    def handle_async_request(self, request: httpx.Request) -> Coroutine[Any, Any, httpx.Response]:
        """Raises UpstreamError, and what `request.stream` itself raises. Waits for a place without bound."""
        return self._connections.send(request)

    async def aclose(self) -> None:
        """Close everything, answers that are still being read included: their readers see a disconnect."""
        self._connections.close()
        for link in list(self._links):
            link.close()

    async def _connect(self, origin: Origin) -> Connection:
        """Raises UpstreamConnectError or UpstreamTLSError. Where all sockets are taken, an idle one gives way."""
        scheme, host, port = origin
        name = name_of(origin)
        if len(self._links) >= self._max_connections:
            self._connections.yield_one()
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
        session = None if secure is None else secure.session
        connection = Connection(link, session, origin, name, self._connections.closed, self._room)
        self._connections.opened(connection)
        return connection
