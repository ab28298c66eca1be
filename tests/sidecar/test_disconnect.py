"""The app goes away: the upstream connection is closed at once, in every phase, and nobody is blamed.

Covers: leaving (FIN and RST) while a plain answer is awaited, in the middle of one, before a stream's first byte,
between events, while a retry is waited for, in the middle of an upload, and while the app does not read; the
figures and the log line of each. An app that leaves after [DONE] was served.
The law is 100 ms; the tests allow for a busy machine and print what was measured.
"""

from __future__ import annotations

import time

import pytest

from harness import answers
from harness.client import Client
from harness.process import Sidecar, chat_body
from harness.upstream import HANG, SCENARIO, Script, ScriptedUpstream

ALLOWED_SECS = 0.25
EVENTS = answers.chat_events()
JSON = answers.dense(answers.completion())

BEFORE: dict[str, tuple[bool, Script]] = {
    "plain-awaited": (False, [HANG]),
    "plain-head-only": (False, [answers.head(200, "content-length: 9"), HANG]),
    "stream-awaited": (True, [HANG]),
    "stream-head-only": (True, [answers.sse_head(), HANG]),
}


def leave(client: Client, how: str) -> float:
    return client.reset() if how == "reset" else client.leave()


def check(upstream: ScriptedUpstream, scenario: str, left_at: float, what: str) -> None:
    exchange = upstream.only(scenario)
    took = upstream.closing(exchange) - left_at
    print(f"{what}: the upstream connection closed after {took * 1000:.1f} ms")
    assert took < ALLOWED_SECS
    assert exchange.connection.closed_by == "peer"


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("phase", list(BEFORE))
def test_before_the_first_byte(sidecar: Sidecar, upstream: ScriptedUpstream, phase: str, how: str) -> None:
    stream, script = BEFORE[phase]
    scenario = upstream.plan(script)
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        client = sidecar.connect()
        client.request("POST", "/v1/chat/completions", chat_body(stream=stream), {SCENARIO: scenario})
        upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].received_at, "request")
        left_at = leave(client, how)
        check(upstream, scenario, left_at, phase)
    assert (lines[0]["end"], lines[0]["status"]) == ("cancelled", 0)
    assert (delta["requests.cancelled"], delta["errors.total"]) == (1, 0)
    assert (delta["streams.started"], delta["streams.cancelled"]) == (0, 0)


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_between_events(sidecar: Sidecar, upstream: ScriptedUpstream, how: str) -> None:
    scenario = upstream.plan([answers.sse_head(), *(answers.chunk(each) for each in EVENTS[:3]), HANG])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        client = sidecar.connect()
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        assert client.head().status == 200
        client.until(EVENTS[2])
        left_at = leave(client, how)
        check(upstream, scenario, left_at, "between events")
    assert (lines[0]["end"], lines[0]["status"]) == ("cancelled", 200)
    assert lines[0]["stream_stats"]["chunks_sent"] == 3
    assert (delta["streams.started"], delta["streams.cancelled"], delta["errors.total"]) == (1, 1, 0)


def test_in_the_middle_of_a_plain_answer(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    head = answers.head(200, "content-type: application/json", f"content-length: {len(JSON)}")
    scenario = upstream.plan([head + JSON[:40], HANG])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        client = sidecar.connect()
        client.request("POST", "/v1/chat/completions", chat_body(), {SCENARIO: scenario})
        upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].received_at, "request")
        left_at = client.leave()
        check(upstream, scenario, left_at, "in a plain answer")
    assert lines[0]["end"] == "cancelled"
    assert (delta["requests.cancelled"], delta["errors.total"]) == (1, 0)


def test_between_retries(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """The sidecar waits 3 s, as told; the app does not."""
    scenario = upstream.plan(
        [answers.rate_limited("retry-after: 3")], [answers.json_answer(answers.completion())]
    )
    with sidecar.figures(1) as delta:
        with sidecar.requests() as lines:
            client = sidecar.connect()
            client.request("POST", "/v1/chat/completions", chat_body(), {SCENARIO: scenario})
            upstream.until(lambda: upstream.of(scenario) and upstream.of(scenario)[0].finished_at, "429")
            left_at = client.leave()
        assert time.monotonic() - left_at < 1, "noticed only when the wait was over"
    assert lines[0]["end"] == "cancelled"
    assert len(upstream.of(scenario)) == 1
    assert (delta["requests.cancelled"], delta["errors.total"]) == (1, 0)


def test_in_the_middle_of_an_upload(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer({"id": "file-1"})])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        client = sidecar.connect()
        headers = {SCENARIO: scenario, "content-type": "application/octet-stream", "content-length": "900000"}
        client.send(client.head_of("POST", "/v1/files", headers) + b"x" * 500_000)
        upstream.until(
            lambda: upstream.of(scenario) and len(upstream.of(scenario)[0].body) == 500_000, "half"
        )
        left_at = client.leave()
        check(upstream, scenario, left_at, "in an upload")
    assert upstream.only(scenario).received_at is None
    assert lines[0]["end"] == "cancelled"
    assert (delta["requests.cancelled"], delta["errors.total"]) == (1, 0)


def test_an_app_that_does_not_read_holds_the_upstream_back(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    """Back-pressure: of 64 MB little leaves the upstream, and leaving frees it."""
    event = answers.delta({"content": "x" * 32_000})
    scenario = upstream.plan([answers.sse_head(), *[answers.chunk(event)] * 2000, HANG])
    client = sidecar.connect()
    client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
    assert client.head().status == 200
    client.until(b"x" * 100)
    connection = upstream.only(scenario).connection
    seen = -1
    while connection.sent_bytes != seen:  # until nothing has moved for a while
        seen = connection.sent_bytes
        time.sleep(0.3)
    print(f"{seen / 1e6:.1f} MB left the upstream while nobody read")
    assert seen < 16_000_000, "the sidecar took what nobody reads"
    check(upstream, scenario, client.leave(), "while held back")


def test_leaving_after_done_is_completion(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.sse_head(), *(answers.chunk(each) for each in EVENTS), HANG])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        client = sidecar.connect()
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        client.head()
        client.until(answers.DONE)
        check(upstream, scenario, client.leave(), "after [DONE]")
    assert lines[0]["end"] == "completed"
    assert (delta["streams.completed"], delta["streams.cancelled"]) == (1, 0)


def test_a_kept_alive_connection_serves_on_after_each_end(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    """Plain, stream and refusal one after another on one connection of the app."""
    with sidecar.connect() as client:
        for body in (chat_body(), chat_body(stream=True), chat_body(temperature=9), chat_body()):
            client.request("POST", "/v1/chat/completions", body)
            answer = client.answer()
            assert answer.ended == "whole"
            assert answer.status == (400 if "temperature" in body else 200)
