"""What the sidecar encodes against OpenTelemetry's own encoder, message by message.

Covers: attributes of every sort, with all that a text, a number and a list can be; SERVER, call and attempt spans of
any outcome, with parents and tracestates; figures of any requests; what no field can hold; long texts and bytes' bounds.
Left out: which spans a request makes (test_traces), which attempts (test_attempt_spans).
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_key_value
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceProto
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from opentelemetry.trace import SpanKind, Status, StatusCode

from harness import official
from harness.official import Ids
from inference_sidecar.errors import UpstreamConnectError, UpstreamError
from inference_sidecar.records import End, Endpoint, Gaps, Outcome, Retry, Said, StreamStats, Usage
from inference_sidecar.telemetry import Figures, otlp_metrics, otlp_spans, otlp_wire
from inference_sidecar.telemetry.content import told_of
from inference_sidecar.telemetry.otlp_spans import Attempted, Envelope, Fault

NOW = 2_000_000_000_000_000_000
TEXT = st.text(alphabet=st.characters(exclude_categories=()))
"""Halves of surrogate pairs among it."""
WORD = st.one_of(
    st.sampled_from(["", "gpt-4", "é" * 70, "\ud800x", "x" * 123, "x" * 124, "x" * 20_000]), TEXT
)
WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(TEXT, st.booleans(), WHOLE, st.floats(), st.lists(TEXT).map(tuple))
ID = st.integers(1, 2**64 - 1)
STATE = st.sampled_from(["", "vendor=value", "a=1,b=2"])


@given(st.text(), VALUES)
@example("k", "x" * 200)
@example("k" * 200, ("",))
@example("k", -0.0)
def test_any_attribute(name: str, value: Any) -> None:
    (found,) = ResourceProto.FromString(otlp_wire.attribute(otlp_wire.OF_RESOURCE, name, value)).attributes
    assert found.SerializeToString() == _encode_key_value(name, official.clean(value)).SerializeToString()


def prepared(data: bytes) -> KeyValue:
    (found,) = SpanProto.FromString(data).attributes
    return found


@given(st.text(min_size=1, max_size=130), WORD, WHOLE, st.floats(allow_nan=False))
def test_any_prepared_attribute(name: str, text: str, whole: int, fraction: float) -> None:
    assert prepared(otlp_wire.texts(name)(text)) == _encode_key_value(name, official.clean(text))
    assert prepared(otlp_wire.numbers(name)(whole)) == _encode_key_value(name, whole)
    assert prepared(otlp_wire.fractions(name)(fraction)) == _encode_key_value(name, fraction)


@pytest.mark.parametrize("length", range(100, 140))
def test_lengths_where_one_byte_is_no_longer_enough(length: int) -> None:
    text = "x" * length
    assert prepared(otlp_wire.texts("a.name")(text)) == _encode_key_value("a.name", text)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_a_number_of_more_than_64_bits_is_left_out(number: int) -> None:
    assert otlp_wire.attribute(otlp_wire.OF_SPAN, "k", number) == b""
    assert otlp_wire.numbers("k")(number) == b""


RETRIES = st.lists(
    st.builds(Retry, st.floats(0, 1e3), st.integers(1, 9), st.floats(0, 60), st.sampled_from(["upstream_timeout"])),
    max_size=3,
).map(tuple)  # fmt: skip
PARAMETERS = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(sorted(official.told.PARAMETERS)),
        st.one_of(WORD, st.integers(), st.floats(), st.booleans(), st.none(), st.lists(WORD, max_size=3)),
    ),
)
TOKENS = st.integers(0, 2**53)
USAGE = st.one_of(
    st.none(),
    st.builds(
        Usage, TOKENS, TOKENS, TOKENS, st.booleans(), st.booleans(), st.one_of(st.none(), TOKENS),
        st.one_of(st.none(), TOKENS),
    ),
)  # fmt: skip
MAYBE = st.one_of(st.none(), WORD)
FIELDS = st.fixed_dictionaries({
    "request_id": WORD,
    "endpoint": st.sampled_from(list(Endpoint)),
    "method": st.sampled_from(["POST", "GET", "PROPFIND", "get"]),
    "path": st.one_of(
        st.sampled_from(["/v1/chat/completions", "/openai/deployments/mine/chat/completions"]),
        WORD.map("/v1/".__add__),
    ),
    "status": st.sampled_from([0, 200, 206, 400, 429, 499, 500, 503]),
    "end": st.sampled_from(list(End)),
    "duration_s": st.floats(0, 1e3),
    "error": st.sampled_from(["upstream_timeout", "upstream_http_500", "upstream_error_event", "invalid_request", None]),
    "error_message": MAYBE,
    "streaming": st.booleans(),
    "model": MAYBE,
    "response_model": MAYBE,
    "attempts": st.integers(0, 200),
    "first_chunk_s": st.one_of(st.none(), st.floats(0, 1e2)),
    "usage": USAGE,
    "finish_reasons": st.lists(WORD, max_size=6).map(tuple),
    "stream": st.one_of(st.none(), st.just(StreamStats(1.0, 5, 1.0))),
    "upstream_request_id": MAYBE,
    "operation": st.sampled_from(["chat", "embeddings", "images.generations", "files", "_OTHER"]),
    "provider": st.sampled_from(["openai", "echo"]),
    "server_address": st.sampled_from([None, "api.openai.com"]),
    "server_port": st.sampled_from([None, 443]),
    "retries": RETRIES,
    "parameters": PARAMETERS,
    "choices": st.integers(1, 130),
    "response_id": MAYBE,
    "fingerprint": MAYBE,
    "service_tier": MAYBE,
})  # fmt: skip
OUTCOMES = FIELDS.map(lambda fields: Outcome(**fields))


def decoded(*spans: bytes) -> Any:
    whole = Envelope({"k": "v"}, "1").around(list(spans))
    return official.sorted_attributes(ExportTraceServiceRequest.FromString(whole))


@given(OUTCOMES, ID, ID, st.one_of(st.none(), ID), STATE, MAYBE)
def test_any_server_span(
    outcome: Outcome, trace: int, span: int, parent: int | None, state: str, agent: str | None
) -> None:
    ids = otlp_spans.own_ids(otlp_spans.of_trace(trace.to_bytes(16), state), span.to_bytes(8))
    above = otlp_spans.of_parent(None if parent is None else parent.to_bytes(8), remote=parent is not None)
    ours = otlp_spans.server_span(outcome, ids, above, NOW - 5, NOW, agent)
    theirs = official.server_of(outcome, Ids(trace, span, parent, True, state), NOW - 5, NOW, agent)
    assert decoded(ours) == official.encoded(theirs)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time of a monotonic clock that does not go on."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    return now


SAID = Said(b'{"messages":[{"role":"user","content":"\xc3\xa9"}]}', b"", lambda text: text)


def test_any_call(still: float) -> None:
    @given(OUTCOMES, ID, ID, ID, STATE, st.booleans())
    def judge(outcome: Outcome, trace: int, span: int, parent: int, state: str, content: bool) -> None:
        ids = otlp_spans.own_ids(otlp_spans.of_trace(trace.to_bytes(16), state), span.to_bytes(8))
        above = otlp_spans.of_parent(parent.to_bytes(8))
        said = SAID if content else None
        ours = otlp_spans.call_span(outcome, ids, above, NOW - 5, NOW, said)
        messages = told_of(outcome.endpoint, said) if said else {}
        theirs = official.call_of(
            outcome, Ids(trace, span, parent, False, state), NOW - 5, NOW, still, messages
        )
        assert decoded(ours) == official.encoded(theirs)

    judge()


METHODS = st.sampled_from(["POST", "GET", "post", "PROPFIND"])


@given(METHODS, WORD, WORD, st.one_of(st.none(), st.integers(1, 65535)), ID, ID, ID, STATE, st.integers(0, 9), st.one_of(
    st.sampled_from([200, 304, 399, 400, 500, 599]), st.sampled_from(["cancelled"]),
    WORD.map(UpstreamError), WORD.map(UpstreamConnectError),
))  # fmt: skip
def test_any_attempt(
    method: str, url: str, host: str, port: int | None, trace: int, span: int, parent: int, state: str, resent: int,
    end: int | str | UpstreamError,
) -> None:  # fmt: skip
    about = otlp_spans.about_attempt(method, url, host, port)
    attempted: dict[str, Any] = {}
    known = method.upper() if method != "PROPFIND" else "_OTHER"
    attributes: dict[str, Any] = {"http.request.method": known, "url.full": url}
    if method != known:
        attributes["http.request.method_original"] = method
    if host:
        attributes |= {"server.address": host, "network.peer.address": host}
    if port:
        attributes |= {"server.port": port, "network.peer.port": port}
    if resent:
        attributes["http.request.resend_count"] = resent
    status, events = Status(StatusCode.UNSET), []
    if isinstance(end, int):
        attempted = {"status": end, "version": "1.1"}
        attributes |= {"http.response.status_code": end, "network.protocol.version": "1.1"}
        if end >= 400:
            attributes["error.type"] = str(end)
            status = Status(StatusCode.ERROR)
    elif isinstance(end, str):
        attributes["error.type"] = "cancelled"
        status = Status(StatusCode.ERROR)
    else:
        name = type(end).__name__
        attempted = {"fault": Fault(type(end).__module__, name, str(end))}
        attributes["error.type"] = name
        status = Status(StatusCode.ERROR, f"{name}: {end}")
        about_it = {
            "exception.type": f"inference_sidecar.errors.{name}",
            "exception.message": str(end),
            "exception.escaped": "False",
        }
        events = [("exception", NOW, about_it)]
    ours = otlp_spans.attempt_span(
        Attempted(span.to_bytes(8), about, NOW - 5, NOW, **attempted),
        otlp_spans.of_trace(trace.to_bytes(16), state), otlp_spans.of_parent(parent.to_bytes(8)), resent,
    )  # fmt: skip
    theirs = official.span_of(
        Ids(trace, span, parent, False, state), "HTTP" if known == "_OTHER" else known, SpanKind.CLIENT, NOW - 5,
        NOW, attributes, tuple(events), status,
    )  # fmt: skip
    assert decoded(ours) == official.encoded(theirs)


def test_spans_of_a_batch_keep_their_order() -> None:
    trace = otlp_spans.of_trace(b"t" * 16, "")
    about = otlp_spans.about_attempt("GET", "http://x/", "x", None)
    spans = [
        otlp_spans.attempt_span(Attempted(bytes([n]) * 8, about, n, n + 1, 200), trace, otlp_spans.of_parent(None), 0)
        for n in range(1, 200)
    ]  # fmt: skip
    (resource,) = decoded(*spans).resource_spans
    (scope,) = resource.scope_spans
    assert [span.span_id for span in scope.spans] == [bytes([n]) * 8 for n in range(1, 200)]


TRACES = [None, ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")]
STREAM = StreamStats(1.0, 5, 1.0, (), Gaps((1, 3) + (0,) * 16, 0.1, 0.001, 0.02))


@given(
    st.lists(
        st.tuples(FIELDS, st.sampled_from(TRACES), st.booleans(), st.sampled_from([None, 0.5])), max_size=8
    )
)
def test_any_figures(found: list[Any]) -> None:
    figures = Figures(lambda: {"applied": 2, "refused": 0}, lambda: {"active": 1, "idle": 3})
    figures.requests_active = len(found)
    for fields, trace, streamed, first in found:
        told = {
            "trace": trace,
            "streamed": streamed,
            "stream": STREAM,
            "first_token_s": first,
            "model_configured": True,
        }
        figures.record(Outcome(**fields | told))
    resource = {"service.name": "x", "é": "\u4e2d"}
    ours = ExportMetricsServiceRequest.FromString(
        otlp_metrics.request_of(otlp_metrics.taken(figures, NOW), resource)
    )
    assert official.sorted_attributes(ours) == official.metrics_of(figures, resource, NOW)
