"""What operator and injector tell of themselves: metrics for Prometheus and OTLP, lines for the log.

Enters: what happened, by typed calls. Leaves: text, OTLP. Names of metrics are in `names`, and nowhere else; nobody
outside of this room knows OpenTelemetry. Must not be given what a Secret or a pod holds.
"""

from __future__ import annotations

from .export import CONTENT_TYPE
from .logs import LOGGER, configure
from .metrics import Metrics
from .names import INJECTOR, OPERATOR
from .setting import UnusableTelemetry

__all__ = ["CONTENT_TYPE", "INJECTOR", "LOGGER", "OPERATOR", "Metrics", "UnusableTelemetry", "configure"]
