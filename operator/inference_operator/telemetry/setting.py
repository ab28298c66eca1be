"""The standard OTEL_* variables → what a process tells, and how.

Enters: an environment. Leaves: `Export`, or a refusal that names the variable and never its value where that may hold
a secret. Knows nothing of OpenTelemetry's library, which reads headers, certificates and the like by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ..errors import OperatorError

DISABLED: Final = "OTEL_SDK_DISABLED"
EXPORTERS: Final = "OTEL_METRICS_EXPORTER"
# Of two names the first is that of metrics alone, and goes before the one of all signals.
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TIMEOUTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
HEADERS: Final = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")

_PROTOCOL: Final = "http/protobuf"
_GRPC_PORT: Final = 4317
_KNOWN: Final = frozenset({"otlp", "prometheus", "none"})


class UnusableTelemetry(OperatorError):
    """A variable asks for what is not spoken here."""


@dataclass(frozen=True, slots=True)
class Export:
    """`scraped`: at /metrics. `otlp`: sent by OTLP over HTTP, each `interval_ms`, given up after `timeout_ms`."""

    scraped: bool = True
    otlp: bool = False
    interval_ms: int = 60_000
    timeout_ms: int = 3000


def export_of(environ: Mapping[str, str]) -> Export:
    """What `environ` asks for: /metrics, and OTLP where an endpoint is named, unless OTEL_METRICS_EXPORTER says other.

    An empty variable counts as absent. Raises UnusableTelemetry.
    """
    if environ.get(DISABLED, "").strip().lower() == "true":
        return Export(scraped=False)
    named = {name for part in environ.get(EXPORTERS, "").split(",") if (name := part.strip().lower())}
    if unknown := sorted(named - _KNOWN):
        raise UnusableTelemetry(f"{EXPORTERS}: found {unknown[0]}; valid: otlp, prometheus, none")
    if "none" in named:
        return Export(scraped=False)
    _, endpoint = first_of(ENDPOINTS, environ)
    scraped, otlp = ("prometheus" in named, "otlp" in named) if named else (True, bool(endpoint))
    if not otlp:
        return Export(scraped)
    _check(environ)
    timeout, _ = first_of(TIMEOUTS, environ)
    # Milliseconds, as the specification says. The library takes seconds, so less than 100 is what was meant for it.
    return Export(scraped, otlp, _millis(INTERVAL, environ, 60_000, 1), _millis(timeout, environ, 3000, 100))


def first_of(names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, str]:
    """The first of `names` that is set, and its value; two empty texts where none is."""
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _millis(name: str, environ: Mapping[str, str], default: int, least: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise UnusableTelemetry(f"{name}: found {text}; valid: milliseconds, a whole number from {least} on")
    return int(text)


def _check(environ: Mapping[str, str]) -> None:
    name, protocol = first_of(PROTOCOLS, environ)
    if protocol and protocol.strip() != _PROTOCOL:
        raise UnusableTelemetry(f"{name}: found {protocol.strip()}; valid: {_PROTOCOL}")
    name, endpoint = first_of(ENDPOINTS, environ)
    if not endpoint:
        return
    try:
        url = urlsplit(endpoint)
        port, host = url.port, url.hostname
    except ValueError:
        raise UnusableTelemetry(f"{name}: no valid URL") from None
    if url.scheme not in ("http", "https") or not host:
        raise UnusableTelemetry(
            f"{name}: found no URL of http or https; valid: such as http://collector:4318"
        )
    if port == _GRPC_PORT:
        raise UnusableTelemetry(
            f"{name}: port {port} of a collector speaks gRPC; valid: its port for {_PROTOCOL}, mostly 4318"
        )
