"""An upstream that does exactly what a script says, and keeps a ledger of what really reached it.

Enters: raw TCP connections on loopback. Leaves: bytes, pauses, resets, as scripted; the ledger.
It parses requests itself, so that no framework repairs or hides anything. Runs in a thread with its own loop.
A script is a sequence of steps, chosen by the request's `x-scenario` header (see `plan`); without one,
`typical` decides. All times are `time.monotonic`'s, as the tests' are. Must not know the sidecar.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

SCENARIO = "x-scenario"


@dataclass(frozen=True)
class Pause:
    """Let time pass, where time itself is what is tested."""

    seconds: float


@dataclass(frozen=True)
class Drip:
    """Send in pieces of `size` with a pause after each."""

    data: bytes
    size: int = 1
    gap: float = 0.0


@dataclass(frozen=True)
class Mark:
    """A word without effect on the wire."""

    name: str


EARLY = Mark("early")  # first step: begin when the head was read, not the body
DEAF = Mark("deaf")  # read nothing more from the socket
RESET = Mark("reset")  # RST, whatever is unsent is dropped
CLOSE = Mark("close")  # FIN after what was sent
HANG = Mark("hang")  # until the other side closes


class Gate:
    """A place in a script where it waits for the test. `reached` is set when a script stands before it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open = asyncio.Event()
        self.reached = threading.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def passed(self) -> None:
        self.reached.set()
        await self._open.wait()


Step = bytes | Pause | Drip | Mark | Gate
Script = Sequence[Step]


@dataclass
class Connection:
    """One accepted connection. `closed_by` is "peer" or "script"."""

    number: int
    opened_at: float
    closed_at: float | None = None
    closed_by: str | None = None
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass
class Exchange:
    """One request as it arrived. Header names in lower case; `received_at`: when the body was whole."""

    connection: Connection
    method: str
    target: str
    headers: list[tuple[str, str]]
    head_at: float
    scenario: str | None
    attempt: int
    """Number of this request within its scenario, from 1."""
    body: bytearray = field(default_factory=bytearray)
    received_at: float | None = None
    finished_at: float | None = None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(bytes(self.body))


class ScriptedUpstream:
    """Start with `with`; `url` is `http://127.0.0.1:PORT`, or https where a `tls` context is given."""

    def __init__(self, typical: Callable[[Exchange], Script], tls: ssl.SSLContext | None = None) -> None:
        self._typical = typical
        self._tls = tls
        self._plans: dict[str, list[Script]] = {}
        self._attempts: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self.links: set[_Link] = set()
        self.on_accept: Script | None = None
        self.exchanges: list[Exchange] = []
        self.connections: list[Connection] = []
        self.port = 0

    def __enter__(self) -> ScriptedUpstream:
        self._thread.start()
        self._server = self._on_loop(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._on_loop(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def gate(self) -> Gate:
        return Gate(self._loop)

    def plan(self, *scripts: Script) -> str:
        """Name of a scenario: its n-th request gets the n-th script, and the last one from then on."""
        name = f"s{next(self._numbers)}"
        self._plans[name] = list(scripts)
        return name

    def of(self, scenario: str) -> list[Exchange]:
        """What the ledger holds of one scenario."""
        with self._changed:
            return [exchange for exchange in self.exchanges if exchange.scenario == scenario]

    def only(self, scenario: str) -> Exchange:
        """The one exchange of a scenario; an AssertionError where there are others."""
        found = self.of(scenario)
        assert len(found) == 1, f"{len(found)} requests reached the upstream instead of one"
        return found[0]

    def until(self, true: Callable[[], Any], what: str, timeout: float = 5) -> None:
        """Waits until the ledger makes `true` true."""
        with self._changed:
            assert self._changed.wait_for(true, timeout), f"not within {timeout} s: {what}"

    def closing(self, exchange: Exchange, timeout: float = 5) -> float:
        """Waits until the exchange's connection is closed; when that was."""
        connection = exchange.connection
        self.until(lambda: connection.closed_at is not None, "connection closed", timeout)
        assert connection.closed_at is not None
        return connection.closed_at

    def open_connections(self) -> int:
        with self._changed:
            return sum(connection.closed_at is None for connection in self.connections)

    # What follows runs on the upstream's own loop.

    def note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def script_for(self, exchange: Exchange) -> Script:
        if exchange.scenario is None:
            return self._typical(exchange)
        scripts = self._plans.get(exchange.scenario)
        assert scripts, f"no plan named {exchange.scenario}"
        return scripts[min(exchange.attempt, len(scripts)) - 1]

    def attempt(self, scenario: str | None) -> int:
        key = scenario or ""
        self._attempts[key] = self._attempts.get(key, 0) + 1
        return self._attempts[key]

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(
            lambda: _Link(self), "127.0.0.1", 0, backlog=2048, ssl=self._tls
        )

    async def _shut(self) -> None:
        self._server.close()
        for link in list(self.links):
            link.drop()
        for _ in range(3):  # each abort is told to its protocol in the loop's next turn
            await asyncio.sleep(0)
        for task in (scripts := asyncio.all_tasks() - {asyncio.current_task()}):
            task.cancel()  # it waits for what never came, and would end noisily with the interpreter
        await asyncio.gather(*scripts, return_exceptions=True)


class _Link(asyncio.Protocol):
    """One connection: reads requests one by one and plays the script of each."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._need: int | None = None  # bytes of body still to come; None: chunked
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.links.add(self)
        self._connection = Connection(len(self._upstream.connections) + 1, time.monotonic())
        self._upstream.note(lambda: self._upstream.connections.append(self._connection))
        if self._upstream.on_accept is not None:
            self._task = asyncio.ensure_future(self._play(self._upstream.on_accept, None))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._upstream.on_accept is None:
            self._advance()
        total = self._connection.received_bytes + len(data)
        self._upstream.note(lambda: setattr(self._connection, "received_bytes", total))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool:
        self._ended("peer")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended("peer")
        self._gone.set()
        self._writable.set()
        self._upstream.links.discard(self)

    def drop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._ended("script")
        self._transport.abort()

    def _ended(self, by: str) -> None:
        def change() -> None:
            if self._connection.closed_at is None:
                self._connection.closed_at = time.monotonic()
                self._connection.closed_by = by

        self._upstream.note(change)

    def _advance(self) -> None:
        if self._exchange is None and not self._read_head():
            return
        exchange = self._exchange
        assert exchange is not None
        if exchange.received_at is None and self._read_body(exchange):
            now = time.monotonic()
            self._upstream.note(lambda: setattr(exchange, "received_at", now))
            if not self._begun:
                self._begin(exchange)
            elif self._task is None:
                self._next()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        method, target, _ = lines[0].split(" ")
        headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        fields = dict(headers)
        chunked = "chunked" in fields.get("transfer-encoding", "")
        self._need = None if chunked else int(fields.get("content-length", 0))
        scenario, now = fields.get(SCENARIO), time.monotonic()
        attempt = self._upstream.attempt(scenario)
        exchange = Exchange(self._connection, method, target, headers, now, scenario, attempt)
        self._exchange = exchange
        self._upstream.note(lambda: self._upstream.exchanges.append(exchange))
        if fields.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # An answer made up from the body has to wait for it; a planned one may be early.
        if scenario is not None and EARLY in self._upstream.script_for(exchange)[:1]:
            self._begin(exchange)
        return True

    def _read_body(self, exchange: Exchange) -> bool:
        if self._need is not None:
            part = self._buffer[: self._need]
            exchange.body += part
            del self._buffer[: len(part)]
            self._need -= len(part)
            return self._need == 0
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                return False
            size = int(bytes(self._buffer[:line_end]).split(b";")[0], 16)
            if len(self._buffer) < line_end + 2 + size + 2:
                return False
            exchange.body += self._buffer[line_end + 2 : line_end + 2 + size]
            del self._buffer[: line_end + 2 + size + 2]
            if size == 0:
                return True

    def _begin(self, exchange: Exchange) -> None:
        self._begun = True
        self._task = asyncio.ensure_future(self._play(self._upstream.script_for(exchange), exchange))

    async def _play(self, script: Script, exchange: Exchange | None) -> None:
        for step in script:
            await self._step(step)
            if self._gone.is_set() or self._transport.is_closing():
                break
        now = time.monotonic()
        if exchange is not None:
            self._upstream.note(lambda: setattr(exchange, "finished_at", now))
        self._task = None
        if exchange is not None and exchange.received_at is not None:
            self._next()

    def _next(self) -> None:
        self._exchange = None
        self._begun = False
        if not self._transport.is_closing() and self._buffer:
            self._advance()

    async def _step(self, step: Step) -> None:
        if isinstance(step, bytes):
            await self._send(step)
        elif isinstance(step, Drip):
            for at in range(0, len(step.data), step.size):
                await self._send(step.data[at : at + step.size])
                await self._idle(step.gap)
        elif isinstance(step, Pause):
            await self._idle(step.seconds)
        elif isinstance(step, Gate):
            await step.passed()
        elif step is HANG:
            await self._gone.wait()
        elif step is DEAF:
            self._transport.pause_reading()
        elif step in (RESET, CLOSE):
            self._ended("script")
            if step is CLOSE:
                self._transport.close()
            else:
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()

    async def _send(self, data: bytes) -> None:
        if self._gone.is_set() or self._transport.is_closing():
            return
        self._transport.write(data)
        await self._writable.wait()
        self._upstream.note(
            lambda: setattr(self._connection, "sent_bytes", self._connection.sent_bytes + len(data))
        )

    async def _idle(self, seconds: float) -> None:
        """A pause that ends early where the other side closes."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        gone = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait([gone], timeout=seconds)
        gone.cancel()
