"""Reads what a model's answer says of itself: tokens, times, how it ended.

Enters: the events of a stream, or a whole JSON body, on the tee; the time, in seconds of a monotonic clock.
Leaves: a `Mark` for each event, and figures. Also makes the two things that the sidecar may write into a
stream: stream_stats beside the usage, and a truthful error event.
Must not do I/O, look at a clock, estimate tokens, raise over what an upstream sent, or keep more of it than
a bounded number of short words.
"""

from __future__ import annotations

import json
import math
from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .form import Form, alike, event_form, form_of, has_form
from .records import Endpoint, Event, Gaps, StreamStats, Usage

MAX_GAPS: Final = 4096
"""Gaps between chunks that are kept one by one; of all of them there is a histogram."""

_MAX_CHOICES: Final = 1024
_MAX_WORD: Final = 256
_MAX_FORMS: Final = 8
"""Chunks that are looked at for what the next ones may share with them."""
_MAX_TOKENS: Final = 2**53

_BLANKS: Final = " \t\n\r"
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

_OUTPUT_FIELDS: Final = (
    "content",
    "tool_calls",
    "reasoning_content",
    "reasoning",
    "refusal",
    "function_call",
    "audio",
)
_ANSWERS: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES})
_RESPONSES_END: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_RESPONSES_ERROR: Final = frozenset({"error", "response.failed"})


class Mark(NamedTuple):
    """What one event is.

    `done`: the `[DONE]` that ends a stream. `usage`: it carries a usage object. `usage_only`: it carries
    nothing else, which is the chunk that asking for usage brings. `error`: the upstream's own error event.
    `token`: it carries output.
    """

    done: bool = False
    usage: bool = False
    usage_only: bool = False
    error: bool = False
    token: bool = False


_NOTHING: Final = Mark()
DONE: Final = Mark(done=True)
TOKEN: Final = Mark(token=True)
"""An event of output, and of nothing else that matters to anybody."""


class _Between:
    """The gaps between a stream's chunks. They are put aside as they come and sorted into buckets many at a time: that costs
    a chunk least."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._aside = array("d")
        self._first = array("d")
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._least = math.inf
        self._most = -math.inf

    def add(self, gap: float | None, nothings: int) -> None:
        """One gap, if there is one, and so many of nothing behind it."""
        if gap is not None:
            self._aside.append(gap)
        if nothings:
            self._aside.frombytes(bytes(self._aside.itemsize * nothings))  # zeros
        if len(self._aside) >= MAX_GAPS:
            self._sort()

    def first(self) -> list[float]:
        """The first of them, one by one."""
        self._sort()
        return self._first.tolist()

    def all(self) -> Gaps:
        """All of them, at least one."""
        self._sort()
        return Gaps(tuple(self._counts), self._total, self._least, self._most)

    def _sort(self) -> None:
        gaps = sorted(self._aside)
        if not gaps:
            return
        below = 0
        for bucket, bound in enumerate(self._bounds):
            upto = bisect_right(gaps, bound, below)
            self._counts[bucket] += upto - below
            below = upto
            if below == len(gaps):
                break
        self._counts[-1] += len(gaps) - below
        self._total += sum(gaps)
        self._least = min(self._least, gaps[0])
        self._most = max(self._most, gaps[-1])
        self._first.extend(self._aside[: MAX_GAPS - len(self._first)])
        del self._aside[:]


class Meter:
    """The figures of one answer. `started` is when its request began; `choices` how many were asked for;
    `gap_bounds` are the bounds, in seconds, of the histogram of the gaps between its chunks."""

    def __init__(
        self, endpoint: Endpoint, started: float, choices: int = 1, gap_bounds: tuple[float, ...] = ()
    ) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.id: str | None = None
        self.fingerprint: str | None = None
        self.service_tier: str | None = None
        self.first_chunk: float | None = None
        """When the first event with data came, `[DONE]` aside, on the clock of `now`."""
        self.first_token: float | None = None
        """When the first output came, on the clock of `now`."""
        self.errored = False
        """The upstream said that it failed."""
        self.next_sequence = 0
        """The sequence_number that an event of our own would have (responses)."""
        self._endpoint = endpoint
        self._started = started
        self._choices = choices
        self._done = False
        self._form: Form | None = None
        self._event_form: Form | None = None
        self._forms_left = _MAX_FORMS
        self._status: str | None = None
        self._seen: set[int] = set()
        self._finished: dict[int, str] = {}
        self._chunks = 0
        self._last_sent: float | None = None
        self._bounds = gap_bounds
        self._between: _Between | None = None  # once there is more than one chunk

    @property
    def complete(self) -> bool:
        """The answer says that it is whole; where an endpoint has no way to say so, always."""
        if self._endpoint is Endpoint.CHAT:
            return self._done or (
                len(self._finished) >= max(self._choices, 1) and self._seen <= self._finished.keys()
            )
        if self._endpoint is Endpoint.RESPONSES:
            return self._status is not None
        return True

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """One for each finished choice, in their order; of responses the status, or why it is incomplete."""
        if self._status is not None:
            return (self._status,)
        return tuple(reason for _, reason in sorted(self._finished.items()))

    def event(self, event: Event, now: float) -> Mark:
        """Takes note of one event. What is no JSON object is nothing."""
        data = event.data
        if data is None:
            return _NOTHING
        if data.startswith(b"[DONE]"):
            self._done = True
            return DONE
        if self.first_chunk is None:
            self.first_chunk = now
        if self._form is not None and has_form(data, self._form):
            return TOKEN
        found = _parse(data)
        if found is None:
            return _NOTHING
        if self._endpoint is Endpoint.CHAT or self._endpoint is Endpoint.COMPLETIONS:
            mark = self._chunk(found)
        else:
            mark = self._typed(found, event.name)
        if mark.token and self.first_token is None:
            self.first_token = now
        if mark is TOKEN and self._forms_left and self._endpoint is Endpoint.CHAT:
            self._forms_left -= 1
            form = form_of(data, found)
            if form is not None:
                self._form, self._event_form = form, event_form(form)
        return mark

    def alike(self, piece: bytes, start: int) -> tuple[int, int]:
        """How many events from `start` on would be found to be a `TOKEN` by their form, and where they end. They need not
        be told of; `start` has to be where an event begins."""
        form = self._event_form
        return (0, start) if form is None else alike(piece, start, form)

    def document(self, body: bytes) -> bool:
        """Takes note of a whole answer. True: it is an error, whatever its status said."""
        found = _parse(body)
        if found is None:
            return False
        self._read_usage(found)
        self._read_model(found)
        self._read_choices(found.get("choices"))
        # Elsewhere resources have an `error` of their own (a fine-tuning job's): alone it is the answer's.
        failed = bool(found.get("error")) and (self._endpoint in _ANSWERS or len(found) == 1)
        if self._endpoint is Endpoint.RESPONSES:
            status = found.get("status")
            failed = failed or status == "failed"
            if status in ("completed", "incomplete", "failed"):
                self._status = _ending(found, status)
        self.errored = self.errored or failed
        return failed

    def sent(self, now: float, count: int = 1) -> None:
        """Takes note that chunks (events with data, `[DONE]` aside) went down to the app, several at once."""
        if self._last_sent is not None or count > 1:
            if self._between is None:
                self._between = _Between(self._bounds)
            self._between.add(None if self._last_sent is None else now - self._last_sent, count - 1)
        self._last_sent = now
        self._chunks += count

    def stats(self, now: float) -> StreamStats:
        """The stream so far, timed from the request on, as the spec's `stream_stats` has it."""
        duration, average = self._durations_ms(now)
        between = self._between
        return StreamStats(
            duration_ms=duration,
            chunks_sent=self._chunks,
            avg_chunk_interval_ms=average,
            first_gaps_s=[] if between is None else between.first(),
            gaps=None if between is None else between.all(),
        )

    def stats_json(self, now: float) -> bytes:
        """The spec's `stream_stats` object, in whole milliseconds."""
        duration, average = self._durations_ms(now)
        return b'{"duration_ms":%d,"chunks_sent":%d,"avg_chunk_interval_ms":%d}' % (
            round(duration),
            self._chunks,
            round(average),
        )

    def _durations_ms(self, now: float) -> tuple[float, float]:
        """The stream's duration so far, and the average for a chunk."""
        duration = max(now - self._started, 0.0) * 1000
        return duration, duration / self._chunks if self._chunks else 0.0

    def _chunk(self, found: dict[str, Any]) -> Mark:
        """An event of chat or completions."""
        if self.model is None:
            self._read_model(found)
        choices = found.get("choices")
        token = self._read_choices(choices)
        usage = self._read_usage(found)
        if found.get("error"):
            self.errored = True
            return Mark(error=True, usage=usage, token=token)
        if usage:
            return Mark(usage=True, usage_only=not choices, token=token)
        return TOKEN if token else _NOTHING

    def _typed(self, found: dict[str, Any], name: str) -> Mark:
        """An event that says what it is: responses, and what else streams (transcriptions, images, …)."""
        kind = found.get("type")
        if not isinstance(kind, str):
            kind = name
        number = _count(found.get("sequence_number"))
        if number is not None:
            self.next_sequence = number + 1
        response = found.get("response")
        usage = self._read_usage(found)
        if isinstance(response, dict):
            usage = self._read_usage(response) or usage
            self._read_model(response)
        elif self.model is None:
            self._read_model(found)
        error = bool(found.get("error"))
        if self._endpoint is Endpoint.RESPONSES:
            error = error or kind in _RESPONSES_ERROR
            if kind in _RESPONSES_END:
                self._status = _ending(response, kind.removeprefix("response."))
        if error:
            self.errored = True
            return Mark(error=True, usage=usage)
        if kind.endswith(".delta"):
            return Mark(usage=usage, token=True) if usage else TOKEN
        return Mark(usage=True) if usage else _NOTHING

    def _read_choices(self, choices: Any) -> bool:
        """Notes which choices there are and which have finished; says whether one carries output."""
        if not isinstance(choices, list):
            return False
        token = False
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            delta = choice.get("delta")
            if choice.get("text") or (isinstance(delta, dict) and any(map(delta.get, _OUTPUT_FIELDS))):
                token = True
            index = _count(choice.get("index"))
            index = position if index is None else index
            if index not in self._seen and len(self._seen) < _MAX_CHOICES:
                self._seen.add(index)
            reason = choice.get("finish_reason")
            if reason and isinstance(reason, str) and index in self._seen:
                self._finished[index] = reason[:_MAX_WORD]
        return token

    def _read_usage(self, found: dict[str, Any]) -> bool:
        """Several usages in one stream are running totals: the last one counts."""
        usage = found.get("usage")
        if not isinstance(usage, dict):
            return False
        prompt = _first(usage, "prompt_tokens", "input_tokens")
        completion = _first(usage, "completion_tokens", "output_tokens")
        total = _count(usage.get("total_tokens"))
        if prompt is not None or completion is not None or total is not None:
            sum_of_both = (prompt or 0) + (completion or 0)
            self.usage = Usage(
                prompt or 0,
                completion or 0,
                sum_of_both if total is None else total,
                prompt_reported=prompt is not None,
                completion_reported=completion is not None,
                cached_tokens=_detail(
                    usage, "cached_tokens", "prompt_tokens_details", "input_tokens_details"
                ),
                reasoning_tokens=_detail(
                    usage, "reasoning_tokens", "completion_tokens_details", "output_tokens_details"
                ),
            )
        return True

    def _read_model(self, found: dict[str, Any]) -> None:
        model = found.get("model")
        if model and isinstance(model, str):
            self.model = model[:_MAX_WORD]
            self.id = _word(found.get("id"))
            self.fingerprint = _word(found.get("system_fingerprint"))
            self.service_tier = _word(found.get("service_tier"))


def tells_nothing(endpoint: Endpoint, event: Event) -> bool:
    """Whether an event can be known, unread, for one that no `Mark` but `token` is true of. Without an escape no member
    is called `usage` or `error` but by these very bytes. False where only reading it would tell."""
    data = event.data
    return (
        (endpoint is Endpoint.CHAT or endpoint is Endpoint.COMPLETIONS)
        and data is not None
        and data.startswith(b"{")
        and data.find(b"\\") < 0
        and data.find(b'"error"') < 0
        and data.count(b'"usage"') == data.count(b'"usage":null')
    )


def add_stats(event: Event, stats_json: bytes) -> bytes:
    """The event's bytes with `stream_stats` as the last member of its JSON object.

    All else stays byte for byte. Where there is no such place (several data lines, no object, a
    stream_stats of the upstream's own) the bytes come back as they are.
    """
    found = _parse(event.data) if event.data and b"\n" not in event.data else None
    if found is None or "stream_stats" in found:
        return event.raw
    lines = event.raw.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.removeprefix(b"\xef\xbb\xbf").startswith(b"data:"):
            brace = line.rindex(b"}")
            member = b'%s"stream_stats":%s' % (b"," if found else b"", stats_json)
            lines[number] = line[:brace] + member + line[brace:]
            return b"".join(lines)
    return event.raw


def error_event(
    endpoint: Endpoint,
    *,
    message: str,
    type: str,  # noqa: A002 - OpenAI's own word for it
    code: str | None,
    param: str | None,
    sequence_number: int,
) -> bytes:
    """An error as the endpoint's own streams tell it, blank line included."""
    if endpoint is Endpoint.RESPONSES:
        body: dict[str, Any] = {
            "type": "error",
            "code": code,
            "message": message,
            "param": param,
            "sequence_number": sequence_number,
        }
        return b"event: error\ndata: %s\n\n" % _dump(body)
    return b"data: %s\n\n" % _dump(
        {"error": {"message": message, "type": type, "param": param, "code": code}}
    )


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _parse(data: bytes) -> dict[str, Any] | None:
    text = data.decode("utf-8", "replace").strip(_BLANKS)
    try:
        # What `json.loads` asks of its decoder, without four calls around it.
        found, end = _scan(text, 0)
    except (StopIteration, ValueError, RecursionError):
        return None
    return found if end == len(text) and isinstance(found, dict) else None


def _count(value: Any) -> int | None:
    """A figure that can be believed: no bool, no fraction, nothing negative, nothing beyond any counter."""
    return value if type(value) is int and 0 <= value <= _MAX_TOKENS else None


def _first(usage: dict[str, Any], *names: str) -> int | None:
    counts = (_count(usage.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def _detail(usage: dict[str, Any], name: str, *places: str) -> int | None:
    """A figure of the usage's details, which chat and responses keep in places of different names."""
    details = next((found for place in places if isinstance(found := usage.get(place), dict)), None)
    return None if details is None else _count(details.get(name))


def _word(value: Any) -> str | None:
    return value[:_MAX_WORD] if value and isinstance(value, str) else None


def _ending(response: Any, status: str) -> str:
    """The status of a response, or the reason that it gives for being incomplete."""
    details = response.get("incomplete_details") if isinstance(response, dict) else None
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason[:_MAX_WORD] if reason and isinstance(reason, str) and status == "incomplete" else status
