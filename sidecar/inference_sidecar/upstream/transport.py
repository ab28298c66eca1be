"""The way to an upstream: httpcore's pool on sockets of our own, bounded, behind httpx's interface.

Enters: a prepared `httpx.Request`. Leaves: an open `httpx.Response` whose stream gives the body's bytes as
they came (chunks undone, nothing decoded), or an `UpstreamError`. Must not retry, follow redirects, keep
cookies or measure time, but for one bound: opening a connection, proxy and TLS included.

`request.extensions`: `target`, the bytes of the request line where they differ from the URL's (httpx removes
dot segments); `fresh`, never to use a connection that was used before. Cancelling a request, or a read of its
answer, closes its connection at once: to wait for a piece with a timeout and then go on, wait for a task.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpcore
import httpx

from ..runtime.proxy import Proxy
from .pool import Connection, Pool

SWEEP_S: Final = 5.0
"""Idle connections outlive their time, or the peer's close, by no more than this."""


class PoolTransport(httpx.AsyncBaseTransport):
    """At most `max_connections` are open at once; who comes later waits for a place, first come first served.

    Opening one may for a moment take a second socket, where a host has several addresses and the first is
    slow. Of idle ones `max_idle` are kept, each for `keep_alive` seconds. `ssl_context` may be None where the
    upstream is plain HTTP.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None,
        connect_timeout: float,
        keep_alive: float,
        max_idle: int,
        max_connections: int,
        proxy: Proxy | None = None,
    ) -> None:
        self._pool = Pool(ssl_context, _httpcore_proxy(proxy, ssl_context), keep_alive, connect_timeout)
        self._places = asyncio.Semaphore(max_connections)
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._sweep_every = min(max(keep_alive, 0.05), SWEEP_S)
        self._sweeper: asyncio.TimerHandle | None = None
        self._fresh = 0
        self._bracket = proxy is not None

    @property
    def connections(self) -> int:
        """Sockets open right now, idle ones and those being opened included."""
        return len(self._pool.links)

    @property
    def usage(self) -> tuple[int, int]:
        """Sockets that are in use or being opened, and those that are idle."""
        idle = sum(connection.is_idle() for connection in self._pool.held())
        return max(self.connections - idle, 0), idle

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises UpstreamError, and what `request.stream` itself raises. Waits for a place without bound."""
        outgoing = self._outgoing(request)
        origin = outgoing.url.origin
        await self._places.acquire()
        fresh = self._pool.create_connection(origin) if request.extensions.get("fresh") else None
        self._make_room(origin, fresh)
        try:
            response = await (fresh or self._pool).handle_async_request(outgoing)
        except BaseException:
            self._release(fresh)
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Answer(response, lambda: self._release(fresh)),
            extensions={key: response.extensions[key] for key in ("http_version", "reason_phrase")},
        )

    async def aclose(self) -> None:
        """Close everything, answers that are still being read included: their readers see a disconnect."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for link in list(self._pool.links):
            link.close()
        await self._pool.aclose()

    def _outgoing(self, request: httpx.Request) -> httpcore.Request:
        url = request.url
        host = url.raw_host
        if self._bracket and b":" in host:
            host = b"[%b]" % host  # a proxy is told host:port; `net` takes the brackets off where it dials
        target = request.extensions.get("target", url.raw_path)
        return httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=host, port=url.port, target=target),
            headers=request.headers.raw,
            content=request.stream,
        )

    def _make_room(self, origin: httpcore.Origin, fresh: Connection | None) -> None:
        """Whoever has a place may open a connection: where all sockets are taken, an idle one gives way."""
        held = self._pool.held()
        full = len(held) + self._fresh >= self._max_connections
        self._fresh += fresh is not None
        if not full:
            return
        idle = [connection for connection in held if connection.is_idle()]
        if fresh is None and any(one.can_handle_request(origin) and not one.has_expired() for one in idle):
            return
        for connection in idle[-1:]:
            connection.close()

    def _release(self, fresh: Connection | None) -> None:
        if fresh is not None:
            fresh.close()
            self._fresh -= 1
        self._places.release()
        idle = [connection for connection in self._pool.held() if connection.is_idle()]
        for connection in idle[self._max_idle :]:
            connection.close()
        if idle and self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_every, self._sweep)

    def _sweep(self) -> None:
        """The pool itself looks at idle connections only when a request comes."""
        self._sweeper = None
        idle = [connection for connection in self._pool.held() if connection.is_idle()]
        for connection in idle:
            if connection.has_expired():
                connection.close()
        if idle:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_every, self._sweep)


class _Answer(httpx.AsyncByteStream):
    """The body as httpx sees it. Frees the place once, at its end or when it is closed."""

    def __init__(self, response: httpcore.Response, release: Callable[[], None]) -> None:
        self._response = response
        self._release: Callable[[], None] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_stream():
                yield piece
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            try:
                await self._response.aclose()
            finally:
                release()


def _httpcore_proxy(proxy: Proxy | None, ssl_context: ssl.SSLContext | None) -> httpcore.Proxy | None:
    if proxy is None:
        return None
    headers = (
        []
        if proxy.authorization is None
        else [("Proxy-Authorization", proxy.authorization.get_secret_value())]
    )
    context = ssl_context if proxy.url.startswith("https:") else None
    return httpcore.Proxy(proxy.url, headers=headers, ssl_context=context)
