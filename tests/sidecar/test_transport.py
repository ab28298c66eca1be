"""Either transport against a server that says exactly what the test wants, on asyncio and on uvloop.

Covered: every framing of an answer, what reaches the wire, faults at each phase and what they say. After each
test no file descriptor is left. Connections and their reuse, uploads, cancellation, TLS and proxies have files
of their own (test_transport_*). Left out: HTTP/2, which is never offered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from direct.peers import Peer, Server, Signal
from direct.transport import EVERY_WAY, OK, Run, always, fetch, pieces, transport, upload
from inference_sidecar.errors import (
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
)
from inference_sidecar.upstream.parts import blank_request
from inference_sidecar.upstream.request import Ready

pytestmark = EVERY_WAY


@pytest.mark.parametrize(
    ("method", "answer", "status", "body"),
    [
        ("GET", OK, 200, b"ok"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
            200,
            b"abc0123456789",
        ),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (
            "GET",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
            200,
            b"ok",
        ),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", 200, b""),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        ("GET", b"HTTP/1.1 307 Moved\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n", 307, b""),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00\xff",
            200,
            b"\x1f\x8b\x00\xff",
        ),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_framings(run: Run, method: str, answer: bytes, status: int, body: bytes, split: bool) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.send(*([answer[at : at + 1] for at in range(len(answer))] if split else [answer]))

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                response, got = await fetch(made, server.url(), method)
                assert (response.status_code, got) == (status, body)

    run(scenario)


def test_the_request_on_the_wire_is_the_one_that_was_given(run: Run) -> None:
    heads: list[bytes] = []

    async def scenario() -> None:
        with Server(always(heads=heads)) as server:
            async with transport() as made:
                await fetch(made, server.url("/v1/a%2Fb//c?x=%2f"))
                await fetch(made, server.url("/"), target=b"/v1/./%2e%2e/x'y?q=[1]")

    run(scenario)
    assert heads[0].startswith(b"GET /v1/a%2Fb//c?x=%2f HTTP/1.1\r\n")
    assert heads[1].startswith(b"GET /v1/./%2e%2e/x'y?q=[1] HTTP/1.1\r\n")
    assert b"cookie" not in heads[1].lower()


@pytest.mark.parametrize("changed", [False, True])
def test_a_prepared_request_goes_up_with_the_lines_that_it_has_by_then(run: Run, changed: bool) -> None:
    seen: list[bytes] = []

    def part(peer: Peer) -> None:
        seen.append(peer.head())
        assert peer.take(5) == 5
        peer.send(OK)

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                lines = ((b"host", b"upstream.test"), (b"x-first", b"1"))
                request = blank_request()
                request.ready = Ready(
                    "POST", httpx.URL(server.url()), b"/", tuple(lines[:2]), [], b"whole", length=5
                )
                if changed:
                    request.headers["x-first"] = "2"
                response = await made.handle_async_request(request)
                assert await response.aread() == b"ok"

    run(scenario)
    assert b"\r\nx-first: %d\r\n" % (2 if changed else 1) in seen[0]


BODY_CUTS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-", *BODY_CUTS.values()])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_ends_too_soon_is_told_as_such(run: Run, sent: bytes, how: str) -> None:
    arrived = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(sent)
        if how == "close":
            peer.close()
        else:
            arrived.wait()
            peer.reset()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                got = bytearray()

                async def read() -> None:
                    response = await made.handle_async_request(httpx.Request("GET", server.url()))
                    async for piece in pieces(response):
                        got.extend(piece)
                        if got == b"half":
                            arrived.set()

                if sent not in BODY_CUTS.values():
                    arrived.set()
                with pytest.raises(UpstreamDisconnected) as caught:
                    await read()
                assert caught.value.sent
                assert server.authority in str(caught.value)
                assert got == (b"half" if sent in BODY_CUTS.values() else b"")
                assert made.connections == 0

    run(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00" * 64 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["other protocol", "zeros", "length", "two lengths", "huge head", "chunk", "101"],
)
def test_what_is_no_http_is_told_as_such(run: Run, answer: bytes) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.send(answer)
        peer.gone()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                with pytest.raises(UpstreamProtocolError) as caught:
                    await fetch(made, server.url())
                assert caught.value.sent
                assert made.connections == 0

    run(scenario)


def test_a_switch_of_protocols_is_refused_though_the_app_asked_for_it(run: Run) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        peer.gone()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                headers = {"Upgrade": "x", "Connection": "upgrade"}
                with pytest.raises(UpstreamProtocolError):
                    await made.handle_async_request(httpx.Request("GET", server.url(), headers=headers))
                assert made.connections == 0

    run(scenario)


def test_a_request_that_cannot_be_written_never_shows_what_it_held(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as made:
                request = httpx.Request(
                    "GET", server.url(), headers={b"authorization": b"Bearer sk-canary\r\n"}
                )
                with pytest.raises(UpstreamProtocolError) as caught:
                    await made.handle_async_request(request)
                assert "sk-canary" not in str(caught.value)
                assert made.connections == 0

    run(scenario)


def test_what_the_app_s_body_raises_comes_out_as_it_is(run: Run) -> None:
    gone = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        gone.set(peer.gone())

    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"some"
            raise TimeoutError("the app's own")

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                request = upload(server.url(), Broken(), 9)
                with pytest.raises(TimeoutError, match="the app's own"):
                    await made.handle_async_request(request)
                await gone.seen()

    run(scenario)


def test_closing_the_transport_ends_what_is_being_read(run: Run) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        peer.gone()

    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as made:
                response = await made.handle_async_request(httpx.Request("GET", server.url()))
                body = pieces(response)
                assert await anext(body) == b"first"
                reading = asyncio.ensure_future(anext(body))
                await asyncio.sleep(0)
                await made.aclose()
                with pytest.raises(UpstreamError):
                    await reading

    run(scenario)
