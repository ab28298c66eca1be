"""Whose trace it is and whether it is kept, against OpenTelemetry's own propagator and samplers.

Covers: traceparent and tracestate, well-formed, nearly so and not at all; each sampler, with a parent and without.
Left out: what becomes of it on the wire (test_traces_context).
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inference_sidecar.telemetry.environment import SAMPLERS
from inference_sidecar.telemetry.trace_context import Parent, parent_of, sampler_of

MAX_HEADER = 512
SOME = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LETTERS = st.sampled_from("0123456789abcdefABCDEFg-= \t,")


def hexes(length: int) -> st.SearchStrategy[str]:
    return st.one_of(
        st.text("0123456789abcdef", min_size=length, max_size=length),
        st.just("0" * length),
        st.text(LETTERS, max_size=length + 1),
    )


NEARLY = st.builds(
    "{}{}-{}-{}-{}{}".format,
    st.sampled_from(["", " ", "\t"]),
    st.one_of(st.sampled_from(["00", "ff", "01", "cc"]), hexes(2)),
    hexes(32),
    hexes(16),
    hexes(2),
    st.sampled_from(["", " ", "-", "-more", "more", "-\xff"]),
)
ANY = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=600)
KEY = st.sampled_from(["a", "vendor", "t@v", "A", "", "1", "k" * 300])
STATE = st.lists(
    st.one_of(ANY, st.lists(st.builds("{}={}".format, KEY, ANY), max_size=34).map(",".join)), max_size=3
)


def officially(traceparent: bytes, states: list[bytes]) -> tuple[Context, Parent | None]:
    """The context that OpenTelemetry's propagator makes; a tracestate of more than 512 characters is not ours to take."""
    carrier: dict[str, Any] = {"traceparent": [traceparent.decode("latin-1")]}
    if states and sum(map(len, states)) + len(states) - 1 <= MAX_HEADER:
        carrier["tracestate"] = [state.decode("latin-1") for state in states]
    context = TraceContextTextMapPropagator().extract(carrier, Context())
    found = get_current_span(context).get_span_context()
    if not found.is_valid:
        return context, None
    return context, Parent(
        found.trace_id.to_bytes(16),
        found.span_id.to_bytes(8),
        found.trace_flags.sampled,
        found.trace_state.to_header(),
    )


@given(st.one_of(NEARLY, ANY, st.just(SOME.decode())), STATE)
@example(SOME.decode(), ["a=1,b=2", "c=3"])
@example(SOME.decode(), ["a=" + "x" * 510])
@example(SOME.decode(), ["a=" + "x" * 200, "b=" + "x" * 200])
@example(SOME.decode() + "-" + "x" * 600, [])
def test_headers_are_read_as_the_propagator_reads_them(traceparent: str, states: list[str]) -> None:
    header, lines = traceparent.encode("latin-1"), [state.encode("latin-1") for state in states]
    assert parent_of(header, lines) == officially(header, lines)[1]


def official_sampler(name: str, ratio: float) -> sampling.Sampler:
    roots: dict[str, sampling.Sampler] = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(ratio),
    }
    root = roots[name.removeprefix("parentbased_")]
    return sampling.ParentBased(root) if name.startswith("parentbased_") else root


RATIO = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-300, 2**-64]), st.floats(0, 1))
ID = st.one_of(st.integers(1, 2**128 - 1), st.sampled_from([2**127, 2**127 + 2**63, 2**64 - 1, 2**63 - 1]))


@given(st.sampled_from(SAMPLERS), RATIO, ID, st.sampled_from([None, b"00", b"01", b"02", b"03"]))
def test_a_sampler_says_what_the_sdks_says(name: str, ratio: float, trace: int, flags: bytes | None) -> None:
    context, parent = Context(), None
    if flags is not None:
        context, parent = officially(b"00-%032x-b7ad6b7169203331-%b" % (trace, flags), [])
        assert parent is not None
    decision = official_sampler(name, ratio).should_sample(context, trace, "HTTP").decision
    assert sampler_of(name, ratio).keeps(trace.to_bytes(16), parent) is decision.is_sampled()
