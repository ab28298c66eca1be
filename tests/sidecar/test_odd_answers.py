"""Answers that are legal and rare, or illegal and seen: framing, status and media types of an upstream.

Covers: answers without a body that announce one, two framings at once, trailers and chunk extensions, interim and
impossible statuses, heads that are too large, header bytes beyond ASCII, repeated headers, events where none were
asked for, error bodies that are large, cut or events.
Left out: cuts and resets (test_faults), what exceeds its length (test_retries).
"""

from __future__ import annotations

import pytest

from harness import answers
from harness.process import Sidecar
from harness.upstream import CLOSE, SCENARIO, Script, ScriptedUpstream

EVENTS = answers.chat_events()
BODY = b"".join(EVENTS)
JSON = answers.dense({"ok": True})


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("length", ["content-length: 500", "x-none: 1", "transfer-encoding: chunked"])
def test_an_answer_without_a_body_that_announces_one(
    sidecar: Sidecar, upstream: ScriptedUpstream, status: int, length: str
) -> None:
    """A 304 tells the length of what it stands for; the connection of the app stays usable."""
    scenario = upstream.plan([answers.head(status, 'etag: "1"', length), CLOSE])
    with sidecar.figures(1) as delta, sidecar.connect() as client:
        client.request("GET", "/v1/files/f", None, {SCENARIO: scenario, "if-none-match": '"1"'})
        answer = client.answer("GET")
        assert (answer.status, answer.body, answer.header("etag")) == (status, b"", '"1"')
        client.request("GET", "/health")
        assert client.answer("GET").status == 200
    assert delta["errors.total"] == 0


def test_two_framings_are_one_body(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """transfer-encoding wins, as the standard has it, and the length that was a lie does not go down."""
    head = answers.head(
        200, "content-type: application/json", "content-length: 500", "transfer-encoding: chunked"
    )
    scenario = upstream.plan([head, answers.chunk(JSON), answers.END])
    with sidecar.figures(1) as delta:
        answer = sidecar.call("GET", "/v1/files", scenario=scenario)
    assert (answer.status, answer.ended) in ((200, "whole"), (500, "whole"))
    if answer.status == 200:
        assert answer.body == JSON
        assert delta["errors.total"] == 0
    else:
        assert answer.error["code"] == "upstream_protocol_error"


@pytest.mark.parametrize(
    "script",
    [
        [answers.head(200, "content-length: 5", "content-length: 6") + b"okokok"],
        [answers.head(200, "content-length: -1") + b"ok"],
        [answers.head(200, "content-length: 2", "x-a: " + "a" * 300_000) + b"ok"],
        [answers.head(101, "upgrade: websocket", "connection: upgrade")],
        [answers.head(999, "content-length: 2") + b"ok"],
        [b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"],
        [b"ICY 200 OK\r\n\r\n"],
    ],
    ids=["two-lengths", "negative", "huge-head", "101", "999", "bad-header", "icy"],
)
def test_what_is_no_valid_answer(sidecar: Sidecar, upstream: ScriptedUpstream, script: Script) -> None:
    scenario = upstream.plan([*script, CLOSE])
    with sidecar.figures(1) as delta:
        answer = sidecar.call("GET", "/v1/files", scenario=scenario)
    assert (answer.status, answer.ended) == (500, "whole")
    assert answer.error["code"] == "upstream_protocol_error"
    assert delta["errors.by_type.upstream_protocol_error"] == 1


def test_trailers_and_chunk_extensions(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    extended = b"".join(b"%x;name=value\r\n" % len(each) + each + b"\r\n" for each in EVENTS)
    scenario = upstream.plan([answers.sse_head("trailer: x-t"), extended, b"0\r\nx-t: 1\r\n\r\n"])
    answer = sidecar.chat(scenario, stream=True)
    assert (answer.status, answer.ended, answer.body) == (200, "whole", BODY)


def test_header_bytes_beyond_ascii(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    lead = answers.head(200, "content-length: 2").removesuffix(b"\r\n")
    scenario = upstream.plan([lead + b"x-down: caf\xe9\r\nx-twice: 1\r\nx-twice: 2\r\n\r\nok"])
    answer = sidecar.call("GET", "/v1/files", None, {"x-up": "caf\xe9"}, scenario)
    assert answer.header("x-down") == "caf\xe9"
    assert [value for name, value in answer.headers if name == "x-twice"] == ["1", "2"]
    assert upstream.only(scenario).header("x-up") == "caf\xe9"


def test_events_where_none_were_asked_for(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan(answers.sse(EVENTS))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario)
    assert (answer.status, answer.body) == (200, BODY)
    assert delta["errors.total"] == 0


def test_a_media_type_is_read_without_regard_to_case(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    head = answers.chunked_head(200, "Text/Event-Stream;Charset=UTF-8")
    scenario = upstream.plan([head, answers.chunk(EVENTS[0]), answers.END])
    answer = sidecar.chat(scenario, stream=True)
    assert answer.data[-1]["error"]["code"] == "upstream_protocol_error"


@pytest.mark.parametrize(
    "script",
    [
        [answers.answer(400, answers.event({"error": {"message": "x"}}), kind="text/event-stream")],
        [
            answers.head(400, "content-type: application/json", "content-length: 500") + b'{"error":{"mess',
            CLOSE,
        ],
        [answers.answer(400, b"")],
        [answers.answer(400, b"\xff\xfe\x00")],
    ],
    ids=["events", "cut", "empty", "binary"],
)
def test_an_error_body_that_is_no_json(sidecar: Sidecar, upstream: ScriptedUpstream, script: Script) -> None:
    """The status is what matters, and it stays."""
    answer = sidecar.chat(upstream.plan(script), stream=True)
    assert (answer.status, answer.ended, answer.error["code"]) == (400, "whole", "upstream_http_error")


def test_an_error_body_of_any_size_keeps_its_status(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    body = answers.dense({"error": {"message": "x" * 3_000_000, "type": "a", "param": None, "code": None}})
    answer = sidecar.chat(upstream.plan([answers.answer(422, body)]))
    assert answer.status == 422
    assert answer.error["message"]
