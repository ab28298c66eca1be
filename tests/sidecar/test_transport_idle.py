"""AsyncioTransport's idle connections, on asyncio and on uvloop: let go in time, and never confused with the next.

Covered: an end or a word of the peer while nobody asks; how long a peer keeps them; an answer that nobody read; a
reused connection that dies. Left out: reuse as both transports promise it (test_transport_reuse).
"""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest
import trustme

from direct.peers import Peer, Server, Signal
from direct.transport import OK, OURS, Run, always, fetch, pieces, transport
from inference_sidecar.errors import UpstreamDisconnected

pytestmark = OURS

CA = trustme.CA()
SERVING, TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
CA.issue_cert("127.0.0.1").configure_cert(SERVING)
CA.configure_trust(TRUSTING)

plain_and_tls = pytest.mark.parametrize("tls", [None, SERVING], ids=["plain", "tls"])


@pytest.mark.parametrize("ending", ["close", "reset", "speak"])
@plain_and_tls
def test_an_idle_connection_that_ends_is_let_go_though_no_request_comes(
    run: Run, ending: str, tls: ssl.SSLContext | None
) -> None:
    read, ended = Signal(), Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        read.wait()
        if ending == "speak":
            peer.send(b"!")
        else:
            getattr(peer, ending)()
        ended.set()
        if ending == "speak":
            peer.gone()

    async def scenario() -> None:
        with Server(part, tls=tls) as server:
            async with transport(ssl_context=TRUSTING) as made:
                await fetch(made, server.url())
                assert made.usage == (0, 1)
                read.set()
                await ended.seen()
                async with asyncio.timeout(1):
                    while made.connections:
                        await asyncio.sleep(0.001)
                assert made.usage == (0, 0)

    run(scenario)


@pytest.mark.parametrize(
    ("says", "connections"),
    [(b"timeout=1", 2), (b"timeout=0, max=5", 2), (b"timeout=60", 1), (b"max=5", 1), (b"timeout=never", 1)],
)
def test_a_connection_is_given_up_before_its_peer_does(run: Run, says: bytes, connections: int) -> None:
    async def scenario() -> None:
        answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: %b\r\nContent-Length: 2\r\n\r\nok" % says
        with Server(always(answer)) as server:
            async with transport() as made:
                await fetch(made, server.url())
                await fetch(made, server.url())
                assert server.accepted == connections

    run(scenario)


def test_the_shortest_of_several_times_is_kept(run: Run) -> None:
    def part(peer: Peer) -> None:
        while head := peer.head():
            seconds = b"2" if head.startswith(b"GET /short") else b"60"
            peer.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=%b\r\nContent-Length: 2\r\n\r\nok" % seconds)

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(keep_alive=20.0) as made:
                requests = [httpx.Request("GET", server.url(path)) for path in ("/long", "/short")]
                for response in await asyncio.gather(*map(made.handle_async_request, requests)):
                    await anext(pieces(response))
                assert made.usage == (0, 2)
                async with asyncio.timeout(1.8):
                    while made.usage == (0, 2):
                        await asyncio.sleep(0.01)
                assert made.usage == (0, 1)

    run(scenario)


@plain_and_tls
def test_an_answer_that_nobody_read_is_not_read_by_the_next(run: Run, tls: ssl.SSLContext | None) -> None:
    """It had come whole, so that its connection may go on."""

    def part(peer: Peer) -> None:
        for body in (b"one", b"two"):
            peer.head()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body)

    async def scenario() -> None:
        with Server(part, tls=tls) as server:
            async with transport(ssl_context=TRUSTING) as made:
                response = await made.handle_async_request(httpx.Request("GET", server.url()))
                await response.aclose()
                assert made.usage == (0, 1)
                assert (await fetch(made, server.url()))[1] == b"two"
                assert server.accepted == 1

    run(scenario)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_used_connection_that_dies_says_so(run: Run, how: str) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        if peer.number == 1:
            peer.send(OK)
            peer.head()
        getattr(peer, how)()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                await fetch(made, server.url())
                for used in (True, False):
                    with pytest.raises(UpstreamDisconnected) as caught:
                        await fetch(made, server.url())
                    assert ("had served requests before" in str(caught.value)) is used

    run(scenario)


def test_connections_that_are_let_go_at_once(run: Run) -> None:
    """A timer that is due in less than a millisecond is none on uvloop, which calls at the next turn."""

    async def scenario() -> None:
        with Server(always()) as server:
            async with transport(keep_alive=0.0004) as made:
                for _ in range(20):
                    answers = await asyncio.gather(*(fetch(made, server.url()) for _ in range(8)))
                    assert [body for _, body in answers] == [b"ok"] * 8
                await asyncio.sleep(0.05)
                assert made.connections == 0

    run(scenario)
