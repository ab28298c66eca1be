"""Chat completions as an app sees them, and as the upstream sees them.

Covers: the body goes up byte by byte but for what is added; default_model, allowed_models, validation off; each
refusal in OpenAI's shape and without an upstream request; headers both ways; request ids; errors of the upstream
passed on, wrapped, masked; compressed answers; JSON in answer to `stream: true`.
Left out: the table of parameters (test_validate), retries (test_retries), streams (test_streams).
"""

from __future__ import annotations

import gzip
import json

import pytest

from harness import answers
from harness.process import Sidecar, Start, chat_body
from harness.upstream import ScriptedUpstream

ODD_BODY = (
    b'{ "messages" : [ {"content":"h\\u00e9, \xc3\xa9 \\ud83d\\ude00","role":"user"} ] ,\n'
    b'\t"model":"gpt-4", "temperature":1.0, "top_p":1e0, "unknown_field": {"b":[1,2],"a":null}, "n": null }'
)


def test_the_body_goes_up_as_it_came(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.call(
            "POST", "/v1/chat/completions?x=%2F&y", ODD_BODY, {"content-type": "application/json"}, scenario
        )
    exchange = upstream.only(scenario)
    assert bytes(exchange.body) == ODD_BODY
    assert (exchange.method, exchange.target) == ("POST", "/v1/chat/completions?x=%2F&y")
    assert (answer.status, answer.body) == (200, answers.dense(answers.completion()))
    assert [delta[f"tokens.{name}"] for name in ("prompt", "completion", "total")] == [10, 3, 13]
    assert delta["errors.total"] == 0
    assert lines[0]["usage"] == answers.USAGE
    assert (lines[0]["endpoint"], lines[0]["end"], lines[0]["attempts"]) == ("chat", "completed", 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"messages":[{"role":"user","content":"x"}]}', "default"),
        (b'{"model":null,"messages":[{"role":"user","content":"x"}]}', "default"),
        (b'{"model":"other","messages":[{"role":"user","content":"x"}]}', "other"),
    ],
)
def test_default_model(start: Start, upstream: ScriptedUpstream, body: bytes, expected: str) -> None:
    sidecar = start({"inference": {"default_model": "default"}})
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    assert sidecar.call("POST", "/v1/chat/completions", body, None, scenario).status == 200
    sent = upstream.only(scenario)
    assert sent.json == {**json.loads(body), "model": expected}
    assert b'"messages":[{"role":"user","content":"x"}]' in sent.body


REFUSED = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "robot", "content": "x"}]}, "messages[1].role"),
    ({"temperature": 3.0}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 131073}, "max_tokens"),
    ({"n": 129}, "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"frequency_penalty": -2.1, "presence_penalty": 9}, "frequency_penalty"),
    ({"stream": "yes"}, "stream"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_refusal_never_reaches_the_upstream(
    sidecar: Sidecar, upstream: ScriptedUpstream, fields: dict[str, object], param: str
) -> None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    body = {**chat_body(), **fields}
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.call("POST", "/v1/chat/completions", body, None, scenario)
    assert answer.status == 400
    assert (answer.error["param"], answer.error["type"]) == (param, "invalid_request_error")
    assert upstream.of(scenario) == []
    assert (delta["errors.total"], delta["errors.by_type.invalid_request"]) == (1, 1)
    assert (lines[0]["end"], lines[0]["param"]) == ("refused", param)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"null", b"{}trailing", b"{" * 5000]
)
def test_what_is_no_json_object_is_refused(sidecar: Sidecar, body: bytes) -> None:
    answer = sidecar.call("POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


def test_a_model_given_twice_is_refused(sidecar: Sidecar) -> None:
    body = b'{"model":"gpt-4","messages":[{"role":"user","content":"x"}],"mod\\u0065l":"gpt-4"}'
    assert sidecar.call("POST", "/v1/chat/completions", body).status == 400


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/completions"]
)
@pytest.mark.parametrize("validation", ["strict", "off"])
def test_allowed_models(start: Start, upstream: ScriptedUpstream, path: str, validation: str) -> None:
    sidecar = start({"inference": {"allowed_models": ["gpt-4*", "tiny"], "validation": validation}})
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    more = {"messages": [{"role": "user", "content": "x"}], "input": "x"}
    with sidecar.figures(1) as delta:
        refused = sidecar.call("POST", path, {"model": "o3", **more}, None, scenario)
    assert (refused.status, refused.error["param"], refused.error["code"]) == (
        400,
        "model",
        "model_not_allowed",
    )
    assert delta["errors.by_type.model_not_allowed"] == 1
    assert upstream.of(scenario) == []
    for model in ("gpt-4o-mini", "tiny"):
        assert sidecar.call("POST", path, {"model": model, **more}, None, scenario).status == 200


def test_validation_off_leaves_the_body_unread(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"validation": "off"}})
    refusal = answers.error(400, "bad", "invalid_request_error", "bad_thing")
    scenario = upstream.plan([refusal])
    answer = sidecar.call("POST", "/v1/chat/completions", b"{not json", None, scenario)
    assert (answer.status, answer.error["code"]) == (400, "bad_thing")
    assert bytes(upstream.only(scenario).body) == b"{not json"


def test_headers_up(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    sent = {
        "authorization": "Bearer sk-of-the-app",
        "api-key": "of-the-app",
        "cookie": "session=1",
        "proxy-authorization": "Basic eDp5",
        "connection": "keep-alive, x-private",
        "x-private": "hop",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "upgrade": "h2c",
        "openai-organization": "org-app",
        "openai-project": "proj-app",
        "openai-beta": "assistants=v2",
        "x-client-request-id": "client-1",
        "user-agent": "app/1",
        "idempotency-key": "abc",
    }
    assert sidecar.chat(scenario, sent).status == 200
    exchange = upstream.only(scenario)
    names = [name for name, _ in exchange.headers]
    assert exchange.header("authorization") == f"Bearer {sidecar.key}"
    assert len(names) == len(set(names)), f"a header twice: {names}"
    gone = {"api-key", "cookie", "proxy-authorization", "x-private", "keep-alive", "te", "upgrade"}
    assert gone.isdisjoint(names)
    for name in (
        "openai-organization",
        "openai-project",
        "openai-beta",
        "x-client-request-id",
        "idempotency-key",
    ):
        assert exchange.header(name) == sent[name]
    assert exchange.header("host") == f"127.0.0.1:{upstream.port}"
    assert exchange.header("content-length") == str(len(exchange.body))


def test_configured_headers_replace_the_apps_own(start: Start, upstream: ScriptedUpstream) -> None:
    fixed = {"organization_id": "org-ours", "project_id": "proj-ours", "extra_headers": {"X-Team": "blue"}}
    sidecar = start({"inference": fixed})
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    sent = {"openai-organization": "org-app", "openai-project": "p", "x-team": "red"}
    assert sidecar.chat(scenario, sent).status == 200
    exchange = upstream.only(scenario)
    found = [
        value
        for name, value in exchange.headers
        if name in ("openai-organization", "openai-project", "x-team")
    ]
    assert sorted(found) == ["blue", "org-ours", "proj-ours"]


def test_headers_down(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    kept = {
        "x-request-id": "req_1",
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "openai-organization": "org",
        "x-ratelimit-remaining-tokens": "99",
        "retry-after-ms": "5",
        "apim-request-id": "a1",
        "x-ms-region": "West",
    }
    lines = [f"{name}: {value}" for name, value in kept.items()]
    gone = [
        "connection: x-hop",
        "x-hop: 1",
        "keep-alive: timeout=9",
        "set-cookie: __cf_bm=1",
        "proxy-authenticate: x",
    ]
    scenario = upstream.plan([answers.json_answer(answers.completion(), *lines, *gone)])
    answer = sidecar.chat(scenario)
    assert {name: answer.header(name) for name in kept} == kept
    names = [name for name, _ in answer.headers]
    assert {"x-hop", "keep-alive", "set-cookie", "proxy-authenticate"}.isdisjoint(names)
    assert names.count("content-length") + names.count("transfer-encoding") == 1
    assert names.count("x-request-id") == 1


def test_a_request_id_is_made_where_there_is_none(sidecar: Sidecar, upstream: ScriptedUpstream) -> None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    with sidecar.requests(2) as lines:
        made = [
            sidecar.chat(scenario).header("x-request-id"),
            sidecar.chat(temperature=9).header("x-request-id"),
        ]
    assert all(made)
    assert len(set(made)) == 2
    assert {line["request_id"] for line in lines} == set(made)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "context_length_exceeded"),
        (401, "invalid_api_key"),
        (403, "denied"),
        (404, "model_not_found"),
        (422, "x"),
    ],
)
def test_an_error_of_the_upstream_goes_down_as_it_came(
    sidecar: Sidecar, upstream: ScriptedUpstream, status: int, code: str
) -> None:
    refusal = answers.error(
        status, "as the upstream worded it", "invalid_request_error", code, "x-request-id: req_e"
    )
    scenario = upstream.plan([refusal])
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario)
    assert (answer.status, answer.body) == (status, refusal.partition(b"\r\n\r\n")[2])
    assert answer.header("x-request-id") == "req_e"
    assert delta[f"errors.by_type.upstream_http_{status}"] == 1
    assert len(upstream.of(scenario)) == 1


@pytest.mark.parametrize("stream", [None, True])
def test_an_error_page_is_wrapped(sidecar: Sidecar, upstream: ScriptedUpstream, stream: bool | None) -> None:
    scenario = upstream.plan([answers.answer(413, answers.HTML, "x-request-id: r", kind="text/html")])
    answer = sidecar.chat(scenario, stream=stream)
    assert (answer.status, answer.error["code"]) == (413, "upstream_http_error")
    assert answer.header("x-request-id") == "r"


@pytest.mark.parametrize("stream", [None, True])
def test_a_key_in_an_error_of_the_upstream_is_masked(
    sidecar: Sidecar, upstream: ScriptedUpstream, stream: bool | None
) -> None:
    told = f"Incorrect API key provided: {sidecar.key}."
    json_error = answers.error(
        401, told, "invalid_request_error", "invalid_api_key", f"x-echo: {sidecar.key}"
    )
    page = answers.answer(401, told.encode(), kind="text/plain")
    scenario = upstream.plan([json_error], [page])
    for _ in range(2):
        answer = sidecar.chat(scenario, stream=stream)
        assert answer.status == 401
        assert "Incorrect API key provided" in answer.error["message"]
        assert sidecar.key not in repr(answer)


def test_an_error_inside_a_200_goes_down_and_counts_as_failed(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    body = {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": 529}}
    scenario = upstream.plan([answers.json_answer(body)])
    with sidecar.figures(1) as delta, sidecar.requests() as lines:
        answer = sidecar.chat(scenario)
    assert (answer.status, answer.json) == (200, body)
    assert delta["errors.by_type.upstream_error_event"] == 1
    assert lines[0]["end"] == "failed"


def test_a_stream_answered_with_json_is_relayed_as_it_is(
    sidecar: Sidecar, upstream: ScriptedUpstream
) -> None:
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    with sidecar.figures(1) as delta:
        answer = sidecar.chat(scenario, stream=True)
    assert (answer.status, answer.body) == (200, answers.dense(answers.completion()))
    assert (answer.header("content-type") or "").startswith("application/json")
    assert delta["tokens.total"] == 13
    assert (delta["streams.started"], delta["errors.total"], delta["requests.streaming"]) == (0, 0, 1)


@pytest.mark.parametrize("accepted", [None, "gzip"])
def test_compressed_only_where_the_app_accepts_it(
    sidecar: Sidecar, upstream: ScriptedUpstream, accepted: str | None
) -> None:
    packed = gzip.compress(answers.dense(answers.completion()))
    plain = answers.json_answer(answers.completion())
    scenario = upstream.plan([answers.answer(200, packed, "content-encoding: gzip") if accepted else plain])
    answer = sidecar.chat(scenario, {"accept-encoding": accepted} if accepted else {})
    asked = upstream.only(scenario).header("accept-encoding")
    if accepted is None:
        assert asked in (None, "identity")
        assert answer.json == answers.completion()
    else:
        assert asked == "gzip"
        assert (answer.header("content-encoding"), answer.body) == ("gzip", packed)
