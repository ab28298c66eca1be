"""The server's side of HTTP/1.1 on real sockets, on asyncio's loop and uvloop's, with h11 as judge of what it writes.

Covers: every framing of a request and of an answer, requests split anywhere and pipelined, heads beside an answer that is
under way, versions and methods, Expect, Upgrade, an app that fails or says too little, bounds on silence, back-pressure
both ways, the app's leaving.
Left out: bounds on heads and OpenAI's shape of refusals (test_limits), the door itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from direct.app_side import GET, Server, answering, echo, run, whole
from inference_sidecar.serve.cycle import HIGH_WATER, App

__all__ = ["run"]


@pytest.mark.parametrize(
    ("pieces", "headers", "status", "method", "expected"),
    [
        ((b"ab", b"", b"c"), [], 200, "GET", b"abc"),
        ((), [], 200, "GET", b""),
        ((b"abc",), [(b"content-length", b"3")], 200, "GET", b"abc"),
        ((b"ab", b"c"), [(b"Transfer-Encoding", b"chunked")], 200, "GET", b"abc"),
        ((b"abc",), [(b"content-length", b"3")], 200, "HEAD", b""),
        ((b"abc",), [], 200, "HEAD", b""),
        ((), [], 204, "GET", b""),
        ((b"abc",), [(b"content-length", b"3")], 304, "GET", b""),
    ],
)
def test_answers_of_every_framing(
    run: Any, pieces: Any, headers: Any, status: int, method: str, expected: bytes
) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            for _ in range(2):
                client.writer.write(GET.replace(b"GET", method.encode()))
                found, _, body = await client.answer(method)
                assert (found, body) == (status, expected)
                assert client.may_go_on

    run(answering(*pieces, status=status, headers=headers), scenario)


@pytest.mark.parametrize("seed", range(8))
def test_requests_split_anywhere(run: Any, seed: int) -> None:
    dice = random.Random(seed)
    body = dice.randbytes(300)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (body[:7], body[7:200], body[200:]))
    data = (
        b"POST /one HTTP/1.1\r\nHost: h\r\nContent-Length: 300\r\n\r\n" + body
        + b"POST /two HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n" + GET
    )  # fmt: skip

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            at = 0
            while at < len(data):
                size = dice.choice([1, 2, 5, 40, 400])
                client.writer.write(data[at : at + size])
                at += size
                await asyncio.sleep(0.0005)
            assert (await client.answer())[2] == b"POST /one " + body
            assert (await client.answer())[2] == b"POST /two " + body
            assert (await client.answer())[2] == b"GET /a "

    run(echo, scenario)


def test_pipelined_requests_are_answered_one_after_the_other(run: Any) -> None:
    open_now = [0, 0]

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        open_now[0] += 1
        open_now[1] = max(open_now)
        await asyncio.sleep(0.01)
        await echo(scope, receive, send)
        open_now[0] -= 1

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(b"".join(GET.replace(b"/a", b"/%d" % number) for number in range(20)))
            for number in range(20):
                assert (await client.answer())[2] == b"GET /%d " % number
        assert open_now == [0, 1]

    run(slow, scenario)


def test_a_head_that_comes_slowly_does_not_end_an_answer_that_is_under_way(run: Any) -> None:
    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(30):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(GET)
            await asyncio.sleep(0.02)
            client.writer.write(GET[:10])
            assert (await client.answer())[2] == b"x" * 30
            assert b" 408 " in await client.reader.readline(), "from the answer's end on, its time counts"

    run(streaming, scenario, head_secs=0.1)


@pytest.mark.parametrize(
    ("sent", "keep_alive", "head_secs", "told"),
    [
        (b"", 9.0, 0.1, b""),
        (GET[:9], 9.0, 0.1, b"408"),
        (GET, 0.1, 9.0, b""),
        (GET + GET[:9], 9.0, 0.1, b"408"),
    ],
)
def test_silence_is_bounded(run: Any, sent: bytes, keep_alive: float, head_secs: float, told: bytes) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(sent[: len(GET)])
            if sent.startswith(GET):
                assert (await client.answer())[0] == 200
            client.writer.write(sent[len(GET) :])
            began = asyncio.get_running_loop().time()
            rest = await client.reader.read()
            assert 0.05 < asyncio.get_running_loop().time() - began < 2
            assert rest[9:12] == told

    run(echo, scenario, keep_alive=keep_alive, head_secs=head_secs)


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_where_no_request_may_follow_the_connection_ends(run: Any, request_head: bytes) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(request_head)
            status, headers, body = await client.answer()
            assert (status, body) == (200, b"abc")
            assert headers[b"connection"] == b"close"
            assert await client.closed()

    run(answering(b"abc"), scenario)


def test_before_1_1_there_are_no_chunks(run: Any) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(b"GET /a HTTP/1.0\r\n\r\n")
            assert b"chunked" not in await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.read() == b"abc"

    run(answering(b"a", b"bc"), scenario)


def test_an_app_that_asks_first_is_told_to_go_on(run: Any) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(
                b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            )
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.writer.write(b"hi")
            assert (await client.answer())[2] == b"POST /a hi"

    run(echo, scenario)
    run(answering(b"no"), refused_without_a_word)


async def refused_without_a_word(server: Server) -> None:
    async with server.client() as client:
        client.writer.write(
            b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await client.reader.readline()).startswith(b"HTTP/1.1 200")


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("of the app")


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


@pytest.mark.parametrize(
    "app",
    [
        raises,
        says_nothing,
        answering(headers=[(b"x", b"a\r\nset-cookie: b")]),
        answering(headers=[(b"x y", b"a")]),
        answering(b"abc", headers=[(b"content-length", b"2")]),
    ],
)
@pytest.mark.usefixtures("quiet")
def test_an_app_that_fails_before_its_answer_begins(run: Any, app: App) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(GET)
            raw = await client.reader.read()
            assert raw == b"" or raw.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert b"set-cookie" not in raw

    run(app, scenario)


@pytest.mark.usefixtures("quiet")
def test_an_answer_that_stays_short_is_cut(run: Any) -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(GET)
            assert (await client.reader.read()).endswith(b"\r\n\r\nabc")

    run(short, scenario)


@pytest.fixture
def quiet() -> Iterator[None]:
    """What is logged of a fault that was meant."""
    log = logging.getLogger("inference_sidecar")
    log.disabled = True
    yield
    log.disabled = False


def test_an_upload_is_held_back_until_it_is_wanted(run: Any) -> None:
    size, sent = 64 * HIGH_WATER, 0

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.2)
        assert sent < size // 2
        body = await whole(receive)
        await answering(b"%d" % len(body))(scope, receive, send)

    async def scenario(server: Server) -> None:
        nonlocal sent
        async with server.client() as client:
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            client.writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(64):
                client.writer.write(bytes(HIGH_WATER))
                await client.writer.drain()
                sent += HIGH_WATER
            assert (await client.answer())[2] == b"%d" % size

    run(late, scenario)


def test_an_answer_waits_for_who_reads_slowly(run: Any) -> None:
    given = 0

    async def large(scope: Any, receive: Any, send: Any) -> None:
        nonlocal given
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(256):
            await send({"type": "http.response.body", "body": bytes(HIGH_WATER), "more_body": True})
            given += 1
        await send({"type": "http.response.body"})

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(GET)
            await asyncio.sleep(0.3)
            assert given < 250
            assert len((await client.answer())[2]) == 256 * HIGH_WATER

    run(large, scenario)


@pytest.mark.parametrize("sent", [GET, b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"])
def test_the_apps_leaving_is_told(run: Any, sent: bytes) -> None:
    told: list[str] = []

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        while told[-1:] != ["http.disconnect"]:
            told.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(sent)
            await asyncio.sleep(0.05)
        while server.state.connections:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)
        assert told == ["http.request", "http.disconnect"]

    run(waiting, scenario)
