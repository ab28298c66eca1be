"""Whose trace a request belongs to, and whether it is kept: W3C Trace Context, and OpenTelemetry's samplers.

Enters: the app's headers, a sampler's name. Leaves: a `Parent` or none, a word on a trace's id. Pure.
Headers are read, and samplers decide, as OpenTelemetry's own do; tests hold this against those. They are not used
for it, because they build four objects for each request, and bring the SDK's tracer with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from opentelemetry.trace import TraceState

_TRACEPARENT: Final = re.compile(
    rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:(-.*)|[ \t]*)"
)
_MAX_HEADER: Final = 512
_SAMPLED: Final = 1
_LOW: Final = 2**64 - 1
_ALL: Final = _LOW + 1


class Parent(NamedTuple):
    """The app's own span. `state` is its tracestate in order, empty where there is none that can be read."""

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: str


@dataclass(frozen=True, slots=True)
class Sampler:
    """`bound`: a trace is kept whose id's lower 64 bits are below it. `follows`: the app's word goes before."""

    bound: int
    follows: bool

    def keeps(self, trace_id: bytes, parent: Parent | None) -> bool:
        """Whether a trace is kept."""
        if parent is not None and self.follows:
            return parent.sampled
        return self.bound == _ALL or int.from_bytes(trace_id) & _LOW < self.bound


def sampler_of(name: str, ratio: float) -> Sampler:
    """By its name in OTEL_TRACES_SAMPLER. `ratio` counts for traceidratio alone."""
    root = name.removeprefix("parentbased_")
    share = {"always_on": 1.0, "always_off": 0.0}.get(root, ratio)
    return Sampler(round(share * _ALL), follows=root != name)


def parent_of(traceparent: bytes, states: list[bytes]) -> Parent | None:
    """What the app's headers say; a traceparent that is malformed says nothing, and then no tracestate counts."""
    found = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= _MAX_HEADER else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more):
        return None
    trace_id, span_id = bytes.fromhex(trace.decode()), bytes.fromhex(span.decode())
    if not any(trace_id) or not any(span_id):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), _state(states))


def _state(lines: list[bytes]) -> str:
    if not lines or sum(map(len, lines)) + len(lines) - 1 > _MAX_HEADER:
        return ""
    return TraceState.from_header([line.decode("latin-1") for line in lines]).to_header()
