"""Streams on the way down: their bytes, their timing, usage asked for and kept back, stats, keep-alive.

Covers: odd framings come down byte by byte, however the transport splits them; an event comes down as soon as its
blank line has come; usage in each variant of what the app and the config asked for; an upstream that refuses
stream_options; stream_stats in the log and in the usage chunk; comments while a model thinks.
Left out: how streams end (test_stream_ends), faults (test_faults), the decoder alone (test_sse).
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from harness import answers
from harness.process import Sidecar, Start, chat_body
from harness.upstream import CLOSE, SCENARIO, Drip, ScriptedUpstream

EVENTS = answers.chat_events()
BODY = b"".join(EVENTS)
WITH_USAGE = answers.chat_events(usage=True)


def crlf(body: bytes) -> bytes:
    return body.replace(b"\n", b"\r\n")


MIXED = crlf(EVENTS[0]) + EVENTS[1] + crlf(EVENTS[2]) + b"".join(EVENTS[3:])
FRAMINGS = {
    "lf": BODY,
    "crlf": crlf(BODY),
    "mixed": MIXED,
    "cr": BODY.replace(b"\n", b"\r"),
    "comments": b": ping\n\n" + EVENTS[0] + b": OPENROUTER PROCESSING\n\n:\n" + b"".join(EVENTS[1:]),
    "no-blank": BODY.replace(b"data: ", b"data:"),
    "event-and-id": b"".join(b"event: chunk\nid: 7\nretry: 10\n" + each for each in EVENTS),
    "done-without-blank-line": BODY.removesuffix(b"\n"),
    "done-without-line-end": BODY.removesuffix(b"\n\n"),
    "bom": b"\xef\xbb\xbf" + BODY,
    "azure-first": answers.azure_first_chunk() + BODY,
    "utf-8": b"".join(answers.chat_events(["h\u00e9", "\U0001f600\u4e2d", "\u2028"])),
    "several-data-lines": b'data: {"choices":\ndata: []}\n\n' + BODY,
    "no-json": b"data: hello\n\n" + BODY,
    "no-delta": answers.event({"choices": [{"index": 0, "finish_reason": None}]}) + BODY,
    "huge-event": answers.delta({"content": "x" * 5_000_000}) + BODY,
}


@pytest.mark.parametrize("framing", list(FRAMINGS))
@pytest.mark.parametrize("split", ["whole", "seven", "close-delimited"])
def test_bytes_come_down_unchanged(
    sidecar: Sidecar, upstream: ScriptedUpstream, framing: str, split: str
) -> None:
    body = FRAMINGS[framing]
    size = 7 if len(body) < 100_000 else 70_001
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if split == "seven" else [body]
    script: list[Any] = [answers.sse_head(), *(answers.chunk(piece) for piece in pieces), answers.END]
    if split == "close-delimited":
        script = [answers.head(200, "content-type: text/event-stream", "connection: close"), body, CLOSE]
    scenario = upstream.plan(script)
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert (answer.status, answer.ended) == (200, "whole")
    assert answer.body == body
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    assert (delta["streams.completed"], delta["errors.total"]) == (1, 0)


def test_each_event_comes_down_before_the_next_is_sent(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    gates = [upstream.gate() for _ in EVENTS]
    steps: list[Any] = [answers.sse_head()]
    for event, gate in zip(EVENTS, gates, strict=True):
        steps += [answers.chunk(event), gate]
    scenario = upstream.plan([*steps, answers.END])
    with sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        assert client.head().status == 200
        for event, gate in zip(EVENTS, gates, strict=True):
            assert client.until(event) == event
            gate.open()
        assert client.piece() is None


def test_half_an_event_waits_for_its_blank_line(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    steps: list[Any] = [
        answers.sse_head(),
        answers.chunk(EVENTS[0] + EVENTS[1][:30]),
        gate,
        answers.chunk(EVENTS[1][30:]),
    ]
    rest = b"".join(EVENTS[2:])
    scenario = upstream.plan([*steps, answers.chunk(rest), answers.END])
    with sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        client.head()
        assert client.until(EVENTS[0]) == EVENTS[0]
        gate.open()
        assert client.until(EVENTS[1]).startswith(EVENTS[1])


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_the_head_does_not_wait_for_an_event_that_is_not_whole(
    sidecar: Sidecar, upstream: ScriptedUpstream, coding: str | None
) -> None:
    """A client's bound on the head is not a bound on the first token."""
    machine = zlib.compressobj(wbits=31)
    body = BODY if coding is None else machine.compress(BODY) + machine.flush()
    gate = upstream.gate()
    head = answers.sse_head() if coding is None else answers.sse_head(f"content-encoding: {coding}")
    steps: list[Any] = [head, answers.chunk(body[:5]), gate, answers.chunk(body[5:]), answers.END]
    with sidecar.connect() as client:
        client.request(
            "POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: upstream.plan(steps)}
        )
        assert client.head().status == 200
        gate.open()
        assert client.until(EVENTS[-1]) == BODY


def test_a_stream_that_drips_byte_by_byte(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    drip = Drip(b"".join(answers.chunk(bytes([byte])) for byte in crlf(BODY)), size=6)
    scenario = upstream.plan([answers.sse_head(), drip, answers.END])
    assert sidecar.chat(scenario, stream=True).body == crlf(BODY)


# Usage: who asked, who sees.

NONE_ASKED: dict[str, Any] = {}
VARIANTS = [
    # (what the app sends, what goes up, whether the app sees the usage chunk)
    ({}, {"include_usage": True}, False),
    ({"stream_options": None}, {"include_usage": True}, False),
    ({"stream_options": {}}, {"include_usage": True}, False),
    ({"stream_options": {"include_usage": False}}, {"include_usage": True}, False),
    ({"stream_options": {"include_usage": True}}, {"include_usage": True}, True),
    (
        {"stream_options": {"include_obfuscation": False}},
        {"include_obfuscation": False, "include_usage": True},
        False,
    ),
]


@pytest.mark.parametrize(("asked", "up", "seen"), VARIANTS, ids=lambda value: json.dumps(value)[:50])
def test_usage_is_asked_for_and_kept_back(
    sidecar: Sidecar, upstream: ScriptedUpstream, asked: dict[str, Any], up: dict[str, Any], seen: bool
) -> None:
    scenario = upstream.plan(answers.sse(WITH_USAGE))
    body = {**chat_body(stream=True), **asked}
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.call("POST", "/v1/chat/completions", body, None, scenario)
    assert upstream.only(scenario).json == {**body, "stream_options": up}
    hidden = [each for each in WITH_USAGE if each != answers.usage_event()]
    assert answer.body == b"".join(WITH_USAGE if seen else hidden)
    assert [delta[f"tokens.{name}"] for name in ("prompt", "completion", "total")] == [10, 3, 13]
    assert lines[0]["usage"] == answers.USAGE


def test_usage_beside_choices_is_not_hidden(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """As the spec prints it: usage in the chunk that finishes."""
    last = json.loads(EVENTS[-2].removeprefix(b"data: "))
    events = [*EVENTS[:-2], answers.event({**last, "usage": answers.USAGE}), answers.DONE]
    scenario = upstream.plan(answers.sse(events))
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert answer.body == b"".join(events)
    assert delta["tokens.total"] == 13


def test_usage_injection_off(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"usage_injection": "off"}})
    scenario = upstream.plan(answers.sse(EVENTS))
    body = chat_body(stream=True)
    with sidecar.figures(1) as delta:
        answer = sidecar.call("POST", "/v1/chat/completions", body, None, scenario)
    assert upstream.only(scenario).json == body
    assert answer.body == BODY
    assert delta["tokens.total"] == 0


@pytest.mark.parametrize("status", [400, 422])
def test_an_upstream_that_refuses_stream_options(
    spawn: Start, upstream: ScriptedUpstream, status: int
) -> None:
    """The app gets its stream all the same, and later requests no longer ask."""
    refusal = answers.error(
        status, "Unrecognized request argument: stream_options", "invalid_request_error", None
    )
    sidecar = spawn()
    scenario = upstream.plan([refusal], answers.sse(EVENTS))
    first = sidecar.chat(scenario, stream=True)
    assert (first.status, first.body) == (200, BODY)
    sent = [exchange.json for exchange in upstream.of(scenario)]
    assert sent == [chat_body(stream=True, stream_options={"include_usage": True}), chat_body(stream=True)]
    scenario = upstream.plan(answers.sse(EVENTS))
    assert sidecar.chat(scenario, stream=True).body == BODY
    assert upstream.only(scenario).json == chat_body(stream=True)


def test_an_apps_own_wrong_request_is_not_asked_twice_for_ever(
    spawn: Start, upstream: ScriptedUpstream
) -> None:
    """A 400 about something else goes down, and usage is still asked for afterwards."""
    sidecar = spawn()
    refusal = answers.error(400, "no such tool", "invalid_request_error", "bad_tool")
    answer = sidecar.chat(upstream.plan([refusal]), stream=True)
    assert (answer.status, answer.error["code"]) == (400, "bad_tool")
    scenario = upstream.plan(answers.sse(WITH_USAGE))
    sidecar.chat(scenario, stream=True)
    assert upstream.of(scenario)[0].json["stream_options"] == {"include_usage": True}


# stream_stats.


def test_stream_stats_in_the_log(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    steps: list[Any] = [answers.sse_head(), *(Drip(answers.chunk(event), 10_000, 0.05) for event in EVENTS)]
    scenario = upstream.plan([*steps, answers.END])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.chat(scenario, stream=True)
    stats = lines[0]["stream_stats"]
    assert stats["chunks_sent"] == len(EVENTS) - 1  # [DONE] is no chunk
    assert 250 <= stats["duration_ms"] < 3000
    assert stats["avg_chunk_interval_ms"] == pytest.approx(stats["duration_ms"] / stats["chunks_sent"], abs=1)
    assert b"stream_stats" not in answer.body
    assert delta["stream_duration_ms.count"] == 1
    assert delta["time_to_first_token_ms.count"] == 1


def test_stream_stats_beside_the_usage(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan(answers.sse(WITH_USAGE))
    answer = sidecar.chat(scenario, {"x-stream-stats": "true"}, stream=True)
    usage = [data for data in answer.data if data != "[DONE]" and data.get("usage")]
    assert len(usage) == 1
    assert usage[0]["usage"] == answers.USAGE
    assert set(usage[0]["stream_stats"]) == {"duration_ms", "chunks_sent", "avg_chunk_interval_ms"}
    assert all(isinstance(value, int) for value in usage[0]["stream_stats"].values())
    others = [each for each in WITH_USAGE if each != answers.usage_event()]
    assert answer.body.startswith(b"".join(others[:-1]))
    assert answer.body.endswith(answers.DONE)
    assert upstream.only(scenario).header("x-stream-stats") is None


def test_stats_imply_the_usage_chunk(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """Also where the app said that it wants no usage."""
    scenario = upstream.plan(answers.sse(WITH_USAGE))
    options = {"include_usage": False}
    answer = sidecar.chat(scenario, {"x-stream-stats": "true"}, stream=True, stream_options=options)
    assert answer.data[-2]["stream_stats"]["chunks_sent"] > 0
    assert upstream.only(scenario).json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_stream_is_followed(sidecar: Sidecar, upstream: ScriptedUpstream, coding: str) -> None:
    """An upstream that compresses though nobody asked: the app gets plain events, cut ones with an error."""
    machine = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    pieces = [machine.compress(each) + machine.flush(zlib.Z_SYNC_FLUSH) for each in EVENTS]
    pieces.append(machine.flush())
    head = answers.sse_head(f"content-encoding: {coding}")
    chunks = [answers.chunk(piece) for piece in pieces if piece]
    answer = sidecar.chat(upstream.plan([head, *chunks, answers.END]), stream=True)
    assert (answer.header("content-encoding"), answer.body) == (None, BODY)
    answer = sidecar.chat(upstream.plan([head, *chunks[:2], CLOSE]), stream=True)
    assert answer.body.startswith(EVENTS[0] + EVENTS[1])
    assert answer.data[-1]["error"]["code"] == "upstream_disconnected"


# Keep-alive.


def test_comments_while_a_model_thinks(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"keepalive_comment_secs": 0.1}})
    before, between = upstream.gate(), upstream.gate()
    steps: list[Any] = [answers.sse_head(), before, answers.chunk(EVENTS[0]), between]
    scenario = upstream.plan([*steps, answers.chunk(b"".join(EVENTS[1:])), answers.END])
    with sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        assert client.head().status == 200
        first = client.until(b"\n\n")
        assert first.startswith(b":")
        before.open()
        client.until(EVENTS[0])
        assert client.until(b"\n\n").startswith(b":")
        between.open()
        answer = client.until(answers.DONE)
        assert answer.endswith(b"".join(EVENTS[1:]))
        assert client.piece() is None


def test_no_comments_unless_asked_for(hasty: Sidecar, upstream: ScriptedUpstream) -> None:
    steps: list[Any] = [answers.sse_head(), Drip(answers.chunk(EVENTS[0]), 10_000, 0.5)]
    scenario = upstream.plan([*steps, answers.chunk(b"".join(EVENTS[1:])), answers.END])
    assert hasty.chat(scenario, stream=True).body == BODY


def test_a_failure_after_a_comment_is_an_event(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"keepalive_comment_secs": 0.1}})
    gate = upstream.gate()
    scenario = upstream.plan([answers.sse_head(), gate, CLOSE])
    with sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        assert client.head().status == 200
        client.until(b"\n\n")
        gate.open()
        assert b'"upstream_disconnected"' in client.until(b"data: ")
        assert client.piece() is None
