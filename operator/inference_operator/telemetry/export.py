"""The ways out for metrics: a page for Prometheus, and OTLP from a thread of its own.

Enters: what the SDK has collected, and the series that are made anew at each collection. Leaves: text, requests to a
receiver, a line in the log when that one stops taking them. Must not make anybody wait: a receiver that is down or
hangs holds up its own thread only, and the process's end for as long as `Metrics.close` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import requests
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    Metric,
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.util.re import parse_env_headers
from prometheus_client import CollectorRegistry, generate_latest

from .logs import LOGGER
from .setting import HEADERS, Export, first_of

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Produce = Callable[[], Metric]
"""Makes a metric at the time of a collection.

The SDK keeps every set of attributes that an instrument ever had, and beyond 2000 puts all new ones into one series of
overflow: a gauge whose series come and go would leak, and end there.
"""


class Page:
    """Prometheus text, made when it is asked for."""

    def __init__(self, produce: Produce) -> None:
        # Of its own: the library's is the process's, and tells of garbage collections, too.
        self._registry = CollectorRegistry()
        self.reader = _Scraped(self._registry, produce)

    def text(self) -> str:
        """All of it, with HELP and TYPE, a newline at the end."""
        return generate_latest(self._registry).decode()


class _Scraped(PrometheusMetricReader):
    """Labels are the instruments' own: who is scraped, the scraper knows."""

    def __init__(self, registry: CollectorRegistry, produce: Produce) -> None:
        super().__init__(disable_target_info=True, scope_info_enabled=False, registry=registry)
        self._produce = produce

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(_completed(metrics_data, self._produce()), timeout_millis, **kwargs)


def pushed(export: Export, produce: Produce) -> PeriodicExportingMetricReader:
    """Sends OTLP, from time to time and at the end. Where to and with what, the standard variables say."""
    # Protobuf and the exporter are 3 MB that a process without an endpoint need not have.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

    _check_headers()
    exporter = OTLPMetricExporter(session=_Session(), timeout=export.timeout_ms / 1000)
    return _Pushed(exporter, export.interval_ms, produce)


class _Pushed(PeriodicExportingMetricReader):
    def __init__(self, exporter: MetricExporter, interval_ms: int, produce: Produce) -> None:
        self._produce = produce  # first: the thread begins in the parent's constructor
        super().__init__(exporter, interval_ms)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(_completed(metrics_data, self._produce()), timeout_millis, **kwargs)


class _Session(requests.Session):
    """Says once when the receiver stops taking metrics, and why, and once when it takes them again.

    The exporter's own lines come at each attempt, and quote a header that cannot be sent: `logs` keeps them back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._why_not: str | None = None

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """As the parent's."""
        try:
            response = super().request(*args, **kwargs)
        except Exception as error:
            self._tell(type(error).__name__)
            raise
        self._tell(None if response.ok else f"HTTP {response.status_code}")
        return response

    def _tell(self, why_not: str | None) -> None:
        before, self._why_not = self._why_not, why_not
        if why_not is not None and why_not != before:
            LOGGER.warning("the OTLP receiver takes no metrics", extra={"fields": {"reason": why_not}})
        elif why_not is None and before is not None:
            LOGGER.info("the OTLP receiver takes metrics again")


def resource(service: str, version: str) -> Resource:
    """Who tells: `service`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say other or more."""
    own = {SERVICE_NAME: service, SERVICE_VERSION: version}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def _completed(data: MetricsData, metric: Metric) -> MetricsData:
    """`data` with one metric more. The SDK has one resource, and this process one scope."""
    if not metric.data.data_points:
        return data
    (told,) = data.resource_metrics
    (scope,) = told.scope_metrics
    scope = replace(scope, metrics=[*scope.metrics, metric])
    return replace(data, resource_metrics=[replace(told, scope_metrics=[scope])])


def _check_headers() -> None:
    """What the library says of such a header quotes it."""
    name, given = first_of(HEADERS, os.environ)
    there = [entry for entry in given.split(",") if entry.strip()]
    if len(parse_env_headers(given, liberal=True)) < len(there):
        LOGGER.warning(
            "%s: not each of its %d entries is name=value; the others are left out", name, len(there)
        )
