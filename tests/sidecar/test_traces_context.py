"""Whose trace a request belongs to, whether it is kept, and what of it goes upstream.

Covers: the app's traceparent, sampled and not, malformed in many ways, twice; tracestate; baggage; each sampler;
OTEL_PROPAGATORS; `telemetry.propagate_traceparent` with and without tracing, and with a trace that is not kept; the
ids in the log line.
"""

from __future__ import annotations

import re
import secrets

import pytest

from harness.otlp import OtlpSink
from harness.process import Sidecar, Start
from harness.traces import tree
from harness.upstream import Exchange, ScriptedUpstream

PARENT = "b7ad6b7169203331"
STATE = "vendor=value,other=thing"
PROPAGATE = {"telemetry": {"propagate_traceparent": True}}


@pytest.fixture
def trace() -> str:
    """The id of a trace that no other test has."""
    return secrets.token_hex(16)


def parent_of(trace: str, flags: str = "01") -> str:
    return f"00-{trace}-{PARENT}-{flags}"


def went_up(upstream: ScriptedUpstream) -> Exchange:
    return upstream.exchanges[-1]


def trace_headers(exchange: Exchange) -> dict[str, str]:
    return {
        name: value for name, value in exchange.headers if name in ("traceparent", "tracestate", "baggage")
    }


def test_the_apps_trace_is_taken(
    sink: OtlpSink, traced: Sidecar, upstream: ScriptedUpstream, trace: str
) -> None:
    headers = {"traceparent": parent_of(trace), "tracestate": STATE, "baggage": "user=someone"}
    with traced.requests() as lines:
        traced.chat(headers=headers)
    found = tree(sink, lines[0], 1, parent=PARENT)
    assert found.server.trace_id == trace
    told = str([span.attributes for span in (found.server, found.model_call, *found.attempts)])
    assert "someone" not in told
    assert trace_headers(went_up(upstream)) == {}


def test_a_trace_that_the_app_does_not_keep(sink: OtlpSink, traced: Sidecar, trace: str) -> None:
    before = len(sink.spans)
    with traced.requests(2) as lines:
        traced.chat(headers={"traceparent": parent_of(trace, "00")})
        traced.chat()
    # Its id is in the log all the same, so that the app's own log can be found.
    assert lines[0]["trace_id"] == trace
    assert re.fullmatch(r"[0-9a-f]{16}", lines[0]["span_id"])
    tree(sink, lines[1], 1)
    assert len(sink.spans) == before + 3


SOME = "0af7651916cd43dd8448eb211c80319c"
WHOLE = parent_of(SOME)
MALFORMED = [
    "", "nonsense", WHOLE[:-1], f"{WHOLE}-more", f"ff-{SOME}-{PARENT}-01", WHOLE.upper(),
    f"00-{'0' * 32}-{PARENT}-01", f"00-{SOME}-{'0' * 16}-01", f"00-{SOME}-{PARENT}-0g", "\xff" * 55, "0" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("header", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_traceparent_begins_a_trace(sink: OtlpSink, traced: Sidecar, header: str) -> None:
    with traced.requests() as lines:
        assert traced.chat(headers={"traceparent": header, "tracestate": STATE}).status == 200
    found = tree(sink, lines[0], 1)
    assert found.server.trace_id != SOME


def test_two_traceparents_say_nothing(sink: OtlpSink, traced: Sidecar, trace: str) -> None:
    with traced.requests() as lines, traced.connect() as client:
        client.send(
            client.head_of(
                "GET", "/v1/models", {"traceparent": parent_of(trace), "Traceparent": parent_of(trace)}
            )
        )
        assert client.answer("GET").status == 200
    assert tree(sink, lines[0], 1).server.trace_id != trace


def test_a_later_version_is_read_as_this_one(sink: OtlpSink, traced: Sidecar, trace: str) -> None:
    with traced.requests() as lines:
        traced.chat(headers={"traceparent": f"cc-{trace}-{PARENT}-01-what-the-future-brings"})
    assert tree(sink, lines[0], 1, parent=PARENT).server.trace_id == lines[0]["trace_id"]


@pytest.mark.parametrize(
    ("sampler", "argument", "flags", "kept"),
    [
        ("always_off", "", None, False),
        ("always_off", "", "01", False),
        ("always_on", "", "00", True),
        ("traceidratio", "0", "01", False),
        ("traceidratio", "1", "00", True),
        ("parentbased_always_off", "", None, False),
        ("parentbased_always_off", "", "01", True),
        ("parentbased_traceidratio", "0.0", None, False),
        ("parentbased_traceidratio", "0.0", "01", True),
        ("parentbased_traceidratio", "1", "00", False),
    ],
)
def test_samplers(
    sink: OtlpSink,
    environ: dict[str, str],
    spawn: Start,
    trace: str,
    sampler: str,
    argument: str,
    flags: str | None,
    kept: bool,
) -> None:
    own = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    sidecar = spawn(environ={**environ, **own})
    before = len(sink.spans)
    with sidecar.requests() as lines:
        sidecar.chat(headers={"traceparent": parent_of(trace, flags)} if flags else {})
    if kept:
        tree(sink, lines[0], 1, parent=PARENT if flags else "")
        return
    sidecar.terminate()
    assert sidecar.wait() == 0  # what there was has been sent by now
    assert len(sink.spans) == before


def test_without_a_propagator_each_trace_is_new(
    sink: OtlpSink, environ: dict[str, str], start: Start, trace: str
) -> None:
    sidecar = start(environ={**environ, "OTEL_PROPAGATORS": "none"})
    with sidecar.requests() as lines:
        sidecar.chat(headers={"traceparent": parent_of(trace)})
    assert tree(sink, lines[0], 1).server.trace_id != trace


def test_upstream_is_told_of_the_attempt(
    sink: OtlpSink, environ: dict[str, str], start: Start, upstream: ScriptedUpstream, trace: str
) -> None:
    """By setting: each attempt's own span, so that an upstream's spans hang below the attempt that caused them."""
    sidecar = start(PROPAGATE, environ=environ)
    with sidecar.requests() as lines:
        sidecar.chat(headers={"traceparent": parent_of(trace), "tracestate": STATE})
    found = tree(sink, lines[0], 1, parent=PARENT)
    assert trace_headers(went_up(upstream)) == {
        "traceparent": f"00-{trace}-{found.attempts[0].span_id}-01",
        "tracestate": STATE,
    }


def test_upstream_is_told_of_a_trace_that_is_not_kept(
    environ: dict[str, str], start: Start, upstream: ScriptedUpstream, trace: str
) -> None:
    sidecar = start(PROPAGATE, environ=environ)
    with sidecar.requests() as lines:
        sidecar.chat(headers={"traceparent": parent_of(trace, "00"), "tracestate": STATE})
    assert trace_headers(went_up(upstream)) == {
        "traceparent": f"00-{trace}-{lines[0]['span_id']}-00",
        "tracestate": STATE,
    }


def test_without_tracing_the_apps_header_goes_up_as_it_is(
    start: Start, upstream: ScriptedUpstream, trace: str
) -> None:
    headers = {"traceparent": parent_of(trace), "tracestate": STATE}
    sidecar = start(PROPAGATE)
    with sidecar.requests() as lines:
        sidecar.chat(headers=headers)
    assert trace_headers(went_up(upstream)) == headers
    assert "trace_id" not in lines[0]


def test_nothing_goes_up_unasked(sidecar: Sidecar, upstream: ScriptedUpstream, trace: str) -> None:
    sidecar.chat(headers={"traceparent": parent_of(trace), "tracestate": STATE, "baggage": "a=b"})
    assert trace_headers(went_up(upstream)) == {}
