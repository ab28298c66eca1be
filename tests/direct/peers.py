"""Servers that say exactly the bytes a test wants, each connection in a thread of its own on blocking sockets.

Enters: a function that plays the server's part on one connection. Leaves: what that function does, and when
the other side went away. Independent of any event loop, so that what is tested on two loops meets the same
peer. Must not parse more than the end of a request's head.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PATIENCE_S = 10.0
"""Nothing in a test takes this long; what waits longer has failed."""


class Signal:
    """Something that happens once in a server's thread, with a value, awaited by a test."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def set(self, value: Any = None) -> None:
        self._future.set_result(value)

    @property
    def happened(self) -> bool:
        return self._future.done()

    def wait(self) -> Any:
        return self._future.result(PATIENCE_S)

    async def seen(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.wrap_future(self._future)


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._buffer = b""

    def head(self) -> bytes:
        """One request's head, blank line included; b"" where the client is gone."""
        while b"\r\n\r\n" not in self._buffer:
            piece = self.sock.recv(65536)
            if not piece:
                return b""
            self._buffer += piece
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def take(self, size: int) -> int:
        """Read and drop `size` bytes of a body; returns how many came."""
        taken = min(size, len(self._buffer))
        self._buffer = self._buffer[taken:]
        while taken < size and (piece := self.sock.recv(min(size - taken, 1 << 20))):
            taken += len(piece)
        return taken

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def tls(self, context: ssl.SSLContext) -> None:
        self.sock = context.wrap_socket(self.sock, server_side=True, suppress_ragged_eofs=False)

    def close(self) -> None:
        """FIN, or RST where something is unread; under TLS without its own word."""
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def gone(self) -> float:
        """Read until the client is gone; returns when that was seen (`time.monotonic`)."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.sock.recv(1 << 20):
                pass
        return time.monotonic()


class Server:
    """Listens on loopback and plays `part` on each connection. What `part` raises, the test raises at its end,
    but for a lost connection."""

    def __init__(
        self, part: Callable[[Peer], None], *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.accepted = 0
        self._part = part
        self._tls = tls
        self._host = host
        self._socks: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, 0), family=family, backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        if self._failures and failure[0] is None:
            raise self._failures[0]

    @property
    def authority(self) -> str:
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    def url(self, path: str = "/v1/x", host: str | None = None) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host or self._host}:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            # What was sent has left: held back, it would arrive after the next request, as that one's answer.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self._socks.add(sock)
            thread = threading.Thread(target=self._play, args=(Peer(sock, self.accepted),))
            self._threads.append(thread)
            thread.start()

    def _play(self, peer: Peer) -> None:
        raw = peer.sock
        try:
            if self._tls is not None:
                peer.tls(self._tls)
            self._part(peer)
        except OSError as exc:
            if isinstance(exc, TimeoutError):
                self._failures.append(exc)
        except Exception as exc:  # noqa: BLE001  the edge of a thread: the test raises it at its end
            self._failures.append(exc)
        finally:
            self._socks.discard(raw)
            peer.sock.close()
            raw.close()


def deaf_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket whose queue is full: connecting to it neither succeeds nor fails."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


def open_files() -> set[tuple[str, str]]:
    """Descriptors that this process holds, each with what it is of."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one of the listing itself
            found.add((entry.name, str(entry.readlink())))
    return found
