"""Log lines: one JSON object a line, or a readable form on a terminal.

Enters: stdlib log records (uvicorn's too) and `Outcome`s. Leaves: lines on stdout.
Must not print a key (callers have none to give) nor content, unless the configuration says so.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TextIO

from ..records import End, Outcome

LOGGER: Final = logging.getLogger("inference_sidecar")

_ROOT: Final = logging.getLogger()
_JSON: Final = json.JSONEncoder(
    ensure_ascii=True, check_circular=False, separators=(",", ":"), default=str
).encode


class HasIds(Protocol):
    """A trace."""

    @property
    def ids(self) -> tuple[str, str]:
        """Ids of the trace and of one of its spans, in hex."""


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
        return self.line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)

    def line(self, created: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
        """One line, without its end. `created`: seconds since 1970."""
        second = int(created)
        if second != self._second:
            self._second, self._clock = second, _utc(second).strftime("%Y-%m-%dT%H:%M:%S")
        told = _JSON({"level": level, "logger": logger, "message": message, **fields})
        return f'{{"time":"{self._clock}.{int((created - second) * 1000):03d}Z",{told[1:]}'


class _TextFormatter(logging.Formatter):
    """For a person: time of day, level, message, fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        clock = _utc(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(
            f"{name}={_shown(value)}" for name, value in _fields(record).items() if value is not None
        )
        line = f"{clock} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Writes JSON lines. `tell` writes one without a record being made of it first, which costs half of the line."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._json = _JsonFormatter()
        self.setFormatter(self._json)

    def tell(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """One line of the sidecar's own logger, now."""
        line = self._json.line(time.time(), level, LOGGER.name, message, fields)
        # Where lines cannot be written, there is nowhere to say so, and no request is to fail of it.
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError, ValueError):
            self.stream.write(line + self.terminator)
            self.flush()


def configure(
    level: str, form: Literal["auto", "json", "text"], stream: TextIO | None = None
) -> Literal["json", "text"]:
    """Send all log records to `stream` (stdout) in one form; returns the form that was chosen."""
    stream = stream or sys.stdout
    chosen: Literal["json", "text"] = (
        "text" if form == "text" or (form == "auto" and stream.isatty()) else "json"
    )
    handler = logging.StreamHandler(stream) if chosen == "text" else _JsonHandler(stream)
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
    """One step of a request, at debug level. Callers with costly fields ask `debugging()` first."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        LOGGER.debug(message, extra={"fields": fields})


def debugging() -> bool:
    """Whether debug lines are wanted at all."""
    return LOGGER.isEnabledFor(logging.DEBUG)


def log_outcome(outcome: Outcome, ids: Mapping[str, str] | None = None) -> None:
    """The one line of a request. Failures by the upstream or by us are warnings; the rest is info. `ids` are the
    trace's."""
    level = logging.WARNING if outcome.end is End.FAILED else logging.INFO
    if not LOGGER.isEnabledFor(level):
        return
    fields = _outcome_fields(outcome)
    if ids:
        fields.update(ids)
    handlers = _ROOT.handlers
    if len(handlers) == 1 and isinstance(handlers[0], _JsonHandler) and not LOGGER.handlers:
        handlers[0].tell("warning" if level == logging.WARNING else "info", "request", fields)
    else:
        LOGGER.log(level, "request", extra={"fields": fields})


def ids_of(trace: HasIds | None) -> dict[str, str]:
    """What a log line says of a request's trace, kept or not."""
    return {} if trace is None else dict(zip(("trace_id", "span_id"), trace.ids, strict=True))


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """What has something to say, in this order."""
    fields: dict[str, Any] = {
        "request_id": outcome.request_id,
        "method": outcome.method,
        "path": outcome.path,
        "endpoint": outcome.endpoint.value,
        "status": outcome.status,
        "end": outcome.end.value,
    }
    for name in ("error", "error_message", "param", "model", "response_model"):
        if (value := getattr(outcome, name)) is not None:
            fields[name] = value
    fields["stream"] = outcome.streaming
    fields["duration_ms"] = round(outcome.duration_s * 1000, 2)
    if outcome.first_byte_s is not None:
        fields["first_byte_ms"] = round(outcome.first_byte_s * 1000, 2)
    if outcome.first_token_s is not None:
        fields["time_to_first_token_ms"] = round(outcome.first_token_s * 1000, 2)
    fields["attempts"] = outcome.attempts
    fields["bytes_up"] = outcome.bytes_up
    fields["bytes_down"] = outcome.bytes_down
    if outcome.finish_reasons:
        fields["finish_reasons"] = outcome.finish_reasons
    if outcome.upstream_request_id is not None:
        fields["upstream_request_id"] = outcome.upstream_request_id
    if (usage := outcome.usage) is not None:
        fields["usage"] = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
    if outcome.streamed and (stream := outcome.stream) is not None:
        fields["stream_stats"] = {
            "duration_ms": round(stream.duration_ms),
            "chunks_sent": stream.chunks_sent,
            "avg_chunk_interval_ms": round(stream.avg_chunk_interval_ms),
        }
    return fields


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, default=str)
