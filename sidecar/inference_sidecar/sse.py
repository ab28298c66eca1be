"""A bounded decoder of server-sent events.

Enters: the bytes of a stream, however they were split. Leaves: an `Event` as soon as its blank line has come,
with its bytes as they came: what `feed` and `finish` return, put together, is what was fed, whatever was fed.
Must not do I/O, nor know what the data means, nor hold more than the bound and what was fed last.

Lines end with LF, CRLF or CR, in any mixture; a byte order mark may open the stream; fields are read as the
HTML standard reads an event stream. It differs where a relay must: comments and blank lines are events
too (without data), since they go down like all else, and an event that lacks its blank line at a clean end
counts, since servers leave it out after their last one.

An event larger than the bound leaves in pieces as they come. The bound is of the event without its last line
end and its blank line, so that one event is treated alike however it was split.
"""

from __future__ import annotations

import re
from typing import Final

from .records import Event

__all__ = ["MAX_EVENT_BYTES", "Decoder", "Event"]

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D

# Possessive, so that the halves of a CRLF are never taken for two line ends.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n?+|\n)(?:\r\n?+|\n)")
_BLANK_LINES: Final = re.compile(rb"[\r\n]+")


class Decoder:
    """One stream's decoder. Not for use by several tasks at once."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._held = bytearray()
        self._torn = False
        # In a torn event: its last byte, if a line end. A blank line may begin there.
        self._edge = b""
        # What was released last ended with a CR; should an LF come next, it is the rest of that line end.
        self._after_cr = False
        self._late_lf = b""
        # A byte of an event has been released: from then on a byte order mark is but a character.
        self._begun = False

    @property
    def pending(self) -> int:
        """Bytes that have come and have not been released."""
        return len(self._held) + len(self._late_lf)

    @property
    def torn(self) -> bool:
        """What was released last has no blank line at its end: whatever follows would be glued to it."""
        return self._torn

    @property
    def between(self) -> bool:
        """What comes next begins an event, whatever it is."""
        return self._begun and not (self._torn or self._after_cr or self._held or self._late_lf)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order. Takes time for the chunk, not for what is held."""
        if not chunk:
            return []
        if self._after_cr:
            self._after_cr = False
            if chunk[0] == _LF:
                self._late_lf = b"\n"
                chunk = chunk[1:]
        events: list[Event] = []
        if self._torn:
            chunk = self._tear_on(chunk, events)
        elif self._held:
            chunk = self._resume(chunk, events)
        if chunk:
            self._split(chunk, events)
        return self._with_late_lf(events) if self._late_lf else events

    def finish(self) -> list[Event]:
        """What is left at a clean end: at most one event. After a cut there is nothing to call this for."""
        events: list[Event] = []
        if self._held:
            raw = bytes(self._held)
            self._held.clear()
            self._torn = True
            events.append(self._event(raw, len(raw) - _open_line_ends(raw)))
        elif self._late_lf:
            events.append(Event(b"", "", None))
        return self._with_late_lf(events)

    def _with_late_lf(self, events: list[Event]) -> list[Event]:
        if events:
            events[0].raw = self._late_lf + events[0].raw
            self._late_lf = b""
        return events

    def _split_lf(self, chunk: bytes, events: list[Event]) -> int:
        """Cuts off events as nearly every upstream writes them, each found by two searches in C.

        `chunk` begins where an event begins and holds no CR. Returns where the common form ends.
        """
        start, size = 0, len(chunk)
        find, append = chunk.find, events.append
        while start < size:
            end = find(b"\n\n", start)
            if end < 0 or end - start > self._max:
                break
            if chunk.startswith(b"data: ", start) and find(b"\n", start, end) < 0:
                append(Event(chunk[start : end + 2], "", chunk[start + 6 : end]))
            else:
                append(self._event(chunk[start : end + 2], end - start))
            start = end + 2
        return start

    def _split(self, chunk: bytes, events: list[Event]) -> None:
        """Cuts `chunk`, which begins where an event begins, into events, and holds the rest."""
        # Only what begins like a byte order mark may be one.
        self._begun = self._begun or chunk[0] != _BOM[0]
        start = self._split_lf(chunk, events) if self._begun and chunk.find(b"\r") < 0 else 0
        while start < len(chunk):
            if blank := _BLANK_LINES.match(chunk, start):
                stop = blank.end()
                self._begun = True
                events.append(Event(chunk[start:stop], "", None))
            elif found := _BLANK_LINE.search(chunk, start):
                stop = found.end()
                events.append(self._event(chunk[start:stop], found.start() - start))
            else:
                self._held += chunk[start:]
                return self._bound(events)
            start = stop
        self._after_cr = chunk[-1] == _CR
        return None

    def _resume(self, chunk: bytes, events: list[Event]) -> bytes:
        """Goes on with the event that is held; returns what comes after it."""
        # One byte back, as the blank line's first line end may be there already.
        searched = len(self._held) - 1
        self._held += chunk
        if self._held[searched] != _CR and chunk.find(b"\r") < 0:
            end = self._held.find(b"\n\n", searched)
            stop = end + 2
        else:
            found = _BLANK_LINE.search(self._held, searched)
            end, stop = found.span() if found else (-1, 0)
        if end < 0:
            self._bound(events)
            return b""
        # A CRLF whose LF had come already: the event's own bytes end before its CR.
        if end == searched and self._held[end] == _LF and self._held[end - 1] == _CR:
            end -= 1
        whole = bytes(self._held)
        self._held.clear()
        events.append(self._event(whole[:stop], end))
        self._after_cr = stop == len(whole) and whole[-1] == _CR
        return whole[stop:]

    def _bound(self, events: list[Event]) -> None:
        """Lets go of what is held where it has grown beyond the bound."""
        if len(self._held) - _open_line_ends(self._held) <= self._max:
            return
        raw = bytes(self._held)
        self._held.clear()
        self._torn = True
        self._edge = raw[-1:] if raw[-1] in b"\r\n" else b""
        events.append(self._event(raw, len(raw)))

    def _tear_on(self, chunk: bytes, events: list[Event]) -> bytes:
        """Goes on with a torn event; returns what comes after it."""
        seam = self._edge + chunk
        found = _BLANK_LINE.search(seam)
        stop = found.end() - len(self._edge) if found else len(chunk)
        if found:
            self._torn = False
            self._after_cr = stop == len(chunk) and chunk[-1] == _CR
        self._edge = chunk[-1:] if chunk[-1] in b"\r\n" else b""
        events.append(Event(chunk[:stop], "", None, whole=False))
        return chunk[stop:]

    def _event(self, raw: bytes, size: int) -> Event:
        """Reads one event; `size` is that of the event without its blank line."""
        text = raw if self._begun else raw.removeprefix(_BOM)
        self._begun = True
        if size > self._max:
            return Event(raw, "", None, whole=False)
        name, data = "", []
        for line in text.splitlines():
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ").decode("utf-8", "replace")
        return Event(raw, name, b"\n".join(data) if data else None)


def _open_line_ends(raw: bytes | bytearray) -> int:
    """Length of the line end at the end of an event that is not over."""
    return 2 if raw.endswith(b"\r\n") else 1 if raw.endswith((b"\r", b"\n")) else 0
