"""AdmissionReview read and answered, without a socket: what is a question and what is not, the form of each answer,
and any bytes at all (property).

Left out: what becomes of a pod (test_inject), the way here (test_webhook).
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pods import pod_object
from harness.webhook import review
from inference_operator.webhook.review import NotAReview, Review, allowed, parse, refused


def body(asked: Any) -> bytes:
    return json.dumps(asked).encode()


def test_a_question() -> None:
    pod = pod_object()
    assert parse(body(review(pod, uid="u", namespace="team", dryRun=True))) == Review("u", "team", pod, True)


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "UPDATE"},
        {"subResource": "ephemeralcontainers"},
        {"resource": {"group": "apps", "version": "v1", "resource": "deployments"}},
        {"resource": None},
    ],
)
def test_a_question_about_something_else(change: dict[str, Any]) -> None:
    assert parse(body(review(pod_object(), **change))).pod is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b"[]", "no AdmissionReview"),
        (body({**review(pod_object()), "apiVersion": "admission.k8s.io/v1beta1"}), "no AdmissionReview of"),
        (body({**review(pod_object()), "kind": "TokenReview"}), "no AdmissionReview"),
        (body({**review(pod_object()), "request": None}), "no request with a uid"),
        (body(review(pod_object(), uid="")), "no request with a uid"),
        (body(review(pod_object(), namespace="")), "no object, or no namespace"),
        (body({**review(pod_object(), namespace=7)}), "namespace is no text"),
        (body(review(None)), "no object, or no namespace"),
    ],
)
def test_no_question(given: bytes, said: str) -> None:
    with pytest.raises(NotAReview, match=said):
        parse(given)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(body))
def test_any_bytes_are_a_question_or_none(given: bytes) -> None:
    with pytest.raises(NotAReview) as error:
        parse(given)
    assert len(str(error.value)) < 100


def test_admitted_as_it_is() -> None:
    assert allowed("u")["response"] == {"uid": "u", "allowed": True}


def test_admitted_with_a_patch() -> None:
    patch = [{"op": "add", "path": "/a", "value": "é"}]
    response = allowed("u", patch, ("first", "second"))["response"]
    assert (
        response.pop("patch") == base64.b64encode(json.dumps(patch, separators=(",", ":")).encode()).decode()
    )
    assert response == {
        "uid": "u",
        "allowed": True,
        "patchType": "JSONPatch",
        "warnings": ["first", "second"],
    }


def test_refused() -> None:
    answer = refused("u", 503, "ServiceUnavailable", "why", retry_secs=1)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert answer["response"] == {
        "uid": "u",
        "allowed": False,
        "status": {
            "status": "Failure",
            "code": 503,
            "reason": "ServiceUnavailable",
            "message": "why",
            "details": {"retryAfterSeconds": 1},
        },
    }
    assert "details" not in refused("u", 403, "NoConfig", "why")["response"]["status"]
