"""Pumps an upstream's bytes down, unchanged and at once, and tells the meter what passed.

Enters: an open answer (first byte here), and a function that sends bytes down. Leaves: how the body ended.
Holds back only what a law asks for: half an event, the usage chunk that the sidecar itself asked for, and,
for stream_stats, the newest chunk with usage. Must not choose status or headers, nor retry.

Back-pressure: the next piece is read when the last one was taken. Cancelled where the app leaves.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, Protocol

from .deadline import Deadline
from .errors import (
    UpstreamDisconnected,
    UpstreamError,
    UpstreamIdleTimeout,
    UpstreamProtocolError,
    UpstreamStreamTimeout,
    UpstreamTimeout,
)
from .keepalive import kept_alive
from .meter import DONE, TOKEN, Mark, Meter, add_stats, tells_nothing
from .records import Endpoint, Event
from .sse import Decoder
from .telemetry import debug

Send = Callable[[bytes], Awaitable[None]]
"""Sends bytes of a body down and returns when there is room for more."""


class Pieces(Protocol):
    """A body as it comes."""

    async def next(self) -> bytes | None:
        """The next piece, None at the end. Raises UpstreamError."""


class Source(Pieces, Protocol):
    """A body whose reader need not be woken for each piece."""

    async def pour(self, sink: Callable[[bytes], bool]) -> bool:
        """Give each piece to `sink` the moment that it is here: to the end (True), or until `sink` wants no more for
        now (False). Raises UpstreamError. `sink` raises nothing."""


KEEPALIVE: Final = b": keep-alive\n\n"

DOCUMENT_BYTES: Final = 1024 * 1024
"""A plain answer up to this size is read for its usage; of a larger one only its end is."""
TAIL_BYTES: Final = 16 * 1024
INFLATED_PIECE: Final = 1024 * 1024
SHORT_PIECE: Final = 2048
"""A piece up to this size holds few events."""
_READ_FIRST: Final = 2
"""Of a longer piece so many events are read before it is asked how many more are like them: a stream's first has no output,
and the next tells what the others have in common."""

_USAGE_AT_END: Final = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class Bounds:
    """Seconds. `until`: loop time by which a plain body is complete, or a whole stream, None for no bound.
    `idle`: the longest silence between two pieces, None for no bound. `keepalive`: silence after which a
    comment goes down, 0 for never. `task`: the one that relays, where that is known."""

    __slots__ = ("idle", "keepalive", "loop", "task", "until")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        until: float | None,
        idle: float | None,
        keepalive: float = 0.0,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.loop = loop
        self.task = task
        self.until = until
        self.idle = idle
        self.keepalive = keepalive


class Stream:
    """One event stream on its way down. Its state can be read at any time, also after it was cancelled."""

    def __init__(
        self, meter: Meter, send: Send, send_now: Callable[[bytes], bool], endpoint: Endpoint, *, hide_usage: bool,
        stats: bool, mask: Callable[[bytes], bytes], debugged: bool,
    ) -> None:  # fmt: skip
        """`send_now` sends where that takes no waiting; where it says False, nothing was sent. `hide_usage` may be taken
        back before the first piece. `debugged`: each piece is told of in a debug line."""
        self.finished = False  # the app has been given the logical end
        self.torn = False
        self._meter = meter
        self._send = send
        self._send_now = send_now
        self._endpoint = endpoint
        self.hide_usage = hide_usage
        self._stats = stats
        self._mask = mask
        self._decoder = Decoder()
        self._kept: list[Event] = []
        self._waiting = b""
        self._ends = False
        self._debugged = debugged

    async def pump(self, pieces: Pieces, source: Source | None, bounds: Bounds) -> None:
        """Relay to the end. `source` is `pieces` once more where it is one. Raises UpstreamError where the stream did
        not end whole; by then every whole event that came is down, and nothing of the next."""
        if bounds.keepalive:
            await _flow(_Kept(pieces, bounds.keepalive, self._keep_alive), bounds, self._take_in)
        elif source is not None:
            await _Poured(self, source, bounds).flow()
        else:
            await _flow(pieces, bounds, self._take_in)
        rest = self._decoder.finish()
        marks = self._marks(rest, monotonic())
        if not (self._meter.complete or self._meter.errored):
            # Of a stream that ends incomplete half an event stays here: an error event follows.
            await self._release(amended=False)
            raise UpstreamProtocolError("The upstream ended the stream before it was complete.")
        await self._pass(rest, marks)
        await self._release(amended=True)
        self.finished = True

    def begin(self, piece: bytes) -> bool:
        """Relay the first piece, which is here already; `pump` goes on from there. False: `catch_up` before that.

        Nothing is waited for as the first token is: where the bytes of few events alone show that they go down as they are,
        they go first and are read then.
        """
        if self._debugged or len(piece) > SHORT_PIECE:
            return self._pass_now(*self._read(piece))
        events = self._decoder.feed(piece)
        now = monotonic()
        if not (events and all(tells_nothing(self._endpoint, event) for event in events)):
            return self._pass_now(events, self._marks(events, now))
        down = b"".join([event.raw for event in events])
        if not self._send_now(down):
            self._waiting = down
        self._marks(events, now)
        self._meter.sent(now, len(events))
        if self._waiting:
            return False
        self._went_down()
        return True

    async def _take_in(self, piece: bytes) -> None:
        if not self.take_now(piece):
            await self.catch_up()

    def take_now(self, piece: bytes) -> bool:
        """Relay a piece as far as that takes no waiting. False: `catch_up` before the next one."""
        if not piece:
            return True
        events, marks = self._read(piece)
        return self._pass_now(events, marks)

    async def catch_up(self) -> None:
        """Send what had to wait."""
        down, self._waiting = self._waiting, b""
        await self._send(down)
        self._went_down()

    async def _keep_alive(self) -> None:
        if not self._decoder.torn:
            await self._send(KEEPALIVE)

    def _read(self, piece: bytes) -> tuple[list[Event], list[Mark]]:
        """The events that a piece completes, and what each says. Those that are known by their form, in a row, are one: to
        take each apart would be most of what a stream costs that comes faster than it is read."""
        now = monotonic()
        decoder = self._decoder
        if len(piece) <= SHORT_PIECE:
            events = decoder.feed(piece)
            return events, self._marks(events, now)
        start = 0
        for _ in range(_READ_FIRST):
            start = piece.find(b"\n\n", start) + 2
            if start < 2:
                start = len(piece)
                break
        events = decoder.feed(piece[:start])
        marks = self._marks(events, now)
        if decoder.between:
            count, end = self._meter.alike(piece, start)
            if count:
                events.append(Event(piece[start:end], "", b"", count=count))
                marks.append(TOKEN)
                start = end
        rest = decoder.feed(piece[start:])
        return events + rest, marks + self._marks(rest, now)

    def _marks(self, events: list[Event], now: float) -> list[Mark]:
        read = self._meter.event
        return [read(event, now) for event in events]

    async def _pass(self, events: list[Event], marks: list[Mark]) -> None:
        if not self._pass_now(events, marks):
            await self.catch_up()

    def _pass_now(self, events: list[Event], marks: list[Mark]) -> bool:
        down = self._output(events) if marks.count(TOKEN) == len(marks) else self._edited(events, marks)
        if self._debugged:
            debug("chunks", events=_count(events), bytes=len(down), pending=self._decoder.pending)
        self._ends = self._ends or DONE in marks
        if down and not self._send_now(down):
            self._waiting = down
            return False
        self._went_down()
        return True

    def _went_down(self) -> None:
        self.torn = self._decoder.torn
        if self._ends or (self._endpoint in (Endpoint.CHAT, Endpoint.RESPONSES) and self._meter.complete):
            self.finished = True

    def _output(self, events: list[Event]) -> bytes:
        """Events of output alone, which most are: they go down as they are."""
        if not events:
            return b""  # half an event, which says nothing of what is kept
        self._meter.sent(monotonic(), _count(events))
        raw = b"".join([event.raw for event in events])
        return self._take() + raw if self._kept else raw

    def _edited(self, events: list[Event], marks: list[Mark]) -> bytes:
        """Events as they go down: without what is not the app's, with what it asked for."""
        out: list[bytes] = []
        now = monotonic()
        for event, mark in zip(events, marks, strict=True):
            if mark.usage_only and self.hide_usage:
                continue
            if event.data is not None and not mark.done:
                self._meter.sent(now, event.count)
            if self._stats and (mark.usage or self._kept):
                out.append(self._keep(event, mark, now))
            else:
                out.append(self._mask(event.raw) if mark.error else event.raw)
        return b"".join(out)

    def _keep(self, event: Event, mark: Mark, now: float) -> bytes:
        """For stream_stats: the newest chunk with usage waits until it is known whether it was the last."""
        if mark.done:
            return self._take(now) + event.raw
        if mark.usage:
            before = self._take()
            self._kept = [event]
            return before
        if event.data is None:
            self._kept.append(event)
            return b""
        return self._take() + event.raw

    def _take(self, now: float | None = None) -> bytes:
        """What was kept; with `now`, its first event tells the stream's figures."""
        kept, self._kept = self._kept, []
        if not kept:
            return b""
        first = kept[0].raw if now is None else add_stats(kept[0], self._meter.stats_json(now))
        return first + b"".join(event.raw for event in kept[1:])

    async def _release(self, *, amended: bool) -> None:
        down = self._take(monotonic() if amended else None)
        if down:
            await self._send(down)


def _count(events: list[Event]) -> int:
    count = 0
    for event in events:
        count += event.count
    return count


async def plain(pieces: Pieces, bounds: Bounds, send: Send, tee: Callable[[bytes], None] | None) -> None:
    """Relay a body that is no event stream. Raises UpstreamError where it broke off."""

    async def take_in(piece: bytes) -> None:
        if tee is not None:
            tee(piece)
        await send(piece)

    await _flow(pieces, bounds, take_in)


class Document:
    """A bounded tee of a plain JSON answer, read for its usage once it is whole."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._held: list[bytes] = []
        self._size = 0
        self._cut = False

    def feed(self, piece: bytes) -> None:
        """Take in one piece as it passes."""
        self._held.append(piece)
        self._size += len(piece)
        if self._size > DOCUMENT_BYTES:
            self._cut = True
            self._held = [b"".join(self._held)[-TAIL_BYTES:]]
            self._size = TAIL_BYTES

    def read(self, meter: Meter) -> bool:
        """Tell the meter what the document says; true where it is an error inside a 200."""
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        if self._encoding and not self._cut:
            try:
                body = inflate(body, DOCUMENT_BYTES)
            except UpstreamProtocolError:
                return False
        if self._cut:
            found = _USAGE_AT_END.search(body)
            body = b'{"usage":' + found[1] + b"}" if found else b""
        return meter.document(body) if body else False


def can_inflate(encoding: str) -> bool:
    """Whether a content coding can be undone here."""
    return encoding in ("gzip", "x-gzip", "deflate")


def inflate(body: bytes, most: int) -> bytes:
    """A whole compressed body, decompressed up to `most` bytes."""
    machine = zlib.decompressobj(47)
    try:
        return machine.decompress(body, most)
    except zlib.error:
        raise UpstreamProtocolError("The upstream's compressed answer is damaged.") from None


class Inflated:
    """A compressed body, decompressed as it comes, in pieces of bounded size."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._machine = zlib.decompressobj(47)
        self._rest = b""

    async def next(self) -> bytes | None:
        """See `Pieces`. Raises UpstreamError where the compressed body is damaged or ended early."""
        while True:
            while self._rest:
                try:
                    out = self._machine.decompress(self._rest, INFLATED_PIECE)
                except zlib.error:
                    raise UpstreamProtocolError("The upstream's compressed answer is damaged.") from None
                self._rest = self._machine.unconsumed_tail
                if out:
                    return out
            piece = await self._pieces.next()
            if piece is None:
                if not self._machine.eof:
                    raise UpstreamDisconnected("The upstream's compressed answer ended early.")
                return None
            self._rest = piece


class _Kept:
    """Pieces, and a comment down to the app whenever none has come for a while."""

    def __init__(self, pieces: Pieces, interval: float, keep_alive: Callable[[], Awaitable[None]]) -> None:
        self._pieces = pieces
        self._interval = interval
        self._keep_alive = keep_alive

    async def next(self) -> bytes | None:
        """See `Pieces`."""
        return await kept_alive(self._pieces.next(), self._interval, self._keep_alive)


class _Poured:
    """A stream that goes down piece by piece as it arrives, in the very call that told of it. Its task is woken at its
    end, and where the app does not keep up."""

    def __init__(self, stream: Stream, source: Source, bounds: Bounds) -> None:
        self._stream = stream
        self._source = source
        self._bounds = bounds
        self._deadline = Deadline(bounds.loop, task=bounds.task)
        self._behind = False
        self._fault: Exception | None = None

    async def flow(self) -> None:
        """To the end. Raises as `_flow` does."""
        deadline = self._deadline
        try:
            with deadline:
                while True:
                    deadline.move(_due(self._bounds))
                    ended = await self._source.pour(self._sink)
                    deadline.move(None)
                    if self._fault is not None:
                        raise self._fault
                    if self._behind:
                        self._behind = False
                        await self._stream.catch_up()
                    elif ended:
                        return
        except TimeoutError:
            if not deadline.expired:
                raise
            raise _too_late(self._bounds, deadline.when) from None

    def _sink(self, piece: bytes) -> bool:
        try:
            self._behind = not self._stream.take_now(piece)
        except Exception as error:  # noqa: BLE001  told to the task, whose fault it would have been
            self._fault = error
            return False
        self._deadline.move(_due(self._bounds))
        return not self._behind


async def _flow(pieces: Pieces, bounds: Bounds, take_in: Send) -> None:
    """Each piece within its bound. The clock stands still while a piece is being taken."""
    deadline = Deadline(bounds.loop, task=bounds.task)
    due: float | None = None
    try:
        with deadline:
            while True:
                due = _due(bounds)
                deadline.move(due)
                piece = await pieces.next()
                deadline.move(None)
                if piece is None:
                    return
                await take_in(piece)
    except TimeoutError:
        if not deadline.expired:
            raise
        raise _too_late(bounds, due) from None


def _due(bounds: Bounds) -> float | None:
    """The loop time by which the next piece has to be here."""
    if bounds.idle is None:
        return bounds.until
    due = bounds.loop.time() + bounds.idle
    return due if bounds.until is None else min(bounds.until, due)


def _too_late(bounds: Bounds, deadline: float | None) -> UpstreamError:
    if bounds.idle is None:
        return UpstreamTimeout("The answer was not complete within http.timeout_secs.")
    if deadline == bounds.until:
        return UpstreamStreamTimeout("The stream lasted longer than http.stream_timeout_secs.")
    return UpstreamIdleTimeout(
        f"The stream fell silent for {bounds.idle:g} s (http.stream_idle_timeout_secs)."
    )
