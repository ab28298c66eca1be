"""The figures as the OpenTelemetry SDK's public data classes, for its OTLP exporter.

Enters: `Figures` and a `Resource`. Leaves: `MetricsData`, cumulative from the start of the process on. The only
module of the metrics that imports the SDK, and itself to be imported only where metrics are exported by OTLP: a
process that exports nothing does not pay for the SDK's memory.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from inference_config import __version__

from . import names
from .figures import Figures
from .instruments import Family, Point, Values

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


def metrics_data(figures: Figures, resource: Resource, now_unix_nano: int) -> MetricsData:
    """Every metric that has a series, at `now_unix_nano`."""
    started = figures.metrics.started_unix_nano
    scope = InstrumentationScope("inference_sidecar", __version__)
    metrics = [
        _metric(family, started, now_unix_nano) for family in figures.families(__version__) if family.series
    ]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], resource.schema_url)])


def _metric(family: Family, started: int, now: int) -> Metric:
    metric = family.metric
    data: Sum | Gauge | Histogram
    if metric.kind is names.Kind.HISTOGRAM:
        points = [
            _histogram(metric, values, point, started, now)
            for values, point in family.series.items()
            if isinstance(point, Point)
        ]
        data = Histogram(points, _CUMULATIVE)
    else:
        numbers = [
            NumberDataPoint(_attributes(metric, values), started, now, value)
            for values, value in family.series.items()
            if not isinstance(value, Point)
        ]
        counts = metric.kind is names.Kind.COUNTER
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if counts else Gauge(numbers)
    return Metric(metric.name, metric.description, metric.unit, data)


def _histogram(
    metric: names.Metric, values: Values, point: Point, started: int, now: int
) -> HistogramDataPoint:
    exemplars = [
        Exemplar({}, one.value, one.unix_nano, trace_id=int(one.trace[0], 16), span_id=int(one.trace[1], 16))
        for one in point.exemplars.values()
    ]
    return HistogramDataPoint(
        attributes=_attributes(metric, values),
        start_time_unix_nano=started,
        time_unix_nano=now,
        count=point.count,
        sum=point.total,
        bucket_counts=list(point.counts),
        explicit_bounds=metric.bounds,
        min=point.least,
        max=point.most,
        exemplars=exemplars,
    )


def _attributes(metric: names.Metric, values: Values) -> dict[str, str | int]:
    return {name: value for name, value in zip(metric.attributes, values, strict=True) if value is not None}
