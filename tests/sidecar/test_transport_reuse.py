"""Which connection of either transport carries a request, on asyncio and on uvloop.

Covered: reuse and every reason against it (its answer's framing, bytes left over, staleness, `fresh`), the
bounds on idle connections in number and time, room for another origin, opening: refused, unknown, deaf,
several addresses. Left out: the bound on all connections and who waits, which test_transport_cancel has.
"""

from __future__ import annotations

import asyncio
import socket
import time

import httpx
import pytest

from direct.peers import Peer, Server, Signal, deaf_listener
from direct.transport import EVERY_WAY, OK, Run, always, fetch, pieces, transport
from inference_sidecar.errors import UpstreamConnectError, UpstreamDisconnected
from inference_sidecar.upstream.asyncio_transport import AsyncioTransport
from inference_sidecar.upstream.dial import race
from inference_sidecar.upstream.link import Link

pytestmark = EVERY_WAY


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2),
        (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", 2),
        (OK + b"\r\n", 2),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", 2),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore", 2),
    ],
    ids=["length", "chunked", "204", "close", "1.0", "poison", "blank line", "204 with body", "after chunks"],
)
def test_reuse(run: Run, answer: bytes, connections: int) -> None:
    async def scenario() -> None:
        with Server(always(answer)) as server:
            async with transport() as made:
                for _ in range(2):
                    _, body = await fetch(made, server.url())
                    assert body in (b"ok", b"")
                assert server.accepted == connections

    run(scenario)


@pytest.mark.parametrize("turns", [True, False], ids=["the loop turned", "no turn of the loop"])
@pytest.mark.parametrize("ending", ["close", "reset", "late bytes"])
def test_a_connection_that_went_stale_is_never_used(run: Run, ending: str, turns: bool) -> None:
    ended = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        if peer.number == 1:
            read.wait()
            {
                "close": peer.close,
                "reset": peer.reset,
                "late bytes": lambda: peer.send(b"HTTP/1.1 200 OK\r\n"),
            }[ending]()
            ended.set()
        if ending == "late bytes":
            peer.gone()

    read = Signal()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                assert (await fetch(made, server.url()))[1] == b"ok"
                assert made.connections == 1
                read.set()
                if turns:
                    await ended.seen()
                else:
                    ended.wait()
                assert (await fetch(made, server.url()))[1] == b"ok"
                assert server.accepted == 2

    run(scenario)


def test_a_request_that_asks_for_the_close_is_the_last(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as made:
                request = httpx.Request("GET", server.url(), headers={"Connection": "close"})
                response = await made.handle_async_request(request)
                assert [piece async for piece in pieces(response)] == [b"ok"]
                assert made.connections == 0

    run(scenario)


def test_an_idle_connection_past_its_time_is_not_used_though_nothing_swept_it(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport(keep_alive=0.1) as made:
                await fetch(made, server.url())
                time.sleep(0.15)  # noqa: ASYNC251  the loop must not get its turn
                await fetch(made, server.url())
                assert server.accepted == 2

    run(scenario)


def test_a_reused_connection_that_dies_under_a_request_is_told_with_sent(run: Run) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.head()
        peer.reset()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                await fetch(made, server.url())
                with pytest.raises(UpstreamDisconnected) as caught:
                    await fetch(made, server.url())
                assert caught.value.sent
                assert made.connections == 0

    run(scenario)


def test_fresh_never_takes_a_used_connection_and_leaves_none(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as made:
                await fetch(made, server.url())
                assert (await fetch(made, server.url(), fresh=True))[1] == b"ok"
                assert (server.accepted, made.connections) == (2, 1)
                await fetch(made, server.url())
                assert server.accepted == 2

    run(scenario)


def test_fresh_gets_room_from_an_idle_connection(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport(max_connections=1) as made:
                await fetch(made, server.url())
                request = httpx.Request("GET", server.url(), extensions={"fresh": True})
                response = await made.handle_async_request(request)
                assert made.connections == 1
                await response.aclose()

    run(scenario)


def test_another_origin_gets_room_from_an_idle_connection(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as one, Server(always()) as other:
            async with transport(max_connections=2) as made:
                for server in (one, other, one, other):
                    await fetch(made, server.url())
                assert (one.accepted, other.accepted) == (1, 1)
                response = await made.handle_async_request(httpx.Request("GET", one.url()))
                second = await made.handle_async_request(httpx.Request("GET", one.url()))
                assert made.connections == 2
                await response.aclose()
                await second.aclose()

    run(scenario)


def test_of_idle_connections_as_many_are_kept_as_the_bound_says(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport(max_idle=2) as made:
                requests = [httpx.Request("GET", server.url()) for _ in range(5)]
                responses = await asyncio.gather(*map(made.handle_async_request, requests))
                assert made.connections == 5
                for response in responses:
                    assert [piece async for piece in pieces(response)] == [b"ok"]
                # Ours leaves the rest a moment to be of use to the next requests.
                async with asyncio.timeout(10):
                    while made.connections > 2:
                        await asyncio.sleep(0.01)
                assert made.connections == 2

    run(scenario)


def test_more_requests_than_idle_connections_still_share(run: Run) -> None:
    """Five at a time with two kept: what is given back while others run is taken up again."""

    async def scenario() -> None:
        with Server(always()) as server:
            async with transport(max_idle=2) as made:

                async def worker() -> None:
                    for _ in range(20):
                        await fetch(made, server.url())

                await asyncio.gather(*(worker() for _ in range(5)))
                assert server.accepted < 20
                if isinstance(made, AsyncioTransport):
                    # It closes none that the next request may want.
                    assert server.accepted == 5

    run(scenario)


def test_an_idle_connection_ends_with_its_time_though_no_request_comes(run: Run) -> None:
    gone = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        gone.set(peer.gone())

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(keep_alive=0.1) as made:
                await fetch(made, server.url())
                assert made.connections == 1
                await gone.seen()
                assert made.connections == 0

    run(scenario)


# Opening


def test_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def scenario() -> None:
        async with transport() as made:
            with pytest.raises(
                UpstreamConnectError, match=rf"127\.0\.0\.1:{port}: Connection refused"
            ) as caught:
                await fetch(made, f"http://127.0.0.1:{port}/")
            assert not caught.value.sent
            assert made.connections == 0

    run(scenario)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid"])
def test_unknown_host(run: Run, host: str) -> None:
    async def scenario() -> None:
        async with transport() as made:
            with pytest.raises(UpstreamConnectError, match=host) as caught:
                await fetch(made, f"http://{host}:81/")
            assert not caught.value.sent

    run(scenario)


def test_connect_timeout(run: Run) -> None:
    listener, fillers = deaf_listener()

    async def scenario() -> None:
        async with transport(connect_timeout=0.2) as made:
            began = time.monotonic()
            with pytest.raises(UpstreamConnectError, match=r"within 0\.2 s") as caught:
                await fetch(made, f"http://127.0.0.1:{listener.getsockname()[1]}/")
            assert not caught.value.sent
            assert 0.15 < time.monotonic() - began < 2
            assert made.connections == 0

    try:
        run(scenario)
    finally:
        for sock in (listener, *fillers):
            sock.close()


def test_the_time_to_connect_is_no_time_to_answer(run: Run) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        time.sleep(0.4)  # the passing of time is what is tested
        peer.send(OK)

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(connect_timeout=0.1) as made:
                assert (await fetch(made, server.url()))[1] == b"ok"

    run(scenario)


@pytest.mark.parametrize("first", ["refuses", "is deaf"])
def test_the_second_address_serves_where_the_first_does_not(run: Run, first: str) -> None:
    listener, fillers = deaf_listener()
    port = listener.getsockname()[1]
    if first == "refuses":
        listener.close()

    async def scenario() -> None:
        links: set[Link] = set()
        with Server(always()) as server:
            addresses = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))
                for number in (port, server.port)
            ]
            link = await race(addresses, links)
            assert link.sock.getpeername()[1] == server.port
            await asyncio.sleep(0)  # the loser closes in its own task's next turn
            await asyncio.sleep(0)
            assert links == {link}
            link.close()

    try:
        run(scenario)
    finally:
        for sock in (listener, *fillers):
            sock.close()


def test_ipv6(run: Run) -> None:
    async def scenario() -> None:
        with Server(always(), host="::1") as server:
            async with transport() as made:
                assert (await fetch(made, f"http://{server.authority}/"))[1] == b"ok"

    run(scenario)
