"""The ledger: after a thousand mixed requests with faults, /health and /metrics say exactly what really happened.

Covers: every figure that is a count, against the scripted upstream's own ledger and what the apps themselves saw;
that every connection upstream is accounted for; that nothing stays open.
Left out: times, which have no exact value (test_streams asserts what they count).
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from harness import answers
from harness.client import Answer
from harness.metrics import Scrape, measured
from harness.process import Sidecar, Start, chat_body
from harness.upstream import CLOSE, HANG, RESET, SCENARIO, Script, ScriptedUpstream

REQUESTS = 1000
APPS = 12
EVENTS = answers.chat_events()
WITH_USAGE = answers.chat_events(usage=True)
JSON = answers.dense(answers.completion())
GOOD: Script = [answers.json_answer(answers.completion())]
BUSY: Script = [answers.error(503, "busy", "server_error", None)]
HEAD = answers.sse_head()


@dataclass(frozen=True)
class Kind:
    """One sort of request: what the upstream does, what the app does, and what must be counted for it."""

    scripts: tuple[Script, ...] = (GOOD,)
    stream: bool = False
    fields: dict[str, object] = field(default_factory=dict)
    leaves: bytes | None = None  # the app leaves when it has read this; b"" before anything came
    tries: int = 1
    status: int = 200
    error: str | None = None
    tokens: int = 0
    streams: str | None = None
    chunks: int = 0


def _sse(events: list[bytes], *end: object) -> Script:
    return [HEAD, *(answers.chunk(each) for each in events), *end]  # type: ignore[list-item]  # steps


KINDS = {
    "plain": Kind(tokens=13),
    "plain-after-retries": Kind((BUSY, [RESET], GOOD), tries=3, tokens=13),
    "plain-rate-limited": Kind(([answers.rate_limited()],), tries=4, status=429, error="upstream_http_429"),
    "plain-denied": Kind(([answers.error(401, "no", "x", "y")],), status=401, error="upstream_http_401"),
    "plain-page": Kind(([answers.html_502()],), tries=4, status=502, error="upstream_http_502"),
    "plain-reset": Kind(([RESET],), tries=4, status=500, error="upstream_disconnected"),
    "plain-cut": Kind(
        ([answers.chunked_head(), answers.chunk(JSON[:60]), CLOSE],), error="upstream_disconnected"
    ),
    "plain-error-in-200": Kind(([answers.json_answer({"error": {"message": "x"}})],), error="upstream_event"),
    "plain-abandoned": Kind(([HANG],), leaves=b"", status=0),
    "refused": Kind(fields={"temperature": 9}, tries=0, status=400, error="invalid_request"),
    "stream": Kind((_sse(WITH_USAGE, answers.END),), True, tokens=13, streams="completed", chunks=5),
    "stream-without-usage": Kind((_sse(EVENTS, answers.END),), True, streams="completed", chunks=5),
    "stream-after-retry": Kind(
        (BUSY, _sse(WITH_USAGE, answers.END)), True, tries=2, tokens=13, streams="completed", chunks=5
    ),
    "stream-cut": Kind(
        (_sse(EVENTS[:3], CLOSE),), True, error="upstream_disconnected", streams="failed", chunks=3
    ),
    "stream-incomplete": Kind(
        (_sse(EVENTS[:3], answers.END),), True, error="upstream_protocol_error", streams="failed", chunks=3
    ),
    "stream-error-event": Kind(
        (_sse([EVENTS[0], answers.event({"error": "x"})], answers.END),),
        True,
        error="upstream_event",
        streams="failed",
        chunks=2,
    ),
    "stream-refused": Kind(stream=True, fields={"n": 0}, tries=0, status=400, error="invalid_request"),
    "stream-reset-at-once": Kind(([RESET],), True, tries=4, status=500, error="upstream_disconnected"),
    "stream-abandoned": Kind(
        (_sse(EVENTS[:3], HANG),), True, leaves=EVENTS[2], streams="cancelled", chunks=3
    ),
    "stream-abandoned-early": Kind(([HANG],), True, leaves=b"", status=0),
    "stream-left-after-done": Kind(
        (_sse(WITH_USAGE, HANG),), True, leaves=answers.DONE, tokens=13, streams="completed", chunks=5
    ),
}


def play(sidecar: Sidecar, upstream: ScriptedUpstream, kind: Kind, scenario: str) -> int:
    """One request as its app makes it; the status that the app saw, 0 where it left before."""
    body = chat_body(stream=kind.stream or None, **kind.fields)
    with sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", body, {SCENARIO: scenario})
        if kind.leaves is None:
            return client.answer().status
        upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].received_at, "request", 30)
        if not kind.leaves:
            return 0
        status = client.head().status
        client.until(kind.leaves)
        return status


def counted(kinds: list[Kind], true: Callable[[Kind], bool]) -> int:
    return sum(true(kind) for kind in kinds)


@pytest.mark.timeout(240)
def test_a_thousand_mixed_requests(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"server": {"max_concurrent_requests": 999}})
    dice = random.Random(20240817)
    names = [dice.choice(list(KINDS)) for _ in range(REQUESTS)]
    plans = [(KINDS[name], upstream.plan(*KINDS[name].scripts)) for name in names]
    with (
        measured(sidecar, REQUESTS) as metrics,
        sidecar.figures(REQUESTS) as delta,
        ThreadPoolExecutor(APPS) as apps,
    ):
        seen = list(apps.map(lambda plan: play(sidecar, upstream, *plan), plans))
    kinds = [kind for kind, _ in plans]
    for name, (kind, scenario), status in zip(names, plans, seen, strict=True):
        assert status == kind.status, name
        assert len(upstream.of(scenario)) == kind.tries, name

    errors = Counter(
        kind.error.replace("upstream_event", "upstream_error_event") for kind in kinds if kind.error
    )
    by_type = {
        name.removeprefix("errors.by_type."): count
        for name, count in delta.items()
        if name.startswith("errors.by_type.") and count
    }
    assert by_type == dict(errors)
    tries = sum(len(upstream.of(scenario)) for _, scenario in plans)
    reached = sum(bool(upstream.of(scenario)) for _, scenario in plans)
    expected = {
        "requests.total": REQUESTS,
        "requests.active": 0,
        "requests.streaming": counted(kinds, lambda kind: kind.stream and kind.tries > 0),
        "requests.cancelled": counted(kinds, lambda kind: kind.status == 0 or kind.streams == "cancelled"),
        "requests.retries": tries - reached,
        "errors.total": sum(errors.values()),
        "tokens.prompt": counted(kinds, lambda kind: kind.tokens > 0) * 10,
        "tokens.completion": counted(kinds, lambda kind: kind.tokens > 0) * 3,
        "tokens.total": sum(kind.tokens for kind in kinds),
        "streams.started": counted(kinds, lambda kind: kind.streams is not None),
        **{
            f"streams.{end}": [kind.streams for kind in kinds].count(end)
            for end in ("completed", "failed", "cancelled")
        },
    }
    assert {name: delta[name] for name in expected} == expected
    health = sidecar.health()
    assert health["errors"]["total"] == sum(health["errors"]["by_type"].values())
    check_metrics(metrics, kinds, errors, tries - reached)


def check_metrics(metrics: Scrape, kinds: list[Kind], errors: Counter[str], retries: int) -> None:
    """The same ledger in the other form. Every one of these requests is of one model and one operation."""
    went_up = counted(kinds, lambda kind: kind.tries > 0)
    with_tokens = counted(kinds, lambda kind: kind.tokens > 0)
    streams = counted(kinds, lambda kind: kind.streams is not None)
    completed_streams = counted(kinds, lambda kind: kind.streams == "completed" and kind.tokens > 0)
    cancelled = counted(kinds, lambda kind: kind.status == 0 or kind.streams == "cancelled")
    expected = {
        "gen_ai_client_operation_duration_seconds_count": went_up,
        "gen_ai_server_request_duration_seconds_count": went_up,
        "gen_ai_client_token_usage_sum": 13 * with_tokens,
        "gen_ai_client_token_usage_count": 2 * with_tokens,
        "gen_ai_client_operation_time_to_first_chunk_seconds_count": streams,
        "gen_ai_client_operation_time_per_output_chunk_seconds_count": sum(
            max(kind.chunks - 1, 0) for kind in kinds
        ),
        "gen_ai_server_time_to_first_token_seconds_count": counted(kinds, lambda kind: kind.chunks > 2),
        "gen_ai_server_time_per_output_token_seconds_count": completed_streams,
        "inference_sidecar_stream_tokens_per_second_count": completed_streams,
        "inference_sidecar_requests_total": REQUESTS,
        "inference_sidecar_retries_total": retries,
        "inference_sidecar_stream_chunks_total": sum(kind.chunks for kind in kinds),
        "inference_sidecar_stream_duration_seconds_count": streams,
        "inference_sidecar_active_requests": 0,
    }
    assert {name: metrics.sum(name) for name in expected} == expected
    for end in ("completed", "failed", "cancelled"):
        ended = counted(kinds, lambda kind, end=end: kind.streams == end)
        assert metrics.sum("inference_sidecar_streams_total", outcome=end) == ended
    for error, count in errors.items():
        assert metrics.sum("inference_sidecar_requests_total", error_type=error) == count, error
        # What the sidecar refused was no operation of a model's.
        operations = 0 if error == "invalid_request" else count
        assert metrics.sum("gen_ai_client_operation_duration_seconds_count", error_type=error) == operations
    duration = "gen_ai_client_operation_duration_seconds_count"
    assert metrics.sum(duration, error_type="cancelled") == cancelled
    without = counted(kinds, lambda kind: kind.error is None) - cancelled
    assert metrics.sum(duration, error_type=None) == without
    assert metrics.sum("inference_sidecar_requests_total", outcome="completed", error_type=None) == without
    assert metrics.sum("inference_sidecar_requests_total", outcome="cancelled", error_type=None) == cancelled
    assert metrics.values("gen_ai_request_model") <= {"gpt-4", "_OTHER"}
    assert metrics.values("gen_ai_operation_name") == {"chat"}


def test_each_is_told_of_once_whoever_asks_meanwhile(sidecar: Sidecar) -> None:
    """Ended requests are told of in several turns; whoever reads the figures between two of them has the rest told first."""
    requests, apps = 1500, 6
    over = threading.Event()
    dice = random.Random(5)

    def ask() -> None:
        # Seldom enough that most are told of by the sidecar's own clock.
        while not over.wait(dice.uniform(0.004, 0.012)):
            sidecar.health()

    with (
        ThreadPoolExecutor(apps + 1) as threads,
        sidecar.figures(requests) as delta,
        sidecar.requests(requests) as lines,
    ):
        reader = threads.submit(ask)
        try:
            served = list(threads.map(lambda _: sidecar.chat(), range(requests)))
        finally:
            over.set()
        reader.result()
    assert {answer.status for answer in served} == {200}
    assert delta["requests.completed"] == requests
    assert len({line["request_id"] for line in lines}) == requests


def test_nothing_stays_open(start: Start, upstream: ScriptedUpstream) -> None:
    """After a burst, no more connections are kept than may be idle, and no file descriptor is lost."""
    sidecar = start({"inference": {"http": {"max_idle_connections": 3}}})

    def one(_: int) -> Answer:
        return sidecar.chat(stream=True)

    def burst() -> None:
        with ThreadPoolExecutor(16) as apps:
            assert {answer.status for answer in apps.map(one, range(64))} == {200}

    burst()
    ours = {exchange.connection.number for exchange in upstream.exchanges[-64:]}
    connections = [each for each in upstream.connections if each.number in ours]
    upstream.until(
        lambda: sum(each.closed_at is None for each in connections) <= 3, "idle connections closed"
    )


def test_a_test_of_the_table() -> None:
    """Each kind is asked for often enough to matter."""
    dice = random.Random(20240817)
    drawn = Counter(dice.choice(list(KINDS)) for _ in range(REQUESTS))
    assert min(drawn.values()) > 20
