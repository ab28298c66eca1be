"""Spans of one request: SERVER at the app's edge, CLIENT for the call, and below it one for each attempt.

Enters: the app's headers, and at the end the `Outcome`. Leaves: spans, each ended exactly once, in `end`; what they
tell is put on them there, in one go, so that a request pays for it once and an unsampled one never.
Imported only where traces are exported. Must not hold a span current across an await of somebody else's, but for an
attempt's, whose instrumentation asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ..records import End, Headers, Outcome
from . import content, names
from . import span_names as told

Attributes = dict[str, AttributeValue]

_ROOT: Final = Context()
_W3C: Final = TraceContextTextMapPropagator()
_MAX_HEADER: Final = 512
_MAX_NAME: Final = 256
"""Of a model's name, which is the app's to choose."""
_CLIENT_FAULTS: Final = range(400, 500)


class Tracing:
    """What every request's spans have in common. `traceparent`: the app's is taken. `content`: messages are told."""

    def __init__(
        self, tracer: Tracer, observe: Callable[[Any], Any], *, traceparent: bool, content: bool
    ) -> None:
        """`observe` wraps a transport so that each request on it makes a span, below the current one."""
        self.observe = observe
        self.content = content
        self._tracer = tracer
        self._traceparent = traceparent

    def begin(self, headers: Headers) -> Trace:
        """A request came. Header names are in lower case."""
        parent = self._parent(headers) if self._traceparent else _ROOT
        return Trace(self, self._tracer, self._tracer.start_span("HTTP", parent, SpanKind.SERVER), headers)

    def _parent(self, headers: Headers) -> Context:
        """What the app's traceparent says; two of them, or one that is malformed, say nothing."""
        parents = [value for name, value in headers if name == b"traceparent"]
        if len(parents) != 1:
            return _ROOT
        carrier = {
            "traceparent": [parents[0].decode("latin-1")],
            "tracestate": [value.decode("latin-1") for name, value in headers if name == b"tracestate"],
        }
        if len(carrier["traceparent"][0]) > _MAX_HEADER or sum(map(len, carrier["tracestate"])) > _MAX_HEADER:
            carrier["tracestate"] = []
        return _W3C.extract({name: value for name, value in carrier.items() if value}, _ROOT)


class Trace:
    """One request's spans. `recording`: they are kept; where not, nothing is worked out for them."""

    __slots__ = ("_call", "_headers", "_sent", "_server", "_tracer", "_tracing", "recording")

    def __init__(self, tracing: Tracing, tracer: Tracer, server: Span, headers: Headers) -> None:
        self.recording = server.is_recording()
        self._tracing = tracing
        self._tracer = tracer
        self._headers = headers
        self._server = server
        self._call: Span | None = None
        self._sent = 0

    @property
    def ids(self) -> tuple[str, str]:
        """Ids of the trace and of the innermost span that lasts as long as the request, in hex."""
        context = (self._call or self._server).get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    @property
    def kept(self) -> tuple[str, str] | None:
        """The ids where the trace is sampled, else None."""
        return self.ids if self._server.get_span_context().trace_flags.sampled else None

    @property
    def content(self) -> bool:
        """Whether messages are wanted."""
        return self.recording and self._tracing.content

    def goes_up(self) -> None:
        """The request may go up: the call begins."""
        if self.recording and self._call is None:
            self._call = self._tracer.start_span(
                "call", set_span_in_context(self._server, _ROOT), SpanKind.CLIENT
            )

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one attempt: its span is made by the transport's instrumentation, below the call's."""
        token = contexts.attach(set_span_in_context(self._call or self._server, _ROOT))
        try:
            yield
        finally:
            contexts.detach(token)

    def attempt_began(self) -> None:
        """Called inside an attempt's span."""
        if self._sent:
            get_current_span().set_attribute(told.HTTP_RESEND_COUNT, self._sent)
        self._sent += 1

    def attempt_cancelled(self) -> None:
        """Called inside an attempt's span: the app left, or the time was up, before there was a head."""
        span = get_current_span()
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute(names.ERROR_TYPE, names.CANCELLED)

    def upward(self) -> Headers:
        """traceparent and tracestate for the upstream: the attempt's where there is one, else the request's own."""
        current = get_current_span().get_span_context()
        return _lines(current if current.is_valid else self._server.get_span_context())

    def end(self, outcome: Outcome, request: bytes = b"", answer: bytes = b"") -> None:
        """The request has ended: tell all of it, and end its spans. `request` and `answer` are content, without
        the key; empty where content is not wanted."""
        if not self.recording:
            return
        self.recording = False
        now = time.time_ns()
        route = told.route(outcome.endpoint, outcome.path)
        attributes = self._of_server(outcome, route)
        if self._call is not None:
            self._end_call(self._call, outcome, now, request, answer)
        self._server.update_name(f"{_method(outcome)} {route}")
        self._server.set_attributes(attributes)
        if outcome.end is not End.COMPLETED and outcome.status not in _CLIENT_FAULTS:
            self._server.set_status(_status(outcome))
        self._server.end(now)

    def _of_server(self, outcome: Outcome, route: str) -> Attributes:
        attributes: Attributes = {
            told.HTTP_METHOD: told.method(outcome.method),
            told.HTTP_ROUTE: route,
            told.URL_PATH: outcome.path,
            told.URL_SCHEME: "http",
            told.REQUEST_ID: outcome.request_id,
            told.OUTCOME: outcome.end.value,
        }
        if outcome.status:
            attributes[told.HTTP_STATUS] = outcome.status
        agent = next((value for name, value in self._headers if name == b"user-agent"), None)
        if agent is not None:
            attributes[told.USER_AGENT] = agent[:_MAX_HEADER].decode("latin-1")
        return _with_error(attributes, outcome)

    def _end_call(self, span: Span, outcome: Outcome, now: int, request: bytes, answer: bytes) -> None:
        operation = outcome.operation
        attributes: Attributes = {
            told.REQUEST_ID: outcome.request_id,
            told.ATTEMPTS: outcome.attempts,
            told.OUTCOME: outcome.end.value,
        }
        if outcome.server_address is not None and outcome.server_port is not None:
            attributes[names.SERVER_ADDRESS] = outcome.server_address
            attributes[names.SERVER_PORT] = outcome.server_port
        if outcome.upstream_request_id is not None:
            attributes[told.UPSTREAM_REQUEST_ID] = outcome.upstream_request_id
        if names.infers(outcome.endpoint, outcome.method, operation):
            attributes[names.OPERATION] = operation
            attributes[names.PROVIDER] = outcome.provider
            _tell_request(attributes, outcome)
            _tell_answer(attributes, outcome)
            if request:
                content.tell(attributes, outcome.endpoint, request, answer)
        else:
            attributes[told.OPERATION] = operation
        span.update_name(operation if outcome.model is None else f"{operation} {outcome.model[:_MAX_NAME]}")
        span.set_attributes(_with_error(attributes, outcome))
        if outcome.end is not End.COMPLETED:
            span.set_status(_status(outcome))
        self._tell_events(span, outcome, now)
        span.end(now)

    @staticmethod
    def _tell_events(span: Span, outcome: Outcome, now: int) -> None:
        """What happened on the way, at the time at which it did."""
        monotonic = time.monotonic()
        for retry in outcome.retries:
            about: Attributes = {
                told.RETRY_ATTEMPT: retry.attempt,
                told.RETRY_WAIT: retry.wait_s,
                told.RETRY_REASON: retry.why,
            }
            span.add_event(told.RETRY_EVENT, about, now - int((monotonic - retry.at) * 1e9))
        if outcome.first_chunk_s is not None:
            since = outcome.duration_s - outcome.first_chunk_s
            span.add_event(told.FIRST_CHUNK_EVENT, None, now - int(since * 1e9))
        end: Attributes = {told.OUTCOME: outcome.end.value}
        if outcome.stream is not None:
            end[told.CHUNKS] = outcome.stream.chunks_sent
        span.add_event(told.END_EVENT, end, now)


def _method(outcome: Outcome) -> str:
    name = told.method(outcome.method)
    return "HTTP" if name == names.OTHER else name


def _with_error(attributes: Attributes, outcome: Outcome) -> Attributes:
    if outcome.end is End.CANCELLED:
        attributes[names.ERROR_TYPE] = names.CANCELLED
    elif outcome.error is not None:
        attributes[names.ERROR_TYPE] = outcome.error
    return attributes


def _status(outcome: Outcome) -> Status:
    """An error. Only words of our own describe it: an upstream's may quote what was asked."""
    ours = outcome.end is End.FAILED and not (outcome.error or "").startswith(
        ("upstream_http_", "upstream_error_event")
    )
    return Status(StatusCode.ERROR, outcome.error_message if ours else None)


def _tell_request(attributes: Attributes, outcome: Outcome) -> None:
    if outcome.model is not None:
        attributes[names.REQUEST_MODEL] = outcome.model[:_MAX_NAME]
    attributes[told.REQUEST_STREAM] = outcome.streaming
    if outcome.choices != 1:
        attributes[told.REQUEST_CHOICES] = outcome.choices
    parameters: Mapping[str, Any] = outcome.parameters or {}
    for name, value in parameters.items():
        known = told.parameter(name, value)
        if known is not None:
            attributes[told.PARAMETERS[name]] = known
    if (kind := told.API_TYPES.get(outcome.endpoint)) is not None:
        attributes[told.API_TYPE] = kind


def _tell_answer(attributes: Attributes, outcome: Outcome) -> None:
    usage = outcome.usage
    values: dict[str, AttributeValue | None] = {
        names.RESPONSE_MODEL: outcome.response_model,
        told.RESPONSE_ID: outcome.response_id,
        told.FINGERPRINT: outcome.fingerprint,
        told.SERVICE_TIER: outcome.service_tier,
        told.FINISH_REASONS: outcome.finish_reasons or None,
        told.TIME_TO_FIRST_CHUNK: outcome.first_chunk_s,
    }
    if usage is not None:
        values |= {
            told.INPUT_TOKENS: usage.prompt_tokens if usage.prompt_reported else None,
            told.OUTPUT_TOKENS: usage.completion_tokens if usage.completion_reported else None,
            told.CACHED_TOKENS: usage.cached_tokens,
            told.REASONING_TOKENS: usage.reasoning_tokens,
        }
    attributes.update({name: value for name, value in values.items() if value is not None})


def _lines(context: SpanContext) -> Headers:
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
    lines = [(b"traceparent", parent.encode("ascii"))]
    if context.trace_state:
        lines.append((b"tracestate", context.trace_state.to_header().encode("latin-1")))
    return lines
