"""What the watches have told so far: configs, the pods that matter, versions of Secrets, which namespaces opted in.

Enters: events. Leaves: objects by name, and which configs an event may concern. Never a Secret's data: of Secrets
only names and versions pass through here. Must not ask anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import crd, naming
from ..errors import InvalidObject
from ..rollout import Pod, pod_of
from .lag import is_older, version_of


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One InferenceConfig."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Seen:
    """The newest state of everything that is watched."""

    def __init__(self) -> None:
        self._configs: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._parsed: dict[Key, tuple[str, crd.InferenceConfig]] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._opted_in: set[str] = set()

    def every(self) -> list[Key]:
        """All configs."""
        return [Key(namespace, name) for namespace, named in self._configs.items() for name in named]

    def config(self, key: Key) -> Mapping[str, Any] | None:
        """One config as it was last seen."""
        return self._configs.get(key.namespace, {}).get(key.name)

    def configs(self, namespace: str) -> list[crd.InferenceConfig]:
        """Those of a namespace that can be read."""
        return [
            config
            for name in self._configs.get(namespace, {})
            if (config := self._read(Key(namespace, name)))
        ]

    def pods(self, namespace: str) -> list[Pod]:
        """Pods of a namespace that have a sidecar or ask for one."""
        return list(self._pods.get(namespace, {}).values())

    def injected(self) -> list[Pod]:
        """Those of all namespaces that have a sidecar, by the label that the injector puts on them."""
        return [
            pod
            for pods in self._pods.values()
            for pod in pods.values()
            if pod.injected and naming.INJECTED_LABEL in pod.labels
        ]

    def stubs(self) -> dict[str, dict[str, Any]]:
        """All configs by uid, with nothing but their metadata."""
        return {
            str(obj["metadata"].get("uid", "")): {"metadata": obj["metadata"]}
            for named in self._configs.values()
            for obj in named.values()
        }

    def uids(self) -> set[str]:
        """Of all pods that are kept."""
        return {uid for pods in self._pods.values() for uid in pods}

    def secret_version(self, namespace: str, name: str) -> str | None:
        """A Secret's resourceVersion as it was told last; None where nothing was, or it is gone."""
        return self._secrets.get(namespace, {}).get(name)

    def opted_in(self, namespace: str) -> bool:
        """Whether the namespace asks for sidecars in all its pods."""
        return namespace in self._opted_in

    def on_config(self, obj: Mapping[str, Any], *, gone: bool) -> Iterator[Key]:
        """A config was added, changed or deleted: itself, and those that its selector may be in conflict with."""
        metadata = obj["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        before = self._configs.get(key.namespace, {}).get(key.name)
        # One that was deleted and its successor of the same name are two objects, told of in any order.
        if before is not None and is_older(version_of(obj), version_of(before)):
            return
        if gone:
            self._configs.get(key.namespace, {}).pop(key.name, None)
            self._parsed.pop(key, None)
        else:
            self._configs.setdefault(key.namespace, {})[key.name] = obj
        yield key
        if gone or before is None or _generation(before) != _generation(obj):
            yield from (
                Key(key.namespace, name) for name in self._configs.get(key.namespace, {}) if name != key.name
            )

    def on_secret(self, namespace: str, name: str, version: str | None) -> Iterator[Key]:
        """A Secret was added, changed or deleted: the configs that name it, and the one that it is rendered from.
        `version`: its resourceVersion, None where it is gone."""
        versions = self._secrets.setdefault(namespace, {})
        if version is None:
            versions.pop(name, None)
        else:
            versions[name] = version
        for config in self._configs.get(namespace, {}):
            key = Key(namespace, config)
            read = self._read(key)
            reference = read.spec.inference.api_key_secret_ref if read is not None else None
            if (reference is not None and reference.name == name) or naming.rendered_secret(config) == name:
                yield key

    def on_pod(self, obj: Mapping[str, Any], *, gone: bool) -> Iterator[Key]:
        """A pod was added, changed or deleted: the configs that it counts for, before or now."""
        metadata = obj["metadata"]
        namespace, uid = metadata["namespace"], metadata["uid"]
        pods = self._pods.setdefault(namespace, {})
        before = pods.pop(uid, None)
        after = None if gone else pod_of(obj, namespace_opted_in=namespace in self._opted_in)
        if after is not None and not (after.asks or after.injected):
            after = None
        if after is not None:
            pods[uid] = after
        if _told(before) != _told(after):
            yield from self._concerned(namespace, before, after)

    def on_namespace(self, obj: Mapping[str, Any], *, gone: bool) -> Iterator[Key]:
        """A namespace opted in or out: all its configs. Pods that are there were not asked for by that."""
        metadata = obj["metadata"]
        name = metadata["name"]
        opted_in = not gone and (metadata.get("labels") or {}).get(naming.INJECT_LABEL) == "true"
        if opted_in == (name in self._opted_in):
            return
        (self._opted_in.add if opted_in else self._opted_in.discard)(name)
        yield from (Key(name, config) for config in self._configs.get(name, {}))

    def _concerned(self, namespace: str, *pods: Pod | None) -> Iterator[Key]:
        for config in self._configs.get(namespace, {}):
            read = self._read(Key(namespace, config))
            selector = read.spec.selector if read is not None else None
            for pod in pods:
                if pod is None:
                    continue
                selects = selector is not None and not pod.chosen and selector.matches(pod.labels)
                if config in (pod.config, pod.chosen) or selects:
                    yield Key(namespace, config)
                    break

    def _read(self, key: Key) -> crd.InferenceConfig | None:
        """The config as a model, read once for each version of it."""
        obj = self.config(key)
        if obj is None:
            return None
        version = version_of(obj)
        held = self._parsed.get(key)
        if held is None or held[0] != version:
            try:
                held = (version, crd.parse(obj))
            except InvalidObject:
                return None
            self._parsed[key] = held
        return held[1]


def _generation(obj: Mapping[str, Any]) -> object:
    return obj["metadata"].get("generation")


def _told(pod: Pod | None) -> Pod | None:
    """A pod without what the operator itself writes to it: its own nudge is no news."""
    return None if pod is None else replace(pod, nudged=("", -1))
