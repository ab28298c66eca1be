"""A stand-in: the lead merges the real module over it."""

from __future__ import annotations

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .figures import Figures
from .names import REQUESTS


def metrics_data(figures: Figures, resource: Resource, now_unix_nano: int) -> MetricsData:
    """One metric."""
    points = [NumberDataPoint({}, now_unix_nano, now_unix_nano, figures.requests_total)]
    data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    metric = Metric(REQUESTS.name, REQUESTS.description, REQUESTS.unit, data)
    scope = ScopeMetrics(InstrumentationScope("inference_sidecar"), [metric], "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])
