"""Everything that is counted in one process, by OpenTelemetry's SDK.

Enters: what happened, by typed calls. Leaves: Prometheus text, and OTLP where the environment asks for it. Calls come
from one loop and never wait; collections come from there and from the exporter's thread. Times are in seconds. A
process that does not use a metric does not show it.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import export as sdk

from . import names
from .export import Page, pushed, resource
from .logs import LOGGER
from .setting import Export, export_of

CLOSE_SECS: Final = 3.0
"""What is still to be sent gets so long at the end of a process. A pod's grace is 10 s at least."""
NOT_SCRAPED: Final = "# OTEL_METRICS_EXPORTER or OTEL_SDK_DISABLED leave nothing to be scraped here.\n"
SCRAPED: Final = Export()


class Metrics:
    """From the start of a process on. `text` and `close` are its two ends."""

    def __init__(self, version: str, service: str = names.OPERATOR, export: Export = SCRAPED) -> None:
        self._version = version
        self._pods: dict[str, dict[str, int]] = {}
        self._expires: dict[str, float] = {}
        self._page = Page(self._pods_now) if export.scraped else None
        readers: list[sdk.MetricReader] = [self._page.reader] if self._page else []
        readers += [pushed(export, self._pods_now)] if export.otlp else []
        # Without a shutdown at exit: that one would wait for half a minute, whatever `close` did.
        self._provider = MeterProvider(readers, resource(service, version), shutdown_on_exit=False)
        meter = self._provider.get_meter(names.SCOPE, version)
        self._reconciles = _counter(meter, names.RECONCILES)
        self._reconcile_secs = _histogram(meter, names.RECONCILE_DURATION)
        self._admissions = _counter(meter, names.ADMISSIONS)
        self._admission_secs = _histogram(meter, names.ADMISSION_DURATION)
        for metric, observe in (
            (names.BUILD_INFO, self._build_now),
            (names.CERTIFICATE_EXPIRY, self._expires_now),
        ):
            meter.create_observable_gauge(metric.name, [observe], metric.unit, metric.description)

    @classmethod
    @contextmanager
    def told(cls, version: str, service: str) -> Iterator[Metrics]:
        """A process's metrics, told as its environment asks, until the block ends. Raises UnusableTelemetry."""
        metrics = cls(version, service, export_of(os.environ))
        try:
            yield metrics
        finally:
            metrics.close()

    def reconciled(self, outcome: str, seconds: float) -> None:
        """One reconcile has ended. `outcome`: one of a few words."""
        self._reconciles.add(1, {names.OUTCOME: outcome})
        self._reconcile_secs.record(seconds)

    def pods(self, key: str, counts: Mapping[str, int]) -> None:
        """The pods of the InferenceConfig `key` (`namespace/name`) by state, in place of what was told before."""
        self._pods[key] = dict(counts)

    def forget(self, key: str) -> None:
        """The InferenceConfig `key` is gone, and its figures with it."""
        self._pods.pop(key, None)

    def admitted(self, outcome: str, reason: str, seconds: float) -> None:
        """One pod was answered. `reason`: CamelCase, empty where it got what it asked for."""
        self._admissions.add(1, {names.OUTCOME: outcome, names.REASON: reason})
        self._admission_secs.record(seconds)

    def certificate_expires(self, at: datetime.datetime, of: str = "leaf") -> None:
        """When the certificate that is kept (operator) or served (injector) ends. `of`: leaf or authority."""
        self._expires[of] = at.timestamp()

    def text(self) -> str:
        """All of it as Prometheus text."""
        return self._page.text() if self._page else NOT_SCRAPED

    def close(self) -> None:
        """Send what there is, and end; within CLOSE_SECS, whatever the receiver does. Once."""
        try:
            self._provider.shutdown(CLOSE_SECS * 1000)
        except Exception as error:  # noqa: BLE001  the library raises just that; a process has to end all the same
            LOGGER.warning(
                "the last metrics were not sent", extra={"fields": {"reason": type(error).__name__}}
            )

    def _build_now(self, _: api.CallbackOptions) -> Iterable[api.Observation]:
        return [api.Observation(1, {names.VERSION: self._version})]

    def _expires_now(self, _: api.CallbackOptions) -> Iterable[api.Observation]:
        # A copy, here and below, made in one step: a collection may come from another thread.
        return [api.Observation(at, {names.CERTIFICATE: of}) for of, at in self._expires.copy().items()]

    def _pods_now(self) -> sdk.Metric:
        now = time.time_ns()
        points = [
            sdk.NumberDataPoint({**_named(key), names.STATE: state}, now, now, count)
            for key, counts in self._pods.copy().items()
            for state, count in counts.items()
        ]
        metric = names.PODS
        return sdk.Metric(metric.name, metric.description, metric.unit, sdk.Gauge(points))


def _counter(meter: api.Meter, metric: names.Metric) -> api.Counter:
    return meter.create_counter(metric.name, metric.unit, metric.description)


def _histogram(meter: api.Meter, metric: names.Metric) -> api.Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.bounds
    )


def _named(key: str) -> dict[str, str]:
    namespace, _, name = key.partition("/")
    return {names.CONFIG_NAMESPACE: namespace, names.CONFIG: name}
