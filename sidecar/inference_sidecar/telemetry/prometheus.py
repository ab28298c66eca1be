"""The figures as Prometheus text (exposition format 0.0.4), for /metrics on the admin port.

Enters: `Figures`. Leaves: text. The names here are public; units follow Prometheus: seconds, tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ..records import End
from .figures import Figures, Series

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_QUANTILES: Final = (0.5, 0.95, 0.99)
_PREFIX: Final = "inference_sidecar"


def exposition(figures: Figures, version: str) -> str:
    """All metrics, each with HELP and TYPE, a newline at the end."""
    return "\n".join(_lines(figures, version)) + "\n"


def _lines(figures: Figures, version: str) -> Iterator[str]:
    yield from _metric("build_info", "gauge", "Version of the sidecar.", [(f'version="{version}"', 1)])
    yield from _metric(
        "requests_total",
        "counter",
        "Requests for the API, refused ones included.",
        [("", figures.requests_total)],
    )
    yield from _metric(
        "streaming_requests_total",
        "counter",
        "Requests that asked for a stream.",
        [("", figures.requests_streaming)],
    )
    yield from _metric("requests_active", "gauge", "Requests that are open.", [("", figures.requests_active)])
    yield from _metric(
        "requests_ended_total", "counter", "Requests by how they ended.",
        ((f'end="{end}"', figures.ends[end]) for end in End),
    )  # fmt: skip
    yield from _metric(
        "errors_total", "counter", "Requests that failed or were refused, by type.",
        ((f'type="{kind}"', count) for kind, count in sorted(figures.errors.items())),
    )  # fmt: skip
    yield from _metric(
        "tokens_total", "counter", "Tokens as the upstream reported them.",
        [('type="input"', figures.prompt_tokens), ('type="output"', figures.completion_tokens)],
    )  # fmt: skip
    yield from _metric(
        "streams_started_total", "counter", "Event streams begun.", [("", figures.streams_started)]
    )
    yield from _metric(
        "streams_total", "counter", "Event streams by how they ended.",
        ((f'outcome="{end}"', figures.stream_ends[end]) for end in (End.COMPLETED, End.FAILED, End.CANCELLED)),
    )  # fmt: skip
    yield from _metric(
        "stream_chunks_total", "counter", "Chunks sent down in streams.", [("", figures.chunks)]
    )
    yield from _metric(
        "retries_total", "counter", "Attempts upstream after the first.", [("", figures.retries)]
    )
    yield from _metric(
        "request_duration_seconds", "summary", "From a request's arrival to its end.",
        [*_summary(figures.latency_plain_ms, 1000, 'mode="plain"'), *_summary(figures.latency_streaming_ms, 1000, 'mode="streaming"')],
    )  # fmt: skip
    yield from _metric(
        "time_to_first_token_seconds",
        "summary",
        "From arrival to the first token.",
        _summary(figures.first_token_ms, 1000),
    )
    yield from _metric(
        "output_tokens_per_second",
        "summary",
        "Tokens per second after the first, per stream.",
        _summary(figures.tokens_per_second, 1),
    )
    yield from _metric(
        "stream_duration_seconds",
        "summary",
        "Duration of streams.",
        _summary(figures.stream_duration_ms, 1000),
    )
    yield from _metric(
        "chunk_interval_seconds",
        "summary",
        "Gaps between a stream's chunks.",
        _summary(figures.chunk_interval_ms, 1000),
    )


def _metric(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    """One family. A sample's first part is its labels; what stands before `{` there extends the name."""
    full = f"{_PREFIX}_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"
    for labels, value in samples:
        suffix, _, inner = labels.rpartition("|")
        yield f"{full}{suffix}{'{' + inner + '}' if inner else ''} {value:.10g}"


def _summary(series: Series, divisor: float, labels: str = "") -> list[tuple[str, float]]:
    comma = "," if labels else ""
    samples = [
        (f'{labels}{comma}quantile="{fraction}"', value / divisor)
        for fraction, value in zip(_QUANTILES, series.quantiles(*_QUANTILES), strict=True)
    ]
    return [*samples, (f"_sum|{labels}", series.total / divisor), (f"_count|{labels}", float(series.count))]
