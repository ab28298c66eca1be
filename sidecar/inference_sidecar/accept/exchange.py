"""One request from its head to its outcome: place it, read it, send it up, bring the answer down.

Enters: ASGI's scope and receive, and the upstream that serves this request to its end.
Leaves: an answer, and an `Outcome`. Every end that is not the upstream's is worded here: refused, failed,
cut by the process's end, left by the app.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .. import models, relay, respond, validate
from ..errors import BadBody, ClientGone, UpstreamError
from ..keepalive import kept_alive
from ..records import Endpoint, Headers, InferenceRequest, Outcome, Reason, Refusal, Said
from ..runtime import Located
from ..telemetry import Figures, debug
from ..upstream import Answer, Call, Upstream
from ..validate.body import decoded
from . import body as bodies
from .answer import METERED, Descent
from .course import AsgiSend, Course, Downlink, shown
from .line import Line

if TYPE_CHECKING:
    from ..telemetry.spans import Trace

TURN_BYTES: Final = 64 * 1024
"""To take in a body of more, to decode it, to check it and to send it are each a turn of the loop, so that others wait for
less."""
_LISTS: Final = frozenset({Endpoint.MODELS, Endpoint.MODEL})
_BEFORE_JSON: Final = b" \t\r\n\xef\xbb\xbf\xfe\xff\0"
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Exchange:
    """One request. Created, served once, asked for its outcome."""

    def __init__(
        self,
        scope: Any,
        receive: bodies.Receive,
        send: AsgiSend,
        upstream: Upstream,
        figures: Figures,
        *,
        line: Line,
        origin: bytes | None,
        request_id: str,
        trace: Trace | None,
    ) -> None:
        self.cut = False
        self.ended = 0.0  # by the monotonic clock
        self._receive = receive
        self._upstream = upstream
        self._runtime = upstream.runtime
        self._line = line
        self._headers: Headers = scope["headers"]
        self._query: bytes = scope["query_string"]
        self._located: Located | None = None
        self._head = bodies.read_head(self._headers)
        self.course = Course(
            request_id,
            scope["method"],
            scope["raw_path"],
            monotonic(),
            trace,
            debugged=self._runtime.debugged,
        )
        self._down = Downlink(
            send,
            line,
            method=scope["method"],
            origin=origin,
            request_id=request_id,
            content_mask=self._runtime.mask
            if self._runtime.values.content and self.course.debugged
            else None,
        )
        if trace is not None and trace.content:
            self._down.kept = bytearray()
        self._descent = Descent(self.course, self._down, self._runtime, self._head, figures, line)

    async def serve(self, refused: Refusal | None) -> None:
        """From the head to the last byte. Raises CancelledError where the app leaves."""
        if self._line.gone:
            raise asyncio.CancelledError
        failed: tuple[respond.Reply, str, str] | None = None
        try:
            call = refused or self._at_once()
            if call is None:
                call = self._call(await self._read())
            if isinstance(call, Refusal):
                refused = call
            else:
                answer = await self._open(call)
                try:
                    descent = self._descent.bring(answer)
                    if descent is not None:
                        await descent
                except BaseException:
                    answer.drop()
                    raise
                if not answer.close_now():
                    await answer.aclose()
        except ClientGone:
            raise asyncio.CancelledError from None
        except BadBody as error:
            refused = Refusal(Reason.BODY_TOO_LARGE, str(error))
        except UpstreamError as error:
            self.course.failed(error.code, str(error))
            exhausted = self.course.attempts.exhausted
            failed = respond.fault(error, exhausted=exhausted), str(error), error.code
        if failed is not None:
            await self._tell(*failed)
        if refused is not None:
            self.course.refused(refused)
            await self._down.reply(respond.refusal(refused))

    async def aside(self, reply: respond.Reply) -> None:
        """Answer what is no request of the API's."""
        await self._down.reply(reply)

    def _at_once(self) -> Call | Refusal | None:
        """What goes up, or a refusal; None where the body is still to be received."""
        course = self.course
        located = self._upstream.locate(course.method, course.path, self._query, None)
        if isinstance(located, Refusal):
            return located
        course.endpoint, self._located = located.endpoint, located
        refused = self._refused_by_path(located)
        if refused is not None:
            return refused
        body = self._here()
        return None if body is None else self._call(self._held(body))

    def _refused_by_path(self, located: Located) -> Refusal | None:
        if located.model is None:
            return None
        if located.endpoint is Endpoint.MODEL:
            return models.hidden(located.model, self._runtime.listed)
        return validate.model_allowed(located.model, self._runtime.rules)

    async def _read(self) -> InferenceRequest | AsyncIterator[bytes] | Refusal | None:
        """The body: read and checked, or a stream that is passed through, or None where there is none."""
        course, head, limits = self.course, self._head, self._runtime.values
        if not head.has_body and course.endpoint is not Endpoint.CHAT:
            return None if course.method in _WITHOUT_BODY else InferenceRequest(b"", b"")
        if not self._is_held():
            if head.length is not None and head.length > limits.max_body_bytes:
                return bodies.too_large(limits.max_body_bytes, "server.max_body_bytes")
            return bodies.Upload(self._receive, limits.max_body_bytes, course.count_up)
        body = await bodies.read_whole(self._receive, head, limits.max_json_bytes, "server.max_json_bytes")
        if isinstance(body, Refusal):
            return body
        if len(body) <= TURN_BYTES:
            return self._held(body)
        await asyncio.sleep(0)
        text = decoded(body) if self._runtime.rules.read else None
        await asyncio.sleep(0)
        checked = self._held(body, text)
        await asyncio.sleep(0)
        return checked

    def _here(self) -> bytes | None:
        """The body, where it is small, is to be held, and is here already: to receive it would be most of reading it."""
        size = self._head.length
        if not size or size > TURN_BYTES or size > self._runtime.values.max_json_bytes or not self._is_held():
            return None
        return self._line.take()

    def _held(self, body: bytes, text: str | Refusal | None = None) -> InferenceRequest | Refusal:
        """A body in memory, checked. `text` is as `validate` has it."""
        self.course.bytes_up = len(body)
        if self.course.debugged:
            self._debug_request(body)
        return self._checked(body, text)

    def _checked(self, body: bytes, text: str | Refusal | None) -> InferenceRequest | Refusal:
        rules = self._runtime.rules
        chat = self.course.endpoint is Endpoint.CHAT
        if self._head.encoding and (rules.allowed is not None or (chat and rules.strict)):
            message = "A compressed request body cannot be checked; send it uncompressed."
            return Refusal(Reason.UNSUPPORTED_ENCODING, message)
        if chat:
            return validate.chat(body, rules, usage_shown=self._head.wants_stats, text=text)
        if not self._is_json() and not body.lstrip(_BEFORE_JSON).startswith(b"{"):
            return InferenceRequest(body, body)
        return validate.passthrough(body, rules, text=text)

    def _is_held(self) -> bool:
        """Whether a body is read into memory: where it is JSON, and where it may be read as such by an
        upstream that does not look at its media type, so that it must not name any model."""
        restricted = self._runtime.rules.allowed is not None
        return self._is_json() or (restricted and not self._head.media.startswith("multipart/"))

    def _is_json(self) -> bool:
        media = self._head.media
        return self.course.endpoint in METERED or media == "application/json" or media.endswith("+json")

    def _call(self, request: InferenceRequest | AsyncIterator[bytes] | Refusal | None) -> Call | Refusal:
        course, target, located = self.course, self._runtime.target, self._located
        assert located is not None, "a request that is read has its place"
        if isinstance(request, Refusal):
            return request
        if isinstance(request, InferenceRequest):
            course.request = request
            course.bytes_up = len(request.body)
            if request.model is not None and target.azure and target.deployment is None:
                # On Azure's classic paths the model names the deployment: the body has its say in the path.
                elsewhere = self._upstream.locate(course.method, course.path, self._query, request.model)
                if isinstance(elsewhere, Refusal):
                    return elsewhere
                located = elsewhere
        endpoint = course.endpoint
        headers = bodies.up(self._headers, traced=self._runtime.values.propagate_traceparent)
        coding = bodies.wanted_coding(
            self._head, readable=endpoint in METERED or endpoint in _LISTS, plain=course.request.stream
        )
        headers.append((b"accept-encoding", coding))
        body: bytes | AsyncIterator[bytes] | None = None
        without_usage = None
        if isinstance(request, InferenceRequest):
            body = request.body
            without_usage = None if request.original is request.body else request.original
        elif request is not None:
            body, length = request, self._head.length
            chunked = (b"transfer-encoding", b"chunked")
            headers.append(chunked if length is None else (b"content-length", b"%d" % length))
        if course.debugged:
            self._debug_call(located)
        ready = self._descent.expect_stream if course.request.stream else None
        return Call(
            course.method, located.target, headers, endpoint, body, without_usage, course.trace, ready
        )

    def _open(self, call: Call) -> Coroutine[Any, Any, Answer]:
        """The answer's head and first byte. Meanwhile, where the configuration says so, comments go down."""
        course, upstream = self.course, self._upstream
        if course.trace is not None:
            course.trace.goes_up()
        interval = self._runtime.values.keepalive_comment_secs
        if not interval or not course.request.stream:
            return upstream.send(call, course.attempts, self._line.task)
        return kept_alive(upstream.send(call, course.attempts), interval, self._keep_alive, Answer.drop)

    async def _keep_alive(self) -> None:
        if not self._down.begun:
            await self._descent.begin_stream(200, respond.STREAM_HEADERS)
        await self._down.body(relay.KEEPALIVE)

    async def interrupted(self) -> bool:
        """After a cancellation: the app left, or the process ends. False: somebody else cancelled."""
        course = self.course
        if self._line.gone:
            # What had ended before the app left, or because of which it was cut off, stays as it ended.
            if course.error is None and not self._down.complete:
                if course.stream is not None and course.stream.finished:
                    # It closes as soon as it has seen the end: it got what it asked for.
                    course.completed()
                else:
                    course.cancelled()
            return True
        if not self.cut:
            return False
        if not self._down.complete:
            refused = Refusal(Reason.SHUTTING_DOWN, "The sidecar is shutting down.")
            course.failed(refused.reason.value, refused.message)
            await self._tell(respond.refusal(refused), refused.message, refused.reason.value)
        return True

    async def broken(self) -> None:
        """After a fault of our own: say so where that is still possible."""
        refused = Refusal(Reason.INTERNAL_ERROR, "The sidecar failed. Its log says why.")
        self.course.failed(refused.reason.value, refused.message)
        await self._tell(respond.refusal(refused), refused.message, refused.reason.value)

    def ends(self) -> None:
        """Nothing more goes down."""
        self.ended = monotonic()

    def outcome(self) -> Outcome:
        """The whole of it, after the end."""
        return self.course.outcome(self.ended, self._down, self._runtime)

    def said(self) -> Said | None:
        """What was asked and what was answered; None where traces tell no content."""
        kept = self._down.kept
        return None if kept is None else Said(self.course.request.original, bytes(kept), self._runtime.mask)

    async def _tell(self, reply: respond.Reply, message: str, code: str) -> None:
        """Tell the app of a failure in the best way that is left: an answer, an event, a cut connection."""
        if not self._down.begun:
            await self._down.reply(reply)
        elif self._down.streamed:
            await self._descent.end_stream(message, code)
        else:
            self._line.close()

    def _debug_request(self, body: bytes) -> None:
        debug("request received", request_id=self.course.request_id, bytes=len(body))
        if self._runtime.values.content:
            debug("request content", request_id=self.course.request_id, content=shown(body))

    def _debug_call(self, located: Located) -> None:
        course = self.course
        debug(
            "upstream call",
            request_id=course.request_id,
            method=course.method,
            target=located.target.decode("latin-1"),
            bytes=course.bytes_up,
            model=course.request.model,
            stream=course.request.stream,
        )
