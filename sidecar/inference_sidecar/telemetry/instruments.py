"""How values add up: counters and histograms by their attributes, kept as plain numbers.

Enters: values, each with its attributes' values in the order in which `names` has the metric's attributes.
Leaves: `Family`s, the one form that /metrics and OTLP are both written from. One loop writes and reads them, so
there are no locks. Must not grow with what clients or an upstream say: the series of a metric are bounded.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Final

from ..records import Gaps
from .names import ERROR_TYPE, OTHER, REQUEST_MODEL, RESPONSE_MODEL, Metric

Values = tuple[str | int | None, ...]
"""Attributes' values in the metric's order; None where an attribute has nothing to say."""

Trace = tuple[str, str]
"""A trace's id and a span's, in hex."""

MAX_SERIES: Final = 512
"""Series of one metric. What would be a further one counts where models and error types are `_OTHER`."""

_GIVE_WAY: Final = frozenset({REQUEST_MODEL, RESPONSE_MODEL, ERROR_TYPE})


class Exemplar:
    """One value of a bucket, and the trace that it comes from."""

    __slots__ = ("trace", "unix_nano", "value")

    def __init__(self, value: int | float, unix_nano: int, trace: Trace) -> None:
        self.value = value
        self.unix_nano = unix_nano
        self.trace = trace


class Point:
    """A histogram's one series: a count for each bucket and for what is above the last, the sum, the extremes.

    `exemplars` has each bucket's newest, by the bucket's number.
    """

    __slots__ = ("counts", "exemplars", "least", "most", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0
        self.least = float("inf")
        self.most = float("-inf")
        self.exemplars: dict[int, Exemplar] = {}

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def copy(self) -> Point:
        """What it says now, for good."""
        other = Point(0)
        other.counts = self.counts[:]
        other.total, other.least, other.most = self.total, self.least, self.most
        other.exemplars = self.exemplars.copy()
        return other


@dataclass(frozen=True, slots=True)
class Family:
    """One metric and what it says now, by its attributes' values."""

    metric: Metric
    series: Mapping[Values, int | float | Point]

    def copy(self) -> Family:
        """What it says now, for good: to be read while the loop goes on."""
        return Family(
            self.metric,
            {
                values: value.copy() if isinstance(value, Point) else value
                for values, value in self.series.items()
            },
        )


def _admitted(metric: Metric, series: Sized, values: Values) -> Values:
    """The values under which a series that does not exist yet is kept: they are bounded in number."""
    if len(series) < MAX_SERIES:
        return values
    return tuple(
        OTHER if name in _GIVE_WAY and value is not None else value
        for name, value in zip(metric.attributes, values, strict=True)
    )


class Counter:
    """Sums that only rise."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.series: dict[Values, int] = {}

    def family(self) -> Family:
        """What it says now. The series are not copied: read them before the loop goes on."""
        return Family(self.metric, self.series)

    def add(self, values: Values, amount: int = 1) -> None:
        """Count `amount` more."""
        known = self.series.get(values)
        if known is None:
            values = _admitted(self.metric, self.series, values)
            known = self.series.get(values, 0)
        self.series[values] = known + amount


class Histogram:
    """Distributions over the metric's bounds; a bound belongs to the bucket below it."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.series: dict[Values, Point] = {}

    def family(self) -> Family:
        """As `Counter.family`."""
        return Family(self.metric, self.series)

    def add(self, values: Values, value: int | float, trace: Trace | None = None) -> None:
        """Take in one value, in the metric's unit."""
        point = self._point(values)
        bucket = bisect_left(self.metric.bounds, value)
        point.counts[bucket] += 1
        point.total += value
        # A call costs three times what a comparison does, on the path of every request.
        if value < point.least:  # noqa: PLR1730
            point.least = value
        if value > point.most:  # noqa: PLR1730
            point.most = value
        if trace is not None:
            point.exemplars[bucket] = Exemplar(value, time.time_ns(), trace)

    def merge(self, values: Values, gaps: Gaps, trace: Trace | None = None) -> None:
        """Take in all the gaps of a stream, sorted into this metric's buckets already. Its trace is the example of
        its longest gap, which is the one that somebody may look for."""
        point = self._point(values)
        point.counts = [before + more for before, more in zip(point.counts, gaps.counts, strict=True)]
        point.total += gaps.total_s
        point.least = min(point.least, gaps.least_s)
        point.most = max(point.most, gaps.most_s)
        if trace is not None:
            bucket = bisect_left(self.metric.bounds, gaps.most_s)
            point.exemplars[bucket] = Exemplar(gaps.most_s, time.time_ns(), trace)

    def _point(self, values: Values) -> Point:
        point = self.series.get(values)
        if point is None:
            values = _admitted(self.metric, self.series, values)
            point = self.series.get(values)
            if point is None:
                point = self.series[values] = Point(len(self.metric.bounds) + 1)
        return point
