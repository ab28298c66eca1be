"""AsyncioTransport and peers that misbehave, on asyncio and on uvloop.

Covered: every misframed answer over plain sockets and TLS, and that the next request is not touched by it; random
damage with the connection left open, closed and reset; back-pressure both ways, by what is held and by what the peer
gets rid of; TLS records that come at odd times; requests whose body is not what their head says. Left out: idle
connections (test_transport_idle), and what both transports promise, which the other files have.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from direct.misframed import BODY_FAULTS, CHUNKED, HEAD_FAULTS
from direct.peers import Peer, Server, Signal
from direct.transport import OK, OURS, Run, Upload, always, fetch, pieces, transport, upload
from inference_sidecar.errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
)
from inference_sidecar.upstream import asyncio_transport
from inference_sidecar.upstream.connection import HIGH_WATER
from inference_sidecar.upstream.link import CHUNK

pytestmark = OURS

MIB = 1024 * 1024
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

CA = trustme.CA()
SERVING, TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
CA.issue_cert("127.0.0.1").configure_cert(SERVING)
CA.configure_trust(TRUSTING)

plain_and_tls = pytest.mark.parametrize("tls", [None, SERVING], ids=["plain", "tls"])

FAULTS = {
    **{name: (data, b"") for name, data in HEAD_FAULTS.items()},
    **{f"body: {name}": (CHUNKED + data, body) for name, (data, body) in BODY_FAULTS.items()},
}


async def filled(taken: list[int], count: int) -> None:
    """A peer's thread may come to its part after the test has."""
    async with asyncio.timeout(5):
        while len(taken) < count:
            await asyncio.sleep(0.005)


@plain_and_tls
@pytest.mark.parametrize(("data", "before"), FAULTS.values(), ids=FAULTS)
def test_misframed(run: Run, data: bytes, before: bytes, tls: ssl.SSLContext | None) -> None:
    """The connection stays open, so that only its bytes can tell; poison lies behind them."""

    def part(peer: Peer) -> None:
        peer.head()
        if peer.number > 1:
            peer.send(OK)
            return
        peer.send(data)
        if b"\r\n\r\n" in data[-400:]:
            peer.send(POISON)
        peer.gone()

    async def scenario() -> None:
        with Server(part, tls=tls) as server:
            async with transport(ssl_context=TRUSTING, max_connections=1) as made:
                got = bytearray()

                async def read() -> None:
                    response = await made.handle_async_request(httpx.Request("GET", server.url()))
                    async for piece in pieces(response):
                        got.extend(piece)

                with pytest.raises(UpstreamProtocolError, match=r"not valid HTTP/1\.1: \w") as caught:
                    await asyncio.wait_for(read(), 5)
                assert (got, caught.value.sent, made.connections) == (before, True, 0)
                assert (await fetch(made, server.url()))[1] == b"ok"

    run(scenario)


VALID = [
    b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 12\r\n\r\nhello, world",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nT: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nhello, world",
    b"HTTP/1.0 200 OK\r\n\r\nhello, world",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        what = draw(
            st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b" ", b"0", b"f", b":", b";"])
            | st.binary(max_size=2)
        )
        data[at : at + draw(st.integers(0, 2))] = what
    return bytes(data) + draw(st.sampled_from([b"", POISON]))


def test_damage_never_hangs_nor_reaches_the_next_request(run: Run) -> None:
    plan: dict[str, Any] = {}

    def part(peer: Peer) -> None:
        while head := peer.head():
            if head.startswith(b"GET /good"):
                peer.send(OK)
                continue
            try:
                for piece in plan["pieces"]:
                    peer.send(piece)
                if plan["ending"] != "open":
                    getattr(peer, plan["ending"])()
                    return
            finally:
                plan["done"].set()

    async def one(made: httpx.AsyncBaseTransport, server: Server, data: bytes) -> None:
        body = b""
        try:
            async with asyncio.timeout(0.05 if plan["ending"] == "open" else 5):
                response = await made.handle_async_request(httpx.Request("GET", server.url("/bad")))
                async for piece in pieces(response):
                    body += piece
        except UpstreamError:
            pass
        except TimeoutError:
            assert plan["ending"] == "open", "a connection ended, and its reader waited on"
        rest = iter(data)
        assert all(byte in rest for byte in body), "a byte that was not sent, or not in this order"
        await plan[
            "done"
        ].seen()  # what comes only after the next request went up is its answer: nobody can tell
        response, good = await fetch(made, server.url("/good"))
        assert (response.status_code, good) == (200, b"ok")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with Server(part) as server:
            async with transport(max_connections=2) as made:

                def example(data: bytes, cut: int, ending: str) -> None:
                    at = cut % (len(data) + 1)
                    plan.update(pieces=[data[:at], data[at:]], ending=ending, done=Signal())
                    asyncio.run_coroutine_threadsafe(one(made, server, data), loop).result(20)

                check = given(
                    damaged(), st.integers(0, 10_000), st.sampled_from(["open", "close", "close", "reset"])
                )
                quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
                await asyncio.to_thread(quick(check(example)))

    run(scenario)


@plain_and_tls
@pytest.mark.parametrize(
    "head", [b"Content-Length: %d\r\n" % (64 * MIB), b"Transfer-Encoding: chunked\r\n", b""]
)
def test_no_more_is_held_of_an_answer_than_its_reader_takes(
    run: Run, head: bytes, tls: ssl.SSLContext | None
) -> None:
    held: list[int] = []
    state = {"sent": 0}
    whole = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        block = bytes(MIB)
        chunked = b"chunked" in head
        for _ in range(64):
            peer.send(b"%x\r\n%b\r\n" % (MIB, block) if chunked else block)
            state["sent"] += 1
        peer.send(b"0\r\n\r\n" if chunked else b"")
        whole.set()
        if tls is not None and not head:
            peer.sock.unwrap()  # type: ignore[attr-defined]  # the socket is TLS's by now

    async def scenario() -> None:
        with Server(part, tls=tls) as server:
            async with transport(ssl_context=TRUSTING) as made:
                response = await made.handle_async_request(httpx.Request("GET", server.url()))
                body = pieces(response)
                size = len(await anext(body))
                last = -1
                while last != state["sent"]:  # until the peer gets rid of nothing more
                    last = state["sent"]
                    await asyncio.sleep(0.2)
                (connection,) = made._connections.open
                held.append(connection._size)
                assert not whole.happened
                async for piece in body:
                    held.append(connection._size + len(piece))
                    size += len(piece)
                assert size == 64 * MIB

    run(scenario)
    assert held[0] >= HIGH_WATER, "what can be read ahead is"
    assert max(held) <= HIGH_WATER + CHUNK


@plain_and_tls
def test_no_more_is_taken_of_an_upload_than_goes_up(run: Run, tls: ssl.SSLContext | None) -> None:
    size = 64 * MIB
    go, taken = Signal(), Signal()

    def part(peer: Peer) -> None:
        peer.head()
        go.wait()
        taken.set(peer.take(size))
        peer.send(OK)

    async def scenario() -> None:
        with Server(part, tls=tls) as server:
            async with transport(ssl_context=TRUSTING) as made:
                body = Upload(size)
                task = asyncio.ensure_future(made.handle_async_request(upload(server.url(), body, size)))
                last = -1
                while last != body.left:
                    last = body.left
                    await asyncio.sleep(0.2)
                assert body.left > size // 2, "what the kernel holds, and one piece"
                go.set()
                assert (await task).status_code == 200
                assert await taken.seen() == size

    run(scenario)


class Sealed:
    """The server's end of TLS 1.2, whose bytes go out when the test says so."""

    def __init__(self, peer: Peer) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        CA.issue_cert("127.0.0.1").configure_cert(context)
        self._peer = peer
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_side=True)
        self.until(self.tls.do_handshake)

    def until(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._peer.send(self.outgoing.read())
                self._incoming.write(self._peer.sock.recv(65536))
            else:
                return


def test_an_answer_that_came_with_the_end_of_the_handshake_is_read(run: Run) -> None:
    """TLS 1.2 ends its handshake with the server's word, and a server that is too busy may say so in the same
    packet, before any request."""

    def part(peer: Peer) -> None:
        sealed = Sealed(peer)
        sealed.tls.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
        peer.send(sealed.outgoing.read())
        peer.gone()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(ssl_context=TRUSTING) as made, asyncio.timeout(5):
                response, body = await fetch(made, f"https://{server.authority}/")
                assert (response.status_code, body) == (503, b"busy")

    run(scenario)


def test_a_forged_record_behind_a_good_one_is_told_at_once(run: Run) -> None:
    """In one packet, and then silence: what was good is given, and the failure does not wait for more."""

    def part(peer: Peer) -> None:
        sealed = Sealed(peer)
        sealed.until(lambda: sealed.tls.read(65536))
        sealed.tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        peer.send(sealed.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        peer.gone()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(ssl_context=TRUSTING) as made, asyncio.timeout(5):
                request = httpx.Request("GET", f"https://{server.authority}/")
                body = pieces(await made.handle_async_request(request))
                assert await anext(body) == b"half"
                with pytest.raises(UpstreamDisconnected, match=r"lost: .*mac"):
                    await anext(body)

    run(scenario)


def test_the_kernels_time_to_connect_is_not_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial(*_: object) -> None:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(asyncio_transport, "dial", dial)

    async def scenario() -> None:
        async with transport(max_connections=1) as made:
            for _ in range(2):
                with pytest.raises(
                    UpstreamConnectError, match=r"No connection to a:1: Connection timed out\."
                ):
                    await fetch(made, "http://a:1/")

    run(scenario)


class Pieces(httpx.AsyncByteStream):
    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            await asyncio.sleep(0)
            yield part


def test_a_body_without_a_length_goes_up_in_chunks(run: Run) -> None:
    got = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        seen = peer._buffer
        while not seen.endswith(b"0\r\n\r\n"):
            seen += peer.sock.recv(65536)
        got.set(seen)
        peer.send(OK)

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                headers = {"Host": server.authority, "Transfer-Encoding": "chunked"}
                body = Pieces(b"abc", b"", b"0123456789ABCDEF")
                request = httpx.Request("POST", server.url(), headers=headers, stream=body)
                assert (await made.handle_async_request(request)).status_code == 200

    run(scenario)
    assert got.wait() == b"3\r\nabc\r\n10\r\n0123456789ABCDEF\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (Pieces(b"abc", b"d"), 3), (Pieces(b"abc"), 4), (Pieces(), 1),
        (httpx.ByteStream(b"abc"), 2), (httpx.ByteStream(b"abc"), 4),
    ],
)  # fmt: skip
def test_a_body_that_is_not_what_its_head_says(run: Run, body: httpx.AsyncByteStream, length: int) -> None:
    """Never more goes up than was said: what is over would be the next request."""
    taken: list[int] = []

    def part(peer: Peer) -> None:
        peer.head()
        taken.append(peer.take(MIB))

    async def scenario() -> None:
        with Server(part) as server:
            async with transport(max_connections=1) as made:
                with pytest.raises(UpstreamProtocolError, match="cannot be written"):
                    await made.handle_async_request(upload(server.url(), body, length))
                assert made.connections == 0
                with Server(always()) as good:
                    assert (await fetch(made, good.url()))[1] == b"ok"
            await filled(taken, 1)

    run(scenario)
    assert max(taken) <= length


class Grudging:
    """A socket that takes nothing at first, and then a little each time."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: Any) -> int:
        self._asked += 1
        if self._asked % 3 == 1:
            raise BlockingIOError
        return int(self._sock.send(data[: 50 + self._asked]))


@pytest.mark.parametrize("early", [False, True], ids=["answered after", "answered before"])
@plain_and_tls
def test_a_request_that_goes_up_in_parts(run: Run, tls: ssl.SSLContext | None, early: bool) -> None:
    size = 5000
    taken: list[int] = []

    def part(peer: Peer) -> None:
        while peer.head():
            if early:
                peer.send(OK)
            taken.append(peer.take(size))
            if not early:
                peer.send(OK)

    async def scenario() -> None:
        with Server(part, tls=tls) as server:
            async with transport(ssl_context=TRUSTING) as made:
                for number in range(3):
                    body = httpx.ByteStream(bytes(size))
                    response = await made.handle_async_request(upload(server.url(), body, size))
                    assert b"".join([piece async for piece in pieces(response)]) == b"ok"
                    if number == 0:
                        (connection,) = made._connections.idle
                        connection._link.sock = Grudging(connection._link.sock)
                assert server.accepted == 1
                await filled(taken, 3)

    run(scenario)
    assert taken == [size] * 3


@plain_and_tls
def test_a_request_that_is_cancelled_in_the_turn_in_which_it_goes_up(
    run: Run, tls: ssl.SSLContext | None
) -> None:
    """It may have gone or not; whole or not at all, and the next one is not touched."""
    heads: list[bytes] = []

    async def scenario() -> None:
        with Server(always(heads=heads), tls=tls) as server:
            async with transport(ssl_context=TRUSTING) as made:
                for _ in range(20):
                    assert (await fetch(made, server.url()))[1] == b"ok"
                    task = asyncio.ensure_future(fetch(made, server.url("/v1/cancelled")))
                    await asyncio.sleep(0)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert not made._connections.idle

    run(scenario)
    assert sum(b"/v1/x" in head for head in heads) == 20
