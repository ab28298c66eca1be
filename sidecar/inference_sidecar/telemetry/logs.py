"""Log lines: one JSON object a line, or a readable form on a terminal.

Enters: stdlib log records (uvicorn's too), and lines that `requests_log` has made. Leaves: lines on stdout.
Must not print a key (callers have none to give) nor content, unless the configuration says so.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Literal, TextIO

LOGGER: Final = logging.getLogger("inference_sidecar")

_ROOT: Final = logging.getLogger()
_JSON: Final = json.JSONEncoder(
    ensure_ascii=True, check_circular=False, separators=(",", ":"), default=str
).encode


class _JsonFormatter(logging.Formatter):
    """`time` in UTC with milliseconds, `level`, `logger`, `message`, then the record's own fields."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._clock = ""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        level = record.levelname.lower()
        told = _JSON({"level": level, "logger": record.name, "message": record.getMessage(), **fields})
        return self.stamp(record.created) + told[1:]

    def stamp(self, created: float) -> str:
        """How a line begins. `created`: seconds since 1970."""
        second = int(created)
        if second != self._second:
            self._second, self._clock = second, _utc(second).strftime("%Y-%m-%dT%H:%M:%S")
        return f'{{"time":"{self._clock}.{int((created - second) * 1000):03d}Z",'


class _TextFormatter(logging.Formatter):
    """For a person: time of day, level, message, fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        clock = _utc(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(
            f"{name}={_shown(value)}" for name, value in _fields(record).items() if value is not None
        )
        line = f"{clock} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes JSON lines. `tell` writes some without a record being made of each first, which costs half of a line."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._json = _JsonFormatter()
        self.setFormatter(self._json)

    def tell(self, lines: Sequence[str]) -> None:
        """Lines of the sidecar's own logger, now. Each is a JSON object's members from `level` on."""
        stamp = self._json.stamp(time.time())
        # Where lines cannot be written, there is nowhere to say so, and no request is to fail of it.
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError, ValueError):
            self.stream.write("".join([f"{stamp}{line}}}\n" for line in lines]))
            self.flush()


def json_handler() -> JsonHandler | None:
    """What writes all lines, where these are JSON."""
    handlers = _ROOT.handlers
    if len(handlers) == 1 and isinstance(handlers[0], JsonHandler) and not LOGGER.handlers:
        return handlers[0]
    return None


def configure(
    level: str, form: Literal["auto", "json", "text"], stream: TextIO | None = None
) -> Literal["json", "text"]:
    """Send all log records to `stream` (stdout) in one form; returns the form that was chosen."""
    stream = stream or sys.stdout
    chosen: Literal["json", "text"] = (
        "text" if form == "text" or (form == "auto" and stream.isatty()) else "json"
    )
    handler = logging.StreamHandler(stream) if chosen == "text" else JsonHandler(stream)
    if chosen == "text":
        handler.setFormatter(_TextFormatter())
    for old in _ROOT.handlers[:]:
        _ROOT.removeHandler(old)
    _ROOT.addHandler(handler)
    set_level(level)
    return chosen


def set_level(level: str) -> None:
    """Change the least level that is logged. Libraries stay at warning: their debug lines hold headers."""
    LOGGER.setLevel(level.upper())
    _ROOT.setLevel(logging.WARNING if level in ("debug", "info") else level.upper())


def debug(message: str, **fields: Any) -> None:
    """One step of a request, at debug level. Callers with costly fields ask first (`Runtime.debugged`)."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        LOGGER.debug(message, extra={"fields": fields})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, default=str)
