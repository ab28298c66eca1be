"""One socket, and TLS over it: bytes in, bytes out, on asyncio and uvloop alike.

Enters: an address, bytes to send. Leaves: bytes received, or OSError.
Must not know HTTP, nor who uses it.

The law of this room: what a failing send leaves behind stays readable. asyncio's own transports throw unread
bytes away as soon as a write fails, and with them the answer of an upstream that refused a body and closed.
So sending and receiving share nothing here but the file descriptor. There are no timeouts: the caller has
them, cancels, and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from .session import Session

CHUNK: Final = 64 * 1024
"""Bytes received at once."""
TLS_PIECE: Final = 128 * 1024
"""Plaintext encrypted at once: bounds the copy that encryption makes, and the time without the loop."""
STREAK: Final = 16
"""Operations without a wait after which the loop gets its turn."""

Hear = Callable[[bytes], bool] | None
"""Takes what arrived while a send was blocked, b"" for the end of input. Returns whether to go on listening,
or raises to stop sending. None: do not listen."""


class Link:
    """One socket. `ended`: the end of its input was handed up; `broken`: a send failed."""

    def __init__(self, family: int, kind: int, protocol: int, links: set[Link]) -> None:
        """`links` is where this link is listed for as long as it is open."""
        self.sock = socket.socket(family, kind, protocol)
        self.sock.setblocking(False)
        self.ended = False
        self.broken = False
        self._links = links
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._streak = 0
        links.add(self)

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    @property
    def ready(self) -> bool:
        """Whether a receive would return at once, be it with bytes, the end or an error."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def connect(self, address: Any) -> None:
        """Raises OSError. The socket is closed unless this returns."""
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.sock.connect(address)
            except BlockingIOError:
                await self._until(read=False, write=True)
                error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error)) from None
        except BaseException:
            self.close()
            raise

    async def receive(self, size: int) -> bytes:
        while True:
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                await self._until(read=True, write=False)
            else:
                await self._fairly()
                return data

    async def send(self, data: bytes, hear: Hear) -> None:
        """Send all of it. While the peer takes nothing, what it says meanwhile is given to `hear`."""
        view = memoryview(data)
        while view:
            try:
                sent = self.sock.send(view)
            except BlockingIOError:
                await self._until(read=hear is not None, write=True)
                if hear is not None and not self._heard(hear):
                    hear = None
            else:
                view = view[sent:]
                await self._fairly()

    def close(self) -> None:
        """Close at once. Who waits on this link wakes up and fails."""
        if self.closed:
            return
        self._unwatch()
        self._links.discard(self)
        self.sock.close()
        if self._waiter is not None:
            _wake(self._waiter)

    def _heard(self, hear: Callable[[bytes], bool]) -> bool:
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return True
        return hear(data)

    async def _until(self, *, read: bool, write: bool) -> None:
        self._streak = 0
        self._waiter = self._loop.create_future()
        if read:
            self._loop.add_reader(self.sock, _wake, self._waiter)
        if write:
            self._loop.add_writer(self.sock, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._unwatch()

    def _unwatch(self) -> None:
        if not self.closed:
            self._loop.remove_reader(self.sock)
            self._loop.remove_writer(self.sock)

    async def _fairly(self) -> None:
        """A peer as fast as we are must not keep everybody else from the loop."""
        self._streak += 1
        if self._streak >= STREAK:
            self._streak = 0
            await asyncio.sleep(0)


class Layer(Protocol):
    """What a stream speaks through: the link itself, or TLS over another layer."""

    @property
    def ready(self) -> bool: ...

    async def receive(self, size: int) -> bytes: ...

    async def send(self, data: bytes, hear: Hear) -> None: ...


class Secure:
    """TLS over a layer (over TLS again, where an https proxy carries an https upstream).

    `receive` and `send` wait on the layer. Once the handshake is done, whoever has the layer may use `session`
    in their place.
    """

    def __init__(self, lower: Layer, context: ssl.SSLContext, host: str) -> None:
        self._lower = lower
        self.session = Session(context, host)
        self._tls = self.session.tls

    @property
    def ready(self) -> bool:
        return self.session.pending or self._lower.ready

    async def handshake(self) -> None:
        """Raises ssl.SSLError where there is no trust, another OSError where the peer went away."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(None)
                await self._feed()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush(None)  # the alert, so that the peer's log can say why as well
                raise
            else:
                await self._flush(None)
                return

    async def receive(self, size: int) -> bytes:
        """Raises OSError where input ends without TLS's own word for it: that may be a cut by anyone."""
        while True:
            if self.session.failure is not None:
                raise self.session.failure
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                await self._feed()

    async def send(self, data: bytes, hear: Hear) -> None:
        view = memoryview(data)

        def listen(raw: bytes) -> bool:
            return hear is not None and self._heard(raw, hear)

        while view:
            try:
                view = view[self._tls.write(view[:TLS_PIECE]) :]
            except ssl.SSLWantReadError:
                await self._feed()
            await self._flush(listen)

    async def _flush(self, hear: Hear) -> None:
        if self.session.outgoing.pending:
            await self._lower.send(self.session.outgoing.read(), hear)

    async def _feed(self) -> None:
        raw = await self._lower.receive(CHUNK)
        if not raw:
            raise ConnectionResetError("closed without the end of TLS")
        self.session.incoming.write(raw)

    def _heard(self, raw: bytes, hear: Callable[[bytes], bool]) -> bool:
        if not raw:
            return False  # `receive` meets the same end again, and judges it
        self.session.incoming.write(raw)
        plain = bytearray()
        try:
            while piece := self._tls.read(CHUNK):
                plain += piece
        except ssl.SSLWantReadError:
            return hear(bytes(plain)) if plain else True
        except ssl.SSLError as exc:
            self.session.failure = exc  # OpenSSL says it once; `receive` has to say it too
            if plain:
                hear(bytes(plain))
            raise
        if plain:
            hear(bytes(plain))
        return False


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
