"""What is told about requests: figures for /health and /metrics, and the log line of each.

Enters: one `Outcome` per finished request, and the few things that are counted while a request is open.
Leaves: counters and distributions, Prometheus text, log lines. Must not touch a request or hold one up.
"""

from __future__ import annotations

from .figures import Figures, Series
from .logs import LOGGER, configure, debug, debugging, log_outcome
from .prometheus import exposition

__all__ = ["LOGGER", "Figures", "Series", "configure", "debug", "debugging", "exposition", "log_outcome"]
