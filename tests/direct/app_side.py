"""The server's side of HTTP/1.1 by itself: `Connection` on a real socket in front of an app of ASGI, on asyncio's loop and
uvloop's, and a client of raw bytes up and h11's reading down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import h11
import pytest
import uvloop

from inference_sidecar.outbox import outbox_of
from inference_sidecar.serve.cycle import App
from inference_sidecar.serve.protocol import Connection

Scenario = Callable[["Server"], Awaitable[None]]
SECS = 5.0
GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


WAYS = {
    "asyncio": (asyncio.new_event_loop, 0),
    "uvloop": (uvloop.new_event_loop, 0),
    "busy": (uvloop.new_event_loop, 1),
}
"""Loops, and how many requests of others each serves: beside those an answer waits for the end of the turn."""


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def run(request: pytest.FixtureRequest) -> Callable[[App, Scenario], None]:
    def play(app: App, scenario: Scenario, **bounds: float) -> None:
        async def main() -> None:
            async with asyncio.timeout(SECS), serving(app, **bounds) as server:
                await scenario(server)

        new_loop, others = request.param
        with asyncio.Runner(loop_factory=new_loop) as runner:
            outbox_of(runner.get_loop()).open = others
            runner.run(main())
            assert outbox_of(runner.get_loop()).open == others

    return play


class Server:
    def __init__(self, port: int, state: SimpleNamespace) -> None:
        self.port = port
        self.state = state

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(app: App, *, keep_alive: float = 75.0, head_secs: float = 10.0) -> AsyncIterator[Server]:
    config = SimpleNamespace(loaded_app=app, timeout_keep_alive=keep_alive)
    state = SimpleNamespace(connections=set(), tasks=set())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(config, state, {}, max_head=4096, head_secs=head_secs), "127.0.0.1"
    )
    async with server:
        yield Server(server.sockets[0].getsockname()[1], state)
        for one in list(state.connections):
            one.shutdown()
        while state.connections or state.tasks:
            await asyncio.sleep(0.005)


class Client:
    """Raw bytes up; down what h11 makes of them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._judge = h11.Connection(h11.CLIENT)

    async def answer(self, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer, and whether another may follow is h11's to say."""
        judge = self._judge
        judge.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        judge.send(h11.EndOfMessage())
        head, body = None, b""
        while True:
            event = judge.next_event()
            if event is h11.NEED_DATA:
                judge.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        assert head is not None
        if judge.their_state is h11.DONE and judge.our_state is h11.DONE:
            judge.start_next_cycle()
        return head.status_code, dict(head.headers), body

    @property
    def may_go_on(self) -> bool:
        return self._judge.our_state is h11.IDLE

    async def closed(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read(1) == b""
        return True


async def whole(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


def answering(*pieces: bytes, status: int = 200, headers: Any = ()) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


async def echo(scope: Any, receive: Any, send: Any) -> None:
    said = b"%b %b %b" % (scope["method"].encode(), scope["raw_path"], await whole(receive))
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"%d" % len(said))]}
    )
    await send({"type": "http.response.body", "body": said})
