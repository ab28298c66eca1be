"""Log lines, one JSON object each.

Enters: records of the standard library's logging, those of kopf and uvicorn too; `extra={"fields": {...}}` adds
fields. Leaves: lines on stdout. An exception is told by its type and by where it came from. Its message is told if
it is one of ours: others quote what they choked on, which may be part of a Secret or of somebody's pod.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback
from typing import Any, Final, TextIO

from ..errors import OperatorError

LOGGER: Final = logging.getLogger("inference_operator")

_FRAMES: Final = 12
_QUOTING: Final = ("opentelemetry.util.re", "opentelemetry.exporter.otlp.proto.http.metric_exporter")
"""They quote headers of OTLP, which hold credentials. What there is to say, `export` says."""
_ROOT: Final = logging.getLogger()


class _JsonFormatter(logging.Formatter):
    """`time` in UTC with milliseconds, `level`, `logger`, `message`, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields = getattr(record, "fields", None)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(fields if isinstance(fields, dict) else {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _told(record.exc_info[1])
        return json.dumps(line, separators=(",", ":"), default=str)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send all log records to `stream` (stdout). Libraries stay at warning: their lower levels quote objects."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_JsonFormatter())
    for old in _ROOT.handlers[:]:
        _ROOT.removeHandler(old)
    _ROOT.addHandler(handler)
    _ROOT.setLevel(logging.WARNING)
    LOGGER.setLevel(level.upper())
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _told(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    told: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, OperatorError):
        told["message"] = str(error)
    if error.__cause__ is not None:
        told["cause"] = _told(error.__cause__)
    return told
