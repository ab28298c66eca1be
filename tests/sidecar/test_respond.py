"""What the sidecar words itself: refusals, faults, wrapped errors, masked keys, the list of models."""

from __future__ import annotations

import json

import pytest

from inference_sidecar import models, respond
from inference_sidecar.errors import UpstreamConnectError
from inference_sidecar.records import Headers, Reason, Refusal

KEY = b"sk-secret"


def mask(text: bytes) -> bytes:
    return text.replace(KEY, b"***")


def error_of(body: bytes) -> dict[str, object]:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_status_and_openais_shape(reason: Reason) -> None:
    reply = respond.refusal(Refusal(reason, "why", "field"))
    assert 400 <= reply.status < 600
    error = error_of(reply.body)
    assert error["message"] == "why"
    assert error["param"] == "field"
    assert error["code"] == (None if reason is Reason.INVALID_REQUEST else reason.value)


def test_a_fault_says_which_and_stops_the_sdk_after_our_own_tries() -> None:
    error = UpstreamConnectError("No connection.")
    reply = respond.fault(error, exhausted=True)
    assert reply.status == 500
    assert error_of(reply.body)["code"] == "upstream_connect_error"
    assert (b"x-should-retry", b"false") in reply.headers
    assert b"x-should-retry" not in dict(respond.fault(error, exhausted=False).headers)


def upstream_error(
    status: int, headers: Headers, body: bytes, *, exhausted: bool = False, method: str = "POST"
) -> respond.Reply:
    return respond.upstream_error(status, headers, body, exhausted=exhausted, mask=mask, method=method)


def test_json_passes_as_it_came_with_its_headers() -> None:
    body = b'{"detail": "no such thing"}'
    headers = [
        (b"content-type", b"application/json"),
        (b"retry-after", b"3"),
        (b"x-request-id", b"r"),
        (b"set-cookie", b"c"),
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
    ]
    reply = upstream_error(404, headers, body)
    assert (reply.status, reply.body) == (404, body)
    assert reply.headers == headers[:3]


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_wrapped(body: bytes) -> None:
    reply = upstream_error(502, [(b"content-type", b"text/html"), (b"retry-after", b"3")], body)
    assert reply.status == 502
    assert dict(reply.headers)[b"content-type"] == b"application/json"
    assert dict(reply.headers)[b"retry-after"] == b"3"
    error = error_of(reply.body)
    assert error["code"] == "upstream_http_error"
    assert "502" in str(error["message"])


def test_the_key_is_masked_in_body_and_headers() -> None:
    for body in (b'{"error": "bad key sk-secret"}', b"<p>sk-secret</p>"):
        reply = upstream_error(401, [(b"x-echo", b"Bearer sk-secret")], body)
        assert KEY not in reply.body
        assert all(KEY not in value for _, value in reply.headers)


def test_exhausted_overrides_the_upstreams_word() -> None:
    reply = upstream_error(503, [(b"x-should-retry", b"true")], b"{}", exhausted=True)
    assert [value for name, value in reply.headers if name == b"x-should-retry"] == [b"false"]


def test_message_of() -> None:
    assert respond.message_of(b'{"error": {"message": "m"}}') == "m"
    assert respond.message_of(b"nothing") == "nothing"


LISTING = b'{"object": "list",  "data": [{"id": "gpt-4"}, {"id": "whisper-1"}], "x": 1}'


def test_models_keep_their_bytes_where_nothing_is_hidden() -> None:
    assert models.visible(LISTING, None) is LISTING
    assert models.visible(LISTING, lambda _: True) is LISTING
    for body in (b"no json", b"[]", b'{"data": 3}'):
        assert models.visible(body, lambda _: False) is body


def test_models_are_cut() -> None:
    assert json.loads(models.visible(LISTING, lambda name: "gpt" in name)) == {
        "object": "list",
        "data": [{"id": "gpt-4"}],
        "x": 1,
    }


def test_a_hidden_model_is_not_found() -> None:
    refused = models.hidden("whisper-1", lambda name: "gpt" in name)
    assert refused is not None
    assert (refused.reason, refused.param, refused.code) == (
        Reason.MODEL_NOT_FOUND,
        "model",
        "model_not_found",
    )
    assert models.hidden("gpt-4", lambda name: "gpt" in name) is None
    assert models.hidden("anything", None) is None
