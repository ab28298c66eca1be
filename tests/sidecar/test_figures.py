"""The figures of /health: counters and distributions; log lines in both forms. Metrics: test_metrics."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar.records import End, Endpoint, Outcome, StreamStats, Usage
from inference_sidecar.telemetry import Figures, Series, configure, debug, log_outcomes
from inference_sidecar.telemetry.figures import MAX_ERROR_TYPES, WINDOW
from inference_sidecar.telemetry.requests_log import fields_of, members_of


def plain(**fields: Any) -> Outcome:
    told: dict[str, Any] = {
        "status": 200, "end": End.COMPLETED, "duration_s": 0.5, "usage": Usage(10, 5, 15), "attempts": 2,
    } | fields  # fmt: skip
    return Outcome("req_1", Endpoint.CHAT, "POST", "/v1/chat/completions", **told)


def stream(**fields: Any) -> Outcome:
    told: dict[str, Any] = {
        "streaming": True, "streamed": True, "duration_s": 2.0, "first_token_s": 1.0, "usage": Usage(10, 51, 61),
        "attempts": 1, "stream": StreamStats(2000.0, 4, 500.0, (0.1, 0.2, 0.3)),
    } | fields  # fmt: skip
    return plain(**told)


def recorded(*outcomes: Outcome) -> Figures:
    figures = Figures()
    for outcome in outcomes:
        figures.arrived()
        if outcome.streamed:
            figures.stream_began()
        figures.record(outcome)
    return figures


def test_series() -> None:
    series = Series()
    assert series.summary() == {"count": 0, "mean": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    for value in range(1, 101):
        series.add(value)
    assert series.summary() == {"count": 100, "mean": 50.5, "p50": 51, "p95": 96, "p99": 100, "max": 100}
    for _ in range(WINDOW):
        series.add(7)
    assert (series.count, series.quantiles(0.5), series.maximum) == (100 + WINDOW, [7], 100)
    one_by_one, at_once = Series(scale=10), Series(scale=10)
    values = [float(value % 97) for value in range(3 * WINDOW)]
    for value in values:
        one_by_one.add(value)
    at_once.extend(values)
    at_once.extend([])
    assert at_once.summary() == one_by_one.summary()
    assert at_once.summary()["max"] == 960


def test_figures_add_up() -> None:
    refused = plain(status=400, end=End.REFUSED, error="invalid_request", usage=None, attempts=0)
    failed = stream(end=End.FAILED, error="upstream_disconnected", usage=None)
    gone = stream(end=End.CANCELLED, usage=None)
    figures = recorded(plain(), stream(), refused, failed, gone)
    figures.arrived()
    health = json.loads(json.dumps(figures.health()))
    assert health["requests"] == {
        "total": 6,
        "streaming": 3,
        "active": 1,
        "completed": 2,
        "failed": 1,
        "refused": 1,
        "cancelled": 1,
        "retries": 1,
    }
    assert health["errors"] == {"total": 2, "by_type": {"invalid_request": 1, "upstream_disconnected": 1}}
    assert health["tokens"] == {"prompt": 20, "completion": 56, "total": 76}
    assert health["streams"] == {
        "started": 3,
        "active": 0,
        "completed": 1,
        "failed": 1,
        "cancelled": 1,
        "completion_rate": 0.3333,
        "chunks": 12,
    }
    assert health["latency_ms"]["plain"]["count"] == 1
    assert health["latency_ms"]["streaming"] == {
        "count": 3,
        "mean": 2000.0,
        "p50": 2000.0,
        "p95": 2000.0,
        "p99": 2000.0,
        "max": 2000.0,
    }
    assert health["time_to_first_token_ms"]["p50"] == 1000.0
    assert health["tokens_per_second"] == {
        "count": 1,
        "mean": 50.0,
        "p50": 50.0,
        "p95": 50.0,
        "p99": 50.0,
        "max": 50.0,
    }
    assert health["chunk_interval_ms"] == {
        "count": 9,
        "mean": 200.0,
        "p50": 200.0,
        "p95": 300.0,
        "p99": 300.0,
        "max": 300.0,
    }


def test_error_types_are_bounded() -> None:
    figures = recorded(
        *(plain(end=End.FAILED, error=f"upstream_http_{status}") for status in range(400, 600))
    )
    assert len(figures.errors) <= MAX_ERROR_TYPES + 1
    assert figures.errors.total() == 200
    assert figures.errors["other"] == 200 - MAX_ERROR_TYPES


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    own = logging.getLogger("inference_sidecar")
    before = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


@pytest.mark.usefixtures("restored_logging")
def test_json_lines() -> None:
    out = io.StringIO()
    assert configure("info", "auto", out) == "json"
    log_outcomes([(stream(), {})])
    debug("not at this level")
    (line,) = [json.loads(text) for text in out.getvalue().splitlines()]
    assert line["message"] == "request"
    assert line["stream_stats"] == {"duration_ms": 2000, "chunks_sent": 4, "avg_chunk_interval_ms": 500}
    assert line["usage"] == {"prompt_tokens": 10, "completion_tokens": 51, "total_tokens": 61}
    assert line["time"].endswith("Z")
    assert "error" not in line


MAYBE_TEXT, MAYBE_SECONDS = st.none() | st.text(), st.none() | st.floats(0, 1e6)
COUNT = st.integers(0)
OUTCOMES = st.fixed_dictionaries(
    {
        "request_id": st.text(),
        "endpoint": st.sampled_from(Endpoint),
        "method": st.text(),
        "path": st.text(),
        "status": COUNT,
        "end": st.sampled_from(End),
        "duration_s": st.floats(0, 1e6),
        "error": MAYBE_TEXT,
        "error_message": MAYBE_TEXT,
        "param": MAYBE_TEXT,
        "model": MAYBE_TEXT,
        "response_model": MAYBE_TEXT,
        "streaming": st.booleans(),
        "streamed": st.booleans(),
        "first_byte_s": MAYBE_SECONDS,
        "first_token_s": MAYBE_SECONDS,
        "bytes_down": COUNT,
        "finish_reasons": st.lists(st.text(), max_size=3).map(tuple),
        "upstream_request_id": MAYBE_TEXT,
        "usage": st.none() | st.tuples(COUNT, COUNT, COUNT).map(lambda counts: Usage(*counts)),
        "stream": st.none()
        | st.tuples(st.floats(0, 1e9), COUNT, st.floats(0, 1e9)).map(lambda one: StreamStats(*one)),
    }
).map(lambda fields: Outcome(**fields))


@given(OUTCOMES, st.dictionaries(st.sampled_from(["trace_id", "span_id"]), st.text()))
def test_a_line_written_by_hand_is_what_an_encoder_writes(outcome: Outcome, ids: dict[str, str]) -> None:
    level = "warning" if outcome.end is End.FAILED else "info"
    head = {"level": level, "logger": "inference_sidecar", "message": "request"}
    line = "{" + members_of(outcome, ids) + "}"
    assert line == json.dumps({**head, **fields_of(outcome, ids)}, separators=(",", ":"))


@pytest.mark.usefixtures("restored_logging")
def test_text_lines_and_levels() -> None:
    out = io.StringIO()
    assert configure("debug", "text", out) == "text"
    debug("step", name="two words", number=3)
    logging.getLogger("httpcore").debug("authorization: secret")
    assert out.getvalue().endswith('debug   step name="two words" number=3\n')
    configure("error", "json", out)
    log_outcomes([(plain(end=End.FAILED, error="x"), {})])
    assert "request" not in out.getvalue().splitlines()[-1]
