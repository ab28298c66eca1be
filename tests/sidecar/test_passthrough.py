"""Everything under /v1 that the sidecar does not read: any method, both directions streamed, nowhere else.

Covers: methods, bodies of any kind up and down, query strings, HEAD, empty answers, redirects; large bodies stream
through; Expect: 100-continue; an answer that comes before the upload was read; paths that try to leave base_url;
unknown paths; metering of embeddings; the list of models.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

import pytest

from harness import answers
from harness.client import Client
from harness.process import Sidecar, Start, chat_body
from harness.upstream import CLOSE, DEAF, EARLY, HANG, SCENARIO, ScriptedUpstream

OK = answers.json_answer({"ok": True})
BINARY = bytes(range(256)) * 5000


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_any_method(sidecar: Sidecar, upstream: ScriptedUpstream, method: str) -> None:
    scenario = upstream.plan([answers.json_answer({"ok": True}, "x-request-id: r1", status=201)])
    body = None if method == "GET" else b"\x00\x01any"
    with sidecar.figures(1) as delta:
        answer = sidecar.call(method, "/v1/vector_stores/vs_1?after=a%20b&limit=2", body, None, scenario)
    assert (answer.status, answer.json, answer.header("x-request-id")) == (201, {"ok": True}, "r1")
    exchange = upstream.only(scenario)
    assert (exchange.method, exchange.target) == (method, "/v1/vector_stores/vs_1?after=a%20b&limit=2")
    assert bytes(exchange.body) == (body or b"")
    assert exchange.header("authorization") == f"Bearer {sidecar.key}"
    assert delta["errors.total"] == 0


def test_head_and_empty_answers(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.head(200, "content-type: application/json", "content-length: 500")])
    answer = sidecar.call("HEAD", "/v1/files/f", scenario=scenario)
    assert (answer.status, answer.body) == (200, b"")
    assert upstream.only(scenario).method == "HEAD"
    scenario = upstream.plan([answers.head(204, "x-request-id: r")])
    answer = sidecar.call("DELETE", "/v1/files/f", scenario=scenario)
    assert (answer.status, answer.body, answer.header("x-request-id")) == (204, b"", "r")


@pytest.mark.parametrize(
    "early", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"]
)
def test_interim_answers_are_not_the_answer(
    sidecar: Sidecar, upstream: ScriptedUpstream, early: bytes
) -> None:
    scenario = upstream.plan([early, early, OK])
    with sidecar.connect() as client:
        client.request("POST", "/v1/files", b"x", {SCENARIO: scenario})
        answer = client.answer()
    assert (answer.status, answer.json) == (200, {"ok": True})


def test_a_redirect_is_passed_back(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    away = answers.head(307, "location: http://elsewhere.invalid/v1/files", "content-length: 0")
    scenario = upstream.plan([away])
    answer = sidecar.call("POST", "/v1/files", b"x", None, scenario)
    assert (answer.status, answer.header("location")) == (307, "http://elsewhere.invalid/v1/files")
    assert len(upstream.of(scenario)) == 1


def test_multipart_up_and_binary_down(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    kind = "multipart/form-data; boundary=abc"
    body = (
        b'--abc\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + BINARY
        + b"\r\n--abc--\r\n"
    )
    scenario = upstream.plan(
        [answers.answer(200, BINARY, 'content-disposition: attachment; filename="s.mp3"', kind="audio/mpeg")]
    )
    answer = sidecar.call("POST", "/v1/audio/transcriptions", body, {"content-type": kind}, scenario)
    exchange = upstream.only(scenario)
    assert bytes(exchange.body) == body
    assert exchange.header("content-type") == kind
    assert (answer.body, answer.header("content-type")) == (BINARY, "audio/mpeg")
    assert answer.header("content-length") == str(len(BINARY))
    assert answer.header("content-disposition") == 'attachment; filename="s.mp3"'


def test_a_chunked_upload(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([OK])
    parts = [BINARY[at : at + 50_000] for at in range(0, len(BINARY), 50_000)]
    with sidecar.connect() as client:
        lead = {
            SCENARIO: scenario,
            "content-type": "application/octet-stream",
            "transfer-encoding": "chunked",
        }
        client.send(client.head_of("POST", "/v1/uploads/u/parts", lead))
        for part in parts:
            client.send(answers.chunk(part))
        client.send(answers.END)
        assert client.answer().status == 200
    assert bytes(upstream.only(scenario).body) == BINARY


def test_bodies_are_streamed_not_collected(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    """The first half of an upload arrives before the second is sent; the same on the way down."""
    gate = upstream.gate()
    head = answers.head(200, "content-type: audio/mpeg", "content-length: 200000")
    scenario = upstream.plan([head, b"a" * 100_000, gate, b"b" * 100_000])
    with sidecar.connect() as client:
        headers = {SCENARIO: scenario, "content-type": "audio/wav", "content-length": "200000"}
        client.send(client.head_of("POST", "/v1/audio/translations", headers) + b"x" * 100_000)
        upstream.until(
            lambda: upstream.of(scenario) and len(upstream.of(scenario)[0].body) == 100_000, "half"
        )
        client.send(b"y" * 100_000)
        assert client.head().status == 200
        got = b""
        while len(got) < 100_000:
            got += client.piece() or b""
        gate.open()
        while (piece := client.piece()) is not None:
            got += piece
    assert got == b"a" * 100_000 + b"b" * 100_000


def test_a_large_body_passes_through(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    body = b"0123456789abcdef" * 2_500_000
    scenario = upstream.plan([answers.answer(200, body, kind="application/octet-stream")])
    answer = sidecar.call("POST", "/v1/files", body, {"content-type": "application/octet-stream"}, scenario)
    assert hashlib.sha256(upstream.only(scenario).body).digest() == hashlib.sha256(body).digest()
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
    upstream.only(scenario).body.clear()


@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions"])
def test_expect_100_continue(sidecar: Sidecar, upstream: ScriptedUpstream, path: str) -> None:
    scenario = upstream.plan([OK])
    body = b'{"model":"gpt-4","messages":[{"role":"user","content":"x"}]}'
    with sidecar.connect() as client:
        headers = {SCENARIO: scenario, "expect": "100-continue", "content-length": str(len(body))}
        client.send(client.head_of("POST", path, headers))
        assert client.head(informational=True).status == 100
        client.send(body)
        assert client.answer().status == 200
    assert bytes(upstream.only(scenario).body) == body


@pytest.mark.parametrize("status", [400, 401, 413])
@pytest.mark.parametrize("deaf", [True, False], ids=["deaf", "reading"])
def test_an_answer_before_the_upload_was_read(
    sidecar: Sidecar, upstream: ScriptedUpstream, status: int, deaf: bool
) -> None:
    """It answers, closes, and leaves most of the upload unread: the app gets the answer."""
    refusal = answers.error(status, "no", "invalid_request_error", "early", "connection: close")
    scenario = upstream.plan([EARLY, *([DEAF] if deaf else []), refusal, CLOSE])
    size = 20_000_000
    for _ in range(5):
        with sidecar.connect() as client:
            headers = {
                SCENARIO: scenario,
                "content-type": "application/octet-stream",
                "content-length": str(size),
            }
            client.send(client.head_of("POST", "/v1/files", headers))
            sender = client.send_aside(b"x" * size)
            answer = client.answer()
        sender.join(5)
        assert (answer.status, answer.error["code"]) == (status, "early")
    assert len(upstream.of(scenario)) == 5


BASE = "/tenant/v1"
TRICKS = [
    "/v1/..",
    "/v1/../admin",
    "/v1/../../admin",
    "/v1/./../admin",
    "/v1/%2e%2e/admin",
    "/v1/%2E%2e/%2e./admin",
    "/v1/.%2e/admin",
    "/v1/files/..%2f..%2fadmin",
    "/v1/files/%2e%2e%2fadmin",
    "/v1/files/%252e%252e/%252e%252e/admin",
    "/v1/files/..%5c..%5cadmin",
    "/v1/files\\..\\..\\admin",
    "/v1/..;/admin",
    "/v1/;/../admin",
    "/v1//elsewhere.invalid/admin",
    "/v1/@elsewhere.invalid/",
    "/v1/http://elsewhere.invalid/",
    "/v1%2f..%2fadmin",
    "/v1/%00/../admin",
    "/v1/a#/../../admin",
    "//v1/../admin",
    "//elsewhere.invalid/v1/models",
    "/v1x/models",
    "/V1/models",
    "http://elsewhere.invalid/v1/files",
    "http://elsewhere.invalid/v1/../admin",
    "/v1?/../admin",
    "/v1/%",
    "/v1/%zz/..",
    "/v1/\xe9",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_path_leaves_base_url(start: Start, upstream: ScriptedUpstream, trick: str) -> None:
    """Refused, or up below base_url and on no other host; decoded as often as one likes."""
    sidecar = start(base_url=f"{upstream.url}{BASE}")
    scenario = upstream.plan([OK])
    with sidecar.connect() as client:
        client.request("GET", trick, None, {SCENARIO: scenario})
        status = client.answer("GET").status
    assert status in (200, 400, 403, 404)
    for exchange in upstream.of(scenario):
        path = exchange.target.partition("?")[0]
        for _ in range(4):
            assert path.startswith((f"{BASE}/", BASE)), exchange.target
            assert ".." not in re.split(r"[/\\;]", path), exchange.target
            path = unquote(path)
        assert exchange.header("host") == f"127.0.0.1:{upstream.port}"
    assert (status == 200) == (len(upstream.of(scenario)) == 1)


def test_an_encoded_slash_stays_encoded(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer(answers.model("org/name"))])
    assert sidecar.call("GET", "/v1/models/org%2Fname", scenario=scenario).status == 200
    assert upstream.only(scenario).target == "/v1/models/org%2Fname"


@pytest.mark.parametrize(
    "path", ["/", "/v2/chat/completions", "/metrics", "/status", "/openai/deployments/x/chat"]
)
def test_an_unknown_path(sidecar: Sidecar, upstream: ScriptedUpstream, path: str) -> None:
    scenario = upstream.plan([OK])
    answer = sidecar.call("GET", path, scenario=scenario)
    assert answer.status == 404
    assert answer.error["code"]
    assert upstream.of(scenario) == []


def test_embeddings_are_metered(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer(answers.embeddings())])
    body = b'{ "input":["a"],  "model":"text-embedding-3-small" }'
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.call("POST", "/v1/embeddings", body, {"content-type": "application/json"}, scenario)
    assert answer.json == answers.embeddings()
    assert bytes(upstream.only(scenario).body) == body
    assert (delta["tokens.prompt"], delta["tokens.total"], lines[0]["endpoint"]) == (5, 5, "embeddings")


def test_a_get_that_hangs_ends_in_time(hasty: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([HANG])
    answer = hasty.call("GET", "/v1/files", scenario=scenario)
    assert (answer.status, answer.error["code"]) == (500, "upstream_timeout")


def test_pipelined_requests_are_answered_in_order(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    first, second = (
        upstream.plan([answers.json_answer({"n": 1})]),
        upstream.plan([answers.json_answer({"n": 2})]),
    )
    with Client(sidecar.port) as client:
        heads = [client.head_of("GET", "/v1/files", {SCENARIO: name}) for name in (first, second)]
        client.send(b"".join(heads))
        assert [client.answer("GET").json["n"] for _ in range(2)] == [1, 2]


# The list of models.


def ids(sidecar: Sidecar) -> list[str]:
    answer = sidecar.call("GET", "/v1/models")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    return [model["id"] for model in answer.json["data"]]


def test_models_come_down_unfiltered_from_other_hosts(sidecar: Sidecar) -> None:
    assert ids(sidecar) == list(answers.MODELS)


def test_models_filtered_and_cut(start: Start) -> None:
    filtered = start({"inference": {"model_filter": ["*gpt*", "*davinci*"]}})
    assert ids(filtered) == ["gpt-4", "gpt-3.5-turbo", "davinci-002"]
    both = start({"inference": {"model_filter": ["*gpt*"], "allowed_models": ["gpt-4", "whisper-1"]}})
    assert ids(both) == ["gpt-4"]
    assert both.call("GET", "/v1/models/gpt-4").json["id"] == "gpt-4"
    for hidden in ("whisper-1", "gpt-3.5-turbo", "no-such"):
        answer = both.call("GET", f"/v1/models/{hidden}")
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_allowed_models_hold_for_a_body_of_any_kind(start: Start, upstream: ScriptedUpstream) -> None:
    """A JSON body names a model also where its content-type says otherwise."""
    sidecar = start({"inference": {"allowed_models": ["gpt-4"]}})
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    for kind in ("text/plain", "application/json; charset=utf-8", "application/vnd.api+json"):
        answer = sidecar.call(
            "POST", "/v1/chat/completions", chat_body(model="o3"), {"content-type": kind}, scenario
        )
        assert (answer.status, answer.error["code"]) == (400, "model_not_allowed")
    assert upstream.of(scenario) == []
