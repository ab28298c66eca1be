"""Bounds: what one app may ask of a sidecar's memory, sockets and patience.

Covers: body sizes declared and not, JSON bodies and streamed ones; header bytes and the time to send them; requests
at once; JSON depth; what is no HTTP; memory while a large body passes.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import answers
from harness.client import Client
from harness.process import Sidecar, Start, chat_body
from harness.upstream import SCENARIO, ScriptedUpstream

OK = answers.json_answer({"ok": True})


@pytest.fixture(scope="module")
def tight(start: Start) -> Sidecar:
    server = {
        "max_json_bytes": 2000,
        "max_body_bytes": 100_000,
        "max_header_bytes": 4096,
        "header_timeout_secs": 0.5,
        "max_concurrent_requests": 4,
        "max_json_depth": 16,
    }
    return start({"server": server})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_json_body_that_is_too_large(
    tight: Sidecar, upstream: ScriptedUpstream, path: str, chunked: bool
) -> None:
    scenario = upstream.plan([OK])
    body = b'{"model":"m","input":"' + b"x" * 2000 + b'"}'
    headers = {SCENARIO: scenario, "content-type": "application/json"}
    with tight.figures(1) as delta, Client(tight.port) as client:
        if chunked:
            client.send(client.head_of("POST", path, {**headers, "transfer-encoding": "chunked"}))
            client.send(answers.chunk(body) + answers.END)
        else:
            client.request("POST", path, body, headers)
        answer = client.answer()
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert "2000" in answer.error["message"]
    assert delta["errors.by_type.body_too_large"] == 1
    assert upstream.of(scenario) == []


def test_a_declared_body_that_is_too_large_is_refused_unread(
    tight: Sidecar, upstream: ScriptedUpstream
) -> None:
    scenario = upstream.plan([OK])
    with Client(tight.port) as client:
        headers = {SCENARIO: scenario, "content-type": "audio/wav", "content-length": "100001"}
        client.send(client.head_of("POST", "/v1/audio/transcriptions", headers))
        answer = client.answer()
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert upstream.of(scenario) == []


def test_a_streamed_body_that_grows_too_large(tight: Sidecar, upstream: ScriptedUpstream) -> None:
    """Nobody said how long it is; the upstream never gets it as if it were whole."""
    scenario = upstream.plan([OK])
    with tight.figures(1) as delta, Client(tight.port) as client:
        headers = {SCENARIO: scenario, "content-type": "audio/wav", "transfer-encoding": "chunked"}
        client.send(client.head_of("POST", "/v1/audio/transcriptions", headers))
        sender = client.send_aside(b"".join(answers.chunk(b"x" * 10_000) for _ in range(30)) + answers.END)
        answer = client.answer()
    sender.join(5)
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert delta["errors.by_type.body_too_large"] == 1
    for exchange in upstream.of(scenario):
        assert exchange.received_at is None
        upstream.closing(exchange)


def test_a_body_at_the_bound_passes(tight: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([OK])
    answer = tight.call("POST", "/v1/audio/transcriptions", b"x" * 100_000, {"content-type": "a/b"}, scenario)
    assert answer.status == 200
    assert len(upstream.only(scenario).body) == 100_000


@pytest.mark.parametrize("how", ["one-long", "many", "target"])
def test_headers_that_are_too_large(tight: Sidecar, upstream: ScriptedUpstream, how: str) -> None:
    scenario = upstream.plan([OK])
    more = {
        "one-long": {"x-a": "a" * 5000},
        "many": {f"x-{number}": "a" * 50 for number in range(100)},
        "target": {},
    }[how]
    target = "/v1/files?" + "a" * 5000 if how == "target" else "/v1/files"
    with Client(tight.port) as client:
        client.send(client.head_of("GET", target, {SCENARIO: scenario, **more}))
        answer = client.answer()
        assert answer.status == 431
        assert answer.error["message"]
        assert client.closed()
    assert upstream.of(scenario) == []


def test_headers_that_never_end(tight: Sidecar) -> None:
    """More than the bound without a line end: refused before there is a request."""
    with Client(tight.port) as client:
        sender = client.send_aside(b"GET /v1/files HTTP/1.1\r\nx-a: " + b"a" * 1_000_000)
        assert client.answer().status == 431
    sender.join(5)


@pytest.mark.parametrize("lead", [b"", b"GET /v1/mo", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-a: "])
def test_headers_that_come_too_slowly(tight: Sidecar, lead: bytes) -> None:
    with Client(tight.port) as client:
        began = time.monotonic()
        if lead:
            client.send(lead)
            assert client.answer().status == 408
        assert client.closed()
        assert 0.3 < time.monotonic() - began < 3


def test_a_slow_second_head_on_a_kept_connection(tight: Sidecar) -> None:
    with Client(tight.port) as client:
        client.request("GET", "/v1/models")
        assert client.answer("GET").status == 200
        client.send(b"GET /v1/mod")
        assert client.answer().status == 408
        assert client.closed()


def test_a_slow_body_is_not_a_slow_head(tight: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([OK])
    with Client(tight.port) as client:
        headers = {SCENARIO: scenario, "content-type": "a/b", "content-length": "4"}
        client.send(client.head_of("POST", "/v1/files", headers))
        for byte in (b"a", b"b", b"c", b"d"):
            time.sleep(0.25)  # slower than the head may be
            client.send(byte)
        assert client.answer().status == 200


def test_more_requests_at_once_than_allowed(tight: Sidecar, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    scenario = upstream.plan([gate, OK])
    with tight.figures(6) as delta, ThreadPoolExecutor(4) as pool:
        held = [pool.submit(tight.chat, scenario) for _ in range(4)]
        upstream.until(lambda: len(upstream.of(scenario)) == 4, "four held requests")
        for _ in range(2):
            answer = tight.chat(scenario)
            assert (answer.status, answer.error["code"]) == (429, "too_many_requests")
            assert int(answer.header("retry-after") or 0) >= 1
        assert tight.health()["requests"]["active"] == 4
        gate.open()
        assert [each.result().status for each in held] == [200] * 4
    assert delta["errors.by_type.too_many_requests"] == 2
    assert tight.chat().status == 200


@pytest.mark.parametrize("shape", ["arrays", "objects"])
def test_depth(tight: Sidecar, shape: str) -> None:
    def nested(depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value] if shape == "arrays" else {"a": value}
        return value

    # The body itself is the first level.
    assert tight.chat(extra=nested(15)).status == 200
    answer = tight.chat(extra=nested(16))
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    ],
)
def test_what_is_no_http(sidecar: Sidecar, raw: bytes) -> None:
    with Client(sidecar.port) as client:
        client.send(raw)
        answer = client.answer()
        assert answer.status == 400
        assert client.closed()


def test_a_broken_upload_is_never_passed_on_as_whole(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([OK])
    with sidecar.requests() as lines, Client(sidecar.port) as client:
        headers = {SCENARIO: scenario, "transfer-encoding": "chunked"}
        client.send(client.head_of("POST", "/v1/files", headers) + answers.chunk(b"abc") + b"zz\r\n")
        assert client.closed()
    assert lines[0]["end"] != "completed"
    for exchange in upstream.of(scenario):
        assert exchange.received_at is None
        upstream.closing(exchange)


def test_content_length_beside_chunked_is_never_passed_on(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    """The classic of request smuggling: refused, or up with one framing only."""
    scenario = upstream.plan([OK])
    with Client(sidecar.port) as client:
        headers = {SCENARIO: scenario, "content-length": "4", "transfer-encoding": "chunked"}
        client.send(client.head_of("POST", "/v1/files", headers) + answers.chunk(b"0123456789") + answers.END)
        assert client.answer().status in (200, 400)
    for exchange in upstream.of(scenario):
        framings = [name for name, _ in exchange.headers if name in ("content-length", "transfer-encoding")]
        assert len(framings) == 1
        assert bytes(exchange.body) == b"0123456789"


def resident_mb(sidecar: Sidecar) -> float:
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return float(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_memory_while_a_large_body_passes(spawn: Start, upstream: ScriptedUpstream) -> None:
    """200 MB up to an upstream that reads them: the sidecar holds a small part at any time."""
    sidecar = spawn()
    assert sidecar.chat().status == 200
    before = resident_mb(sidecar)
    gate = upstream.gate()
    scenario = upstream.plan([OK, gate])
    piece = b"x" * 1_000_000
    peak = before
    with sidecar.connect() as client:
        headers = {SCENARIO: scenario, "content-type": "a/b", "content-length": "200000000"}
        client.send(client.head_of("POST", "/v1/files", headers))
        for _ in range(200):
            client.send(piece)
            peak = max(peak, resident_mb(sidecar))
        assert client.answer().status == 200
    gate.open()
    assert len(upstream.only(scenario).body) == 200_000_000
    upstream.only(scenario).body.clear()
    print(f"resident: {before:.0f} MB before, {peak:.0f} MB at most")
    assert peak - before < 40


def test_a_request_beside_a_held_one_is_served(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """One app that sends nothing holds nobody up."""
    with Client(sidecar.port) as slow:
        slow.send(slow.head_of("POST", "/v1/chat/completions", {"content-length": "500"}))
        assert sidecar.chat().status == 200
        body = chat_body(pad="x" * 1000)
        assert sidecar.call("POST", "/v1/chat/completions", body).status == 200
