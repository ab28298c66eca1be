"""A transport when its caller is cancelled, on asyncio and on uvloop.

Covered: cancellation at each phase, with the close seen by the server and timed; a second cancellation on the
heels of the first; an answer closed before its end; the bound on connections, who waits for a place and in
which order, and that no place is lost in hundreds of cancelled requests.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from direct.peers import Peer, Server, Signal, deaf_listener
from direct.transport import EVERY_WAY, OK, Run, Upload, always, fetch, pieces, transport, upload
from inference_sidecar.upstream.transport import PoolTransport

pytestmark = EVERY_WAY

CLOSED_WITHIN_S = 0.1
SIZE = 50 * 1024 * 1024
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"

Part = Callable[[Peer, Signal], None]


async def cancelled(task: asyncio.Task[object], *, twice: bool) -> float:
    """Cancel and wait for it; returns when the cancellation was asked for."""
    began = time.monotonic()
    task.cancel()
    if twice:
        asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    return began


class Stalled(httpx.AsyncByteStream):
    """A body whose second piece never comes."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.get_running_loop().create_future()


def _handshaking(peer: Peer, here: Signal) -> None:
    peer.sock.recv(65536)
    here.set()


def _taking_nothing(peer: Peer, here: Signal) -> None:
    peer.head()
    here.set()
    sent.wait()


def _silent(peer: Peer, here: Signal) -> None:
    peer.head()
    here.set()


def _half_a_head(peer: Peer, here: Signal) -> None:
    peer.head()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-")
    here.set()


def _beginning(peer: Peer, here: Signal) -> None:
    peer.head()
    peer.send(CHUNKS)
    here.set()


sent = Signal()
sent.set()

PHASES: dict[str, tuple[Part, Callable[[str], httpx.Request]]] = {
    "handshake": (_handshaking, lambda url: httpx.Request("GET", url.replace("http:", "https:"))),
    "sending": (_taking_nothing, lambda url: upload(url, Upload(SIZE), SIZE)),
    "the app's body": (_silent, lambda url: upload(url, Stalled(), 9)),
    "waiting": (_silent, lambda url: httpx.Request("GET", url)),
    "half a head": (_half_a_head, lambda url: httpx.Request("GET", url)),
    "body": (_beginning, lambda url: httpx.Request("GET", url)),
}


@pytest.mark.parametrize("fresh", [False, True], ids=["pooled", "fresh"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("phase", PHASES)
def test_the_server_sees_the_close_at_once(run: Run, phase: str, twice: bool, fresh: bool) -> None:
    play, ask = PHASES[phase]

    async def scenario() -> None:
        here, gone = Signal(), Signal()

        def part(peer: Peer) -> None:
            if peer.number > 1:
                always()(peer)
                return
            play(peer, here)
            gone.set(peer.gone())

        async def use(made: httpx.AsyncBaseTransport, request: httpx.Request) -> None:
            response = await made.handle_async_request(request)
            async for _ in pieces(response):
                pass

        with Server(part) as server:
            async with transport(max_connections=1, ssl_context=ssl.create_default_context()) as made:
                request = ask(server.url())
                request.extensions["fresh"] = fresh
                task = asyncio.ensure_future(use(made, request))
                await here.seen()
                await settled()
                began = await cancelled(task, twice=twice)
                assert made.connections == 0
                assert await gone.seen() - began < CLOSED_WITHIN_S
                assert (await fetch(made, server.url()))[1] == b"ok"

    run(scenario)


async def settled() -> None:
    """What has arrived in the kernel has been taken up by the loop."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_cancelled_while_connecting(run: Run) -> None:
    listener, fillers = deaf_listener()

    async def scenario() -> None:
        async with transport(max_connections=1) as made:
            for _ in range(3):
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
                task = asyncio.ensure_future(fetch(made, url))
                await settled()
                assert made.connections == 1
                await cancelled(task, twice=False)
                assert made.connections == 0

    try:
        run(scenario)
    finally:
        for sock in (listener, *fillers):
            sock.close()


def test_cancelled_while_a_name_is_looked_up(run: Run) -> None:
    async def scenario() -> None:
        async with transport(max_connections=1) as made:
            task = asyncio.ensure_future(fetch(made, "http://localhost:9/"))
            await asyncio.sleep(0)
            await cancelled(task, twice=False)
            assert made.connections == 0
            with Server(always()) as server:
                assert (await fetch(made, server.url()))[1] == b"ok"

    run(scenario)


@pytest.mark.parametrize("after", [0, 1], ids=["unread", "in its middle"])
def test_an_answer_closed_before_its_end(run: Run, after: int) -> None:
    gone = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        if peer.number > 1:
            peer.send(OK)
            return
        peer.send(CHUNKS)
        gone.set(peer.gone())

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(max_connections=1) as made:
                response = await made.handle_async_request(httpx.Request("GET", server.url()))
                body = pieces(response)
                for _ in range(after):
                    assert await anext(body) == b"first"
                began = time.monotonic()
                await response.aclose()
                await response.aclose()
                assert made.connections == 0
                assert await gone.seen() - began < CLOSED_WITHIN_S
                assert (await fetch(made, server.url()))[1] == b"ok"

    run(scenario)


def test_who_comes_past_the_bound_waits_in_order(run: Run) -> None:
    async def scenario() -> None:
        order: list[int] = []

        with Server(always()) as server:
            async with transport(max_connections=1) as made:
                held = await made.handle_async_request(httpx.Request("GET", server.url()))

                async def late(number: int) -> None:
                    await fetch(made, server.url())
                    order.append(number)

                tasks = [asyncio.ensure_future(late(number)) for number in range(4)]
                await settled()
                assert (made.connections, order) == (1, [])
                await cancelled(tasks[1], twice=False)
                assert [piece async for piece in pieces(held)] == [b"ok"]
                await asyncio.gather(tasks[0], *tasks[2:])
                assert order == [0, 2, 3]
                assert server.accepted == 1

    run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_no_place_is_lost_in_cancelled_requests(run: Run, seed: int) -> None:
    """Two hundred requests on four places, each cancelled wherever it happens to be, some of them twice."""
    chance = random.Random(seed)
    most = 0

    async def scenario() -> None:
        nonlocal most
        with Server(always()) as server:
            async with transport(max_connections=4, max_idle=2) as made:

                async def one() -> None:
                    nonlocal most
                    fresh = chance.random() < 0.3
                    request = httpx.Request("GET", server.url(), extensions={"fresh": fresh})
                    response = await made.handle_async_request(request)
                    most = max(most, made.connections)
                    try:
                        async for _ in pieces(response):
                            await asyncio.sleep(0)
                    finally:
                        await response.aclose()

                tasks = [asyncio.ensure_future(one()) for _ in range(200)]
                for task in tasks:
                    for _ in range(chance.randrange(12)):
                        await asyncio.sleep(0)
                    task.cancel()
                    if chance.random() < 0.5:
                        await asyncio.sleep(0)
                        task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(result, asyncio.CancelledError | None) for result in results)
                assert made.connections <= 4
                held = [await made.handle_async_request(httpx.Request("GET", server.url())) for _ in range(4)]
                assert made.connections == 4
                for response in held:
                    assert [piece async for piece in pieces(response)] == [b"ok"]
                if isinstance(made, PoolTransport):
                    assert made._pool._requests == []
                    assert len(made._pool.connections) <= 4
                else:
                    async with asyncio.timeout(10):  # it leaves what is beyond the bound a moment
                        while made.connections > 2:
                            await asyncio.sleep(0.01)
                    assert (made.usage, len(made._connections.open)) == ((0, 2), 2)

    run(scenario)
    assert most <= 4
