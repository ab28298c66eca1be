"""Objects and patches as dicts: canonical, owned, unchanged where nothing changed, without data where none belongs."""

from __future__ import annotations

import base64
from typing import Any

import jsonpatch
import pytest

from harness.pods import config
from inference_operator import crd, manifests, naming

FILES = {"revision": "r", "config.v1.yaml": "version: 1\n", "api-key": "k"}
NOW, LATER = "2026-05-01T00:00:00Z", "2026-05-01T00:01:00Z"


def test_the_rendered_secret() -> None:
    made = manifests.rendered_secret(config(), FILES)
    assert made == manifests.rendered_secret(config(), dict(reversed(FILES.items())))
    assert list(made["data"]) == sorted(FILES)
    assert base64.b64decode(made["data"]["api-key"]) == b"k"
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("inference-sidecar-team", "shop")
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "InferenceConfig",
        "team",
        "uid-of-team",
        True,
    )


def live(wanted: dict[str, Any]) -> dict[str, Any]:
    """As the API server has it after an apply, and others have been at it."""
    metadata = {**wanted["metadata"], "resourceVersion": "7", "annotations": {"x": "y"}}
    metadata["labels"] = {**metadata["labels"], "added": "by-hand"}
    return {**wanted, "metadata": metadata}


def test_what_is_applied_needs_no_write() -> None:
    wanted = manifests.rendered_secret(config(), FILES)
    assert manifests.is_applied(wanted, live(wanted))


@pytest.mark.parametrize("part", ["data", "type", "labels", "ownerReferences"])
def test_what_was_changed_needs_one(part: str) -> None:
    wanted = manifests.rendered_secret(config(), FILES)
    changed = live(wanted)
    if part in ("labels", "ownerReferences"):
        del changed["metadata"][part]
    else:
        changed[part] = {**FILES, "more": "bytes"} if part == "data" else "Opaque"
    assert not manifests.is_applied(wanted, changed)


def test_an_owner_tells_what_is_ours() -> None:
    ours = manifests.rendered_secret(config(), FILES)
    assert manifests.is_ours(config(), ours)
    assert not manifests.is_ours(config("other"), ours)
    assert not manifests.is_ours(config(), {"metadata": {"name": naming.rendered_secret("team")}})


def test_a_status_as_it_is_applied() -> None:
    condition = crd.Condition(type="Ready", status="True", reason="Ready", last_transition_time=NOW)
    told = crd.Status(
        observed_generation=3, conditions=(condition,), secret_resource_versions={"openai": "12"}
    )
    made = manifests.status(config().metadata, told)
    assert made["metadata"] == {"name": "team", "namespace": "shop"}
    assert made["status"]["observedGeneration"] == 3
    assert made["status"]["conditions"][0]["lastTransitionTime"] == NOW
    assert made["status"]["secretResourceVersions"] == {"openai": "12"}
    assert "configDigest" not in made["status"]
    assert crd.Status.model_validate(made["status"]) == told


def test_an_event_is_counted_on() -> None:
    first = manifests.event(config().metadata, "Warning", "SecretNotFound", "text", NOW)
    again = manifests.event(config().metadata, "Warning", "SecretNotFound", "text", LATER, first)
    assert first["metadata"] == again["metadata"]
    assert (first["count"], again["count"]) == (1, 2)
    assert (again["firstTimestamp"], again["lastTimestamp"]) == (NOW, LATER)
    assert again["involvedObject"]["uid"] == "uid-of-team"
    assert len(manifests.event(config().metadata, "Normal", "Ready", "x" * 5000, NOW)["message"]) == 1024


def test_patches_touch_annotations_alone() -> None:
    assert manifests.nudge("r.0") == {"metadata": {"annotations": {naming.NUDGE_ANNOTATION: "r.0"}}}
    assert manifests.touch(NOW) == {"metadata": {"annotations": {naming.TOUCH_ANNOTATION: NOW}}}


def test_every_webhook_gets_the_bundle() -> None:
    before = {"webhooks": [{"clientConfig": {}}, {"clientConfig": {"caBundle": "b2xk"}}]}
    after = jsonpatch.apply_patch(before, manifests.ca_bundle(2, b"pem"))
    assert [one["clientConfig"]["caBundle"] for one in after["webhooks"]] == [
        base64.b64encode(b"pem").decode()
    ] * 2


def test_certificates_have_no_owner() -> None:
    made = manifests.certificates_secret("webhook-certificates", "system", {"tls.crt": b"pem"})
    assert "ownerReferences" not in made["metadata"]
    assert made["data"] == {"tls.crt": base64.b64encode(b"pem").decode()}
