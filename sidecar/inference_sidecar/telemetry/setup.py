"""Puts the telemetry of one process together, and takes it apart at its end.

Enters: the environment, and the figures. Leaves: a `Telemetry`. Imports OpenTelemetry only where something is
exported, and takes the parts of its own making alone: no provider is made global.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from . import environment
from .environment import Settings
from .figures import Figures
from .logs import LOGGER

if TYPE_CHECKING:
    from .otlp_metrics import Taken
    from .spans import Tracing

END_SECS: Final = 2.5
"""What export may take at the end of the process, all signals together: the whole exit has 3 s for it."""
_SNAPSHOT_SECS: Final = 1.0


class Telemetry:
    """What one process exports. `tracing` is None where no spans are made."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tracing: Tracing | None = None
        self._shutdowns: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        if settings.traces is not None:
            self._trace()

    @property
    def metrics_off(self) -> str | None:
        """Why /metrics is not served, None where it is."""
        return self.settings.metrics_off

    def start(self, figures: Figures) -> None:
        """Called on the loop that writes the figures: they are exported from now on."""
        if self.settings.metrics is None:
            return
        from .export import MetricExport  # noqa: PLC0415  see the module's docstring
        from .otlp_metrics import request_of, taken  # noqa: PLC0415
        from .sender import Sender, resource_of  # noqa: PLC0415

        self._loop = asyncio.get_running_loop()
        resource = resource_of(self.settings.resource)
        sender = Sender(self.settings.metrics, "metrics")

        def snapshot() -> bytes | None:
            found = self._on_loop(lambda: taken(figures, time.time_ns()))
            return None if found is None else request_of(found, resource)

        export = MetricExport(self.settings.interval_s, snapshot, sender.send)
        self._ends_with(export.shutdown, sender.shutdown)

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

    def _on_loop(self, take: Callable[[], Taken]) -> Taken | None:
        """A snapshot between two steps of the loop, which alone writes the figures."""
        loop = self._loop
        if loop is None:
            return take()
        found: Future[Taken] = Future()

        def run() -> None:
            try:
                found.set_result(take())
            except Exception as error:  # noqa: BLE001  told where it was asked for
                found.set_exception(error)

        try:
            loop.call_soon_threadsafe(run)
            return found.result(_SNAPSHOT_SECS)
        except (TimeoutError, RuntimeError):
            # The loop has just ended; `stop` will ask again.
            return None

    def _trace(self) -> None:
        from .export import SpanQueue  # noqa: PLC0415
        from .otlp_spans import Envelope  # noqa: PLC0415
        from .sender import Sender, resource_of  # noqa: PLC0415
        from .spans import Tracing  # noqa: PLC0415
        from .trace_context import sampler_of  # noqa: PLC0415

        settings = self.settings
        assert settings.traces is not None
        sender = Sender(settings.traces, "traces")
        envelope = Envelope(resource_of(settings.resource), settings.resource["service.version"])
        queue = SpanQueue(settings.batch, lambda spans: sender.send(envelope.around(spans)))
        self._ends_with(queue.shutdown, sender.shutdown)
        self.tracing = Tracing(
            sampler=sampler_of(settings.sampler, settings.ratio),
            finish=queue.put,
            traceparent=settings.traceparent,
            content=settings.content,
            excluded=settings.excluded,
        )

    def _ends_with(self, *steps: Callable[[], None]) -> None:
        """One signal's steps at the end, one after the other."""

        def end() -> None:
            for step in steps:
                step()

        self._shutdowns.append(end)


def set_up(environ: Mapping[str, str]) -> Telemetry:
    """Raises ConfigError where a variable cannot be used."""
    return Telemetry(environment.read(environ))
