"""A request as the bytes that go up, by HTTP/1.1. No I/O.

Enters: method, target, header lines, a body. Leaves: bytes, or `Unwritable`. Where one request ends is never in
doubt: a head holds no byte that could end a line of it, and no more of a body goes up than its head says.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from ..errors import Unwritable
from ..records import Headers
from .framing import closes, length_of

if TYPE_CHECKING:
    import httpx

TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE_BYTES: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""What may stand in a header line's name, and in its value: for requests that go up and answers that go down."""
_TARGET_BYTES: Final = bytes(range(0x21, 0x7F))
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_KNOWN: Final = frozenset({b"traceparent", b"tracestate"})
"""Names that come with every request, and need no look."""


Lines = tuple[tuple[bytes, bytes], ...]
"""Header lines that nobody changes."""


class Ready:
    """A request that may be written as it is. `lines` are complete together with `own_lines` and `length`, framing and Host
    included: of the first it is expected that the next request has the same, the others come last. `length` is what is to be
    said of the body's, None where nothing is. `body` is whole, or is read once. `target` and `fresh` are as in `transport`. `meanwhile` is called once the request is on its way, or is about to be: the
    upstream then takes its time. `changed`: the lines no longer count, but those of the request that was made of this."""

    __slots__ = (
        "body", "changed", "fresh", "length", "lines", "meanwhile", "method", "own_lines", "target", "url",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        url: httpx.URL,
        target: bytes,
        lines: Lines,
        own_lines: Headers,
        body: bytes | AsyncIterable[bytes],
        *,
        length: int | None = None,
        fresh: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.target = target
        self.lines = lines
        self.own_lines = own_lines
        self.body = body
        self.length = length
        self.fresh = fresh
        self.meanwhile = meanwhile
        self.changed = False


class _Lines:
    """Header lines as they go out, and what they say of the request's end. Raises Unwritable."""

    __slots__ = ("data", "framing", "hosts")

    def __init__(self, lines: Sequence[tuple[bytes, bytes]]) -> None:
        self.framing: list[tuple[bytes, bytes]] = []
        self.hosts = 0
        names: list[bytes] = []
        values: list[bytes] = []
        out: list[bytes] = []
        for name, value in lines:
            if name not in _KNOWN:
                names.append(name)
                key = name.lower()
                self.hosts += key == b"host"
                if key in _FRAMING:
                    self.framing.append((key, value))
            values.append(value)
            out.append(name + b": " + value + b"\r\n")
        if names and (b"" in names or b"".join(names).translate(None, TOKEN)):
            raise Unwritable
        if b"".join(values).translate(None, VALUE_BYTES):
            raise Unwritable
        self.data = b"".join(out)


class Beginning:
    """What a head begins with, and the next as a rule as well: to make it anew would be most of making a head. Raises
    Unwritable."""

    __slots__ = ("data", "framing", "hosts", "lines", "method", "target")

    def __init__(self, method: bytes, target: bytes, lines: Sequence[tuple[bytes, bytes]]) -> None:
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
        self.lines = tuple(lines)
        self.data = b"%b %b HTTP/1.1\r\n%b" % (method, target, written.data)
        self.framing = written.framing
        self.hosts = written.hosts

    def again(self, method: bytes, target: bytes, lines: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether another head begins so, too."""
        return method == self.method and target == self.target and tuple(lines) == self.lines


class RequestHead:
    """The head of a request as it goes out. `length`: of its body in bytes, None where the body is chunked.
    `closes`: the request itself asks that its connection be closed."""

    __slots__ = ("closes", "data", "length")

    def __init__(
        self, beginning: Beginning, lines: Sequence[tuple[bytes, bytes]] = (), length: int | None = None
    ) -> None:
        """`lines`: those after the beginning's. `length` is as `Ready` has it. Raises Unwritable."""
        rest = _Lines(lines)
        data = beginning.data + rest.data
        if length is not None:
            data += b"content-length: " + str(length).encode() + b"\r\n"
        self.data = data + b"\r\n"
        if beginning.hosts + rest.hosts != 1:
            raise Unwritable
        given = beginning.framing + rest.framing
        if not given:  # nearly always
            self.length: int | None = length or 0
            self.closes = False
            return
        framing: dict[bytes, bytes] = {} if length is None else {b"content-length": b"%d" % length}
        for key, value in given:
            framing[key] = framing[key] + b"," + value if key in framing else value
        coding = framing.get(b"transfer-encoding")
        size = length_of(framing.get(b"content-length", b"0"))
        if size is None:
            raise Unwritable
        if coding is not None and (b"content-length" in framing or coding.lower() != b"chunked"):
            raise Unwritable
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
