"""The figures of one process: what /health shows, and every metric.

Enters: `Outcome`s, and what others count, asked for when it is read. Leaves: plain numbers for /health, `Family`s
for /metrics and OTLP. One loop writes and reads them, so there are no locks.
Must not estimate: tokens are what the upstream reported, times are what a clock said.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..records import End, Outcome
from . import names
from .instruments import Family
from .metrics import Metrics

WINDOW: Final = 1024
"""How many of the newest values a distribution keeps for its quantiles."""

MAX_ERROR_TYPES: Final = 64
"""Error types kept apart; further ones (an upstream that invents statuses) count as `other`."""

Count = Callable[[], Mapping[str, int]]
"""What another room counts, by its one attribute's value."""


class Series:
    """A distribution: count and sum of everything, quantiles of the newest `WINDOW` values.

    What it shows is `scale` times what it was given.
    """

    __slots__ = ("_recent", "count", "maximum", "scale", "total")

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def add(self, value: float) -> None:
        """Take in one value."""
        self.count += 1
        self.total += value
        self.maximum = max(self.maximum, value)
        self._recent.append(value)

    def extend(self, values: Sequence[float]) -> None:
        """Take in several, as `add` does one by one."""
        if values:
            self.count += len(values)
            self.total += sum(values)
            self.maximum = max(self.maximum, max(values))  # noqa: PLW3301  an unpacked array is a slower one
            self._recent.extend(values)

    def quantiles(self, *fractions: float) -> list[float]:
        """Nearest-rank quantiles of the newest values; zeros where there are none."""
        ordered = sorted(self._recent)
        if not ordered:
            return [0.0] * len(fractions)
        return [ordered[min(int(fraction * len(ordered)), len(ordered) - 1)] for fraction in fractions]

    def summary(self) -> dict[str, float | int]:
        """What /health shows: count, mean and max of everything, p50, p95 and p99 of the newest."""
        p50, p95, p99 = self.quantiles(0.5, 0.95, 0.99)
        mean = self.total / self.count if self.count else 0.0
        return {
            "count": self.count,
            "mean": round(mean * self.scale, 3),
            "p50": round(p50 * self.scale, 3),
            "p95": round(p95 * self.scale, 3),
            "p99": round(p99 * self.scale, 3),
            "max": round(self.maximum * self.scale, 3),
        }


class Figures:
    """Everything that is counted in one process, from its start on."""

    def __init__(self, reloads: Count = dict, connections: Count = dict) -> None:
        """`reloads`: configurations by what became of them. `connections`: to the upstream, by their state."""
        self.before_reading: Callable[[], None] = _nothing
        """Called before the figures are read: whoever has something to add does it then."""
        self.metrics = Metrics()
        self._reloads = reloads
        self._connections = connections
        self.requests_total = 0
        self.requests_streaming = 0
        self.requests_active = 0
        self.ends: Counter[End] = Counter()
        self.errors: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.total_tokens = 0
        self.streams_started = 0
        self.stream_ends: Counter[End] = Counter()
        self.chunks = 0
        self.retries = 0
        self.latency_plain_ms = Series()
        self.latency_streaming_ms = Series()
        self.first_token_ms = Series()
        self.tokens_per_second = Series()
        self.stream_duration_ms = Series()
        self.chunk_interval_ms = Series(scale=1000)

    def arrived(self) -> None:
        """A request below the API's paths came in."""
        self.requests_total += 1
        self.requests_active += 1

    def stream_began(self) -> None:
        """The first byte of an event stream is about to go down."""
        self.streams_started += 1

    def record(self, outcome: Outcome) -> None:
        """A request that `arrived` has ended."""
        self.requests_active -= 1
        self.ends[outcome.end] += 1
        self.retries += max(0, outcome.attempts - 1)
        error = None
        if outcome.error is not None and outcome.end in (End.FAILED, End.REFUSED):
            error = self._count_error(outcome.error)
        self.metrics.record(outcome, error)
        if outcome.usage is not None:
            self.prompt_tokens += outcome.usage.prompt_tokens
            self.completion_tokens += outcome.usage.completion_tokens
            self.total_tokens += outcome.usage.total_tokens
        if outcome.streaming:
            self.requests_streaming += 1
        if outcome.end is not End.REFUSED:
            series = self.latency_streaming_ms if outcome.streaming else self.latency_plain_ms
            series.add(outcome.duration_s * 1000)
        self._record_stream(outcome)

    def _record_stream(self, outcome: Outcome) -> None:
        if outcome.first_token_s is not None:
            self.first_token_ms.add(outcome.first_token_s * 1000)
        if not outcome.streamed or outcome.stream is None:
            return
        self.stream_ends[outcome.end] += 1
        self.chunks += outcome.stream.chunks_sent
        self.stream_duration_ms.add(outcome.stream.duration_ms)
        self.chunk_interval_ms.extend(outcome.stream.first_gaps_s)
        if outcome.pace is not None:
            tokens, seconds = outcome.pace
            self.tokens_per_second.add(tokens / seconds)

    def _count_error(self, error: str) -> str:
        """Counts it for /health; returns what it is in the metrics."""
        known = error in self.errors or len(self.errors) < MAX_ERROR_TYPES
        self.errors[error if known else "other"] += 1
        return error if known else names.OTHER

    def families(self, version: str) -> list[Family]:
        """Every metric of `names`, in its order, as it stands now."""
        self.before_reading()
        found = {family.metric.name: family for family in self.metrics.families()}
        for metric, counts in (
            (names.CONFIG_RELOADS, self._reloads()),
            (names.UPSTREAM_CONNECTIONS, self._connections()),
            (names.BUILD_INFO, {version: 1}),
        ):
            found[metric.name] = Family(metric, {(value,): count for value, count in counts.items()})
        found[names.ACTIVE_REQUESTS.name] = Family(names.ACTIVE_REQUESTS, {(): self.requests_active})
        return [found[metric.name] for metric in names.METRICS]

    @property
    def streams_active(self) -> int:
        """Event streams that are under way."""
        return self.streams_started - self.stream_ends.total()

    def health(self) -> Mapping[str, object]:
        """The part of /health that requests make; docs/health.md has every field and its unit."""
        self.before_reading()
        ended = self.stream_ends.total()
        completed = self.stream_ends[End.COMPLETED]
        return {
            "requests": {
                "total": self.requests_total,
                "streaming": self.requests_streaming,
                "active": self.requests_active,
                "completed": self.ends[End.COMPLETED],
                "failed": self.ends[End.FAILED],
                "refused": self.ends[End.REFUSED],
                "cancelled": self.ends[End.CANCELLED],
                "retries": self.retries,
            },
            "errors": {"total": self.errors.total(), "by_type": dict(sorted(self.errors.items()))},
            "tokens": {
                "prompt": self.prompt_tokens,
                "completion": self.completion_tokens,
                "total": self.total_tokens,
            },
            "streams": {
                "started": self.streams_started,
                "active": self.streams_active,
                "completed": completed,
                "failed": self.stream_ends[End.FAILED],
                "cancelled": self.stream_ends[End.CANCELLED],
                "completion_rate": round(completed / ended, 4) if ended else None,
                "chunks": self.chunks,
            },
            "latency_ms": {
                "plain": self.latency_plain_ms.summary(),
                "streaming": self.latency_streaming_ms.summary(),
            },
            "time_to_first_token_ms": self.first_token_ms.summary(),
            "tokens_per_second": self.tokens_per_second.summary(),
            "stream_duration_ms": self.stream_duration_ms.summary(),
            "chunk_interval_ms": self.chunk_interval_ms.summary(),
        }


def _nothing() -> None:
    pass
