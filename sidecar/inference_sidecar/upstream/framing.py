"""What the bytes of an answer say, by HTTP/1.1. No I/O.

Enters: an answer's bytes, split anywhere. Leaves: status, header lines, body, and whether the answer is whole; or
a fault, told without quoting a byte of it.

- The same bytes give the same answer however they were split, and the same body before the same fault.
- What cannot be framed beyond doubt is a fault, never a guess. Nothing that comes after an answer's end is
  ever part of a body.
- Every part is bounded but the body itself, of which no more is kept than what was fed last.

llhttp judges heads, with none of its leniencies switched on: line ends, tokens, control characters, folded
lines, more than one Content-Length, one beside a Transfer-Encoding. It is given whole heads alone, and what it
lets pass is judged here. Bodies are framed here: httptools does not tell where in its input an answer ended,
cannot be told that an answer is to HEAD, and bounds no chunk extension.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import httptools

MAX_HEAD: Final = 100 * 1024
"""Bytes of one head, blank line included."""
MAX_FIELDS: Final = 256
"""Header lines of one head."""
MAX_INTERIM: Final = 16
"""1xx answers before the one that counts."""
MAX_EXTENSION: Final = 1024
"""Bytes of one chunk's extensions."""
MAX_TRAILERS: Final = 16 * 1024
MAX_LENGTH_DIGITS: Final = 18

Step = Callable[["Answer", bytes], bytes]

_TEXT: Final = rb"\t\x20-\x7e\x80-\xff"
_TOKEN: Final = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
_STATUS: Final = re.compile(rb"(HTTP/1\.[01]) ([1-9]\d\d)(?: ([%b]*))?\r\n" % _TEXT)
_USUAL: Final = b"HTTP/1.1 200 OK\r\n"
_BEGUN: Final = b"HTTP/1."
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_KEPT_FOR: Final = re.compile(rb"(?:^|[\s,;])timeout=(\d{1,9})(?:$|[\s,;])", re.IGNORECASE)
_LINE_END: Final = b"\r\n"
# Of each chunk the line before it and the line end of the chunk before that: the first has the head's.
_CHUNK: Final = re.compile(
    rb"\r\n([0-9A-Fa-f]{1,15})[ \t]{0,16}(?:;[%b]{0,%d})?\r\n" % (_TEXT, MAX_EXTENSION)
)
_CHUNK_BEGUN: Final = re.compile(
    rb"\r?|\r\n(?:[0-9A-Fa-f]{1,15}[ \t]{0,16}(?:;[%b]{0,%d})?\r?)?" % (_TEXT, MAX_EXTENSION)
)
_TRAILERS: Final = re.compile(rb"\r\n(?:[%b]+:[%b]*\r\n)*\r\n" % (_TOKEN, _TEXT))
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


class Answer:
    """The answer to one request, byte by byte. `status` is 0 until the head is whole that is no 1xx.

    `complete` and `fault` exclude each other. `reusable`: its connection may carry another request, as far as
    the answer says. `surplus`: bytes came after its end. `kept_for`: seconds that the peer keeps an idle
    connection, where it says so.
    """

    __slots__ = (
        "_bare", "_buffer", "_framing", "_interim", "_left", "_parser", "_step", "_tail",
        "begun", "complete", "fault", "headers", "kept_for", "reason", "reusable", "status", "surplus", "version",
    )  # fmt: skip

    def __init__(self, *, bare: bool) -> None:
        """`bare`: an answer to HEAD, which has no body whatever its head says."""
        self.status = 0
        self.reason = b""
        self.version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = False
        self.complete = False
        self.fault: str | None = None
        self.reusable = False
        self.surplus = False
        self.kept_for: int | None = None
        self._bare = bare
        self._step: Step = Answer._head
        self._buffer = bytearray()  # of a head or of trailers
        self._tail = b""  # of the chunks, what is to be read with what comes
        self._framing: dict[bytes, bytes] = {}
        self._interim = 0
        self._left = 0
        self._parser: Any = None

    def expect(self) -> None:
        """Make what is to read the head, while it is awaited."""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """Take what arrived, at least one byte; returns what of the body is in it."""
        self.begun = True
        if self.complete or self.fault is not None:
            self.surplus = True
            return b""
        return self._step(self, data)

    def end(self) -> None:
        """The input ended in order. That completes a body without a length; for all else it is a cut."""
        if self._step is Answer._to_the_end:
            self.complete = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp's word for a header line, of which it has taken the blanks before the value."""
        if value and value[-1] in (0x20, 0x09):
            value = value.rstrip(b" \t")
        self.headers.append((name, value))
        key = name.lower()
        if key in _FRAMING:
            self._framing[key] = self._framing[key] + b"," + value if key in self._framing else value

    def _head(self, data: bytes) -> bytes:
        buffer = self._buffer
        if not buffer:  # nearly every head comes in one piece
            end = data.find(b"\r\n\r\n") + 4
            if 4 <= end <= MAX_HEAD:
                return self._headed(data[:end], data[end:])
        searched = max(0, len(buffer) - 3)
        buffer += data
        end = buffer.find(b"\r\n\r\n", searched) + 4
        if end < 4 or end > MAX_HEAD:
            if not _BEGUN.startswith(bytes(buffer[: len(_BEGUN)])):
                return self._fail("it does not begin with HTTP/1")
            if _BARE_LF.search(buffer, searched):
                return self._fail("a line ends without CR")
            return b"" if len(buffer) < MAX_HEAD else self._fail(f"its head is larger than {MAX_HEAD} bytes")
        head, rest = bytes(buffer[:end]), bytes(buffer[end:])
        buffer.clear()
        return self._headed(head, rest)

    def _headed(self, head: bytes, rest: bytes) -> bytes:
        status = self._parse(head)
        if self.fault is None and 100 <= status < 200:
            return self._skip(rest)
        if self.fault is None:
            self._frame(status)
        if self.fault is not None:
            return b""
        self.status = status
        return self.feed(rest) if rest else b""

    def _parse(self, head: bytes) -> int:
        """Returns the status; version, reason and header lines go where they belong."""
        if head.startswith(_USUAL):
            self.version, self.reason, status = b"HTTP/1.1", b"OK", 200
        else:
            line = _STATUS.match(head)
            if line is None:
                self._fail("its status line is none")
                return 0
            self.version, self.reason, status = line[1], line[3] or b"", int(line[2])
        if status == 101:
            self._fail("it switches protocols without being asked")
            return 0
        parser, self._parser = self._parser, None  # it holds this object in turn
        try:
            (parser or httptools.HttpResponseParser(self)).feed_data(head)
        except httptools.HttpParserError as exc:
            self._fail(str(exc).lower())  # llhttp's words are constants, and quote nothing
        if len(self.headers) > MAX_FIELDS:
            self._fail(f"it has more than {MAX_FIELDS} header lines")
        return status

    def _skip(self, rest: bytes) -> bytes:
        """An interim answer is none of anybody's, and its header lines go with it."""
        self.headers.clear()
        self._framing.clear()
        self._interim += 1
        if self._interim > MAX_INTERIM:
            return self._fail(f"more than {MAX_INTERIM} interim answers")
        return self._head(rest) if rest else b""

    def _frame(self, status: int) -> None:
        """How long the body is: RFC 9112, 6.3, with every case that it leaves open refused."""
        framing = self._framing
        coding, length = framing.get(b"transfer-encoding"), framing.get(b"content-length")
        old = self.version == b"HTTP/1.0"
        if coding is not None and (old or length is not None or coding.lower() != b"chunked"):
            self._fail("its transfer-encoding is not chunked alone")
            return
        left = None if length is None else length_of(length)
        if length is not None and left is None:
            self._fail("its content-length is no length")
            return
        self.reusable = not old and not (b"connection" in framing and closes(framing[b"connection"]))
        if b"keep-alive" in framing:
            kept_for = _KEPT_FOR.search(framing[b"keep-alive"])
            self.kept_for = int(kept_for[1]) if kept_for is not None else None
        if self._bare or status in (204, 304):
            self.complete = True
        elif coding is not None:
            self._step = Answer._chunks
            self._tail = _LINE_END
        elif left is not None:
            self._step = Answer._counted
            self._left = left
            self.complete = not left
        else:
            self._step = Answer._to_the_end
            self.reusable = False

    def _counted(self, data: bytes) -> bytes:
        left = self._left
        self._left -= len(data)
        if self._left > 0:
            return data
        self.complete = True
        self.surplus = self._left < 0
        return data[:left]

    def _to_the_end(self, data: bytes) -> bytes:
        return data

    def _chunks(self, data: bytes) -> bytes:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        size, at = len(data), self._left  # `at`: where the open chunk ends
        if at >= size:
            self._left = at - size
            return data
        body = [data[:at]]
        while True:
            length, start = _chunk(data, at)
            if not start:
                break
            if not length:
                self._step = Answer._trailers
                self._trailers(data[start - 2 :])
                return b"".join(body)
            at = start + length
            body.append(data[start:at])
            if at >= size:
                self._left = at - size
                return b"".join(body)
        self._left = 0
        tail = self._tail = data[at:]
        if tail != _LINE_END and not _CHUNK_BEGUN.fullmatch(tail):
            self._fail("a chunk is not framed as one")
        return b"".join(body)

    def _trailers(self, data: bytes) -> bytes:
        """Field lines after the last chunk. They are checked and dropped."""
        buffer = self._buffer
        searched = max(0, len(buffer) - 3)
        buffer += data
        end = buffer.find(b"\r\n\r\n", searched) + 4
        if end < 4:
            if _BARE_LF.search(buffer, searched) or len(buffer) > MAX_TRAILERS:
                return self._fail("its trailers are not framed as such")
            return b""
        if end > MAX_TRAILERS or not _TRAILERS.fullmatch(buffer, 0, end):
            return self._fail("its trailers are not framed as such")
        self.complete = True
        self.surplus = len(buffer) > end
        buffer.clear()
        return b""

    def _fail(self, why: str) -> bytes:
        self.fault = why
        return b""


def length_of(value: bytes) -> int | None:
    """What a Content-Length says, None where that is no length that is taken from, or told to, an upstream."""
    return None if len(value) > MAX_LENGTH_DIGITS else number_of(value)


def number_of(value: bytes) -> int | None:
    """The number that digits write, None where there is anything else."""
    if not value.isdigit():
        return None
    number = 0
    for digit in value:
        number = number * 10 + digit - 0x30
    return number


def _chunk(data: bytes, at: int) -> tuple[int, int]:
    """A chunk's length, and where it begins: by the line at `at`. Twice 0 where that is none, or not all of it is here.

    What nearly every line is, a number and nothing else, is read at once: an expression takes three times as long, and after
    a pause far more.
    """
    length, place, size = 0, at + 2, len(data)
    while place < size:
        byte = data[place]
        if 0x30 <= byte <= 0x39:
            length = length * 16 + byte - 0x30
        elif 0x61 <= byte <= 0x66 or 0x41 <= byte <= 0x46:
            length = length * 16 + (byte & 0x0F) + 9
        else:
            break
        place += 1
        if place > at + 17:
            return 0, 0
    if place >= size:
        return 0, 0
    if at + 2 < place and data[at : at + 2] == _LINE_END and data[place : place + 2] == _LINE_END:
        return length, place + 2
    line = _CHUNK.match(data, at)
    return (0, 0) if line is None else (int(line[1], 16), line.end())


def closes(connection: bytes) -> bool:
    """Whether a Connection header says that the connection is to be closed."""
    return connection != b"" and any(
        option.strip(b" \t") == b"close" for option in connection.lower().split(b",")
    )
