"""Spans of one request: SERVER at the app's edge, CLIENT for the call, and below it one for each attempt.

Enters: the app's headers, and at the end the `Outcome`. Leaves: spans. A request has its ids from its beginning, and
what happens on the way is in its `Outcome`: so the first two spans are made once, whole, in `end`. They cannot be left
open, a request that is not sampled makes none, and one that is pays a fifth of what the SDK's own would cost, which
take every attribute through a lock and a check. An attempt's is made by the instrumentation of its transport.
Imported only where traces are exported. Must not hold a span current across a `yield`, or an await of others' code but
for an attempt's, whose instrumentation asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ..records import End, Headers, Outcome, Said
from . import content, names
from . import span_names as told
from .logs import LOGGER

Attributes = dict[str, AttributeValue]

_ROOT: Final = Context()
_W3C: Final = TraceContextTextMapPropagator()
_IDS: Final = RandomIdGenerator()
_KEPT: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_UNKEPT: Final = TraceFlags(TraceFlags.RANDOM_TRACE_ID)
_MAX_HEADER: Final = 512
_MAX_NAME: Final = 256
_CLIENT_FAULTS: Final = range(400, 500)
_FINE: Final = Status(StatusCode.UNSET)


class Tracing:
    """What every request's spans have in common. `traceparent`: the app's is taken. `content`: messages are told."""

    def __init__(
        self,
        *,
        sampler: Sampler,
        resource: Resource,
        finish: Callable[[ReadableSpan], None],
        observe: Callable[[Any], Any],
        traceparent: bool,
        content: bool,
    ) -> None:
        """`finish` takes ended spans and never blocks. `observe` wraps a transport of httpx's older interface so
        that each request on it makes a span below the current one."""
        self.observe = observe
        self.content = content
        self.finish = finish
        self.resource = resource
        self.scope = InstrumentationScope("inference_sidecar", str(resource.attributes["service.version"]))
        self._sampler = sampler
        self._traceparent = traceparent

    def begin(self, headers: Headers) -> Trace:
        """A request came. Header names are in lower case."""
        parents = [value for name, value in headers if name == b"traceparent"] if self._traceparent else ()
        context = self._context(parents[0], headers) if len(parents) == 1 else _ROOT
        parent = get_current_span(context).get_span_context() if context is not _ROOT else None
        if parent is not None and not parent.is_valid:
            parent = None
        trace_id = _IDS.generate_trace_id() if parent is None else parent.trace_id
        result = self._sampler.should_sample(context, trace_id, "HTTP", SpanKind.SERVER)
        sampled = result.decision is Decision.RECORD_AND_SAMPLE
        flags = _KEPT if sampled else _UNKEPT
        if parent is not None and not parent.trace_flags.random_trace_id:
            flags = TraceFlags(flags & ~TraceFlags.RANDOM_TRACE_ID)
        own = SpanContext(trace_id, _IDS.generate_span_id(), False, flags, result.trace_state)
        return Trace(self, own, parent, headers)

    @staticmethod
    def _context(traceparent: bytes, headers: Headers) -> Context:
        """What the app's header says; one that is malformed says nothing."""
        if len(traceparent) > _MAX_HEADER:
            return _ROOT
        carrier = {"traceparent": [traceparent.decode("latin-1")]}
        states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
        if states and sum(map(len, states)) + len(states) - 1 <= _MAX_HEADER:
            carrier["tracestate"] = states
        return _W3C.extract(carrier, _ROOT)


class Trace:
    """One request's spans. `recording`: they are kept, and `end` has not been called; where not, nothing is worked
    out for them."""

    __slots__ = (
        "_began",
        "_call",
        "_call_began",
        "_context",
        "_headers",
        "_parent",
        "_sent",
        "_tracing",
        "recording",
    )

    def __init__(
        self, tracing: Tracing, context: SpanContext, parent: SpanContext | None, headers: Headers
    ) -> None:
        self.recording = context.trace_flags.sampled
        self._tracing = tracing
        self._context = context
        self._parent = parent
        self._headers = headers
        self._began = time.time_ns()
        self._call: SpanContext | None = None
        self._call_began = 0
        self._sent = 0

    @property
    def ids(self) -> tuple[str, str]:
        """Ids of the trace and of the innermost span that lasts as long as the request, in hex."""
        context = self._call or self._context
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    @property
    def kept(self) -> tuple[str, str] | None:
        """The ids where the trace is sampled, else None."""
        return self.ids if self._context.trace_flags.sampled else None

    @property
    def content(self) -> bool:
        """Whether messages are wanted."""
        return self.recording and self._tracing.content

    def goes_up(self) -> None:
        """The request may go up: the call begins."""
        if self.recording and self._call is None:
            mine = self._context
            self._call = SpanContext(
                mine.trace_id, _IDS.generate_span_id(), False, mine.trace_flags, mine.trace_state
            )
            self._call_began = time.time_ns()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one attempt: its span is made by the transport's instrumentation, below the call's."""
        parent = NonRecordingSpan(self._call or self._context)
        token = contexts.attach(set_span_in_context(parent, _ROOT))
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
        return _lines(current if current.is_valid else self._context)

    def end(self, outcome: Outcome, said: Said | None = None) -> None:
        """The request has ended: its spans are made. `said` is None where content is not wanted."""
        if not self.recording:
            return
        self.recording = False
        now = time.time_ns()
        try:
            if self._call is not None:
                self._end_call(self._call, outcome, now, said)
            self._end_server(outcome, now)
        except Exception:  # noqa: BLE001  the edge of telemetry: what it cannot tell must not hurt a request
            LOGGER.exception(
                "a trace could not be told", extra={"fields": {"request_id": outcome.request_id}}
            )

    def _end_server(self, outcome: Outcome, now: int) -> None:
        route = told.route(outcome.endpoint, outcome.path)
        name = f"{_method(outcome)} {route}"
        failed = outcome.end is not End.COMPLETED and outcome.status not in _CLIENT_FAULTS
        self._finish(
            name, SpanKind.SERVER, self._context, self._parent, self._began, now,
            self._of_server(outcome, route), (), _status(outcome) if failed else _FINE,
        )  # fmt: skip

    def _finish(
        self, name: str, kind: SpanKind, context: SpanContext, parent: SpanContext | None, began: int, now: int,
        attributes: Attributes, events: tuple[Event, ...], status: Status,
    ) -> None:  # fmt: skip
        span = ReadableSpan(
            name, context, parent, self._tracing.resource, attributes, events, (), kind, None, status,
            began, now, self._tracing.scope,
        )  # fmt: skip
        self._tracing.finish(span)

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
        for name, value in self._headers:
            if name == b"user-agent":
                attributes[told.USER_AGENT] = value[:_MAX_HEADER].decode("latin-1")
                break
        return _with_error(attributes, outcome)

    def _end_call(self, context: SpanContext, outcome: Outcome, now: int, said: Said | None) -> None:
        operation = outcome.operation
        attributes: Attributes = {told.ATTEMPTS: outcome.attempts, told.OUTCOME: outcome.end.value}
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
            if said is not None:
                content.tell(attributes, outcome.endpoint, said)
        else:
            attributes[told.OPERATION] = operation
        name = operation if outcome.model is None else f"{operation} {outcome.model[:_MAX_NAME]}"
        self._finish(
            name, SpanKind.CLIENT, context, self._context, self._call_began, now,
            _with_error(attributes, outcome), _events(outcome, now),
            _FINE if outcome.end is End.COMPLETED else _status(outcome),
        )  # fmt: skip


def _events(outcome: Outcome, now: int) -> tuple[Event, ...]:
    """What happened on the way, at the time at which it did."""
    events = []
    if outcome.retries:
        monotonic = time.monotonic()
        for retry in outcome.retries:
            about: Attributes = {
                told.RETRY_ATTEMPT: retry.attempt,
                told.RETRY_WAIT: retry.wait_s,
                told.RETRY_REASON: retry.why,
            }
            events.append(Event(told.RETRY_EVENT, about, now - int((monotonic - retry.at) * 1e9)))
    if outcome.first_chunk_s is not None:
        since = outcome.duration_s - outcome.first_chunk_s
        events.append(Event(told.FIRST_CHUNK_EVENT, None, now - int(since * 1e9)))
    if outcome.stream is not None:
        end: Attributes = {told.OUTCOME: outcome.end.value, told.CHUNKS: outcome.stream.chunks_sent}
        events.append(Event(told.END_EVENT, end, now))
    return tuple(events)


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
