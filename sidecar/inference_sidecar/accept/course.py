"""What is known of one request so far, and what goes down to its app.

Enters: what the rooms find out. Leaves: ASGI messages, and at the end an `Outcome`. Must not decide anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .. import relay, respond
from ..meter import Meter
from ..records import End, Endpoint, Headers, InferenceRequest, Outcome, Refusal
from ..runtime import Runtime
from ..telemetry import debug, names
from ..upstream import Attempts
from .line import Line

if TYPE_CHECKING:
    from ..telemetry.spans import Trace

AsgiSend = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONTENT_KEPT: Final = 256 * 1024
"""Bytes of an answer that are kept for a trace, where traces tell content."""
CONTENT_SHOWN: Final = 16 * 1024
"""Bytes of a body or a piece that a debug line shows, where content may be logged at all."""


_UNREAD: Final = InferenceRequest(b"", b"")


class Course:
    """One request's state, written by the rooms that it passes. Times are `time.monotonic()`'s: a loop's own clock may
    stand still while it works."""

    def __init__(
        self,
        request_id: str,
        method: str,
        path: bytes,
        started: float,
        trace: Trace | None,
        *,
        debugged: bool,
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.path = path
        self.started = started
        self.trace = trace
        self.debugged = debugged
        self.endpoint = Endpoint.OTHER
        self.request = _UNREAD
        self.attempts = Attempts()
        self.bytes_up = 0
        self.meter: Meter | None = None
        self.stream: relay.Stream | None = None
        self.upstream_id: bytes | None = None
        self.end = End.FAILED
        self.error: str | None = None
        self.error_message: str | None = None
        self.param: str | None = None
        self.document: relay.Document | None = None
        """A plain answer that is still to be read for what it says of itself: that can wait until it has gone down."""

    def completed(self) -> None:
        """It ended as it should; where the upstream itself told of an error, that is what counts."""
        if self.meter is not None and self.meter.errored:
            self.failed("upstream_error_event")
        else:
            self.end = End.COMPLETED

    def failed(self, error: str, message: str | None = None) -> None:
        """It failed. `error` is low in cardinality, see `records.Outcome`."""
        self.end, self.error, self.error_message = End.FAILED, error, message

    def refused(self, refusal: Refusal) -> None:
        """The sidecar answers itself."""
        self.end, self.error = End.REFUSED, refusal.reason.value
        self.error_message, self.param = refusal.message, refusal.param

    def cancelled(self) -> None:
        """The app left before it had its answer."""
        self.end, self.error = End.CANCELLED, None

    def count_up(self, size: int) -> None:
        """So many bytes of a streamed body went up."""
        self.bytes_up += size

    def outcome(self, now: float, downlink: Downlink, runtime: Runtime) -> Outcome:
        """All of it, after the end. The key is taken out of what is the upstream's own word: it goes into logs and
        metrics, and an upstream may repeat the key wherever it likes."""
        meter, target = self.meter, runtime.target
        if self.document is not None and meter is not None:
            self.document.read(meter)
            if self.end is End.COMPLETED:
                self.completed()
        path = self.path[:256].decode("latin-1")
        provider = names.provider(runtime.config.inference.provider, azure=target.azure)
        has_server = provider != "echo"
        masked = runtime.masked
        upstream_id = self.upstream_id

        return Outcome(
            request_id=self.request_id,
            endpoint=self.endpoint,
            method=self.method,
            path=path,
            status=downlink.status,
            end=self.end,
            duration_s=now - self.started,
            error=self.error,
            error_message=self.error_message and masked(self.error_message),
            param=self.param,
            streaming=self.request.stream or downlink.streamed,
            streamed=downlink.streamed,
            model=self.request.model,
            response_model=masked(meter.model) if meter and meter.model else None,
            attempts=self.attempts.count,
            bytes_up=self.bytes_up,
            bytes_down=downlink.bytes,
            first_byte_s=None if downlink.first_byte is None else downlink.first_byte - self.started,
            first_chunk_s=meter.first_chunk - self.started if meter and meter.first_chunk else None,
            first_token_s=meter.first_token - self.started if meter and meter.first_token else None,
            usage=meter.usage if meter else None,
            finish_reasons=tuple(map(masked, meter.finish_reasons)) if meter else (),
            stream=meter.stats(now) if meter and downlink.streamed else None,
            upstream_request_id=None if upstream_id is None else masked(upstream_id[:128].decode("latin-1")),
            operation=names.operation(self.endpoint, path),
            provider=provider,
            server_address=target.host if has_server else None,
            server_port=target.port if has_server else None,
            model_configured=self.request.model in runtime.named_models,
            trace=self.trace.kept if self.trace is not None else None,
            retries=tuple(self.attempts.retries),
            parameters=self.request.parameters,
            choices=self.request.choices,
            response_id=masked(meter.id) if meter and meter.id else None,
            fingerprint=masked(meter.fingerprint) if meter and meter.fingerprint else None,
            service_tier=masked(meter.service_tier) if meter and meter.service_tier else None,
        )


class Downlink:
    """The way down to one request's app: head, pieces, end, and what of them has gone already."""

    def __init__(
        self,
        send: AsgiSend,
        line: Line,
        *,
        method: str,
        origin: bytes | None,
        request_id: str,
        content_mask: Callable[[bytes], bytes] | None,
    ) -> None:
        """`origin` is the accepted origin of a web page, which is told that it may read the answer.
        `content_mask` takes the key out of content that is logged; None where content is not logged."""
        self.status = 0
        self.begun = False
        self.streamed = False
        self.complete = False
        self.bytes = 0
        self.first_byte: float | None = None
        self.kept: bytearray | None = None
        """The first bytes that went down, where traces tell content."""
        self._send = send
        self._line = line
        self._method = method
        self._origin = origin
        self._request_id = request_id
        self._content_mask = content_mask

    async def reply(self, reply: respond.Reply) -> None:
        """Send a whole answer of the sidecar's own."""
        headers = list(reply.headers)
        if reply.status != 204 and self._method != "HEAD":
            headers.append((b"content-length", b"%d" % len(reply.body)))
        await self.whole(reply.status, headers, reply.body)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer, in one piece."""
        if not self.whole_now(status, headers, body):
            await self.head(status, headers)
            if body and self._method != "HEAD":
                await self.body(body)
            await self.finish()

    def whole_now(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer if there is room for it right now; where there is none, nothing is sent."""
        if self._method == "HEAD":
            body = b""
        if not self._line.answer(status, self._lines(headers), body):
            return False
        self.status = status
        self.begun = self.complete = True
        if body:
            self._passes(body)
        return True

    async def head(self, status: int, headers: Headers, *, stream: bool = False) -> None:
        """Send status and headers, which leave with the first of the body. `stream`: they begin an event stream."""
        self.status, self.begun, self.streamed = status, True, stream
        await self._send({"type": "http.response.start", "status": status, "headers": self._lines(headers)})

    def head_now(self, status: int, headers: Headers, *, stream: bool = False) -> bool:
        """As `head`, if there is room right now; where there is none, nothing is sent."""
        if not self._line.begin(status, self._lines(headers)):
            return False
        self.status, self.begun, self.streamed = status, True, stream
        return True

    def _lines(self, headers: Headers) -> Headers:
        """With what every answer is told."""
        lines = headers[:]
        for name, _ in headers:
            if name == b"x-request-id":
                break
        else:
            lines.append((b"x-request-id", self._request_id.encode()))
        if self._origin is not None:
            lines += respond.cors(self._origin)
        return lines

    async def body(self, piece: bytes) -> None:
        """Send a piece of the body; returns when there is room for more."""
        self._passes(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    def body_now(self, piece: bytes) -> bool:
        """Send a piece of the body if there is room for it right now; where there is none, nothing is sent."""
        if not self._line.pour(piece):
            return False
        self._passes(piece)
        return True

    def _passes(self, piece: bytes) -> None:
        if self.first_byte is None:
            self.first_byte = monotonic()
        self.bytes += len(piece)
        if self.kept is not None and len(self.kept) < CONTENT_KEPT:
            self.kept += piece[: CONTENT_KEPT - len(self.kept)]
        if self._content_mask is not None:
            debug("response content", request_id=self._request_id, content=shown(self._content_mask(piece)))

    async def flush(self) -> None:
        """Send the head by itself: of the body nothing can go down yet."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def finish(self) -> None:
        """End the answer as a whole one."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def finish_now(self) -> bool:
        """As `finish`, if there is room right now; where there is none, nothing is sent."""
        self.complete = self._line.finish()
        return self.complete


def shown(piece: bytes) -> str:
    """Content as a debug line shows it."""
    return piece[:CONTENT_SHOWN].decode("utf-8", "replace")
