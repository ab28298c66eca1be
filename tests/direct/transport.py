"""Either transport on either event loop, and the small words in which their tests are written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
import uvloop

from inference_sidecar.outbox import outbox_of
from inference_sidecar.upstream.asyncio_transport import AsyncioTransport
from inference_sidecar.upstream.transport import PoolTransport

from .peers import Peer, open_files

Transport = PoolTransport | AsyncioTransport
Scenario = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]

LEFT_SECS = 5.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


_KIND: ContextVar[type[Transport]] = ContextVar("_KIND")


def _none_left(before: set[tuple[str, str]]) -> None:
    """Servers of other tests are in this process, too: their threads may open something, or close it, meanwhile."""
    deadline = time.monotonic() + LEFT_SECS
    while left := open_files() - before:
        assert time.monotonic() < deadline, f"file descriptors were left: {left}"
        time.sleep(0.02)


def _runner(new_loop: Callable[[], asyncio.AbstractEventLoop], kind: type[Transport], others: int) -> Run:
    def run(scenario: Scenario) -> None:
        new_loop().close()  # libuv keeps a pipe for signals from its first loop on
        before = open_files()
        token = _KIND.set(kind)
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                outbox_of(runner.get_loop()).open = others
                runner.run(scenario())
        finally:
            _KIND.reset(token)
        _none_left(before)

    return run


def _ways(*kinds: type[Transport]) -> dict[str, Run]:
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    ways = {
        f"{kind.__name__}-{name}": _runner(new_loop, kind, 0)
        for kind in kinds
        for name, new_loop in loops.items()
    }
    if AsyncioTransport in kinds:
        # What it sends waits for the end of the turn where other requests are being served.
        ways["AsyncioTransport-uvloop-busy"] = _runner(uvloop.new_event_loop, AsyncioTransport, 2)
    return ways


_STOCK = _ways(PoolTransport)
_OURS = _ways(AsyncioTransport)

EVERY_WAY = pytest.mark.parametrize("run", [*_STOCK.values(), *_OURS.values()], ids=[*_STOCK, *_OURS])
"""Gives a test `run`, which runs a scenario with each transport on each kind of loop and misses no file
descriptor. `transport()` in the scenario is the one that is meant."""
STOCK = pytest.mark.parametrize("run", _STOCK.values(), ids=_STOCK)
"""The same for what is peculiar to PoolTransport."""
OURS = pytest.mark.parametrize("run", _OURS.values(), ids=_OURS)
"""The same for what is peculiar to AsyncioTransport."""


@contextlib.asynccontextmanager
async def transport(**changes: Any) -> AsyncIterator[Any]:
    settings: dict[str, Any] = {
        "ssl_context": None,
        "connect_timeout": 5.0,
        "keep_alive": 30.0,
        "max_idle": 10,
        "max_connections": 10,
    }
    made = _KIND.get()(**settings | changes)
    try:
        yield made
    finally:
        await made.aclose()
        assert made.connections == 0


def pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return aiter(response.stream)


async def fetch(
    through: httpx.AsyncBaseTransport, url: str, method: str = "GET", **extensions: Any
) -> tuple[httpx.Response, bytes]:
    response = await through.handle_async_request(httpx.Request(method, url, extensions=extensions))
    return response, b"".join([piece async for piece in pieces(response)])


class Upload(httpx.AsyncByteStream):
    """A body of `size` bytes that never lies in memory as a whole."""

    def __init__(self, size: int) -> None:
        self.left = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        piece = bytes(64 * 1024)
        while self.left:
            size = min(self.left, len(piece))
            self.left -= size
            yield piece[:size]


def upload(url: str, body: httpx.AsyncByteStream, size: int) -> httpx.Request:
    host = httpx.URL(url).netloc
    return httpx.Request("POST", url, headers={b"Host": host, b"Content-Length": b"%d" % size}, stream=body)


def always(answer: bytes = OK, heads: list[bytes] | None = None) -> Callable[[Peer], None]:
    """Every request on every connection gets `answer`; its head goes to `heads`."""

    def part(peer: Peer) -> None:
        while head := peer.head():
            if heads is not None:
                heads.append(head)
            peer.send(answer)

    return part
