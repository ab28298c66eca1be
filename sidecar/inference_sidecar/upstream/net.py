"""The network backend under httpcore's pool: names and addresses in, connected streams out.

Enters: a host and a port, what httpcore wants sent. Leaves: a connected `Stream`, or httpcore's own errors.
Must not know HTTP, but for one glance: an upstream that refuses an upload while it is still going up is
heard, and the upload stops.

Opening that fails or is cancelled leaves no socket; an open one is closed by whoever holds it. httpcore's
`timeout` parameters are not looked at: the caller has the clock.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any, Final

import httpcore
from typing_extensions import override

from .link import CHUNK, Layer, Link, Secure

ATTEMPT_DELAY_S: Final = 0.25
"""Head start of one address before the next is tried beside it (RFC 8305)."""

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
            return self._layer.tls if isinstance(self._layer, Secure) else None
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
            self.link = await _race(await _addresses(unbracketed(host), port), self._links)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(reason(exc)) from exc
        return Stream(self.link, self.link)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def reason(exc: OSError | UnicodeError) -> str:
    """Why, in words that name no content: certificates and errno only."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "TLS error").replace("_", " ").lower()
    if isinstance(exc, UnicodeError):
        return "not a valid host name"
    if exc.errno == errno.EBADF:
        return "closed by the sidecar"
    return exc.strerror or (str(exc.args[0]) if exc.args else "connection lost")


def unbracketed(host: str) -> str:
    """`::1` of `[::1]`: proxies are named an IPv6 address with its brackets, sockets without."""
    return host[1:-1] if host.startswith("[") else host


async def _addresses(host: str, port: int) -> list[Any]:
    """`getaddrinfo` in the order in which to try: families alternate, the resolver's first one leads."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [info for info in found if info[0] == found[0][0]]
    second = [info for info in found if info[0] != found[0][0]]
    return [info for info in chain.from_iterable(zip_longest(first, second)) if info is not None]


async def _race(addresses: list[Any], links: set[Link]) -> Link:
    """The first link that opens. Raises the first OSError where none does."""
    if len(addresses) == 1:
        return await _open(addresses[0], links)
    waiting = deque(addresses)
    running: set[asyncio.Task[Link]] = set()
    losers: set[asyncio.Task[Link]] = set()
    failure: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_open(waiting.popleft(), links)))
            delay = ATTEMPT_DELAY_S if waiting else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            losers = done
            for task in done:
                if task.exception() is None:
                    losers = done - {task}
                    return task.result()
                failure = failure or task.exception()
    finally:
        for task in running | losers:
            task.add_done_callback(_discard)
            task.cancel()
    raise failure or OSError("no address")


async def _open(info: tuple[int, int, int, str, Any], links: set[Link]) -> Link:
    link = Link(info[0], info[1], info[2], links)
    await link.connect(info[4])
    return link


def _discard(task: asyncio.Task[Link]) -> None:
    """A link that opened although another had won is of no use."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _interim_bytes(data: bytearray) -> int:
    """Length of the complete 1xx answers at the start."""
    end = 0
    while (interim := _INTERIM.match(data, end)) is not None:
        end = interim.end()
    return end
