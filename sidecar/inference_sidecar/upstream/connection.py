"""One connection to an upstream, plain or TLS, and on it one exchange at a time.

Enters: an open `Link`, then requests. Leaves: an `Answer` whose head is whole, its body piece by piece, or an
UpstreamError. Must not open or pool connections, nor measure time.

- What a failed send leaves behind stays readable: see `link`. An answer of 400 or more ends the upload under
  it; so does a failed send, after which reading goes on to the answer that explains it.
- Bytes are read as they come, during an upload too, until `HIGH_WATER` of a body lie unread, and then none
  until they are taken. Of a request no more is held than the piece that is going up.
- A byte beyond an answer's end makes the connection unusable, whenever it comes, and is given to nobody.
- Closing never suspends, and wakes whoever waits. A cancelled or failed exchange is to be closed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import AsyncIterable, Callable
from typing import Final

from ..errors import Unwritable, UpstreamDisconnected, UpstreamError, UpstreamProtocolError
from ..outbox import outbox_of
from ..waiter import Waiter
from .dial import reason
from .framing import Answer
from .link import CHUNK, STREAK, TLS_PIECE, Link
from .request import Frames, RequestHead
from .session import Session

HIGH_WATER: Final = 2 * CHUNK
"""Bytes of a body that may lie unread before the socket is left alone; what was read last comes on top."""
JOINED: Final = 64 * 1024
"""So much of a body goes up together with its head, which by itself would wake the peer for nothing."""


class Connection:
    """`name` is for error messages. `closed` is called once, when the connection is closed, by whomever. What comes is
    received into `room`, of `CHUNK` bytes, which all connections of a loop may share: of it nothing is kept.

    `idle` and `idle_until` (loop time) are the pool's; an idle connection whose peer says anything closes.
    """

    __slots__ = (
        "_answer", "_broken", "_closed", "_error", "_head", "_left", "_link", "_loop", "_outbox", "_outgoing", "_over",
        "_pieces", "_poll", "_reading", "_room", "_secure", "_sink", "_size", "_sock", "_stopped", "_streak", "_unsent", "_used",
        "_waiter", "idle", "idle_until", "name", "origin",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        secure: Session | None,
        origin: object,
        name: str,
        closed: Callable[[Connection], None],
        room: memoryview,
    ) -> None:
        self.origin = origin
        self.name = name
        self.idle = False
        self.idle_until = 0.0
        self._link = link
        self._sock = link.sock
        self._secure = secure
        self._closed = closed
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        self._poll.register(link.sock, select.POLLIN)
        self._head: RequestHead | None = None
        self._answer: Answer | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter = Waiter(self._loop)
        self._error: OSError | None = None
        self._reading = False  # the loop tells of what arrives
        self._over = False  # nothing more is going to arrive
        self._broken = False  # a send failed
        self._outbox = outbox_of(self._loop)
        self._outgoing = b""  # which waits there
        self._left = b""  # for which there was no room
        self._unsent = False  # the request did not go up whole, or not yet
        self._used = False  # this is not the first exchange
        self._streak = 0  # bytes since the loop last had its turn
        self._sink: Callable[[bytes], bool] | None = None  # takes pieces at once
        self._stopped = False  # and wants no more of them for now

    @property
    def usable(self) -> bool:
        """Whether another request may follow: the last one and its answer are whole, and nothing beside them."""
        head, answer = self._head, self._answer
        return not (
            self._over or self._unsent or head is None or head.closes
            or answer is None or answer.surplus or not (answer.complete and answer.reusable)
        )  # fmt: skip

    def alive(self) -> bool:
        """Whether an idle connection is open as far as can be known here: nothing has come, no end either."""
        # An attempt to read is dearer, for it ends in an exception.
        if self._poll.poll(0):
            self._readable()
        return not self._over

    async def exchange(
        self,
        head: RequestHead,
        body: bytes | AsyncIterable[bytes],
        *,
        bare: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a request and wait for the head of its answer. `bare` and `meanwhile` are as for `Answer` and `Ready`. Raises
        UpstreamError, Unwritable, and what `body` raises; then the connection has to be closed."""
        if isinstance(body, bytes) and len(body) != head.length:
            raise Unwritable
        self._used = self._answer is not None
        self._head = head
        self._pieces.clear()  # of the last answer, if its reader did not want it
        self._size = 0
        if not self._used:
            self._answer = Answer(bare=bare)
            if self._secure is not None:
                self._received(0)  # what came together with the end of the handshake
        self._unsent = True
        joined = isinstance(body, bytes) and len(body) <= JOINED
        if isinstance(body, bytes) and joined:
            self._send_soon(head.data + body)
        # All that can wait until the request is on its way does.
        if self._used:
            self._answer = Answer(bare=bare)
        answer = self._answer
        assert answer is not None
        answer.expect()
        self._listen()
        if not joined:
            self._unsent = not await self._send(head, body)
        if meanwhile is not None:
            meanwhile()
        while self._left or not answer.status:
            if self._left:
                left, self._left = self._left, b""
                self._unsent = not await self._put(memoryview(left))
            elif answer.fault is not None or self._over:
                raise self._failure(answer)
            else:
                await self._waiter
        return answer

    async def read(self, answer: Answer) -> bytes:
        """Of the body what has come, at least one byte; b"" at its end. Raises UpstreamError."""
        while not self._pieces:
            if answer.complete:
                return b""
            if answer.fault is not None or self._over:
                raise self._failure(answer)
            await self._waiter
        return self._taken()

    def here(self) -> bytes:
        """Of a body what has come and was not read; b"" where that is nothing."""
        return self._taken() if self._pieces else b""

    async def pour(self, answer: Answer, sink: Callable[[bytes], bool]) -> bool:
        """Give what has come of the body, and then each piece in the call that receives it, to `sink`: to its end
        (True), or until `sink` says False. Raises UpstreamError."""
        self._stopped = False
        while not self._stopped:
            if self._pieces:
                self._stopped = not sink(self._taken())
                continue
            if answer.complete:
                return True
            if answer.fault is not None or self._over:
                raise self._failure(answer)
            self._sink = sink
            try:
                await self._waiter
            finally:
                self._sink = None
        return False

    def _taken(self) -> bytes:
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._listen()
        return piece

    def drained(self, answer: Answer) -> bool:
        """Whether the body was read to its end."""
        return answer.complete and not self._pieces

    def close(self) -> None:
        """Close at once. Who waits here fails."""
        if not self._link.closed:
            self._lost(OSError(errno.EBADF, os.strerror(errno.EBADF)))
            self._link.close()
            self._closed(self)

    # Sending

    def _send_soon(self, data: bytes) -> None:
        """Send what goes up in one piece, within this turn of the loop."""
        if self._secure is not None:
            try:
                data = self._secure.encrypt(data)
            except OSError:
                self._broken = True
                return
        self._outgoing = data
        if self._outbox.alone:
            self._go()
        else:
            self._outbox.add(self._go)

    def _go(self) -> None:
        data, self._outgoing = self._outgoing, b""
        if self._over:
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken = True
            return
        self._unsent = sent < len(data)
        if self._unsent:  # there was no room for all of it
            self._left = data[sent:]
            self._waiter.wake()

    async def _send(self, head: RequestHead, body: bytes | AsyncIterable[bytes]) -> bool:
        """Returns whether the request went up whole."""
        if not isinstance(body, bytes):
            frames = Frames(head)
            if not await self._write(head.data):
                return False
            async for piece in body:
                if not await self._write(frames.frame(piece)):
                    return False
            return await self._write(frames.end())
        return await self._write(head.data + body[:JOINED]) and await self._write(memoryview(body)[JOINED:])

    async def _write(self, data: bytes | memoryview) -> bool:
        """Returns whether all of it went: not where the peer wants no more, or takes no more."""
        view = memoryview(data)
        secure = self._secure
        if secure is None:
            return await self._put(view)
        while view:
            piece, view = view[:TLS_PIECE], view[TLS_PIECE:]
            try:
                sealed = secure.encrypt(piece)
            except OSError:
                self._broken = True
                return False
            if not await self._put(memoryview(sealed)):
                return False
        return True

    async def _put(self, view: memoryview) -> bool:
        sock = self._sock
        while view:
            if self._refused():
                return False
            try:
                sent = sock.send(view[:TLS_PIECE])
            except BlockingIOError:
                sent = 0
            except OSError:
                self._broken = True
                return False
            if not sent:
                await self._writable()
                continue
            view = view[sent:]
            # A peer as fast as we are must not keep everybody else from the loop.
            self._streak += max(sent, TLS_PIECE // STREAK)
            if self._streak >= TLS_PIECE:
                self._streak = 0
                await asyncio.sleep(0)
        return True

    def _refused(self) -> bool:
        """Only a refusal says that the rest of a body is not wanted; any other answer may go with it."""
        answer = self._answer
        return self._over or (answer is not None and (answer.status >= 400 or answer.fault is not None))

    # Receiving

    def _readable(self) -> None:
        """Take all that is there: after a reset uvloop tells of it once and never again. Less than was asked for is
        all; whether a reset lies behind it, the socket says at a third of what a vain attempt to read costs."""
        sock = self._sock
        reset: OSError | None = None
        try:
            while not self._over:
                size = sock.recv_into(self._room)
                if size:
                    self._received(size)
                else:
                    self._no_more(reset)
                if self._enough():
                    break
                if size < CHUNK and reset is None:
                    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not error:
                        break
                    # What came before it is still to be read.
                    reset = OSError(error, os.strerror(error))
        except BlockingIOError:
            if reset is not None:
                self._lost(reset)
        except OSError as exc:
            self._lost(exc)
        if self._sink is None or not self._poured(self._sink):
            self._go_on()
        if self.idle and self._over:
            self.close()

    def _no_more(self, reset: OSError | None) -> None:
        """The socket gives no more bytes; whether that is in order."""
        if reset is not None:
            self._lost(reset)
        elif self._secure is None:
            self._ended()
        else:
            self._lost(ConnectionResetError("closed without the end of TLS"))

    def _enough(self) -> bool:
        """Whether no more is to be read for now."""
        if self._size >= HIGH_WATER:
            self._deafen()
            return True
        return self._answer is not None and self._answer.complete and not self.idle

    def _poured(self, sink: Callable[[bytes], bool]) -> bool:
        """Whether all that is here went on, and there will be more: nobody need wake."""
        if self._pieces:
            self._stopped = not sink(self._taken())
        answer = self._answer
        return not (
            self._stopped or self._over or answer is None or answer.complete or answer.fault is not None
        )

    def _received(self, size: int) -> None:
        """So many bytes have come, and are in the room."""
        answer, secure, room = self._answer, self._secure, self._room
        assert answer is not None, "nothing is read before the first exchange"
        plain = bytes(room[:size]) if secure is None else secure.decrypt(room, size)
        if plain:
            piece = answer.feed(plain)
            if piece:
                self._pieces.append(piece)
                self._size += len(piece)
            if answer.surplus or answer.fault is not None:
                self._end()
        if secure is not None:
            if secure.failure is not None:
                self._lost(secure.failure)
            elif secure.ended:
                self._ended()

    def _ended(self) -> None:
        """The input ended in order; but after a failed send that is all that is seen of a reset. Then only a
        refusal may end so, for nobody wanted the body that was still going up."""
        answer = self._answer
        if answer is not None and not (self._broken and answer.status < 400):
            answer.end()
        self._end()

    def _lost(self, error: OSError) -> None:
        if not self._over:
            self._error = error
        self._end()

    def _end(self) -> None:
        self._over = True
        self._deafen()
        self._waiter.wake()

    def _listen(self) -> None:
        if not self._reading and not self._over:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def _deafen(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    async def _writable(self) -> None:
        """Until there is room to send, or something has arrived, or ended."""
        self._loop.add_writer(self._sock, self._waiter.wake)
        try:
            await self._waiter
        finally:
            if not self._link.closed:
                self._loop.remove_writer(self._sock)

    def _go_on(self) -> None:
        """What was waited for is here, and the loop has just told of it."""
        if self._outbox.alone:
            self._waiter.wake_now()
        else:
            self._waiter.wake()  # others have their turn, and take the same steps one after the other

    def _failure(self, answer: Answer) -> UpstreamError:
        if answer.fault is not None:
            return UpstreamProtocolError(
                f"{self.name} sent an answer that is not valid HTTP/1.1: {answer.fault}."
            )
        reused = "" if answer.begun or not self._used else " It had served requests before."
        if self._error is not None:
            return UpstreamDisconnected(f"Connection to {self.name} lost: {reason(self._error)}.{reused}")
        return UpstreamDisconnected(f"{self.name} closed the connection before its answer was whole.{reused}")
