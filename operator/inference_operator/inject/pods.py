"""What the other modules of this room read of a pod. A pod's parts may be absent or null: both are empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import naming

PLACES = ("initContainers", "containers")


def annotations_of(pod: Mapping[str, Any]) -> Mapping[str, str]:
    """The pod's annotations."""
    return (pod.get("metadata") or {}).get("annotations") or {}


def labels_of(pod: Mapping[str, Any]) -> Mapping[str, str]:
    """The pod's labels."""
    return (pod.get("metadata") or {}).get("labels") or {}


def containers_of(pod: Mapping[str, Any]) -> Iterator[Any]:
    """Every container and init container that is not the sidecar itself."""
    for place in PLACES:
        for container in (pod.get("spec") or {}).get(place) or []:
            if container.get("name") != naming.CONTAINER:
                yield container


def was_injected(pod: Mapping[str, Any]) -> bool:
    """Whether the injector has stamped this pod: what has our names in it is then ours."""
    return naming.INJECTED_ANNOTATION in annotations_of(pod)
