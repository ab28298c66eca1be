"""The network backend under httpcore's pool: names and addresses in, connected streams out.

Enters: a host and a port, what httpcore wants sent. Leaves: a connected `Stream`, or httpcore's own errors.
Must not know HTTP, but for one glance: an upstream that refuses an upload while it is still going up is
heard, and the upload stops.

Opening that fails or is cancelled leaves no socket; an open one is closed by whoever holds it. httpcore's
`timeout` parameters are not looked at: the caller has the clock.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore
from typing_extensions import override

from .dial import dial, reason, unbracketed
from .link import CHUNK, Layer, Link, Secure

_INTERIM: Final = re.compile(rb"HTTP/1\.\d 1\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")
_VERDICT: Final = re.compile(rb"HTTP/1\.\d (\d)")
_VERDICT_BYTES: Final = 10


class Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore sees it."""

    def __init__(self, link: Link, layer: Layer) -> None:
        self._link = link
        self._layer = layer
        self._early = bytearray()
        self._eof = False

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Bytes, b"" at the end. Raises httpcore.ReadError."""
        if self._early:
            data = bytes(self._early[:max_bytes])
            del self._early[:max_bytes]
            return data
        try:
            data = b"" if self._eof else await self._layer.receive(max_bytes)
        except OSError as exc:
            raise httpcore.ReadError(reason(exc)) from exc
        self._link.ended = not data
        return data

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raises httpcore.WriteError, after which reading goes on to give what had arrived."""
        try:
            await self._layer.send(buffer, self._hear)
        except OSError as exc:
            self._link.broken = True
            raise httpcore.WriteError(reason(exc)) from exc

    @override
    async def aclose(self) -> None:
        """Never suspends, so that no cancellation can come in between."""
        self._link.close()

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """Raises httpcore.ConnectError, caused by ssl.SSLError where it is a matter of trust."""
        try:
            layer = Secure(self._layer, ssl_context, unbracketed(server_hostname or ""))
            await layer.handshake()
        except OSError as exc:
            self._link.close()
            raise httpcore.ConnectError(f"TLS handshake: {reason(exc)}") from exc
        except BaseException:
            self._link.close()
            raise
        return Stream(self._link, layer)

    @override
    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return bool(self._early) or self._layer.ready
        if info == "ssl_object":
            return self._layer.session.tls if isinstance(self._layer, Secure) else None
        if info == "client_addr":
            return self._link.sock.getsockname()
        if info == "server_addr":
            return self._link.sock.getpeername()
        return self._link.sock if info == "socket" else None

    def _hear(self, data: bytes) -> bool:
        """An answer of 400 or more says that nobody wants the rest of the body; any other may go with it."""
        self._early += data
        if not data:
            self._eof = True
            return False
        start = _interim_bytes(self._early)
        begun = bytes(self._early[start : start + _VERDICT_BYTES])
        verdict = _VERDICT.match(begun)
        if verdict is not None and verdict[1] in b"45":
            raise httpcore.WriteError("answered before the request was sent")
        undecided = len(begun) < _VERDICT_BYTES or (verdict is not None and verdict[1] == b"1")
        return undecided and len(self._early) < CHUNK


class Dial(httpcore.AsyncNetworkBackend):
    """Opens the one link of one connection. `peer` is the host and port that were asked for."""

    def __init__(self, links: set[Link]) -> None:
        self.peer = ""
        self.link: Link | None = None
        self._links = links

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> Stream:
        """Raises httpcore.ConnectError."""
        self.peer = f"{host}:{port}"
        try:
            self.link = await dial(host, port, self._links)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(reason(exc)) from exc
        return Stream(self.link, self.link)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _interim_bytes(data: bytearray) -> int:
    """Length of the complete 1xx answers at the start."""
    end = 0
    while (interim := _INTERIM.match(data, end)) is not None:
        end = interim.end()
    return end
