"""How streams end: complete only where they are, an error event where they are not, nothing invented.

Covers: chat without [DONE], with several choices, with tools; endings that look whole and are not; an upstream's own
error events; responses' three endings and a broken one; completions and unknown streams; one stream_timeout.
Left out: transport faults phase by phase (test_faults).
"""

from __future__ import annotations

import pytest

from harness import answers
from harness.client import Answer
from harness.process import Sidecar, Start
from harness.upstream import CLOSE, HANG, RESET, SCENARIO, Script, ScriptedUpstream

ROLE, WORD = answers.delta({"role": "assistant", "content": ""}), answers.delta({"content": "x"})
STOP = answers.delta({}, "stop")

COMPLETE = {
    "done": ([ROLE, WORD, STOP, answers.DONE], None),
    "finished-without-done": ([ROLE, WORD, STOP], None),
    "tools": (answers.tool_events(), None),
    "length": ([ROLE, answers.delta({}, "length"), answers.DONE], None),
    "done-only": ([ROLE, WORD, answers.DONE], None),
    "two-choices": ([ROLE, STOP, answers.delta({}, "stop", index=1)], 2),
}


@pytest.mark.parametrize("name", list(COMPLETE))
def test_complete(sidecar: Sidecar, upstream: ScriptedUpstream, name: str) -> None:
    events, choices = COMPLETE[name]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True, n=choices)
    assert (answer.status, answer.ended, answer.body) == (200, "whole", b"".join(events))
    assert (delta["streams.completed"], delta["streams.failed"], delta["errors.total"]) == (1, 0, 0)


INCOMPLETE = {
    "no-finish": ([ROLE, WORD], None),
    "one-of-two-choices": ([ROLE, STOP, answers.delta({"content": "x"}, index=1)], 2),
    "a-comment-only": ([b": hello\n\n"], None),
    "a-page": ([b"<html>502 Bad Gateway</html>\n\n"], None),
    "half-an-event": ([ROLE, WORD[:30]], None),
}


def broken(answer: Answer, sent: bytes, code: str) -> None:
    """What came, then one error event of its own, and no invented end."""
    assert (answer.status, answer.ended) == (200, "whole")
    assert b"[DONE]" not in answer.body
    assert answer.body.startswith(sent)
    error = answer.data[-1]["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["code"] == code


@pytest.mark.parametrize("name", list(INCOMPLETE))
def test_a_clean_end_of_an_incomplete_stream(sidecar: Sidecar, upstream: ScriptedUpstream, name: str) -> None:
    events, choices = INCOMPLETE[name]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True, n=choices)
    whole = events[:-1] if name == "half-an-event" else events
    assert answer.body.startswith(b"".join(whole))
    last = answer.body.rpartition(b"\n\ndata: ")[2] if b"\n\ndata: " in answer.body else answer.body
    assert b'"upstream_protocol_error"' in last, "the error event is glued to what came before it"
    assert b"[DONE]" not in answer.body
    assert delta["errors.by_type.upstream_protocol_error"] == 1
    assert (delta["streams.completed"], delta["streams.failed"]) == (0, 1)


def test_an_empty_stream_is_an_http_error(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """Nothing came down yet: what fails before the first byte is a plain error."""
    scenario = upstream.plan([answers.sse_head(), answers.END])
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert (answer.status, answer.error["code"]) == (500, "upstream_protocol_error")
    assert delta["errors.by_type.upstream_protocol_error"] == 1


def test_a_close_delimited_stream_that_is_incomplete(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    head = answers.head(200, "content-type: text/event-stream", "connection: close")
    scenario = upstream.plan([head, ROLE + WORD, CLOSE])
    broken(sidecar.chat(scenario, stream=True), ROLE + WORD, "upstream_protocol_error")


@pytest.mark.parametrize(
    "error",
    [
        answers.event(
            {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": 529}}
        ),
        answers.event({"error": "overloaded"}),
        answers.event({"error": {"message": "x"}}, "error"),
    ],
    ids=["object", "string", "named"],
)
@pytest.mark.parametrize("after", [[], [ROLE, WORD]], ids=["at-once", "later"])
@pytest.mark.parametrize("done", [[], [answers.DONE]], ids=["end", "done"])
def test_an_error_event_of_the_upstream(
    sidecar: Sidecar, upstream: ScriptedUpstream, error: bytes, after: list[bytes], done: list[bytes]
) -> None:
    """It goes down unchanged, alone, and the stream counts as failed."""
    events = [*after, error, *done]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert (answer.status, answer.ended, answer.body) == (200, "whole", b"".join(events))
    assert delta["errors.by_type.upstream_error_event"] == 1
    assert (delta["errors.total"], delta["streams.failed"]) == (1, 1)


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_responses(sidecar: Sidecar, upstream: ScriptedUpstream, end: str) -> None:
    events = answers.response_events(end)
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.call(
            "POST", "/v1/responses", {"model": "gpt-4", "input": "x", "stream": True}, None, scenario
        )
    assert answer.body == b"".join(events)
    assert (delta["streams.failed"], delta["errors.total"]) == ((1, 1) if end == "failed" else (0, 0))
    assert [delta[f"tokens.{name}"] for name in ("prompt", "completion", "total")] == [7, 2, 9]


BROKEN_RESPONSES: dict[str, tuple[Script, str]] = {
    "clean-end": ([answers.END], "upstream_protocol_error"),
    "cut": ([CLOSE], "upstream_disconnected"),
    "reset": ([RESET], "upstream_disconnected"),
    "hang": ([HANG], "upstream_idle_timeout"),
}


@pytest.mark.parametrize("name", list(BROKEN_RESPONSES))
def test_a_broken_responses_stream_ends_in_its_own_form(
    hasty: Sidecar, upstream: ScriptedUpstream, name: str
) -> None:
    end, code = BROKEN_RESPONSES[name]
    events = answers.response_events(None)
    gate = upstream.gate()
    scenario = upstream.plan([answers.sse_head(), answers.chunk(b"".join(events)), gate, *end])
    body = {"model": "gpt-4", "input": "x", "stream": True}
    with hasty.figures(1) as delta, hasty.connect() as client:
        client.request("POST", "/v1/responses", body, {SCENARIO: scenario})
        answer = client.head()
        answer.body = client.until(events[-1])
        gate.open()
        while (piece := client.piece()) is not None:
            answer.body += piece
    assert answer.body.startswith(b"".join(events))
    name_of_last, _ = answer.events[-1]
    last = answer.data[-1]
    assert name_of_last == "error"
    assert set(last) >= {"type", "code", "message", "param", "sequence_number"}
    assert (last["type"], last["code"], last["sequence_number"]) == ("error", code, len(events))
    assert delta[f"errors.by_type.{code}"] == 1


def test_completions_end_with_a_clean_end(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    chunk = {
        "id": "cmpl-1",
        "object": "text_completion",
        "choices": [{"index": 0, "text": "x", "finish_reason": None}],
    }
    events = [answers.event(chunk), answers.event({**chunk, "usage": answers.USAGE})]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        body = {"model": "gpt-4", "prompt": "x", "stream": True}
        answer = sidecar.call("POST", "/v1/completions", body, None, scenario)
    assert answer.body == b"".join(events)
    assert (delta["streams.completed"], delta["tokens.total"], delta["errors.total"]) == (1, 13, 0)


def test_an_unknown_event_stream_is_relayed(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    events = [answers.event({"progress": 1}, "job"), answers.event({"progress": 2}, "job")]
    scenario = upstream.plan(answers.sse(events), [answers.sse_head(), answers.chunk(events[0]), CLOSE])
    answer = sidecar.call("GET", "/v1/fine_tuning/jobs/1/events?stream=true", scenario=scenario)
    assert answer.body == b"".join(events)
    broken(
        sidecar.call("GET", "/v1/fine_tuning/jobs/1/events?stream=true", scenario=scenario),
        events[0],
        "upstream_disconnected",
    )


def test_a_stream_that_lasts_too_long(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"http": {"stream_timeout_secs": 0.6}}})
    scenario = upstream.plan([answers.sse_head(), answers.chunk(ROLE + WORD), HANG])
    broken(sidecar.chat(scenario, stream=True), ROLE + WORD, "upstream_stream_timeout")
    upstream.closing(upstream.only(scenario))
