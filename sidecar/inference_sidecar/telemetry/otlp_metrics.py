"""The figures as OTLP writes them.

Enters: `Figures`, and the attributes of the resource that they are of. Leaves: an ExportMetricsServiceRequest, cumulative
from the start of the process on. To be imported only where metrics are exported by OTLP. Of all this only `taken` runs
on the loop, which alone writes the figures: a process with thousands of series would feel the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from inference_config import __version__

from . import names
from .figures import Figures
from .instruments import Exemplar, Family, Point, Values
from .otlp_wire import (
    OF_HISTOGRAM,
    OF_NUMBER,
    OF_RESOURCE,
    attributes,
    delimited,
    double,
    fixed64,
    text,
)

_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_INTEGER: Final = struct.Struct("<Bq").pack
_DATA: Final = {names.Kind.GAUGE: b"\x2a", names.Kind.COUNTER: b"\x3a", names.Kind.HISTOGRAM: b"\x4a"}


class Taken(NamedTuple):
    """The figures of one moment. Times are of the Unix clock."""

    families: list[Family]
    started_nano: int
    now_nano: int


def taken(figures: Figures, now_unix_nano: int) -> Taken:
    """Every metric that has a series, as it stands now."""
    families = [family.copy() for family in figures.families(__version__) if family.series]
    return Taken(families, figures.metrics.started_unix_nano, now_unix_nano)


def request_of(taken: Taken, resource: Mapping[str, str]) -> bytes:
    """All of them, to be sent."""
    scope = delimited(b"\x0a", text(b"\x0a", "inference_sidecar") + text(b"\x12", __version__))
    metrics = b"".join(
        [delimited(b"\x12", _metric(one, taken.started_nano, taken.now_nano)) for one in taken.families]
    )
    of_resource = delimited(b"\x0a", attributes(OF_RESOURCE, resource))
    return delimited(b"\x0a", of_resource + delimited(b"\x12", scope + metrics))


def _metric(family: Family, started: int, now: int) -> bytes:
    metric = family.metric
    kind = metric.kind
    times = fixed64(b"\x19", now) if kind is names.Kind.GAUGE else _times(started, now)
    points = b"".join([delimited(b"\x0a", point) for point in _points(family, times)])
    if kind is names.Kind.HISTOGRAM:
        points += _CUMULATIVE
    elif kind is names.Kind.COUNTER:
        points += _CUMULATIVE + _MONOTONIC
    return _about(metric) + delimited(_DATA[kind], points)


def _points(family: Family, times: bytes) -> Iterator[bytes]:
    metric = family.metric
    bounds = delimited(b"\x3a", struct.pack(f"<{len(metric.bounds)}d", *metric.bounds))
    for values, value in family.series.items():
        if isinstance(value, Point):
            yield times + _attributes(OF_HISTOGRAM, metric.attributes, values) + bounds + _histogram(value)
        else:
            yield times + _attributes(OF_NUMBER, metric.attributes, values) + _number(value)


def _histogram(point: Point) -> bytes:
    counts = struct.pack(f"<{len(point.counts)}Q", *point.counts)
    return b"".join(
        (
            fixed64(b"\x21", point.count),
            double(b"\x29", point.total),
            delimited(b"\x32", counts),
            double(b"\x59", point.least),
            double(b"\x61", point.most),
            *(delimited(b"\x42", _exemplar(one)) for one in point.exemplars.values()),
        )
    )


def _exemplar(one: Exemplar) -> bytes:
    trace, span = one.trace
    value = _INTEGER(0x31, one.value) if isinstance(one.value, int) else double(b"\x19", one.value)
    ids = b"\x22\x08" + bytes.fromhex(span) + b"\x2a\x10" + bytes.fromhex(trace)
    return fixed64(b"\x11", one.unix_nano) + value + ids


def _number(value: int | float) -> bytes:
    return _INTEGER(0x31, value) if isinstance(value, int) else double(b"\x21", value)


def _times(started: int, now: int) -> bytes:
    return fixed64(b"\x11", started) + fixed64(b"\x19", now)


def _about(metric: names.Metric) -> bytes:
    return text(b"\x0a", metric.name) + text(b"\x12", metric.description) + text(b"\x1a", metric.unit)


def _attributes(tag: bytes, known: tuple[str, ...], values: Values) -> bytes:
    return attributes(
        tag, {name: value for name, value in zip(known, values, strict=True) if value is not None}
    )
