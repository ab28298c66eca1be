"""A request as the bytes that go up, by HTTP/1.1. No I/O.

Enters: method, target, header lines, a body. Leaves: bytes, or `Unwritable`. Where one request ends is never in
doubt: a head holds no byte that could end a line of it, and no more of a body goes up than its head says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import Unwritable
from .framing import closes, length_of

TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE_BYTES: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""What may stand in a header line's name, and in its value: for requests that go up and answers that go down."""
_TARGET_BYTES: Final = bytes(range(0x21, 0x7F))
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class _Lines:
    """Header lines as they go out, and what they say of the request's end. Raises Unwritable."""

    __slots__ = ("data", "framing", "hosts")

    def __init__(self, lines: Sequence[tuple[bytes, bytes]]) -> None:
        names, values = [name for name, _ in lines], [value for _, value in lines]
        if (
            b"" in names
            or b"".join(names).translate(None, TOKEN)
            or b"".join(values).translate(None, VALUE_BYTES)
        ):
            raise Unwritable
        self.framing: list[tuple[bytes, bytes]] = []
        self.hosts = 0
        out: list[bytes] = []
        for name, value in lines:
            key = name.lower()
            self.hosts += key == b"host"
            if key in _FRAMING:
                self.framing.append((key, value))
            out.append(name + b": " + value + b"\r\n")
        self.data = b"".join(out)


class Beginning:
    """What a head begins with, and the next as a rule as well: to make it anew would be most of making a head. Raises
    Unwritable."""

    __slots__ = ("data", "framing", "hosts", "lines", "method", "target")

    def __init__(self, method: bytes, target: bytes, lines: list[tuple[bytes, bytes]]) -> None:
        if (
            not (target and method)
            or method == b"CONNECT"
            or method.translate(None, TOKEN)
            or target.translate(None, _TARGET_BYTES)
        ):
            raise Unwritable
        written = _Lines(lines)
        self.method = method
        self.target = target
        self.lines = lines[:]  # whoever has them may change them
        self.data = b"%b %b HTTP/1.1\r\n%b" % (method, target, written.data)
        self.framing = written.framing
        self.hosts = written.hosts

    def again(self, method: bytes, target: bytes, lines: list[tuple[bytes, bytes]]) -> bool:
        """Whether another head begins so, too."""
        return method == self.method and target == self.target and lines == self.lines


class RequestHead:
    """The head of a request as it goes out. `length`: of its body in bytes, None where the body is chunked.
    `closes`: the request itself asks that its connection be closed."""

    __slots__ = ("closes", "data", "length")

    def __init__(self, beginning: Beginning, lines: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """`lines`: those after the beginning's. Raises Unwritable."""
        rest = _Lines(lines)
        framing: dict[bytes, bytes] = {}
        for key, value in beginning.framing + rest.framing:
            framing[key] = framing[key] + b"," + value if key in framing else value
        coding, length = framing.get(b"transfer-encoding"), framing.get(b"content-length", b"0")
        size = length_of(length)
        if beginning.hosts + rest.hosts != 1 or size is None:
            raise Unwritable
        if coding is not None and (b"content-length" in framing or coding.lower() != b"chunked"):
            raise Unwritable
        self.data = beginning.data + rest.data + b"\r\n"
        self.length = size if coding is None else None
        self.closes = closes(framing.get(b"connection", b""))


class Frames:
    """A body on its way, framed as its head says. Raises Unwritable where it is not as long as that."""

    def __init__(self, head: RequestHead) -> None:
        self._left = head.length

    def frame(self, piece: bytes) -> bytes:
        """A piece as it goes out, which may be nothing."""
        if self._left is None:
            return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        self._left -= len(piece)
        if self._left < 0:
            raise Unwritable
        return piece

    def end(self) -> bytes:
        """What goes out after the last piece."""
        if self._left:
            raise Unwritable
        return b"0\r\n\r\n" if self._left is None else b""
