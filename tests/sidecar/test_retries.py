"""Retries: which failures are tried again, how long is waited, and what the app is told after the last one.

Covers: statuses and headers that decide, waits obeyed, time that is left, requests that must not be repeated, stale
pooled connections, and a pooled connection on which more came than it should.
Left out: tries by kind of transport fault (test_faults), an app that leaves meanwhile (test_disconnect).
"""

from __future__ import annotations

import datetime
from email.utils import format_datetime

import pytest

from harness import answers
from harness.process import Sidecar, Start
from harness.upstream import CLOSE, RESET, Drip, Script, ScriptedUpstream

GOOD: Script = [answers.json_answer(answers.completion())]


def failed(status: int, *headers: str, code: str = "x") -> Script:
    return [answers.error(status, "no", "server_error", code, *headers)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("stream", [None, True], ids=["plain", "streaming"])
def test_tried_again(sidecar: Sidecar, upstream: ScriptedUpstream, status: int, stream: bool | None) -> None:
    good = answers.sse(answers.chat_events()) if stream else GOOD
    scenario = upstream.plan(failed(status), failed(status), good)
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.chat(scenario, stream=stream)
    assert (answer.status, answer.header("x-should-retry")) == (200, None)
    assert len(upstream.of(scenario)) == 3
    assert {bytes(exchange.body) for exchange in upstream.of(scenario)} == {
        bytes(upstream.of(scenario)[0].body)
    }
    assert (lines[0]["attempts"], lines[0]["end"], delta["errors.total"]) == (3, "completed", 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 501])
def test_not_tried_again(sidecar: Sidecar, upstream: ScriptedUpstream, status: int) -> None:
    scenario = upstream.plan(failed(status), GOOD)
    answer = sidecar.chat(scenario)
    assert (answer.status, len(upstream.of(scenario))) == (status, 1)


def test_after_the_last_try_the_sdk_is_told_not_to(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan(failed(503, "x-request-id: last", "x-should-retry: true"))
    answer = sidecar.chat(scenario)
    assert (answer.status, answer.error["code"], len(upstream.of(scenario))) == (503, "x", 4)
    assert [value for name, value in answer.headers if name == "x-should-retry"] == ["false"]
    assert answer.header("x-request-id") == "last"


def test_no_quota_is_never_tried_again(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.rate_limited(code="insufficient_quota")], GOOD)
    answer = sidecar.chat(scenario)
    assert (answer.status, answer.error["code"], len(upstream.of(scenario))) == (429, "insufficient_quota", 1)


@pytest.mark.parametrize(
    ("status", "said", "tries"), [(400, "true", 2), (409, "true", 2), (503, "false", 1), (429, "false", 1)]
)
def test_x_should_retry_decides(
    sidecar: Sidecar, upstream: ScriptedUpstream, status: int, said: str, tries: int
) -> None:
    scenario = upstream.plan(failed(status, f"x-should-retry: {said}"), GOOD)
    answer = sidecar.chat(scenario)
    assert len(upstream.of(scenario)) == tries
    assert answer.status == (200 if tries == 2 else status)


def in_two_seconds() -> str:
    return format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("kind", ["retry-after-ms: 300", "retry-after: 1", "date"])
def test_a_wait_that_was_asked_for_is_kept(sidecar: Sidecar, upstream: ScriptedUpstream, kind: str) -> None:
    header = f"retry-after: {in_two_seconds()}" if kind == "date" else kind
    least = {"retry-after-ms: 300": 0.3, "retry-after: 1": 1.0}.get(kind, 0.9)  # a date has whole seconds
    scenario = upstream.plan([answers.rate_limited(header)], GOOD)
    assert sidecar.chat(scenario).status == 200
    first, second = upstream.of(scenario)
    assert first.finished_at is not None
    assert least <= second.head_at - first.finished_at < least + 2


@pytest.mark.parametrize("header", ["retry-after: 60", "retry-after-ms: 60000"])
def test_a_wait_longer_than_the_time_left_is_the_apps(
    sidecar: Sidecar, upstream: ScriptedUpstream, header: str
) -> None:
    scenario = upstream.plan([answers.rate_limited(header)], GOOD)
    answer = sidecar.chat(scenario)
    name, _, value = header.partition(": ")
    assert (answer.status, answer.error["code"], answer.header(name)) == (429, "rate_limit_exceeded", value)
    assert len(upstream.of(scenario)) == 1


def test_the_waits_grow(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"http": {"retry_backoff_ms": 200}}})
    scenario = upstream.plan(failed(503), failed(503), GOOD)
    assert sidecar.chat(scenario).status == 200
    first, second, third = upstream.of(scenario)
    assert first.finished_at is not None
    assert second.finished_at is not None
    one, two = second.head_at - first.finished_at, third.head_at - second.finished_at
    assert 0.09 <= one <= 0.5
    assert 0.19 <= two <= 0.9


def test_max_retries_zero(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"http": {"max_retries": 0}}})
    scenario = upstream.plan(failed(503), GOOD)
    assert sidecar.chat(scenario).status == 503
    assert len(upstream.of(scenario)) == 1


UPLOAD = b"x" * 200_000


def test_what_is_not_idempotent_is_not_repeated(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    for script in ([RESET], failed(503), failed(500), [CLOSE]):
        scenario = upstream.plan(script, GOOD)
        answer = sidecar.call("POST", "/v1/images/generations", {"prompt": "x"}, None, scenario)
        assert answer.status >= 500
        assert len(upstream.of(scenario)) == 1


def test_a_429_is_repeated_where_the_body_can_be_sent_again(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    scenario = upstream.plan([answers.rate_limited("retry-after-ms: 1")], GOOD)
    answer = sidecar.call("POST", "/v1/images/generations", {"prompt": "x"}, None, scenario)
    assert answer.status == 200
    assert [exchange.json for exchange in upstream.of(scenario)] == [{"prompt": "x"}, {"prompt": "x"}]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/v1/models"])
def test_other_requests_that_are_repeated(sidecar: Sidecar, upstream: ScriptedUpstream, path: str) -> None:
    scenario = upstream.plan([RESET], failed(503), [answers.json_answer(answers.embeddings())])
    method, body = (
        ("GET", None) if path == "/v1/models" else ("POST", {"model": "m", "input": "x", "prompt": "x"})
    )
    assert sidecar.call(method, path, body, None, scenario).status == 200
    assert len(upstream.of(scenario)) == 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/images/generations"])
def test_a_connection_that_went_stale_is_not_the_apps_problem(
    sidecar: Sidecar, upstream: ScriptedUpstream, path: str
) -> None:
    """The upstream closes an idle connection; the next request is none the wiser."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    for _ in range(5):
        scenario = upstream.plan([*GOOD, Drip(b"", gap=0), CLOSE])
        assert sidecar.call("POST", path, body, None, scenario).status == 200
        upstream.closing(upstream.only(scenario))
        scenario = upstream.plan(GOOD)
        assert sidecar.call("POST", path, body, None, scenario).status == 200
        assert len(upstream.of(scenario)) == 1


def test_connections_are_kept(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan(GOOD)
    for _ in range(5):
        assert sidecar.chat(scenario).status == 200
    assert len({exchange.connection.number for exchange in upstream.of(scenario)}) == 1


def test_more_than_content_length_is_never_handed_on(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """What came too much looks like an answer; the next request must not get it."""
    poison = answers.json_answer({"stolen": True})
    for _ in range(3):
        scenario = upstream.plan([GOOD[0] + poison], GOOD)  # type: ignore[operator]  # GOOD holds bytes
        first, second = sidecar.chat(scenario), sidecar.chat(scenario)
        assert first.json == second.json == answers.completion()
        one, two = upstream.of(scenario)
        assert one.connection is not two.connection
        upstream.closing(one)
