"""The one line of each request.

Enters: `Outcome`s. Leaves: lines, to the log's handler. Where these are JSON they are written from here, at a fifth of
what a dictionary and an encoder cost, which every request would pay; a test holds both forms to one another.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, Final, Protocol

from ..records import End, Outcome
from .logs import LOGGER, json_handler

Told = tuple[Outcome, Mapping[str, str]]
"""What became of a request, and the ids of its trace."""

_MESSAGE: Final = "request"
_HEAD: Final = f',"logger":"{LOGGER.name}","message":"{_MESSAGE}"'


class HasIds(Protocol):
    """A trace."""

    @property
    def ids(self) -> tuple[str, str]:
        """Ids of the trace and of one of its spans, in hex."""


def ids_of(trace: HasIds | None) -> dict[str, str]:
    """What a log line says of a request's trace, kept or not."""
    if trace is None:
        return {}
    trace_id, span_id = trace.ids
    return {"trace_id": trace_id, "span_id": span_id}


def log_outcomes(told: Sequence[Told]) -> None:
    """A line for each. Failures by the upstream or by us are warnings; the rest is info."""
    handler = json_handler()
    failing, passing = LOGGER.isEnabledFor(logging.WARNING), LOGGER.isEnabledFor(logging.INFO)
    lines = []
    for outcome, ids in told:
        failed = outcome.end is End.FAILED
        if not (failing if failed else passing):
            continue
        if handler is None:
            level = logging.WARNING if failed else logging.INFO
            LOGGER.log(level, _MESSAGE, extra={"fields": fields_of(outcome, ids)})
        else:
            lines.append(members_of(outcome, ids))
    if handler is not None and lines:
        handler.tell(lines)


def fields_of(outcome: Outcome, ids: Mapping[str, str]) -> dict[str, Any]:
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
    fields.update(ids)
    return fields


def members_of(outcome: Outcome, ids: Mapping[str, str]) -> str:
    """The same as a JSON object's members, behind level, logger and message."""
    text = encode_basestring_ascii
    level = "warning" if outcome.end is End.FAILED else "info"
    begin = (
        f'"level":"{level}"{_HEAD},"request_id":{text(outcome.request_id)},"method":{text(outcome.method)},'
        f'"path":{text(outcome.path)},"endpoint":"{outcome.endpoint}","status":{outcome.status},'
        f'"end":"{outcome.end}"'
    )
    parts = [begin]
    for name, value in (
        ("error", outcome.error),
        ("error_message", outcome.error_message),
        ("param", outcome.param),
        ("model", outcome.model),
        ("response_model", outcome.response_model),
    ):
        if value is not None:
            parts.append(f',"{name}":{text(value)}')
    streaming = "true" if outcome.streaming else "false"
    parts.append(f',"stream":{streaming},"duration_ms":{_ms(outcome.duration_s)}')
    if outcome.first_byte_s is not None:
        parts.append(f',"first_byte_ms":{_ms(outcome.first_byte_s)}')
    if outcome.first_token_s is not None:
        parts.append(f',"time_to_first_token_ms":{_ms(outcome.first_token_s)}')
    parts.append(
        f',"attempts":{outcome.attempts},"bytes_up":{outcome.bytes_up},"bytes_down":{outcome.bytes_down}'
    )
    if outcome.finish_reasons:
        reasons = ",".join([text(reason) for reason in outcome.finish_reasons])
        parts.append(f',"finish_reasons":[{reasons}]')
    if outcome.upstream_request_id is not None:
        parts.append(f',"upstream_request_id":{text(outcome.upstream_request_id)}')
    usage = outcome.usage
    if usage is not None:
        parts.append(
            f',"usage":{{"prompt_tokens":{usage.prompt_tokens},"completion_tokens":{usage.completion_tokens},'
            f'"total_tokens":{usage.total_tokens}}}'
        )
    stream = outcome.stream
    if outcome.streamed and stream is not None:
        parts.append(
            f',"stream_stats":{{"duration_ms":{round(stream.duration_ms)},"chunks_sent":{stream.chunks_sent},'
            f'"avg_chunk_interval_ms":{round(stream.avg_chunk_interval_ms)}}}'
        )
    parts += [f',"{name}":{text(value)}' for name, value in ids.items()]
    return "".join(parts)


def _ms(seconds: float) -> str:
    return repr(round(seconds * 1000, 2))
