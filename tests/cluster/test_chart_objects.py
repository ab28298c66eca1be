"""The chart's objects before a real API server: it knows every field of every set of values, and lets all of them in.

Tested: each of the chart's `values/`, sent as a dry run; the CRD and, once that is there, what `helm test` makes; the
plain manifests and the samples. Left out: kinds whose CRDs are other people's (cert-manager, Prometheus), what becomes
of the objects.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from chart.release import REPOSITORY, VARIANTS, Object, rendered
from cluster.conftest import Note
from cluster.kube.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

OF_OTHERS = ("cert-manager.io/", "monitoring.coreos.com/")
RESTRICTED = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "warn")}
"""Pods are refused, and what makes pods is warned of."""
DEFINITION = REPOSITORY / "deploy" / "crds" / "inferenceconfig.yaml"


@pytest.fixture(scope="module")
def defined(cluster: Cluster) -> Iterator[None]:
    """The CRD is there, and goes unless it was there before."""
    kinds = cluster.kubectl("get", "crds", "--output=name")
    name = "customresourcedefinition.apiextensions.k8s.io/inferenceconfigs.inferencesidecar.dev"
    if name in kinds.split():
        yield
        return
    cluster.kubectl("apply", "--server-side", "--filename", str(DEFINITION))
    try:
        cluster.kubectl("wait", "--for=condition=Established", name, "--timeout=30s")
        yield
    finally:
        cluster.kubectl("delete", name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_server_takes_all_of_them(cluster: Cluster, defined: None, variant: str, note: Note) -> None:
    release = rendered(cluster.tools["helm"], variant)
    kinds = {one["kind"] for one in release.objects(tests=True)}
    objects = [one for one in release.objects(tests=True) if not one["apiVersion"].startswith(OF_OTHERS)]
    began = time.monotonic()
    with cluster.namespace(labels=RESTRICTED) as namespace:
        # A pod's account has to be there; the API server looks even in a dry run.
        accounts = [moved(one, namespace) for one in objects if one["kind"] == "ServiceAccount"]
        cluster.apply(*accounts, namespace=namespace)
        try_out(cluster, objects, namespace, flawless=not release.values["webhook"]["hostNetwork"])
    note(
        f"dry run of the chart, {variant}: {len(objects)} objects of {len(kinds)} kinds: {time.monotonic() - began:.1f} s"
    )


def test_the_api_server_takes_the_plain_manifests(cluster: Cluster, defined: None) -> None:
    text = (REPOSITORY / "deploy" / "operator" / "install.yaml").read_text()
    with cluster.namespace(labels=RESTRICTED) as namespace:
        try_out(cluster, list(yaml.safe_load_all(text)), namespace)


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "deploy" / "samples").iterdir()), ids=lambda file: file.stem
)
def test_the_api_server_takes_the_samples(cluster: Cluster, defined: None, file: Path) -> None:
    with cluster.namespace(labels=RESTRICTED) as namespace:
        try_out(cluster, list(yaml.safe_load_all(file.read_text())), namespace)


def moved(one: Object, namespace: str) -> Object:
    """The same in that namespace, if it belongs to one: a dry run cannot make the one that it names."""
    metadata = dict(one["metadata"])
    if "namespace" in metadata or one["kind"] in ("InferenceConfig", "Deployment"):
        metadata["namespace"] = namespace
    return {**one, "metadata": metadata}


def try_out(cluster: Cluster, objects: list[Object], namespace: str, *, flawless: bool = True) -> None:
    """Sends all of them, to be kept nowhere. `flawless`: a warning counts as a refusal."""
    items = {"apiVersion": "v1", "kind": "List", "items": [moved(one, namespace) for one in objects]}
    flags = ["--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts"]
    if flawless:
        flags.append("--warnings-as-errors")
    cluster.kubectl("apply", *flags, "--filename=-", stdin=json.dumps(items))
