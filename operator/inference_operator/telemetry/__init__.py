"""What operator and injector tell of themselves: figures for Prometheus, lines for the log.

Enters: what happened, by typed calls. Leaves: text. Names of metrics and fields live here only. Must not be
given what a Secret or a pod holds.
"""

from __future__ import annotations

from .logs import LOGGER, configure
from .metrics import CONTENT_TYPE, Metrics

__all__ = ["CONTENT_TYPE", "LOGGER", "Metrics", "configure"]
