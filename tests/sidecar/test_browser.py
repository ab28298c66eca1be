"""Who may come in: both loopbacks, and no web page from elsewhere.

Covers: 127.0.0.1 and ::1 on one port; Host and Origin that are loopback, listed or neither (DNS rebinding, cross
site requests); CORS answers and preflights; that a refusal reaches no upstream; the admin port.
"""

from __future__ import annotations

import pytest

from harness import answers
from harness.client import Answer, call
from harness.process import Sidecar, Start, chat_body
from harness.upstream import ScriptedUpstream


def test_both_loopbacks(sidecar: Sidecar) -> None:
    assert sidecar.api == [f"http://127.0.0.1:{sidecar.port}", f"http://[::1]:{sidecar.port}"]
    for host in ("127.0.0.1", "::1"):
        answer = call(sidecar.port, "POST", "/v1/chat/completions", chat_body(), host=host)
        assert answer.status == 200


def test_a_given_host_is_the_only_one(start: Start) -> None:
    sidecar = start({"server": {"host": "127.0.0.1"}})
    assert sidecar.api == [f"http://127.0.0.1:{sidecar.port}"]
    with pytest.raises(ConnectionRefusedError):
        call(sidecar.port, "GET", "/v1/models", host="::1")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:9",
        "127.8.8.8",
        "[::1]",
        "[::1]:3000",
        "app.localhost",
    ],
)
def test_a_loopback_host_comes_in(sidecar: Sidecar, host: str) -> None:
    assert sidecar.call("GET", "/v1/models", None, {"host": host}).status == 200


STRANGERS = [
    "evil.example",
    "evil.example:3000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "0.0.0.0",
    "10.0.0.1",
    "[fe80::1]",
    "[",
    "",
    "\xe9vil",
]


@pytest.mark.parametrize("host", STRANGERS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/nowhere"])
def test_another_host_is_refused(sidecar: Sidecar, upstream: ScriptedUpstream, host: str, path: str) -> None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    answer = sidecar.call("POST" if "chat" in path else "GET", path, chat_body(), {"host": host}, scenario)
    assert (answer.status, answer.error["code"]) == (403, "forbidden_host")
    assert upstream.of(scenario) == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://[",
        "http://",
        "localhost",
        "file://",
        "chrome-extension://abc",
        "http://10.0.0.1:3000",
    ],
)
def test_another_origin_is_refused(sidecar: Sidecar, upstream: ScriptedUpstream, origin: str) -> None:
    """Also for what a page may send without asking first: a form's POST of text/plain."""
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, {"origin": origin, "content-type": "text/plain"})
    assert (answer.status, answer.error["code"]) == (403, "forbidden_origin")
    assert answer.header("access-control-allow-origin") is None
    assert upstream.of(scenario) == []
    assert delta["errors.by_type.forbidden_origin"] == 1


def check_cors(answer: Answer, origin: str) -> None:
    assert answer.header("access-control-allow-origin") == origin
    assert "origin" in (answer.header("vary") or "").lower()
    assert [name for name, _ in answer.headers].count("access-control-allow-origin") == 1


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "https://localhost", "http://127.0.0.1:8080", "http://[::1]:3000"]
)
def test_a_loopback_origin_may_read(sidecar: Sidecar, upstream: ScriptedUpstream, origin: str) -> None:
    good = answers.json_answer(
        answers.completion(), "access-control-allow-origin: https://of-the-upstream.example"
    )
    scenario = upstream.plan([good])
    answer = sidecar.chat(scenario, {"origin": origin})
    assert answer.status == 200
    check_cors(answer, origin)
    assert answer.header("access-control-expose-headers") == "*"  # what the SDKs read, by whatever name
    assert upstream.only(scenario).header("origin") is None
    refused = sidecar.chat(headers={"origin": origin}, temperature=9)
    assert refused.status == 400
    check_cors(refused, origin)
    check_cors(sidecar.call("GET", "/health", None, {"origin": origin}), origin)
    check_cors(sidecar.chat(headers={"origin": origin}, stream=True), origin)


def test_preflight(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    seen = len(upstream.exchanges)
    asked = "authorization,content-type,x-stainless-os"
    headers = {
        "origin": "http://localhost:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    answer = sidecar.call("OPTIONS", "/v1/chat/completions", None, headers)
    assert answer.status in (200, 204)
    check_cors(answer, "http://localhost:5173")
    assert "POST" in (answer.header("access-control-allow-methods") or "")
    allowed = (answer.header("access-control-allow-headers") or "").lower().replace(" ", "")
    assert set(asked.split(",")) <= set(allowed.split(","))
    refused = sidecar.call(
        "OPTIONS", "/v1/chat/completions", None, {**headers, "origin": "https://evil.example"}
    )
    assert refused.status == 403
    assert refused.header("access-control-allow-origin") is None
    assert len(upstream.exchanges) == seen


def test_listed_hosts_and_origins(start: Start) -> None:
    lists = {"allowed_hosts": ["inference.local"], "allowed_origins": ["https://app.example"]}
    sidecar = start({"server": lists})
    assert sidecar.call("GET", "/v1/models", None, {"host": "inference.local:3000"}).status == 200
    assert sidecar.call("GET", "/v1/models", None, {"host": "other.local"}).status == 403
    answer = sidecar.call("GET", "/v1/models", None, {"origin": "https://app.example"})
    assert answer.status == 200
    check_cors(answer, "https://app.example")
    for origin in ("http://app.example", "https://app.example:444", "https://app.example.evil.example"):
        assert sidecar.call("GET", "/v1/models", None, {"origin": origin}).status == 403


def test_the_admin_port_serves_nothing_that_spends(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    seen = len(upstream.exchanges)
    for method, target in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/health")):
        assert (
            call(sidecar.admin_port, method, target, chat_body() if method == "POST" else None).status == 404
        )
    for target in ("/livez", "/readyz", "/status", "/metrics"):
        assert sidecar.admin(target).status == 200
    assert len(upstream.exchanges) == seen
