"""Sends spans and metrics by OTLP over HTTP, from threads of its own: nothing here is on a request's path.

Enters: `Settings`, finished spans, snapshots of the figures. Leaves: OTLP requests, and one log line when a signal's
export begins to fail and one when it works again. Imported only where something is exported.
Must not print a header's value or a URL's query: the libraries' own log lines, which do, go nowhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.version import __version__

from .environment import Signal, public_url
from .logs import LOGGER

_COMPRESSION: Final = {
    "none": Compression.NoCompression,
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
}
_MAX_ANSWER: Final = 64 * 1024
_LIBRARIES: Final = ("opentelemetry", "urllib3")


class _Resource(Resource):
    """The SDK's, which is written as JSON each time that it is hashed: for every span that is encoded."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        super().__init__(attributes)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


def resource_of(attributes: Mapping[str, str]) -> Resource:
    """Who tells all this. Made by hand: the SDK's detectors would add what nobody asked for, and one runs a command."""
    sdk = {"language": "python", "name": "opentelemetry", "version": __version__}
    return _Resource({**{f"telemetry.sdk.{name}": value for name, value in sdk.items()}, **attributes})


class Teller:
    """Says when one signal's export begins to fail, and when it works again; not one line a batch."""

    def __init__(self, signal: str, endpoint: str) -> None:
        self.reason = ""
        self._signal = signal
        self._endpoint = public_url(endpoint)
        self._failing = False

    def tell(self, *, worked: bool) -> None:
        """One export has ended."""
        if worked is not self._failing:
            return
        self._failing = not worked
        fields = {"signal": self._signal, "endpoint": self._endpoint}
        if worked:
            LOGGER.info("export works again", extra={"fields": fields})
        else:
            LOGGER.warning("export fails", extra={"fields": {**fields, "reason": self.reason or "unknown"}})


class _Session(requests.Session):
    """requests, but an answer is read up to a bound, a redirect is no success, and the last failure is known by a
    word that holds nothing of the request."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        if (kwargs.get("timeout") or 0.0) <= 0.0:
            # The last try has used up the time, and its reason is the one to tell.
            raise requests.exceptions.Timeout
        try:
            # Given for one request, the authorities go before those of REQUESTS_CA_BUNDLE; the session's own do not.
            verify = {} if self.verify is True else {"verify": self.verify}
            response = super().request(*args, **{**kwargs, **verify, "stream": True})
            response.raw.read(_MAX_ANSWER)
            response.close()
        except Exception as error:
            self._teller.reason = type(error).__name__
            raise
        if response.status_code >= 300:
            self._teller.reason = f"HTTP {response.status_code}"
        if 300 <= response.status_code < 400:
            raise requests.exceptions.TooManyRedirects
        return response


class SpanExport(SpanExporter):
    """OTLP's exporter, which tells how it goes."""

    def __init__(self, signal: Signal) -> None:
        self._teller = Teller("traces", signal.endpoint)
        self._exporter = OTLPSpanExporter(**_options(signal, self._teller))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Blocks for at most about the signal's timeout."""
        result = self._exporter.export(spans)
        self._teller.tell(worked=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class MetricExport:
    """Takes a snapshot every `interval_s` seconds and at the end, and sends it."""

    def __init__(self, signal: Signal, interval_s: float, snapshot: Callable[[], MetricsData | None]) -> None:
        """`snapshot` is called on the export's own thread; None: there is none to be had now."""
        self._teller = Teller("metrics", signal.endpoint)
        self._exporter = OTLPMetricExporter(**_options(signal, self._teller))
        self._interval_s = interval_s
        self._snapshot = snapshot
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-export", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Export once more, and end. Blocks until that is done."""
        self._ending.set()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        due = time.monotonic() + self._interval_s
        while not self._ending.is_set():
            # An export that took long must not make the next ones late, nor many at once.
            self._ending.wait(max(due - time.monotonic(), 0.0))
            due = max(due + self._interval_s, time.monotonic())
            try:
                self._export()
            except Exception:  # noqa: BLE001  the edge of a thread that must outlive one bad snapshot
                LOGGER.exception("exporting metrics failed")

    def _export(self) -> None:
        data = self._snapshot()
        if data is not None:
            result = self._exporter.export(data)
            self._teller.tell(worked=result is MetricExportResult.SUCCESS)


class _Dropped(logging.Handler):
    """Of what the libraries say only this is worth a line of ours: that spans are lost before they could be sent."""

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Queue full"):
            LOGGER.warning("spans dropped: the queue of OTEL_BSP_MAX_QUEUE_SIZE is full")


def silence() -> None:
    """Keep the libraries' own lines away: they come once a batch, and may quote headers and URLs."""
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.propagate = False
        library.handlers[:] = [_Dropped(logging.WARNING)]


def end_within(seconds: float, *shutdowns: Callable[[], None]) -> bool:
    """Run all at once; whether all were done in time. What was not is left to the end of the process."""
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)


def _options(signal: Signal, teller: Teller) -> dict[str, Any]:
    return {
        "endpoint": signal.endpoint,
        "certificate_file": signal.certificate,
        "client_key_file": signal.client_key,
        "client_certificate_file": signal.client_certificate,
        "headers": signal.headers,
        "timeout": signal.timeout_s,
        "compression": _COMPRESSION[signal.compression],
        "session": _Session(teller),
    }
