"""The three sorts of a request's spans as OTLP writes them: SERVER, the call, an attempt.

Enters: ids and times, and what is told: an `Outcome`, an `Attempted`. Leaves: each span as one entry of ScopeSpans.
Pure. Must not hold much of what clients and upstreams say: what repeats from request to request is encoded once and
kept, but within bounds.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ..records import End, Endpoint, Outcome, Said, Usage
from . import content, names
from . import span_names as told
from .otlp_wire import (
    OF_EVENT,
    OF_RESOURCE,
    OF_SPAN,
    Value,
    attribute,
    attributes,
    delimited,
    fixed64,
    fractions,
    numbers,
    text,
    texts,
    varint,
)

MAX_NAME: Final = 256
_KEPT: Final = 256
"""Characters of a path that is encoded once and kept."""
_KEPT_REASONS: Final = 4
_CLIENT_FAULTS: Final = range(400, 500)

_ENTRY: Final = b"\x12"
_NAME: Final = b"\x2a"
_EVENT: Final = b"\x5a"
_STATUS: Final = b"\x7a"
_SERVER: Final = b"\x30\x02"
_CLIENT: Final = b"\x30\x03"
_FINE: Final = b"\x7a\x00"
_ERROR: Final = b"\x7a\x02\x18\x02"
# A span's flags say whether its parent is another process's.
_OURS: Final = struct.pack("<HI", 0x0185, 0x100)
_THEIRS: Final = struct.pack("<HI", 0x0185, 0x300)
_TIMES: Final = struct.Struct("<BQBQ").pack

_RETRY: Final = text(b"\x12", told.RETRY_EVENT)
_FIRST_CHUNK: Final = text(b"\x12", told.FIRST_CHUNK_EVENT)
_END: Final = text(b"\x12", told.END_EVENT)
_EXCEPTION: Final = text(b"\x12", "exception")
_NO_ESCAPE: Final = attribute(OF_EVENT, "exception.escaped", "False")

_request_id: Final = texts(told.REQUEST_ID)
_user_agent: Final = texts(told.USER_AGENT)
_upstream_request_id: Final = texts(told.UPSTREAM_REQUEST_ID)
_response_id: Final = texts(told.RESPONSE_ID)
_first_chunk_s: Final = fractions(told.TIME_TO_FIRST_CHUNK)
_input_tokens: Final = numbers(told.INPUT_TOKENS)
_output_tokens: Final = numbers(told.OUTPUT_TOKENS)
_cached_tokens: Final = numbers(told.CACHED_TOKENS)
_reasoning_tokens: Final = numbers(told.REASONING_TOKENS)


class Fault(NamedTuple):
    """Why no head came: an exception's class, and its public words. Not the exception itself, whose stack would keep
    all that a request holds."""

    module: str
    name: str
    words: str


class Attempted:
    """One attempt that has ended. `about` is `about_attempt`'s. With neither a status nor a fault nobody waited for it
    any more."""

    def __init__(
        self,
        span_id: bytes,
        about: bytes,
        began: int,
        ended: int,
        status: int = 0,
        version: str = "",
        fault: Fault | None = None,
    ) -> None:
        self.span_id = span_id
        self.about = about
        self.began = began
        self.ended = ended
        self.status = status
        self.version = version
        self.fault = fault


def server_span(
    outcome: Outcome, ids: bytes, parent: bytes, began: int, ended: int, agent: str | None
) -> bytes:
    """`ids`: see `own_ids`; `parent`: `of_parent`'s. `agent`: what the app calls itself."""
    path = outcome.path
    about = _about_server if len(path) <= _KEPT else _about_server.__wrapped__
    failed = outcome.end is not End.COMPLETED and outcome.status not in _CLIENT_FAULTS
    return delimited(
        _ENTRY,
        b"".join(
            (
                ids,
                parent,
                about(outcome.method, outcome.endpoint, path, outcome.status, outcome.end, outcome.error),
                _TIMES(0x39, began, 0x41, ended),
                _request_id(outcome.request_id),
                b"" if agent is None else _user_agent(agent),
                _status(outcome) if failed else _FINE,
            )
        ),
    )


def call_span(
    outcome: Outcome, ids: bytes, parent: bytes, began: int, ended: int, said: Said | None
) -> bytes:
    """The call of the model, or of whatever else went up."""
    model = outcome.model
    if model is not None:
        model = model[:MAX_NAME]
    parts = [
        ids,
        parent,
        _TIMES(0x39, began, 0x41, ended),
        _about_call(
            outcome.endpoint, outcome.method, outcome.operation, outcome.provider, outcome.server_address,
            outcome.server_port, model, outcome.streaming, outcome.choices,
        ),
        _about_end(outcome.attempts, outcome.end, outcome.error),
        _FINE if outcome.end is End.COMPLETED else _status(outcome),
    ]  # fmt: skip
    if outcome.upstream_request_id is not None:
        parts.append(_upstream_request_id(outcome.upstream_request_id))
    if names.infers(outcome.endpoint, outcome.method, outcome.operation):
        _tell_answer(parts, outcome)
        if outcome.parameters:
            parts.append(_parameters(outcome.parameters))
        if said is not None:
            parts.append(attributes(OF_SPAN, content.told_of(outcome.endpoint, said)))
    _tell_events(parts, outcome, ended)
    return delimited(_ENTRY, b"".join(parts))


def attempt_span(attempted: Attempted, trace: bytes, parent: bytes, resent: int) -> bytes:
    """One attempt, to the head of its answer. `resent`: how many there were before it."""
    parts = [
        own_ids(trace, attempted.span_id),
        parent,
        attempted.about,
        _TIMES(0x39, attempted.began, 0x41, attempted.ended),
    ]
    if resent:
        parts.append(attribute(OF_SPAN, told.HTTP_RESEND_COUNT, resent))
    if attempted.status:
        parts.append(_about_head(attempted.status, attempted.version))
    elif attempted.fault is not None:
        parts.append(_about_fault(attempted.fault, attempted.ended))
    else:
        parts.append(_CANCELLED)
    return delimited(_ENTRY, b"".join(parts))


def own_ids(trace: bytes, span_id: bytes) -> bytes:
    """`trace`: `of_trace`'s."""
    return trace + b"\x12\x08" + span_id


def of_trace(trace_id: bytes, state: str) -> bytes:
    """What all spans of a trace have in common."""
    return b"\x0a\x10" + trace_id + text(b"\x1a", state)


def of_parent(span_id: bytes | None, *, remote: bool = False) -> bytes:
    """The span above, None where there is none; `remote`: the app's own."""
    flags = _THEIRS if remote else _OURS
    return flags if span_id is None else b"\x22\x08" + span_id + flags


def about_attempt(method: str, url: str, host: str, port: int | None) -> bytes:
    """What is known of an attempt before it is made. `url` is without query and password; `port` is None where the
    scheme has it."""
    about = _about_attempt if len(url) <= _KEPT else _about_attempt.__wrapped__
    return about(method, url, host, port)


@lru_cache(maxsize=128)
def _about_attempt(method: str, url: str, host: str, port: int | None) -> bytes:
    known = told.method(method.upper())
    values: dict[str, Value] = {}
    if method != known:
        values[told.HTTP_METHOD_ORIGINAL] = method
    values[told.HTTP_METHOD] = known
    values[told.URL_FULL] = url
    if host:
        values |= {names.SERVER_ADDRESS: host, told.PEER_ADDRESS: host}
    if port:
        values |= {names.SERVER_PORT: port, told.PEER_PORT: port}
    return text(_NAME, _method(known)) + _CLIENT + attributes(OF_SPAN, values)


@lru_cache(maxsize=128)
def _about_server(
    method: str, endpoint: Endpoint, path: str, status: int, end: End, error: str | None
) -> bytes:
    route = told.route(endpoint, path)
    known = told.method(method)
    values: dict[str, Value] = {
        told.HTTP_METHOD: known,
        told.HTTP_ROUTE: route,
        told.URL_PATH: path,
        told.URL_SCHEME: "http",
        told.OUTCOME: str(end),
    }
    if status:
        values[told.HTTP_STATUS] = status
    return (
        text(_NAME, f"{_method(known)} {route}") + _SERVER + attributes(OF_SPAN, values) + _error(end, error)
    )


@lru_cache(maxsize=128)
def _about_call(
    endpoint: Endpoint, method: str, operation: str, provider: str, address: str | None, port: int | None,
    model: str | None, streaming: bool, choices: int,
) -> bytes:  # fmt: skip
    values: dict[str, Value] = {}
    if address is not None and port is not None:
        values |= {names.SERVER_ADDRESS: address, names.SERVER_PORT: port}
    if not names.infers(endpoint, method, operation):
        values[told.OPERATION] = operation
    else:
        values |= {names.OPERATION: operation, names.PROVIDER: provider, told.REQUEST_STREAM: streaming}
        if model is not None:
            values[names.REQUEST_MODEL] = model
        if choices != 1:
            values[told.REQUEST_CHOICES] = choices
        if (kind := told.API_TYPES.get(endpoint)) is not None:
            values[told.API_TYPE] = kind
    name = operation if model is None else f"{operation} {model}"
    return text(_NAME, name) + _CLIENT + attributes(OF_SPAN, values)


@lru_cache(maxsize=128)
def _about_end(attempts: int, end: End, error: str | None) -> bytes:
    return attributes(OF_SPAN, {told.ATTEMPTS: attempts, told.OUTCOME: str(end)}) + _error(end, error)


@lru_cache(maxsize=128)
def _about_answer(
    model: str | None, fingerprint: str | None, tier: str | None, reasons: tuple[str, ...]
) -> bytes:
    values = {
        names.RESPONSE_MODEL: model,
        told.FINGERPRINT: fingerprint,
        told.SERVICE_TIER: tier,
        told.FINISH_REASONS: reasons or None,
    }
    return attributes(OF_SPAN, {name: value for name, value in values.items() if value is not None})


@lru_cache(maxsize=128)
def _about_head(status: int, version: str) -> bytes:
    values: dict[str, Value] = {told.HTTP_STATUS: status}
    failed = not 100 <= status <= 399
    if failed:
        values[names.ERROR_TYPE] = str(status)
    if version:
        values[told.PROTOCOL_VERSION] = version
    return attributes(OF_SPAN, values) + (_ERROR if failed else _FINE)


def _about_fault(fault: Fault, at: int) -> bytes:
    event = (
        fixed64(b"\x09", at)
        + _EXCEPTION
        + attribute(OF_EVENT, "exception.type", f"{fault.module}.{fault.name}")
        + attribute(OF_EVENT, "exception.message", fault.words)
        + _NO_ESCAPE
    )
    return (
        attribute(OF_SPAN, names.ERROR_TYPE, fault.name)
        + _failed(f"{fault.name}: {fault.words}")
        + delimited(_EVENT, event)
    )


def _error(end: End, error: str | None) -> bytes:
    kind = names.CANCELLED if end is End.CANCELLED else error
    return b"" if kind is None else attribute(OF_SPAN, names.ERROR_TYPE, kind)


_CANCELLED: Final = attribute(OF_SPAN, names.ERROR_TYPE, names.CANCELLED) + _ERROR


def _status(outcome: Outcome) -> bytes:
    """An error. Only words of our own describe it: an upstream's may quote what was asked."""
    ours = outcome.end is End.FAILED and not (outcome.error or "").startswith(
        ("upstream_http_", "upstream_error_event")
    )
    return _failed(outcome.error_message or "") if ours else _ERROR


def _failed(description: str) -> bytes:
    return delimited(_STATUS, text(b"\x12", description) + b"\x18\x02")


def _method(known: str) -> str:
    return "HTTP" if known == names.OTHER else known


def _tell_answer(parts: list[bytes], outcome: Outcome) -> None:
    reasons = outcome.finish_reasons
    about = _about_answer if len(reasons) <= _KEPT_REASONS else _about_answer.__wrapped__
    parts.append(about(outcome.response_model, outcome.fingerprint, outcome.service_tier, reasons))
    if outcome.response_id is not None:
        parts.append(_response_id(outcome.response_id))
    if outcome.first_chunk_s is not None:
        parts.append(_first_chunk_s(outcome.first_chunk_s))
    if outcome.usage is not None:
        _tell_usage(parts, outcome.usage)


def _tell_usage(parts: list[bytes], usage: Usage) -> None:
    if usage.prompt_reported:
        parts.append(_input_tokens(usage.prompt_tokens))
    if usage.completion_reported:
        parts.append(_output_tokens(usage.completion_tokens))
    if usage.cached_tokens is not None:
        parts.append(_cached_tokens(usage.cached_tokens))
    if usage.reasoning_tokens is not None:
        parts.append(_reasoning_tokens(usage.reasoning_tokens))


def _parameters(parameters: Mapping[str, Any]) -> bytes:
    """Several members have one name (`max_tokens`), of which the last counts."""
    found: dict[str, Value] = {}
    for name, value in parameters.items():
        known = told.parameter(name, value)
        if known is not None:
            found[told.PARAMETERS[name]] = known
    return attributes(OF_SPAN, found)


def _tell_events(parts: list[bytes], outcome: Outcome, ended: int) -> None:
    """What happened on the way, at the time at which it did."""
    if outcome.retries:
        now, monotonic = time.time_ns(), time.monotonic()
        for retry in outcome.retries:
            about: dict[str, Value] = {
                told.RETRY_ATTEMPT: retry.attempt,
                told.RETRY_WAIT: retry.wait_s,
                told.RETRY_REASON: retry.why,
            }
            parts.append(_event(_RETRY, now - int((monotonic - retry.at) * 1e9), about))
    if outcome.first_chunk_s is not None:
        since = outcome.duration_s - outcome.first_chunk_s
        parts.append(_event(_FIRST_CHUNK, ended - int(since * 1e9), {}))
    if outcome.stream is not None:
        end: dict[str, Value] = {told.OUTCOME: str(outcome.end), told.CHUNKS: outcome.stream.chunks_sent}
        parts.append(_event(_END, ended, end))


def _event(name: bytes, at: int, values: Mapping[str, Value]) -> bytes:
    return delimited(_EVENT, fixed64(b"\x09", at) + name + attributes(OF_EVENT, values))


class Envelope:
    """What is around the spans of every request to a collector."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        """`version` is the scope's."""
        scope = text(b"\x0a", "inference_sidecar") + text(b"\x12", version)
        self._scope = delimited(b"\x0a", scope)
        self._resource = delimited(b"\x0a", attributes(OF_RESOURCE, resource))

    def around(self, spans: list[bytes]) -> bytes:
        """An ExportTraceServiceRequest. `spans` are entries as made above, one after the other."""
        size = len(self._scope) + sum(map(len, spans))
        head = self._resource + b"\x12" + varint(size)
        return b"".join((b"\x0a", varint(len(head) + size), head, self._scope, *spans))
