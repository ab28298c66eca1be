"""Workloads whose pods a config had kept from being made, touched so that their controllers try again at once.

A ReplicaSet whose pods were refused waits longer each time, up to 16 minutes. An annotation that is patched
through its status subresource makes its controller look again, and needs no right on its spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import crd, inject, manifests
from ..cluster import WORKLOADS, Cluster, ClusterError


async def wake(
    cluster: Cluster,
    config: crd.InferenceConfig,
    configs: list[crd.InferenceConfig],
    *,
    opted_in: bool,
    now: str,
) -> int:
    """Touch what waits for `config`; returns how many. `configs`: all of its namespace."""
    namespace = config.metadata.namespace
    touched = 0
    for kind, resource in WORKLOADS.items():
        try:
            for workload in await cluster.items(resource, namespace):
                if _lacks_pods(kind, workload) and _is_for(workload, config, configs, opted_in=opted_in):
                    name = workload["metadata"]["name"]
                    await cluster.patch(resource, namespace, name, manifests.touch(now), subresource="status")
                    touched += 1
        except ClusterError as error:
            if not error.forbidden:  # a role without this kind: its controller comes by itself, later
                raise
    return touched


def _lacks_pods(kind: str, workload: Mapping[str, Any]) -> bool:
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    if kind == "DaemonSet":
        return bool(status.get("currentNumberScheduled", 0) < status.get("desiredNumberScheduled", 0))
    if kind == "Job":
        finished = any(
            one.get("type") in ("Complete", "Failed") and one.get("status") == "True"
            for one in status.get("conditions") or []
        )
        return not finished and not spec.get("suspend") and not status.get("active")
    return bool(status.get("replicas", 0) < spec.get("replicas", 1))


def _is_for(
    workload: Mapping[str, Any],
    config: crd.InferenceConfig,
    configs: list[crd.InferenceConfig],
    *,
    opted_in: bool,
) -> bool:
    template = (workload.get("spec") or {}).get("template") or {}
    if inject.unwanted(template, namespace_opted_in=opted_in) is not None:
        return False
    chosen = inject.choose(template, config.metadata.namespace, configs)
    return isinstance(chosen, crd.InferenceConfig) and chosen.name == config.name
