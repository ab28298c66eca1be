"""The objects and patches that the operator sends, as plain dicts in one canonical form.

Enters: models, and values that other rooms made. Leaves: dicts for the API server, equal for equal input, so
that an unchanged object needs no write. Must not decide what is sent, nor read a clock: a time comes as text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

from . import naming
from .crd import InferenceConfig, Metadata, Status

EventType = Literal["Normal", "Warning"]

MAX_EVENT_MESSAGE = 1024

_LABELS = {
    "app.kubernetes.io/managed-by": naming.FIELD_MANAGER,
    "app.kubernetes.io/part-of": "inference-sidecar",
}


def rendered_secret(config: InferenceConfig, files: Mapping[str, str]) -> dict[str, Any]:
    """The Secret that the sidecars of `config` mount, whole, for a server-side apply.

    It is owned by the InferenceConfig, and goes with it. blockOwnerDeletion would ask for a right on the
    config's finalizers, and would hold up its deletion.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": naming.rendered_secret(config.name),
            "namespace": config.metadata.namespace,
            "labels": {**_LABELS, naming.CONFIG_LABEL: naming.label_value(config.name)},
            "ownerReferences": [
                {
                    "apiVersion": naming.API_VERSION,
                    "kind": naming.KIND,
                    "name": config.name,
                    "uid": config.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "type": naming.RENDERED_TYPE,
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in sorted(files.items())},
    }


def is_ours(config: InferenceConfig, secret: Mapping[str, Any]) -> bool:
    """Whether `secret`, which has the rendered Secret's name, was made for this very config: none other is
    written over."""
    owners = (secret.get("metadata") or {}).get("ownerReferences") or []
    return any(owner.get("uid") == config.metadata.uid for owner in owners)


def is_applied(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether `live` has all that `wanted` says, so that nothing needs to be written."""
    metadata = live.get("metadata") or {}
    labels = metadata.get("labels") or {}
    return (
        live.get("data") == wanted["data"]
        and live.get("type") == wanted["type"]
        and all(labels.get(key) == value for key, value in wanted["metadata"]["labels"].items())
        and all(
            owner in metadata.get("ownerReferences", []) for owner in wanted["metadata"]["ownerReferences"]
        )
    )


def status(of: Metadata, told: Status) -> dict[str, Any]:
    """The status of the config `of`, for a server-side apply to its status subresource.

    What is empty is left out: the API server makes null of a map whose last entry an apply takes away, and
    then refuses it.
    """
    said = told.model_dump(by_alias=True, exclude_none=True)
    return {
        "apiVersion": naming.API_VERSION,
        "kind": naming.KIND,
        "metadata": {"name": of.name, "namespace": of.namespace},
        "status": {field: value for field, value in said.items() if value not in ({}, ())},
    }


def nudge(value: str) -> dict[str, Any]:
    """A merge patch for `pods/status` that changes an annotation alone, so that kubelet looks at the volumes."""
    return {"metadata": {"annotations": {naming.NUDGE_ANNOTATION: value}}}


def touch(now: str) -> dict[str, Any]:
    """A merge patch for the status subresource of a workload, so that its controller tries again at once."""
    return {"metadata": {"annotations": {naming.TOUCH_ANNOTATION: now}}}


def event(
    about: Metadata,
    kind: EventType,
    reason: str,
    message: str,
    now: str,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An Event on the config `about`. `before`: the Event of that name which stands; this one is then counted on from it."""
    message = message if len(message) <= MAX_EVENT_MESSAGE else message[: MAX_EVENT_MESSAGE - 1] + "…"
    earlier = before or {}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": naming.event(about.name, reason, message),
            "namespace": about.namespace,
        },
        "involvedObject": {
            "apiVersion": naming.API_VERSION,
            "kind": naming.KIND,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": naming.FIELD_MANAGER},
        "reportingComponent": naming.FIELD_MANAGER,
        "firstTimestamp": earlier.get("firstTimestamp") or now,
        "lastTimestamp": now,
        "count": int(earlier.get("count") or 0) + 1,
    }


def certificates_secret(name: str, namespace: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The Secret that keeps the webhook's authorities and its leaf. It has no owner: it outlives upgrades."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(_LABELS)},
        "type": "Opaque",
        "data": {file: base64.b64encode(content).decode() for file, content in sorted(files.items())},
    }


def ca_bundle(webhooks: int, bundle: bytes) -> list[dict[str, Any]]:
    """A JSON patch that fills caBundle into each of a webhook configuration's `webhooks`, by their number."""
    encoded = base64.b64encode(bundle).decode()
    return [
        {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": encoded}
        for index in range(webhooks)
    ]
