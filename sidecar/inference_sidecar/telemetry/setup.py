"""Puts the telemetry of one process together, and takes it apart at its end.

Enters: the environment, and the figures. Leaves: a `Telemetry`. Imports OpenTelemetry only where something is
exported, and takes the parts of its own making alone: no provider is made global.
"""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from . import environment
from .environment import Settings
from .figures import Figures
from .logs import LOGGER

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler

    from .spans import Tracing

END_SECS: Final = 2.5
"""What export may take at the end of the process, all signals together: the whole exit has 3 s for it."""
_SNAPSHOT_SECS: Final = 1.0
_MOST_ATTRIBUTES: Final = 128
"""The SDK's default of everything that it counts, given so that it reads no variable of its own for it."""


class Telemetry:
    """What one process exports. `tracing` is None where no spans are made."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tracing: Tracing | None = None
        self._shutdowns: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resource: Resource | None = None
        if settings.traces is None and settings.metrics is None:
            return
        from .export import resource_of, silence  # noqa: PLC0415  see the module's docstring

        silence()
        self._resource = resource_of(settings.resource)
        if settings.traces is not None:
            self._trace()

    @property
    def metrics_off(self) -> str | None:
        """Why /metrics is not served, None where it is."""
        return self.settings.metrics_off

    def start(self, figures: Figures) -> None:
        """Called on the loop that writes the figures: they are exported from now on."""
        if self.settings.metrics is None or self._resource is None:
            return
        from .export import MetricExport  # noqa: PLC0415
        from .otlp_metrics import metrics_data  # noqa: PLC0415

        self._loop = asyncio.get_running_loop()
        resource = self._resource

        def take() -> MetricsData:
            return metrics_data(figures, resource, time.time_ns())

        export = MetricExport(self.settings.metrics, self.settings.interval_s, lambda: self._on_loop(take))
        self._shutdowns.append(export.shutdown)

    def stop(self) -> None:
        """The loop has ended: send what is left, for at most `END_SECS`."""
        self._loop = None
        if not self._shutdowns:
            return
        from .export import end_within  # noqa: PLC0415

        if not end_within(END_SECS, *self._shutdowns):
            # Their sockets are closed by the process's end: nothing to warn of.
            warnings.simplefilter("ignore", ResourceWarning)
            LOGGER.warning("telemetry was left unsent", extra={"fields": {"waited_secs": END_SECS}})

    def _on_loop(self, take: Callable[[], MetricsData]) -> MetricsData | None:
        """A snapshot between two steps of the loop, which alone writes the figures."""
        loop = self._loop
        if loop is None:
            return take()
        taken: Future[MetricsData] = Future()

        def run() -> None:
            try:
                taken.set_result(take())
            except Exception as error:  # noqa: BLE001  told where it was asked for
                taken.set_exception(error)

        try:
            loop.call_soon_threadsafe(run)
            return taken.result(_SNAPSHOT_SECS)
        except (TimeoutError, RuntimeError):
            # The loop has just ended; `stop` will ask again.
            return None

    def _trace(self) -> None:
        # The instrumentation reads this where it is made; of its two vocabularies only this is stable.
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
        from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport  # noqa: PLC0415
        from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415
        from opentelemetry.propagate import set_global_textmap  # noqa: PLC0415
        from opentelemetry.propagators.composite import CompositePropagator  # noqa: PLC0415
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        from .export import SpanExport  # noqa: PLC0415
        from .spans import Tracing  # noqa: PLC0415

        settings = self.settings
        assert settings.traces is not None
        assert self._resource is not None
        silent = NoOpMeterProvider()
        sampler = _sampler(settings.sampler, settings.ratio)
        # What goes upstream is the configuration's to say (`upstream.traced`), not the instrumentation's.
        set_global_textmap(CompositePropagator([]))
        provider = TracerProvider(
            sampler=sampler,
            resource=self._resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(*[_MOST_ATTRIBUTES] * 6, *[SpanLimits.UNSET] * 2),
            meter_provider=silent,
        )
        processor = BatchSpanProcessor(
            SpanExport(settings.traces),
            max_queue_size=settings.batch.queue,
            schedule_delay_millis=settings.batch.delay_ms,
            max_export_batch_size=settings.batch.size,
            meter_provider=silent,
        )
        provider.add_span_processor(processor)
        self._shutdowns.append(provider.shutdown)

        def observe(transport: Any) -> Any:
            return AsyncOpenTelemetryTransport(transport, tracer_provider=provider, meter_provider=silent)

        self.tracing = Tracing(
            sampler=sampler,
            resource=self._resource,
            finish=processor.on_end,
            observe=observe,
            traceparent=settings.traceparent,
            content=settings.content,
        )


def set_up(environ: Mapping[str, str]) -> Telemetry:
    """Raises ConfigError where a variable cannot be used."""
    return Telemetry(environment.read(environ))


def _sampler(name: str, ratio: float) -> Sampler:
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415

    root: Sampler
    match name.removeprefix("parentbased_"):
        case "always_on":
            root = sampling.ALWAYS_ON
        case "always_off":
            root = sampling.ALWAYS_OFF
        case _:
            root = sampling.TraceIdRatioBased(ratio)
    return sampling.ParentBased(root) if name.startswith("parentbased_") else root
