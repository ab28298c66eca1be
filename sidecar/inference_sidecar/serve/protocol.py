"""HTTP/1.1 on one connection of an app: bounds on heads and on silence, news of the app, one request at a time.

Enters: bytes, from uvicorn's server. Leaves: a `Cycle` for each request, and what it writes; answers in OpenAI's shape
where a head breaks a bound before there is a request. llhttp parses. Must not know what is served. Decision 010
says why this is not uvicorn's own protocol.
"""

from __future__ import annotations

import asyncio
import os
import select
import urllib.parse
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import httptools

from ..accept import EXTENSION
from ..deadline import alarm_of
from ..errors import HeadTooLarge
from ..outbox import outbox_of
from ..records import Headers
from ..respond import error_body
from ..waiter import Waiter
from .cycle import STATUS_LINES, App, Cycle, Wire

PEER_CHECK_SECS: Final = 0.05

_FOLD: Final = 4  # `: ` and the line end of a header line
_USUAL: Final = b" HTTP/1.1\r\n"
_METHODS: Final = {b"GET": "GET", b"POST": "POST"}
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class Connection(Wire):
    """One connection of an app, as asyncio's transports know a protocol."""

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],  # noqa: ARG002
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        max_head: int,
        head_secs: float,
    ) -> None:
        """The first four are uvicorn's. `max_head` bytes and `head_secs` seconds bound the request line and headers."""
        self.loop = _loop or asyncio.get_running_loop()
        self.gone = False
        self.full = False
        self._app: App = config.loaded_app
        self._keep_alive_secs: float = config.timeout_keep_alive
        self._max_head = max_head
        self._head_secs = head_secs
        self._connections: set[Any] = server_state.connections
        self._tasks: set[asyncio.Task[None]] = server_state.tasks
        self._parser: Any = httptools.HttpRequestParser(self)
        # Pipelined requests may follow one that asked for the connection's end; its answer goes down all the same.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: Any = None
        self._descriptor = -1
        self._cycle: Cycle | None = None  # the one that is being answered
        self._newest: Cycle | None = None  # the one whose body comes
        self._waiting: deque[Cycle] = deque()  # pipelined behind the one that is being answered
        self.task = None
        self._turn = Waiter(self.loop)  # for which it waits between two
        self._due = False  # there is one, and what came with its head is being read
        self._callback: Callable[[], Any] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._line = b""  # the last request's first, and its scope without headers: most have the same
        self._scope: dict[str, Any] = {}
        self._chunk = b""  # in which a head begins at the first byte
        self._expects = False
        self._in_head = True
        self._idle = False  # between two requests
        self._raw_head = 0
        self._named_head = 0
        self._deaf = False  # nothing is read
        self._drained: asyncio.Future[None] | None = None
        self.when: float | None = None  # see `deadline.Bound`: when a head, or the next request, is late
        self._alarm = alarm_of(self.loop)
        self._outbox = outbox_of(self.loop)
        self._outgoing = b""  # which waits there
        self._peer_timer: asyncio.TimerHandle | None = None

    # accept.Line and cycle.Wire

    @property
    def closing(self) -> bool:
        """See `cycle.Wire`."""
        return self.gone or bool(self._transport.is_closing())

    def watch(self, callback: Callable[[], Any] | None) -> None:
        """See `accept.Line`."""
        self._callback = callback

    def take(self) -> bytes | None:
        """See `accept.Line`."""
        return None if self._cycle is None else self._cycle.take()

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """See `accept.Line`."""
        if self.full:
            return False
        if not self.gone and self._cycle is not None:
            self._cycle.whole(status, headers, body)
        return True

    def begin(self, status: int, headers: Headers) -> bool:
        """See `accept.Line`."""
        if self.full:
            return False
        if not self.gone and self._cycle is not None:
            self._cycle.begin(status, headers)
        return True

    def pour(self, piece: bytes) -> bool:
        """See `accept.Line`."""
        if self.full:
            return False
        if not self.gone and self._cycle is not None:
            self._cycle.piece(piece, more=True)
        return True

    def finish(self) -> bool:
        """See `accept.Line`."""
        if self.full:
            return False
        if not self.gone and self._cycle is not None:
            self._cycle.piece(b"", more=False)
        return True

    def write(self, data: bytes) -> None:
        """See `cycle.Wire`. What nothing waits before goes to the socket itself: by way of uvloop's transport it would
        pass through more code, little of which is still in the processor's caches."""
        if self._outgoing:
            data, self._outgoing = self._outgoing + data, b""
        transport = self._transport
        if transport.is_closing():
            return
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(self._descriptor, data)
            except OSError:
                sent = 0  # no room, or nobody there: the transport finds out, and tells
            data = data[sent:]
        if data:
            transport.write(data)

    def write_soon(self, data: bytes) -> None:
        """See `cycle.Wire`."""
        if self._outgoing:
            self.write(data)
        else:
            self._outgoing = data
            if self._outbox.alone:
                self._go()
            else:
                self._outbox.add(self._go)

    def _go(self) -> None:
        """Send what was to be sent within this turn."""
        data, self._outgoing = self._outgoing, b""
        if data:
            self.write(data)

    def close(self) -> None:
        """See `accept.Line`."""
        self._go()
        self._transport.close()

    async def room(self) -> None:
        """See `cycle.Wire`."""
        while self.full and not self.gone:
            self._drained = self.loop.create_future()
            await self._drained

    def listen(self, *, on: bool) -> None:
        """See `cycle.Wire`. While nothing is read, nothing is heard of the app's end: then the socket is asked."""
        if on and self._deaf and not self._waiting and not self.closing:
            self._deaf = False
            self._transport.resume_reading()
        elif not on and not self._deaf and not self.closing:
            self._deaf = True
            self._transport.pause_reading()
            if self._peer_timer is None:
                self._peer_timer = self.loop.call_later(PEER_CHECK_SECS, self._check_peer)

    def ended(self, cycle: Cycle) -> None:
        """See `cycle.Wire`: the next request begins, or is awaited."""
        self._cycle = None
        if not cycle.keep_alive:
            self.close()
        if self._transport.is_closing():
            return
        if self._waiting:
            self._cycle = self._waiting.popleft()
        else:
            self._idle = not self._raw_head
            self._patience(self._keep_alive_secs if self._idle else self._head_secs)
        self.listen(on=True)

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        """A connection is there: its first head is awaited."""
        self._connections.add(self)
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._patience(self._head_secs)
        self._alarm.add(self, self.when)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The app has left."""
        self.gone = True
        self._outgoing = b""
        self._connections.discard(self)
        self._alarm.discard(self)
        if self._peer_timer is not None:
            self._peer_timer.cancel()
            self._peer_timer = None
        self._parser = None  # it holds this object in turn, and so do scopes
        self._scope = {}
        self._line = b""
        self._waiting.clear()
        self.resume_writing()
        if self._cycle is not None:
            self._cycle.wake()
        self._turn.wake()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def eof_received(self) -> None:
        """The app sends no more. That counts as its leaving, but what was to be sent goes."""
        self._go()

    def pause_writing(self) -> None:
        """The app takes less than what comes."""
        self.full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Bytes from the app."""
        self._read(data)
        if not self._due:
            return
        self._due = False
        if self._outbox.open:
            self._turn.wake()  # after what others sent in this turn: their requests take the same steps one after the other
        else:
            self._turn.wake_now()

    def _read(self, data: bytes) -> None:
        if self._in_head:
            if not self._raw_head:
                self._chunk = data
            self._raw_head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing else is spoken here: the request is answered, and its connection is not kept
        except httptools.HttpParserError:
            self._refuse(431 if self._named_head > self._max_head else 400)
            return
        # Most heads come in one piece, and are over by now.
        if self._in_head and self._raw_head and not self._transport.is_closing():
            if self._raw_head > self._max_head:
                self._refuse(431)
            elif self._idle:
                self._idle = False
                self._patience(self._head_secs)

    def shutdown(self) -> None:
        """uvicorn's word: no request after the one that is being answered."""
        if self._cycle is None:
            self.close()
        else:
            self._cycle.keep_alive = False

    # httptools' callbacks

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._count(len(url))
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line, or a trailer's."""
        self._count(len(name) + len(value) + _FOLD)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = self._idle = False
        self._raw_head = 0
        self.when = None
        line = self._chunk[: len(self._line)]
        if not line or line != self._line:
            self._begin()
        scope = self._scope.copy()
        scope["headers"] = self._headers
        expects = self._expects
        # From here on the next head's, but for trailers.
        self._url = self._chunk = b""
        self._headers = []
        self._expects = False
        parser = self._parser
        keep_alive = (
            scope["http_version"] != "1.0" and parser.should_keep_alive() and not parser.should_upgrade()
        )
        cycle = Cycle(self, scope, keep_alive=keep_alive, expects=expects)
        self._newest = cycle
        if self._cycle is not None:
            self._waiting.append(cycle)
            self.listen(on=False)
            return
        self._cycle = cycle
        if self.task is None:
            self.task = self.loop.create_task(self._answer())
        else:
            self._due = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._newest is not None:
            self._newest.feed(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next bytes are a new head."""
        if self._newest is not None:
            self._newest.end()
            self._newest = None
        if self._headers or self._expects:  # trailers, which nobody asks for
            self._headers = []
            self._expects = False
        self._named_head = 0
        self._in_head = True

    async def _answer(self) -> None:
        """Have one request after the other answered, as long as the app stays. To begin a task for each would be a good
        part of what a request takes."""
        task, outbox = self.task, self._outbox
        assert task is not None
        try:
            while not self.gone:
                cycle = self._cycle
                if cycle is None:
                    await self._turn
                    continue
                self._tasks.add(task)  # uvicorn's: those that a server's end waits for
                outbox.open += 1
                try:
                    await cycle.start(self._app)
                except Exception:  # noqa: BLE001  the edge: a fault of one request is told, and ends no other
                    cycle.failed()
                else:
                    cycle.over()
                finally:
                    outbox.open -= 1
                self._tasks.discard(task)
                if self._cycle is cycle:
                    break  # there is no whole answer, and will be none
        finally:
            self.task = None  # it holds this object in turn
            self._tasks.discard(task)
            self.close()

    def _begin(self) -> None:
        """The scope by the head's first line, where that is not the line that the last one had."""
        verb: bytes = self._parser.get_method()
        url: Any = httptools.parse_url(self._url)  # its own types forget that there may be no query
        raw_path: bytes = url.path
        path = raw_path.decode("ascii")
        line = verb + b" " + self._url + _USUAL
        # A line in any other form (1.0, more blanks) may be read as this one, but is not kept.
        usual = self._chunk.startswith(line)
        self._line = line if usual else b""
        extensions: dict[str, Any] = {EXTENSION: self}
        self._scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1" if usual else self._parser.get_http_version(),
            "method": _METHODS.get(verb) or verb.decode("ascii"),
            "scheme": "http",
            "root_path": "",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "headers": [],
            "extensions": extensions,
        }

    # Bounds

    def _count(self, size: int) -> None:
        self._named_head += size
        if self._named_head > self._max_head:
            raise HeadTooLarge

    def _patience(self, secs: float) -> None:
        """From now on so many seconds for the next head."""
        self.when = self.loop.time() + secs
        self._alarm.nearer(self.when)

    def late(self) -> None:
        """See `deadline.Bound`."""
        self.when = None
        if self._transport.is_closing():
            return
        if self._raw_head:
            self._refuse(408)
        else:
            self.close()

    def _refuse(self, status: int) -> None:
        """Answer what never became a request, and close."""
        if self._cycle is not None:
            # Another request's answer is under way on this connection: it must not be written into.
            self.close()
            return
        if status == 431:
            message = (
                f"Request line and headers are larger than {self._max_head} bytes (server.max_header_bytes)."
            )
        elif status == 408:
            message = f"No whole request head within {self._head_secs:g} s (server.header_timeout_secs)."
        else:
            message = "Invalid HTTP request received."
        body = error_body(message, "invalid_request_error", None, None)
        head = STATUS_LINES[status] + (
            b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self.write(head + body)
        self.close()

    def _check_peer(self) -> None:
        self._peer_timer = None
        if not self._deaf or self._transport.is_closing():
            return
        poll = select.poll()
        poll.register(self._descriptor, select.POLLRDHUP)
        if poll.poll(0):
            self._transport.abort()
        else:
            self._peer_timer = self.loop.call_later(PEER_CHECK_SECS, self._check_peer)
