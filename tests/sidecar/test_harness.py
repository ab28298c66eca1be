"""The test house itself: that it would notice what it is there to notice.

Covers: a leaked key is found, plain, split between reads and in base64; the scripted upstream sends exactly
its script and books what arrives; the raw client tells a whole answer from a cut and a reset one.
"""

from __future__ import annotations

import base64

import pytest

from harness import answers
from harness.client import Client, call
from harness.evidence import Evidence
from harness.upstream import CLOSE, DEAF, EARLY, HANG, RESET, SCENARIO, Drip, ScriptedUpstream


def test_a_leaked_key_is_found_however_it_comes() -> None:
    evidence = Evidence()
    key = evidence.new_key()
    evidence.add("clean", b"nothing here")
    evidence.add("plain", b'{"message":"key ' + key.encode() + b'"}')
    split = evidence.channel("split")
    split.extend(key.encode()[:20])
    split.extend(key.encode()[20:])
    for lead in range(3):
        evidence.add(f"base64 {lead}", base64.b64encode(b"u:p"[:lead] + key.encode()))
    assert evidence.leaks() == ["plain", "split", "base64 0", "base64 1", "base64 2"]
    assert evidence.leaks() == []


@pytest.mark.parametrize(
    ("script", "ended", "body"),
    [
        ([answers.answer(200, b"abc")], "whole", b"abc"),
        ([answers.chunked_head(), answers.chunk(b"ab"), answers.chunk(b"c"), answers.END], "whole", b"abc"),
        ([answers.head(200, "connection: close"), b"abc", CLOSE], "closed", b"abc"),
        ([answers.head(200, "content-length: 4"), b"abc", CLOSE], "cut", b"abc"),
        ([answers.chunked_head(), answers.chunk(b"abc"), CLOSE], "cut", b"abc"),
        ([answers.head(200, "content-length: 4"), Drip(b"abc", gap=0.01), RESET], "reset", b"abc"),
    ],
)
def test_an_answer_is_played_and_read_as_it_ends(
    upstream: ScriptedUpstream, script: list[object], ended: str, body: bytes
) -> None:
    scenario = upstream.plan(script)  # type: ignore[arg-type]  # a table of mixed steps
    found = call(upstream.port, "GET", "/x?y=1", headers={SCENARIO: scenario, "X-Two": "2"})
    assert (found.status, found.ended, found.body) == (200, ended, body)
    exchange = upstream.only(scenario)
    assert (exchange.method, exchange.target, exchange.header("x-two")) == ("GET", "/x?y=1", "2")


def test_the_ledger_books_bodies_attempts_and_closes(upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer({"try": 1})], [HANG])
    with Client(upstream.port) as client:
        client.request("POST", "/a", b"x" * 100_000, {SCENARIO: scenario})
        assert client.answer().json == {"try": 1}
        lead = client.head_of("POST", "/b", {SCENARIO: scenario, "transfer-encoding": "chunked"})
        client.send(lead + answers.chunk(b"hel") + answers.chunk(b"lo") + answers.END)
        upstream.until(lambda: len(upstream.of(scenario)) == 2, "second request")
        left_at = client.leave()
    first, second = upstream.of(scenario)
    assert len(first.body) == 100_000
    assert upstream.closing(second) - left_at < 0.5
    assert bytes(second.body) == b"hello"
    assert first.connection is second.connection
    assert second.connection.closed_by == "peer"


def test_an_early_answer_comes_before_the_body_is_read(upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan(
        [EARLY, DEAF, answers.error(413, "too large", "invalid_request_error", None), CLOSE]
    )
    with Client(upstream.port) as client:
        client.send(client.head_of("POST", "/up", {SCENARIO: scenario, "content-length": "50000000"}))
        sender = client.send_aside(b"x" * 50_000_000)
        assert client.answer().status == 413
    sender.join(5)
    assert upstream.only(scenario).received_at is None
