"""uvicorn's HTTP protocol with what a door on the open needs: bounds on a request's head, and news of the app.

Enters: bytes of one connection. Leaves: ASGI calls, made by uvicorn. Answers in OpenAI's shape where a head
breaks a bound before there is a request.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..accept import EXTENSION
from ..respond import error_body

PEER_CHECK_SECS: Final = 0.05

_FOLD: Final = 4  # `: ` and the line end of a header line


class HeadTooLargeError(Exception):
    """The request line and headers are larger than their bound."""


class _Outlet:
    """A transport that can hold back what is written: uvicorn writes head and body apart, and each write of uvloop's
    is a call to the kernel."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.held: list[bytes] | None = None
        self._transport = transport
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        if self.held is None:
            self._transport.write(data)
        else:
            self.held.append(data)

    def release(self) -> None:
        held, self.held = self.held, None
        if held:
            self._transport.write(b"".join(held))

    def close(self) -> None:
        self.release()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """One connection of an app. Implements `accept.Line`.

    `max_head` bytes and `head_secs` seconds bound the request line and headers.
    """

    max_head: int
    head_secs: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gone = False
        self._callback: Callable[[], Any] | None = None
        self._in_head = True
        self._raw_head = 0
        self._named_head = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._peer_timer: asyncio.TimerHandle | None = None

    # accept.Line

    @property
    def full(self) -> bool:
        """See `accept.Line`."""
        return self.flow.write_paused

    def watch(self, callback: Callable[[], Any] | None) -> None:
        """See `accept.Line`."""
        self._callback = callback

    def close(self) -> None:
        """See `accept.Line`."""
        self.release()
        self.transport.close()

    def hold(self) -> None:
        """See `accept.Line`."""
        self._outlet.held = []

    def release(self) -> None:
        """See `accept.Line`."""
        self._outlet.release()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is there: its first head is awaited."""
        super().connection_made(transport)
        self._outlet = _Outlet(transport)
        self.transport = cast("asyncio.Transport", self._outlet)
        self._head_timer = self.loop.call_later(self.head_secs, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The app has left."""
        self.gone = True
        for timer in (self._head_timer, self._peer_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def data_received(self, data: bytes) -> None:
        """Bytes from the app."""
        if self._in_head:
            self._raw_head += len(data)
        super().data_received(data)
        # Most heads come in one piece, and are over by now.
        if self._in_head and self._raw_head and not self.transport.is_closing():
            if self._raw_head > self.max_head:
                self._answer(431, self._too_large())
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self.head_secs, self._head_late)

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._named_head = 0
        extensions: dict[str, Any] = {EXTENSION: self}
        self.scope["extensions"] = extensions

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line. uvicorn's own few lines, spared a call for each: they are what it does, too."""
        self._named_head += len(name) + len(value) + _FOLD
        if self._named_head > self.max_head:
            raise HeadTooLargeError
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._raw_head = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body. Where too much of it waits, uvicorn stops reading, and with that stops
        hearing of the app's end; then the socket is asked instead."""
        super().on_body(body)
        if self.flow.read_paused and self._peer_timer is None:
            self._peer_timer = self.loop.call_later(PEER_CHECK_SECS, self._check_peer)

    def on_message_complete(self) -> None:
        """The request is whole; the next bytes are a new head."""
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP, in OpenAI's shape."""
        if self._named_head > self.max_head:
            self._answer(431, self._too_large())
        else:
            self._answer(400, msg)

    # Bounds

    def _count(self, size: int) -> None:
        self._named_head += size
        if self._named_head > self.max_head:
            raise HeadTooLargeError

    def _too_large(self) -> str:
        return f"Request line and headers are larger than {self.max_head} bytes (server.max_header_bytes)."

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._raw_head:
            self._answer(
                408, f"No whole request head within {self.head_secs:g} s (server.header_timeout_secs)."
            )
        else:
            self.transport.close()

    def _answer(self, status: int, message: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # Another request's answer is under way on this connection: it must not be written into.
            self.transport.close()
            return
        body = error_body(message, "invalid_request_error", None, None)
        head = STATUS_LINE[status] + (
            b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()

    def _check_peer(self) -> None:
        self._peer_timer = None
        flow: FlowControl = self.flow
        if not flow.read_paused or self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if poll.poll(0):
            self.transport.abort()
        else:
            self._peer_timer = self.loop.call_later(PEER_CHECK_SECS, self._check_peer)
