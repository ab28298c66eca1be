"""httpcore's pool and HTTP/1.1 connections, with what they do not promise by themselves.

Enters: httpcore requests. Leaves: httpcore responses, or `UpstreamError`s.
Must not bound anything: how many are open, and for how long, is `transport`'s.

- A connection on which more came than its answer was long is never used again.
- Nothing that closes here ever suspends, so that no cancellation, not even a second one, comes in between
  and leaves a socket or an entry of the pool behind.
- Every failure says whether a byte of the request may have gone up.
"""

from __future__ import annotations

import asyncio
import operator
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import h11
import httpcore

from ..errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTLSError,
)
from .link import Link
from .net import Dial

_FAULTS: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, h11.ProtocolError)


class Pool(httpcore.AsyncConnectionPool):
    """httpcore's pool, unbounded: the bounds are the transport's, whose waiting survives being cancelled."""

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None,
        proxy: httpcore.Proxy | None,
        keep_alive: float,
        connect_timeout: float,
    ) -> None:
        super().__init__(max_connections=None)
        self.links: set[Link] = set()
        self._settings: dict[str, Any] = {
            "ssl_context": ssl_context,
            "proxy": proxy,
            "keepalive_expiry": keep_alive,
        }
        self._connect_timeout = connect_timeout

    def create_connection(self, origin: httpcore.Origin) -> Connection:
        """A pool of one makes the connection: the public way to give each a network backend of its own."""
        dial = Dial(self.links)
        maker = httpcore.AsyncConnectionPool(network_backend=dial, **self._settings)
        return Connection(maker.create_connection(origin), origin, dial, self._connect_timeout)

    def held(self) -> list[Connection]:
        """Connections in the pool that are open or about to be."""
        return [one for one in self.connections if isinstance(one, Connection) and not one.is_closed()]


class Connection(httpcore.AsyncConnectionInterface):
    """One connection of httpcore's, plain or through a proxy, with its faults told in our words."""

    def __init__(
        self,
        inner: httpcore.AsyncConnectionInterface,
        origin: httpcore.Origin,
        dial: Dial,
        connect_timeout: float,
    ) -> None:
        self._inner = inner
        self._name = f"{origin.host.decode('ascii')}:{origin.port}"
        self._dial = dial
        self._connect_timeout = connect_timeout
        self._busy = False
        self._over = False
        self._leftover: Callable[[], bool] | None = None

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Raises UpstreamError, and what the request's own body raises."""
        self._busy = True
        progress = _Progress(self._connect_timeout)
        request.extensions["trace"] = progress
        try:
            async with progress.clock:
                response = await self._inner.handle_async_request(request)
        except BaseException as exc:
            self.close()
            fault = self.fault(exc, progress)
            if fault is None:
                raise
            raise fault from exc
        if response.status == 101:
            self.close()
            raise UpstreamProtocolError(f"{self._name} switched protocols without being asked.")
        self._leftover = _leftover(response)
        return httpcore.Response(
            response.status,
            headers=response.headers,
            content=_Body(self, response, progress),
            extensions=response.extensions,
        )

    def fault(self, exc: BaseException, progress: _Progress) -> UpstreamError | None:
        """What an exception means for the app; None where it is not the upstream's."""
        if isinstance(exc, TimeoutError) and progress.clock.expired():
            peer = self._dial.peer or self._name
            return UpstreamConnectError(f"No connection to {peer} within {self._connect_timeout:g} s.")
        return self._fault(exc, progress.sent) if isinstance(exc, _FAULTS) else None

    def check_end(self, status: int) -> None:
        """Raises where the end of a body is none. Only a body without a length ends with its connection, and
        a reset makes no end. An early refusal may end so: nobody wanted the body that was still going up."""
        link = self._dial.link
        if link is not None and link.ended and link.broken and status < 400:
            raise httpcore.ReadError("reset")

    def _fault(self, exc: Exception, sent: bool) -> UpstreamError:
        if isinstance(exc, httpcore.LocalProtocolError | h11.LocalProtocolError):
            # h11's words quote the header that it refuses, and that may be the key.
            return UpstreamProtocolError(
                f"The request to {self._name} cannot be written as HTTP/1.1.", sent=sent
            )
        if isinstance(exc, httpcore.ProxyError):
            return UpstreamConnectError(f"Proxy {self._dial.peer} refused a tunnel: HTTP {str(exc)[:3]}.")
        if not sent:
            peer = self._dial.peer or self._name
            why = (
                str(exc)
                if isinstance(exc, httpcore.NetworkError)
                else "closed, or no HTTP, before a tunnel was open"
            )
            kind = UpstreamTLSError if _is_trust(exc) else UpstreamConnectError
            return kind(f"No connection to {peer}: {why}.")
        if isinstance(exc, httpcore.NetworkError):
            return UpstreamDisconnected(f"Connection to {self._name} lost: {exc}.")
        if self._dial.link is not None and self._dial.link.ended:
            return UpstreamDisconnected(f"{self._name} closed the connection before its answer was whole.")
        return UpstreamProtocolError(f"{self._name} sent an answer that is not valid HTTP/1.1.")

    def free(self) -> None:
        """The answer was read to its end, and httpcore has judged whether the connection may go on."""
        self._busy = False

    def close(self) -> None:
        """Close at once. The pool drops what is closed as soon as it looks."""
        self._over = True
        if self._dial.link is not None:
            self._dial.link.close()

    async def aclose(self) -> None:
        self.close()

    def info(self) -> str:
        return self._inner.info()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return self._inner.can_handle_request(origin)

    def is_available(self) -> bool:
        return self.is_idle() and self._inner.is_available()

    def has_expired(self) -> bool:
        return self.is_idle() and (
            self._inner.has_expired() or (self._leftover is not None and self._leftover())
        )

    def is_idle(self) -> bool:
        # httpcore's own state follows some turns of the loop after the pool has chosen a connection.
        return not self._busy and not self.is_closed() and self._inner.is_idle()

    def is_closed(self) -> bool:
        link = self._dial.link
        return self._over or (link is not None and link.closed) or self._inner.is_closed()


class _Progress:
    """httpcore's trace of one request: bounds the opening of a connection, knows when sending begins."""

    def __init__(self, connect_timeout: float) -> None:
        self.sent = False
        self.clock = asyncio.timeout(None)
        self._connect_timeout = connect_timeout

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        if name == "connection.connect_tcp.started":
            self.clock.reschedule(asyncio.get_running_loop().time() + self._connect_timeout)
        elif name == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            self.clock.reschedule(None)
            self.sent = True


class _Body:
    """An answer's body, as the pool hands it on. Once it was read to its end, closing it is a formality."""

    def __init__(self, connection: Connection, response: httpcore.Response, progress: _Progress) -> None:
        self._connection = connection
        self._response = response
        self._progress = progress
        self._finished = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        try:
            async for piece in self._response.aiter_stream():
                yield piece
            connection.check_end(self._response.status)
            await self._response.aclose()
        except BaseException as exc:
            connection.close()
            fault = connection.fault(exc, self._progress)
            if fault is None:
                raise
            raise fault from exc
        self._finished = True
        connection.free()

    async def aclose(self) -> None:
        if not self._finished:
            self._connection.close()


_PARSER: Final = operator.attrgetter("_connection._h11_state")


def _leftover(response: httpcore.Response) -> Callable[[], bool]:
    """Whether bytes are left behind this answer. httpcore has no public word for it, hands such bytes to the
    next request, and keeps h11's parser, which knows of them, private."""
    parser: h11.Connection = _PARSER(response.stream)
    return lambda: bool(parser.trailing_data[0])


def _is_trust(exc: BaseException) -> bool:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__
    return False
