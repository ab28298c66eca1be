"""What is told about requests: figures for /health and /metrics, the log line of each, and what OpenTelemetry exports.

Enters: one `Outcome` per finished request, and the few things that are counted while a request is open.
Leaves: counters and distributions, Prometheus text, log lines, spans and metrics by OTLP. Must not touch a request or
hold one up. The only room that knows OpenTelemetry, and it imports that only where something is exported.
"""

from __future__ import annotations

from .figures import Figures, Series
from .logs import LOGGER, configure, debug
from .prometheus import exposition
from .requests_log import ids_of, log_outcomes
from .setup import Telemetry, set_up

__all__ = [
    "LOGGER",
    "Figures",
    "Series",
    "Telemetry",
    "configure",
    "debug",
    "exposition",
    "ids_of",
    "log_outcomes",
    "set_up",
]
