"""AdmissionReview, as the API server sends it and as it wants it back. Pure.

Enters: a body. Leaves: a `Review`, or `NotAReview`; and for each outcome the answer, as a dict. An answer repeats the
request's uid, and nothing else of the request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import OperatorError

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"

Answer = dict[str, Any]


class NotAReview(OperatorError):
    """The body holds no AdmissionReview of the version that is spoken here."""


@dataclass(frozen=True, slots=True)
class Review:
    """One question. `pod` is None where it is about anything but a pod that is being created."""

    uid: str
    namespace: str
    pod: Mapping[str, Any] | None = field(repr=False)
    dry_run: bool = False


def parse(body: bytes) -> Review:
    """Raises NotAReview with a message that quotes nothing of the body."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAReview("the body is no JSON") from None
    if not isinstance(found, dict) or (found.get("apiVersion"), found.get("kind")) != (API_VERSION, KIND):
        raise NotAReview(f"the body is no {KIND} of {API_VERSION}")
    request = found.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise NotAReview("the review has no request with a uid")
    namespace = request.get("namespace", "")
    if not isinstance(namespace, str):
        raise NotAReview("the request's namespace is no text")
    dry_run = request.get("dryRun") is True
    if not _creates_a_pod(request):
        return Review(request["uid"], namespace, None, dry_run)
    pod = request.get("object")
    if not isinstance(pod, dict) or not namespace:
        raise NotAReview("the request has no object, or no namespace")
    return Review(request["uid"], namespace, pod, dry_run)


def allowed(uid: str, patch: Sequence[Mapping[str, Any]] = (), warnings: Sequence[str] = ()) -> Answer:
    """The pod is admitted, changed by `patch` (JSON patch) if there is any."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(patch, separators=(",", ":")).encode()).decode()
    if warnings:
        response["warnings"] = list(warnings)
    return _answer(response)


def refused(uid: str, code: int, reason: str, message: str, retry_secs: int | None = None) -> Answer:
    """The pod is not admitted; whoever creates it gets this status.

    With `retry_secs` the API server sends a Retry-After, and Kubernetes' own clients come again by themselves.
    """
    status: dict[str, Any] = {"status": "Failure", "code": code, "reason": reason, "message": message}
    if retry_secs is not None:
        status["details"] = {"retryAfterSeconds": retry_secs}
    return _answer({"uid": uid, "allowed": False, "status": status})


def _answer(response: dict[str, Any]) -> Answer:
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def _creates_a_pod(request: Mapping[str, Any]) -> bool:
    resource = request.get("resource")
    named = (resource.get("group", ""), resource.get("resource")) if isinstance(resource, dict) else None
    return named == ("", "pods") and not request.get("subResource") and request.get("operation") == "CREATE"
