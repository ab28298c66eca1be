"""The story of one admission: wanted? which config? possible? then the pod, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import naming
from ..crd import InferenceConfig, Ports, Sidecar
from . import beside, container, marks
from .choose import choose, unwanted
from .outcome import Injected, Refused, Skipped
from .pods import PLACES, annotations_of, containers_of, was_injected
from .ports import ports_of
from .quantity import is_guaranteed
from .shape import effective, shape

_VOLUMES = (naming.CONFIG_VOLUME, naming.CA_VOLUME)


def admit(
    pod: Mapping[str, Any],
    namespace: str,
    configs: Sequence[InferenceConfig],
    defaults: Sidecar,
    *,
    namespace_opted_in: bool = False,
) -> Injected | Refused | Skipped:
    """What becomes of `pod`, which is being created in `namespace`. `configs`: all of that namespace.

    `defaults`: the chart's, in the form of spec.sidecar. The namespace comes from the request: a pod's own may
    be empty.
    """
    skipped = unwanted(pod, namespace_opted_in=namespace_opted_in)
    if skipped is not None:
        return skipped
    config = choose(pod, namespace, configs)
    return config if isinstance(config, Refused) else inject(pod, config, defaults)


def inject(pod: Mapping[str, Any], config: InferenceConfig, defaults: Sidecar) -> Injected | Refused:
    """`pod` with the sidecar of `config`; injecting the result again changes nothing."""
    spec: Mapping[str, Any] = pod.get("spec") or {}
    sidecar = effective(config.spec.sidecar, defaults)
    env = annotations_of(pod).get(naming.ENV_ANNOTATION)
    refused = _impossible(pod, spec, env)
    if refused is not None:
        return refused
    ports = ports_of(pod, sidecar.ports or Ports())
    if isinstance(ports, Refused):
        return ports
    beside_it = list(containers_of(pod))
    wanted = container.container(
        sidecar,
        ports,
        naming.workload_of(pod),
        guaranteed=is_guaranteed(spec, beside_it),
        pod_is_root=(spec.get("securityContext") or {}).get("runAsUser") == 0,
    )
    introduces = env == "force" or (env is None and sidecar.inject_env is not False)
    stamp = shape(config.spec.sidecar, defaults)
    changed = dict(spec)
    if introduces:
        changed |= _introduced(spec, ports, force=env == "force")
    unchanged = _is_stamped(pod, config.name, stamp)
    changed["initContainers"] = _with_sidecar(
        changed.get("initContainers") or [], wanted, unchanged=unchanged
    )
    changed["volumes"] = _with_volumes(changed.get("volumes") or [], container.volumes(config.name, sidecar))
    if sidecar.image_pull_secrets:
        changed["imagePullSecrets"] = _with_secrets(changed.get("imagePullSecrets") or [], sidecar)
    app = next((one.get("name") for one in spec.get("containers") or []), None)
    metadata = marks.marked(pod.get("metadata") or {}, config.name, stamp, ports.admin, app)
    warned = _warnings(spec, beside_it if introduces else [], ports, force=env == "force")
    return Injected({**pod, "metadata": metadata, "spec": changed}, warned)


def _impossible(pod: Mapping[str, Any], spec: Mapping[str, Any], env: str | None) -> Refused | None:
    if spec.get("hostNetwork"):
        return Refused(
            "HostNetwork",
            "the pod has hostNetwork: the sidecar would listen on the node's loopback, where every process of "
            f'the node could spend tokens. Remove hostNetwork, or set the label {naming.INJECT_LABEL}: "false".',
        )
    if (spec.get("os") or {}).get("name") == "windows":
        return Refused(
            "Windows", f'the sidecar runs on Linux only. Set the label {naming.INJECT_LABEL}: "false".'
        )
    if env not in (None, "force", "forbid"):
        return Refused(
            "BadAnnotation", f"the annotation {naming.ENV_ANNOTATION} is unknown. Valid: force, forbid."
        )
    return _taken(pod, spec)


def _taken(pod: Mapping[str, Any], spec: Mapping[str, Any]) -> Refused | None:
    """Names that the pod uses itself. In a pod that was injected before, they are the injector's own."""
    ours = was_injected(pod)
    places = ("containers",) if ours else PLACES
    if any(one.get("name") == naming.CONTAINER for place in places for one in spec.get(place) or []):
        return Refused(
            "NameTaken",
            f"the pod has a container {naming.CONTAINER} of its own. Rename it, or set the label "
            f'{naming.INJECT_LABEL}: "false".',
        )
    theirs = [] if ours else [one["name"] for one in spec.get("volumes") or [] if one.get("name") in _VOLUMES]
    return (
        Refused("NameTaken", f"the pod has a volume {theirs[0]} of its own. Rename it.") if theirs else None
    )


def _is_stamped(pod: Mapping[str, Any], config: str, stamp: str) -> bool:
    annotations = annotations_of(pod)
    return (annotations.get(naming.INJECTED_ANNOTATION), annotations.get(naming.SHAPE_ANNOTATION)) == (
        config,
        stamp,
    )


def _introduced(spec: Mapping[str, Any], ports: Ports, *, force: bool) -> dict[str, Any]:
    """The lists of containers, with the variables that lead to the sidecar."""
    return {
        place: [
            one if one.get("name") == naming.CONTAINER else beside.introduced(one, ports.api, force=force)
            for one in spec[place]
        ]
        for place in PLACES
        if spec.get(place)
    }


def _with_sidecar(
    containers: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], *, unchanged: bool
) -> list[Any]:
    """First, so that the pod's own init containers reach it. One that is there already stays in its place; and
    as it is where it is meant to be the same and has all that is wanted: others (LimitRanger, a token's mount)
    may have added to it."""
    names = [one.get("name") for one in containers]
    if naming.CONTAINER not in names:
        return [wanted, *containers]
    kept = list(containers)
    index = names.index(naming.CONTAINER)
    if not (unchanged and _has(kept[index], wanted)):
        kept[index] = wanted
    return kept


def _has(there: Any, wanted: Any) -> bool:
    """Whether `there` is `wanted`, with additions."""
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        return all(key in there and _has(there[key], value) for key, value in wanted.items())
    if isinstance(there, list) and isinstance(wanted, list):
        return all(any(_has(item, one) for item in there) for one in wanted)
    return bool(there == wanted)


def _with_volumes(volumes: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> list[Any]:
    ours = {volume["name"]: volume for volume in wanted}
    kept = [
        ours.pop(one["name"], one) for one in volumes if one["name"] in ours or one["name"] not in _VOLUMES
    ]
    return [*kept, *ours.values()]


def _with_secrets(secrets: Sequence[Mapping[str, Any]], sidecar: Sidecar) -> list[Any]:
    there = {one.get("name") for one in secrets}
    return [*secrets, *({"name": one.name} for one in sidecar.image_pull_secrets if one.name not in there)]


def _warnings(
    spec: Mapping[str, Any], introduced: Sequence[Mapping[str, Any]], ports: Ports, *, force: bool
) -> tuple[str, ...]:
    found: list[str] = []
    for one in introduced:
        found += beside.warnings(one, ports.api, force=force)
    if spec.get("shareProcessNamespace"):
        found.append(
            "the pod has shareProcessNamespace: its containers may reach the sidecar's files, the key too"
        )
    return tuple(found)
