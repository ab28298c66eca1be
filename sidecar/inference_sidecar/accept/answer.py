"""An upstream's answer on its way down: which of the four kinds it is, and how it ends.

Enters: an open `Answer`. Leaves: what goes down, and the end in the request's `Course`. Error, list of models,
event stream, anything else: each has its own way to stay truthful when it breaks.
"""

from __future__ import annotations

from collections.abc import Coroutine
from time import monotonic
from typing import Any

from .. import models, relay, respond
from ..errors import UpstreamError, UpstreamProtocolError
from ..meter import Meter, error_event
from ..records import Endpoint, Headers
from ..runtime import Runtime
from ..telemetry import Figures, debug
from ..telemetry.names import TIME_PER_OUTPUT_CHUNK
from ..upstream import Answer
from .body import Head
from .course import Course, Downlink
from .line import Line

METERED = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES})
"""Endpoints whose answers carry usage."""

_TELL_THEIR_END = frozenset({Endpoint.CHAT, Endpoint.RESPONSES})
_WITHOUT_BODY = frozenset({204, 304})
_MAX_HELD_BYTES = 16 * 1024 * 1024


class Descent:
    """Brings answers of one request down. `begin_stream` and `end_stream` also serve where there is none yet."""

    def __init__(
        self, course: Course, downlink: Downlink, runtime: Runtime, head: Head, figures: Figures, line: Line
    ) -> None:
        self._loop = line.loop
        self._course = course
        self._down = downlink
        self._runtime = runtime
        self._head = head
        self._figures = figures
        self._line = line

    def bring(self, answer: Answer) -> Coroutine[Any, Any, None] | None:
        """Relay one answer to its end: at once (None), or by what is to be awaited. Raises UpstreamError, then as now, only
        while a plain error can still be told."""
        course = self._course
        course.upstream_id = _id_of(answer)
        if course.debugged:
            debug(
                "upstream answer",
                request_id=course.request_id,
                status=answer.status,
                attempts=answer.attempts,
                headers={
                    name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers(answer)
                },
            )
        if answer.status >= 400:
            return self._error(answer)
        meter = self._meter()
        pieces, headers, readable = self._decoded(answer)
        if readable and _is_event_stream(answer) and course.method != "HEAD":
            return self._stream(answer, pieces, headers, meter)
        if self._down.begun:
            raise UpstreamProtocolError("The upstream answered a streaming request without a stream.")
        if course.endpoint is Endpoint.MODELS and answer.status == 200:
            return self._models(answer, pieces, headers)
        encoding = _encoding(answer)
        coded = bool(encoding) and any(name == b"content-encoding" for name, _ in headers)
        length = _length(answer, course.method)
        if length is not None and (coded or not encoding):
            headers = [*headers, (b"content-length", length)]
        document = relay.Document(encoding if coded else "") if course.endpoint in METERED else None
        if answer.whole and pieces is answer and self._down.whole_now(answer.status, headers, answer.first):
            if document is not None:
                document.feed(answer.first)
                course.document = document
            course.completed()
            return None
        return self._plain(answer, pieces, headers, document)

    def _meter(self) -> Meter:
        """The request's meter, from here on."""
        course = self._course
        if course.meter is None:
            bounds = TIME_PER_OUTPUT_CHUNK.bounds
            course.meter = Meter(course.endpoint, course.started, course.request.choices, bounds)
        return course.meter

    def expect_stream(self) -> None:
        """Make what a stream needs, while the upstream works on its first word."""
        course = self._course
        if course.stream is None:
            course.stream = relay.Stream(
                self._meter(),
                self._down.body,
                self._down.body_now,
                course.endpoint,
                hide_usage=course.request.usage_hidden,
                stats=self._head.wants_stats,
                mask=self._runtime.mask,
                debugged=course.debugged,
            )

    async def begin_stream(self, status: int, headers: Headers) -> None:
        """Begin an event stream downstream."""
        self._streams()
        await self._down.head(status, headers, stream=True)

    def _streams(self) -> None:
        self._meter()
        self._figures.stream_began()

    async def end_stream(self, message: str, code: str) -> None:
        """End an event stream with an error event in the endpoint's own form."""
        course = self._course
        event = error_event(
            course.endpoint,
            message=message,
            type="upstream_error",
            code=code,
            param=None,
            sequence_number=course.meter.next_sequence if course.meter is not None else 0,
        )
        torn = course.stream is not None and course.stream.torn
        await self._down.body(b"\n\n" + event if torn else event)
        await self._down.finish()

    async def _error(self, answer: Answer) -> None:
        body, headers = answer.first, answer.headers
        encoding = _encoding(answer)
        if relay.can_inflate(encoding):
            body = relay.inflate(body, _MAX_HELD_BYTES)
            headers = [line for line in headers if line[0] != b"content-encoding"]
        self._course.failed(f"upstream_http_{answer.status}", respond.words_of(body))
        reply = respond.upstream_error(
            answer.status,
            headers,
            body,
            exhausted=answer.exhausted,
            mask=self._runtime.mask,
            method=self._course.method,
            cut=answer.cut,
        )
        if self._down.begun:
            # A comment went down while this was awaited: the status can no longer be told.
            return await self.end_stream(respond.message_of(reply.body), "upstream_http_error")
        return await self._down.reply(reply)

    async def _models(self, answer: Answer, pieces: relay.Pieces, headers: Headers) -> None:
        listing = bytearray()

        async def collect(piece: bytes) -> None:
            listing.extend(piece)
            if len(listing) > _MAX_HELD_BYTES:
                raise UpstreamProtocolError("The upstream's list of models is too large.")

        await relay.plain(
            pieces,
            relay.Bounds(self._loop, until=answer.deadline, idle=None, task=self._line.task),
            collect,
            None,
        )
        self._course.completed()
        body = models.visible(bytes(listing), self._runtime.listed)
        await self._down.reply(respond.Reply(200, headers, body))

    async def _plain(
        self, answer: Answer, pieces: relay.Pieces, headers: Headers, document: relay.Document | None
    ) -> None:
        course = self._course
        await self._down.head(answer.status, headers)
        if pieces is not answer:
            await self._down.flush()
        if answer.first:
            try:
                await relay.plain(
                    pieces, self._bounds(answer), self._down.body, document.feed if document else None
                )
            except UpstreamError as error:
                # The head has gone down: what is left to say is that this body is not whole.
                course.failed(error.code, str(error))
                self._line.close()
                return None
        course.document = document
        course.completed()
        return await self._down.finish()

    def _bounds(self, answer: Answer) -> relay.Bounds:
        """JSON is bounded as a whole. What may be large (files, audio) is bounded like a stream."""
        if b"json" in (answer.header(b"content-type") or b""):
            return relay.Bounds(self._loop, until=answer.deadline, idle=None, task=self._line.task)
        return self._stream_bounds()

    def _stream_bounds(self, keepalive: float = 0.0) -> relay.Bounds:
        values = self._runtime.values
        whole = values.stream_timeout_secs
        left = None if whole is None else self._course.started + whole - monotonic()
        until = None if left is None else self._loop.time() + left
        return relay.Bounds(
            self._loop,
            until=until,
            idle=values.stream_idle_timeout_secs,
            keepalive=keepalive,
            task=self._line.task,
        )

    async def _stream(self, answer: Answer, pieces: relay.Pieces, headers: Headers, meter: Meter) -> None:
        course = self._course
        if not answer.first and course.endpoint in _TELL_THEIR_END:
            raise UpstreamProtocolError("The upstream ended the stream before it began.")
        self.expect_stream()
        stream = course.stream
        assert stream is not None
        if answer.usage_dropped:
            stream.hide_usage = False
        if not self._down.begun:
            self._streams()
            if not self._down.head_now(answer.status, headers, stream=True):
                await self._down.head(answer.status, headers, stream=True)
            if pieces is answer and not stream.begin(answer.take_first()):
                await stream.catch_up()
            if not self._down.bytes:
                await self._down.flush()
        keepalive = self._runtime.values.keepalive_comment_secs
        failed: tuple[str, str] | None = None
        try:
            source = answer if pieces is answer and answer.pours else None
            await stream.pump(pieces, source, self._stream_bounds(keepalive))
        except UpstreamError as error:
            failed = str(error), error.code
        if failed is None:
            course.completed()
        elif meter.errored:
            # The upstream has told of its error itself; a second one would only hide it.
            course.failed("upstream_error_event", failed[0])
        else:
            course.failed(failed[1], failed[0])
            return await self.end_stream(*failed)
        return None if self._down.finish_now() else await self._down.finish()

    def _decoded(self, answer: Answer) -> tuple[relay.Pieces, Headers, bool]:
        """The body as it goes down, its headers, and whether its bytes can be read here.

        A coding that the app did not accept is undone; so is one around events, which must be followed.
        """
        headers = self._headers(answer)
        encoding = _encoding(answer)
        if not encoding:
            return answer, headers, True
        inflatable = relay.can_inflate(encoding)
        if self._head.accepts(encoding) and not (inflatable and _is_event_stream(answer)):
            return answer, headers, False
        if not inflatable:
            raise UpstreamProtocolError(
                "The upstream compressed its answer in a way that the app does not accept."
            )
        return relay.Inflated(answer), [line for line in headers if line[0] != b"content-encoding"], True

    def _headers(self, answer: Answer) -> Headers:
        return respond.down(answer.headers, mask=self._runtime.mask)


def _is_event_stream(answer: Answer) -> bool:
    return (answer.header(b"content-type") or b"").lower().startswith(respond.EVENT_STREAM)


def _encoding(answer: Answer) -> str:
    """The content coding, empty where there is none."""
    line = answer.header(b"content-encoding")
    if line is None or not answer.first:
        return ""
    coding = line.decode("latin-1").strip().lower()
    return "" if coding == "identity" else coding


def _length(answer: Answer, method: str) -> bytes | None:
    """The content-length that goes down: what came, where it frames the body that came."""
    if answer.status in _WITHOUT_BODY:
        return None
    if answer.header(b"transfer-encoding") is None:
        length = answer.header(b"content-length")
        if length is not None:
            return length
    return None if answer.first or method == "HEAD" else b"0"


def _id_of(answer: Answer) -> bytes | None:
    return answer.header(b"x-request-id") or answer.header(b"apim-request-id")
