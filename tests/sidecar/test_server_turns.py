"""Requests of one connection, one after the other: what of the one must not reach the next, and whose turn it is.

Covers: versions and URLs that change, trailers, an app that goes on after its answer, requests that come meanwhile, an
answer that ends before its request, the end of a connection between two requests and within one, on both loops.
Left out: framing, bounds and back-pressure of one request (test_server).
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from direct.app_side import GET, Server, answering, echo, run, whole

__all__ = ["run"]


async def tells(scope: Any, receive: Any, send: Any) -> None:
    await whole(receive)
    names = b" ".join(name for name, _ in scope["headers"])
    told = (scope["http_version"], scope["method"], scope["path"], scope["query_string"], names)
    await answering(repr(told).encode())(scope, receive, send)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "pipelined"])
def test_each_is_read_by_itself(run: Any, together: bool) -> None:
    asked = [
        (GET, ("1.1", "GET", "/a", b"", b"host")),
        (b"\r\n\r\n" + GET, ("1.1", "GET", "/a", b"", b"host")),
        (b"GET /a?b=%20 HTTP/1.1\r\nHost: h\r\n\r\n", ("1.1", "GET", "/a", b"b=%20", b"host")),
        (b"GET /%61%2Fb HTTP/1.1\r\nHost: h\r\n\r\n", ("1.1", "GET", "/a/b", b"", b"host")),
        (b"PATCH /a HTTP/1.1\r\nHost: h\r\n\r\n", ("1.1", "PATCH", "/a", b"", b"host")),
        (
            b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nOrigin: http://x\r\n\r\n",
            ("1.1", "POST", "/a", b"", b"host transfer-encoding"),
        ),
        (GET, ("1.1", "GET", "/a", b"", b"host")),
        (b"GET /a HTTP/1.0\r\nx: HTTP/1.1\r\n\r\n", ("1.0", "GET", "/a", b"", b"x")),
    ]

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            if together:
                client.writer.write(b"".join(sent for sent, _ in asked))
            for sent, expected in asked:
                if not together:
                    client.writer.write(sent)
                assert (await client.answer())[2] == repr(expected).encode()
            assert await client.closed()

    run(tells, scenario)


def test_an_app_that_goes_on_after_its_answer_is_waited_for(run: Any) -> None:
    order: list[str] = []

    async def tidies(scope: Any, receive: Any, send: Any) -> None:
        order.append("begins")
        await echo(scope, receive, send)
        await asyncio.sleep(0.05)
        order.append("ends")

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            for _ in range(3):
                client.writer.write(GET)
                assert (await client.answer())[2] == b"GET /a "
            client.writer.write(GET + GET)
            for _ in range(2):
                assert (await client.answer())[2] == b"GET /a "
            await asyncio.sleep(0.1)
            assert not server.state.tasks, "between two requests nothing is waited for at a server's end"
        assert order == ["begins", "ends"] * 5

    run(tidies, scenario)


def test_an_answer_that_comes_before_the_whole_request(run: Any) -> None:
    async def scenario(server: Server) -> None:
        async with server.client() as client:
            for _ in range(3):
                client.writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc")
                assert (await client.answer())[2] == b"no"
                client.writer.write(b"def")

    run(answering(b"no"), scenario)


@pytest.mark.parametrize("requests", [0, 1, 3])
@pytest.mark.parametrize("within", [False, True], ids=["between two", "within one"])
def test_a_connection_leaves_no_task_behind(run: Any, requests: int, within: bool) -> None:
    begun = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        begun += 1
        if begun > requests:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await echo(scope, receive, send)

    async def scenario(server: Server) -> None:
        before = asyncio.all_tasks()
        async with server.client() as client:
            for _ in range(requests):
                client.writer.write(GET)
                assert (await client.answer())[0] == 200
            if within:
                client.writer.write(GET)
                while begun == requests:
                    await asyncio.sleep(0.005)
                assert len(server.state.tasks) == 1
        while server.state.connections or server.state.tasks:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before

    run(slow, scenario)


def test_a_task_that_is_cancelled_between_two_requests_ends_its_connection(run: Any) -> None:
    tasks = []

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        await echo(scope, receive, send)

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            client.writer.write(GET)
            assert (await client.answer())[0] == 200
            await asyncio.sleep(0.01)
            tasks[0].cancel()
            client.writer.write(GET)  # in the very moment
            assert await client.closed()
        assert len(tasks) == 1

    run(noted, scenario)


def test_an_answer_is_whole_before_the_next_head_is_refused(run: Any) -> None:
    """Where the answer waits for the end of the turn, the next bytes are read before it goes."""
    heard: list[int] = []

    async def hears(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        os.write(heard[0], b"\0\r\n\r\n")

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            heard.append(client.writer.get_extra_info("socket").fileno())
            client.writer.write(GET)
            assert (await client.answer())[2] == b"GET /a "
            assert (await client.answer())[0] == 400
            assert await client.closed()

    run(hears, scenario)


def test_an_answer_goes_down_to_an_app_that_sends_no_more(run: Any) -> None:
    async def hears(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        ours.shutdown(socket.SHUT_WR)

    async def scenario(server: Server) -> None:
        async with server.client() as client:
            nonlocal ours
            ours = client.writer.get_extra_info("socket").dup()
            with ours:
                client.writer.write(GET)
                assert (await client.answer())[2] == b"GET /a "
                assert await client.closed()

    ours: Any = None
    run(hears, scenario)


def test_the_answer_to_a_last_request_goes_before_its_connection_ends(run: Any) -> None:
    async def scenario(server: Server) -> None:
        for _ in range(20):
            async with server.client() as client:
                client.writer.write(GET + b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                for _ in range(2):
                    assert (await client.answer())[2] == b"GET /a "
                assert await client.closed()

    run(echo, scenario)
