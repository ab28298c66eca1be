"""Whether a pod wants a sidecar, and which InferenceConfig is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import naming
from ..crd import InferenceConfig, selected
from .outcome import Refused, Skipped
from .pods import annotations_of, labels_of

_MIRROR = "kubernetes.io/config.mirror"


def unwanted(pod: Mapping[str, Any], *, namespace_opted_in: bool) -> Skipped | None:
    """Why `pod` gets no sidecar, None if it asks for one."""
    if _MIRROR in annotations_of(pod):
        return Skipped(
            "StaticPod", "the pod mirrors one that kubelet runs from a file, and cannot be changed"
        )
    match labels_of(pod).get(naming.INJECT_LABEL):
        case "true":
            return None
        case None if namespace_opted_in:
            return None
        case None:
            return Skipped(
                "NotOptedIn", f"neither the pod nor its namespace has the label {naming.INJECT_LABEL}"
            )
        case "false":
            return Skipped("OptedOut", f"the pod's label {naming.INJECT_LABEL} says false")
    return Skipped("NotOptedIn", f'the pod\'s label {naming.INJECT_LABEL} is neither "true" nor "false"')


def choose(
    pod: Mapping[str, Any], namespace: str, configs: Sequence[InferenceConfig]
) -> InferenceConfig | Refused:
    """The pod's config: the one that its annotation names, else the oldest whose selector matches its labels.

    A pod that was injected before keeps its config while that exists. `configs`: those of `namespace`.
    """
    annotations = annotations_of(pod)
    named = annotations.get(naming.CONFIG_ANNOTATION)
    by_name = {config.name: config for config in configs}
    if named is not None:
        found = by_name.get(named)
        return found or Refused("ConfigNotFound", _missing(named, namespace, by_name))
    before = by_name.get(annotations.get(naming.INJECTED_ANNOTATION, ""))
    matching = selected(labels_of(pod), configs)
    if before is not None and (before in matching or not matching):
        return before
    return matching[0] if matching else Refused("NoConfig", _none(namespace, by_name))


def _missing(named: str, namespace: str, there: Mapping[str, Any]) -> str:
    return (
        f"the annotation {naming.CONFIG_ANNOTATION} names the InferenceConfig {named}, which does not exist in "
        f"namespace {namespace}{_list(there)}. Create it, or change the annotation."
    )


def _none(namespace: str, there: Mapping[str, Any]) -> str:
    return (
        f"no InferenceConfig in namespace {namespace} selects this pod{_list(there)}. Create one whose "
        f"spec.selector matches the pod's labels, or name one by the annotation {naming.CONFIG_ANNOTATION}."
    )


def _list(there: Mapping[str, Any]) -> str:
    if not there:
        return " (it has none)"
    more = ", …" if len(there) > 5 else ""
    return f" (it has {', '.join(sorted(there)[:5])}{more})"
