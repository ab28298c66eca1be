"""Log lines: one JSON object a line, or a readable form on a terminal.

Enters: stdlib log records (uvicorn's too) and `Outcome`s. Leaves: lines on stdout.
Must not print a key (callers have none to give) nor content, unless the configuration says so.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from ..records import End, Outcome

if TYPE_CHECKING:
    from .spans import Trace

LOGGER: Final = logging.getLogger("inference_sidecar")

_ROOT: Final = logging.getLogger()


class _JsonFormatter(logging.Formatter):
    """`time` in UTC with milliseconds, `level`, `logger`, `message`, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record.created).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"), default=str)


class _TextFormatter(logging.Formatter):
    """For a person: time of day, level, message, fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        clock = _utc(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(
            f"{name}={_shown(value)}" for name, value in _fields(record).items() if value is not None
        )
        line = f"{clock} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(
    level: str, form: Literal["auto", "json", "text"], stream: TextIO | None = None
) -> Literal["json", "text"]:
    """Send all log records to `stream` (stdout) in one form; returns the form that was chosen."""
    stream = stream or sys.stdout
    chosen: Literal["json", "text"] = (
        "text" if form == "text" or (form == "auto" and stream.isatty()) else "json"
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_TextFormatter() if chosen == "text" else _JsonFormatter())
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
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "request", extra={"fields": {**_outcome_fields(outcome), **(ids or {})}})


def ids_of(trace: Trace | None) -> dict[str, str]:
    """What a log line says of a request's trace, kept or not."""
    return {} if trace is None else dict(zip(("trace_id", "span_id"), trace.ids, strict=True))


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    stream = outcome.stream if outcome.streamed else None
    fields = {
        "request_id": outcome.request_id,
        "method": outcome.method,
        "path": outcome.path,
        "endpoint": outcome.endpoint.value,
        "status": outcome.status,
        "end": outcome.end.value,
        "error": outcome.error,
        "error_message": outcome.error_message,
        "param": outcome.param,
        "model": outcome.model,
        "response_model": outcome.response_model,
        "stream": outcome.streaming,
        "duration_ms": _ms(outcome.duration_s),
        "first_byte_ms": _ms(outcome.first_byte_s),
        "time_to_first_token_ms": _ms(outcome.first_token_s),
        "attempts": outcome.attempts,
        "bytes_up": outcome.bytes_up,
        "bytes_down": outcome.bytes_down,
        "finish_reasons": list(outcome.finish_reasons) or None,
        "upstream_request_id": outcome.upstream_request_id,
        "usage": outcome.usage
        and {
            "prompt_tokens": outcome.usage.prompt_tokens,
            "completion_tokens": outcome.usage.completion_tokens,
            "total_tokens": outcome.usage.total_tokens,
        },
        "stream_stats": stream
        and {
            "duration_ms": round(stream.duration_ms),
            "chunks_sent": stream.chunks_sent,
            "avg_chunk_interval_ms": round(stream.avg_chunk_interval_ms),
        },
    }
    return {name: value for name, value in fields.items() if value is not None}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value, default=str)
