"""Either transport while a body goes up, plain and under TLS, on asyncio and on uvloop.

Covered: an upstream that answers before it has read the body, and then closes, resets, falls silent or goes
on reading; one that closes without a word; interim answers; what reaches the upstream of a whole upload.
The answer of an upstream that refuses must arrive every time, so the first of these runs a hundred times.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
import trustme

from direct.peers import Peer, Server, Signal
from direct.transport import EVERY_WAY, OK, Run, Upload, pieces, transport, upload
from inference_sidecar.errors import UpstreamDisconnected

pytestmark = EVERY_WAY

MIB = 1024 * 1024
SIZE = 50 * MIB

REFUSAL = b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\ntoo large"


class Ends(NamedTuple):
    """TLS for both ends, or None twice."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None


@pytest.fixture(params=["plain", "tls"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    if request.param == "plain":
        yield Ends(None, None)
        return
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    yield Ends(server, client)


def refusing(peer: Peer) -> None:
    """Reads the head and a little of the body, refuses, and closes with the rest unread: a reset follows."""
    peer.head()
    peer.take(MIB)
    peer.send(REFUSAL)


@pytest.mark.parametrize("whole", [True, False], ids=["bytes", "stream"])
def test_an_early_refusal_arrives_every_time(run: Run, ends: Ends, whole: bool) -> None:
    async def scenario() -> None:
        with Server(refusing, tls=ends.server) as server:
            async with transport(ssl_context=ends.client) as made:
                content = bytes(SIZE) if whole else b""
                for _ in range(100):
                    body = httpx.ByteStream(content) if whole else Upload(SIZE)
                    response = await made.handle_async_request(upload(server.url(), body, SIZE))
                    assert response.status_code == 413
                    assert b"".join([piece async for piece in pieces(response)]) == b"too large"
                assert made.connections == 0

    run(scenario)


@pytest.mark.parametrize(
    "refusal",
    [
        REFUSAL,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + REFUSAL,
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ntoo large\r\n0\r\n\r\n",
    ],
    ids=["413", "after interim", "503"],
)
def test_a_refusal_is_heard_while_nothing_more_is_taken(run: Run, ends: Ends, refusal: bytes) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        for at in range(len(refusal)):
            peer.send(refusal[at : at + 1])
        closed.wait()  # open, silent, and reading nothing

    closed = Signal()

    async def scenario() -> None:
        with Server(part, tls=ends.server) as server:
            async with transport(ssl_context=ends.client) as made:
                body = Upload(SIZE)
                response = await made.handle_async_request(upload(server.url(), body, SIZE))
                assert response.status_code in (413, 503)
                assert b"".join([piece async for piece in pieces(response)]) == b"too large"
                assert body.left > 0
                assert made.connections == 0
                closed.set()

    run(scenario)


def test_an_early_refusal_without_a_length_ends_with_its_connection(run: Run) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.take(MIB)
        peer.send(b"HTTP/1.1 400 Bad\r\n\r\ntoo large")

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                response = await made.handle_async_request(upload(server.url(), Upload(SIZE), SIZE))
                body = bytearray()
                # A reset may be all that is seen of the end; what came before it must be there all the same.
                try:
                    async for piece in pieces(response):
                        body += piece
                except UpstreamDisconnected:
                    pass
                assert (response.status_code, bytes(body)) == (400, b"too large")

    run(scenario)


def test_an_early_success_stops_nothing(run: Run, ends: Ends) -> None:
    """Both directions at once are legal; only a refusal says that the rest is not wanted."""
    taken: list[int] = []

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        taken.append(peer.take(SIZE))
        peer.send(b"2\r\nok\r\n0\r\n\r\n")
        peer.head()
        peer.send(OK)

    async def scenario() -> None:
        with Server(part, tls=ends.server) as server:
            async with transport(ssl_context=ends.client) as made:
                response = await made.handle_async_request(upload(server.url(), Upload(SIZE), SIZE))
                assert b"".join([piece async for piece in pieces(response)]) == b"ok"
                response = await made.handle_async_request(upload(server.url(), Upload(0), 0))
                assert b"".join([piece async for piece in pieces(response)]) == b"ok"
                assert server.accepted == 1

    run(scenario)
    assert taken == [SIZE]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_upload_that_is_cut_without_an_answer(run: Run, ends: Ends, how: str) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.take(MIB)
        getattr(peer, how)()

    async def scenario() -> None:
        with Server(part, tls=ends.server) as server:
            async with transport(ssl_context=ends.client) as made:
                with pytest.raises(UpstreamDisconnected) as caught:
                    await made.handle_async_request(upload(server.url(), Upload(SIZE), SIZE))
                assert caught.value.sent
                assert made.connections == 0

    run(scenario)


def test_a_success_without_a_length_that_ends_in_a_reset_is_no_success(run: Run) -> None:
    """The reset was met while sending, so that the read after it sees a plain end: it is none."""

    def part(peer: Peer) -> None:
        peer.head()
        peer.take(MIB)
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                response = await made.handle_async_request(upload(server.url(), Upload(SIZE), SIZE))
                with pytest.raises(UpstreamDisconnected):
                    assert [piece async for piece in pieces(response)]

    run(scenario)
