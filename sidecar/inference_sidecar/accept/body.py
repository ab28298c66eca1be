"""The app's body and headers, on their way up.

Enters: ASGI's receive and headers. Leaves: bytes within a bound, or a stream of pieces within a bound, and
the header lines that may go up. Must not interpret a body.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

from ..errors import BadBody, ClientGone
from ..records import Headers, Reason, Refusal
from ..respond import HOP_BY_HOP, end_to_end
from ..upstream.framing import number_of

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_NOT_UP: Final = HOP_BY_HOP | {
    # Framing and routing are made anew for the upstream.
    b"host", b"content-length", b"expect", b"accept-encoding",
    # The app's own credentials are nobody's business; the configured key takes their place.
    b"authorization", b"api-key", b"x-api-key", b"ocp-apim-subscription-key", b"cookie", b"cookie2",
    # What a browser or a proxy says about where the app is.
    b"origin", b"referer", b"forwarded", b"via", b"x-real-ip",
    b"x-stream-stats",
}  # fmt: skip
_NOT_UP_PREFIXES: Final = (b"x-forwarded-", b"sec-", b"access-control-")
_TRACE: Final = frozenset({b"traceparent", b"tracestate", b"baggage"})
_NOT_UP_UNTRACED: Final = _NOT_UP | _TRACE
_READ: Final = frozenset({
    b"content-length", b"content-type", b"accept-encoding", b"transfer-encoding", b"content-encoding",
    b"x-stream-stats",
})  # fmt: skip
_JSON: Final = b"application/json"
_DECODABLE: Final = frozenset({"gzip", "deflate"})
_NO_CODINGS: Final[frozenset[str]] = frozenset()


class Head:
    """What the header lines say of the body and of the answer that is wanted."""

    __slots__ = ("chunked", "codings", "encoding", "length", "media", "wants_stats")

    def __init__(self) -> None:
        """As they are where there is no line."""
        self.length: int | None = None
        self.chunked = False
        self.media = ""
        self.encoding = ""
        self.codings = _NO_CODINGS
        self.wants_stats = False

    @property
    def has_body(self) -> bool:
        """Whether there is one."""
        return self.chunked or bool(self.length)

    def accepts(self, coding: str) -> bool:
        """Whether the app can read a content coding."""
        return coding in ("", "identity") or coding in self.codings or "*" in self.codings


def read_head(headers: Headers) -> Head:
    """Read the lines that matter here. Names are in lower case."""
    head = Head()
    for name, value in headers:
        if name not in _READ:
            continue
        if name == b"content-length":
            head.length = number_of(value)
        elif name == b"content-type":
            head.media = _media(value)
        elif name == b"accept-encoding":
            head.codings = _codings(headers)
        elif name == b"transfer-encoding":
            head.chunked = True
        elif name == b"content-encoding":
            head.encoding = _coding(value)
        else:
            head.wants_stats = value.strip().lower() == b"true"
    return head


def up(headers: Headers, *, traced: bool) -> Headers:
    """The app's header lines that go up, in order, without framing, credentials and accept-encoding."""
    return end_to_end(headers, _NOT_UP if traced else _NOT_UP_UNTRACED, _NOT_UP_PREFIXES)


def wanted_coding(head: Head, *, readable: bool, plain: bool) -> bytes:
    """The accept-encoding for the upstream. A library's own must not stand here for what the app never
    asked for. `readable`: the answer is read here, so no coding that can't be undone. `plain`: none at all,
    since events cannot be followed at once through a compressor."""
    if plain or not head.codings:
        return b"identity"
    codings = head.codings & _DECODABLE if readable else head.codings
    return ", ".join(sorted(codings)).encode("latin-1") or b"identity"


def too_large(limit: int, setting: str) -> Refusal:
    """The refusal of a body beyond its bound."""
    return Refusal(Reason.BODY_TOO_LARGE, f"The request's body is larger than {limit} bytes ({setting}).")


async def read_whole(receive: Receive, head: Head, limit: int, setting: str) -> bytes | Refusal:
    """A body in memory. Where its declared length is beyond the bound, nothing of it is read."""
    if head.length is not None and head.length > limit:
        return too_large(limit, setting)
    if not head.has_body:
        return b""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        piece, more = _piece(await receive())
        size += len(piece)
        if size > limit:
            return too_large(limit, setting)
        parts.append(piece)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Upload:
    """A body piece by piece, to be read once. Raises BadBody beyond `limit`, ClientGone where the app left."""

    def __init__(self, receive: Receive, limit: int, count: Callable[[int], None]) -> None:
        """`count` is told the size of each piece."""
        self._receive = receive
        self._limit = limit
        self._count = count
        self._size = 0
        self._more = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self._more:
            piece, self._more = _piece(await self._receive())
            if not piece:
                continue
            self._size += len(piece)
            if self._size > self._limit:
                raise BadBody(
                    f"The request's body is larger than {self._limit} bytes (server.max_body_bytes)."
                )
            self._count(len(piece))
            return piece
        raise StopAsyncIteration


def _piece(message: MutableMapping[str, Any]) -> tuple[bytes, bool]:
    """What a message brings of the body, and whether there may be more. Raises ClientGone."""
    if message["type"] == "http.disconnect":
        raise ClientGone("The app closed its connection while it was sending its request.")
    return message.get("body", b""), message.get("more_body", False)


def _media(value: bytes) -> str:
    if value == _JSON:  # nearly always
        return "application/json"
    return value.decode("latin-1").partition(";")[0].strip().lower()


def _coding(value: bytes) -> str:
    coding = value.decode("latin-1").strip().lower()
    return "" if coding == "identity" else coding


def _codings(headers: Headers) -> frozenset[str]:
    accepted = set()
    for name, value in headers:
        if name != b"accept-encoding":
            continue
        for item in value.decode("latin-1").lower().split(","):
            coding, _, weight = item.partition(";")
            refused = weight.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000")
            if coding.strip() and not refused and coding.strip() != "identity":
                accepted.add(coding.strip())
    return frozenset(accepted)
