"""Everything that a test saw come out of a sidecar, and the keys that must not be in it.

Enters: bytes of answers and of process output, each with a word about where they came from. Leaves: the
places in which a key was found, never the key. Must not be told of the upstream: the key belongs there.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import AsyncIterator, Iterator

import httpx2

PREFIX = "sk-canary-"


class Evidence:
    """Collects from any thread; checked after each test and at the end of the session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needles: list[bytes] = []
        self._unread: list[tuple[str, bytearray]] = []
        self.scanned_bytes = 0

    def new_key(self) -> str:
        """A key that occurs nowhere else, and from now on is looked for, plain and in base64."""
        secret = secrets.token_hex(16)
        with self._lock:
            self._needles.append(secret.encode())
            # Three alignments: base64 of a text that holds the secret depends on where it begins.
            for lead in range(3):
                coded = base64.b64encode(b"x" * lead + secret.encode()).rstrip(b"=")
                self._needles.append(coded[4:-3])
        return PREFIX + secret

    def channel(self, source: str) -> bytearray:
        """A buffer that one sender fills in order, so that a key split between two reads is seen whole."""
        buffer = bytearray()
        with self._lock:
            self._unread.append((source, buffer))
        return buffer

    def add(self, source: str, data: bytes) -> None:
        """One piece that is whole in itself."""
        self.channel(source).extend(data)

    def leaks(self) -> list[str]:
        """Sources in which a key was found since the last call."""
        with self._lock:
            unread, self._unread = self._unread, []
            needles = list(self._needles)
        found = []
        for source, buffer in unread:
            data = bytes(buffer)
            self.scanned_bytes += len(data)
            if any(needle in data for needle in needles):
                found.append(source)
        return found


EVIDENCE = Evidence()


class _Tap(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, inner: object, buffer: bytearray) -> None:
        self._inner = inner
        self._buffer = buffer

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._inner, httpx2.SyncByteStream)
        for part in self._inner:
            self._buffer.extend(part)
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._inner, httpx2.AsyncByteStream)
        async for part in self._inner:
            self._buffer.extend(part)
            yield part

    def close(self) -> None:
        assert isinstance(self._inner, httpx2.SyncByteStream)
        self._inner.close()

    async def aclose(self) -> None:
        assert isinstance(self._inner, httpx2.AsyncByteStream)
        await self._inner.aclose()


def _tapped(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    buffer = EVIDENCE.channel(f"{request.method} {request.url.path}")
    for name, value in response.headers.raw:
        buffer.extend(name + b": " + value + b"\n")
    response.stream = _Tap(response.stream, buffer)
    return response


class TapTransport(httpx2.HTTPTransport):
    """the SDK's own transport, with what comes back kept as evidence: for the official SDK."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return _tapped(request, super().handle_request(request))


class AsyncTapTransport(httpx2.AsyncHTTPTransport):
    """The same for the SDK's async clients."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return _tapped(request, await super().handle_async_request(request))
