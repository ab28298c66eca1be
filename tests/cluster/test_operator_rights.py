"""The operator for one named namespace, under the ServiceAccount and the Roles that the chart makes for that.

Tested: everything works with these rights alone; no other namespace is looked into or touched; the rights don't reach
further than that; where one was taken away, the status still comes. Left out: the chart as a whole (test_story), the
rights for the whole cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.harness.api import Api
from cluster.harness.kubelet import Kubelet
from cluster.harness.place import Place
from cluster.harness.process import Operator
from cluster.harness.proxy import Proxy
from cluster.kube.cluster import Cluster
from harness.admin import Admins
from harness.container import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CHART = REPOSITORY / "helm" / "inference-sidecar"
ACCOUNT = "rel-inference-sidecar"


@dataclass(frozen=True)
class Served:
    """`own`: the operator's namespace. `account`: its name as the API server has it."""

    place: Place
    own: str
    account: str


@pytest.fixture
def served(cluster: Cluster, place: Place) -> Iterator[Served]:
    with cluster.namespace("own") as own:
        made = cluster.helm(
            "template",
            "rel",
            str(CHART),
            f"--namespace={own}",
            "--set",
            f"scope.namespaces={{{place.namespace}}}",
        )
        for obj in roles(made):
            cluster.apply(obj, namespace=obj["metadata"]["namespace"])
        yield Served(place, own, f"system:serviceaccount:{own}:{ACCOUNT}")


def roles(made: str) -> list[dict[str, Any]]:
    """The operator's account, and what it may do in namespaces."""
    found = [
        obj
        for obj in yaml.safe_load_all(made)
        if obj and obj["kind"] in ("ServiceAccount", "Role", "RoleBinding")
    ]
    return [
        obj for obj in found if obj["metadata"]["labels"].get("app.kubernetes.io/component") == "operator"
    ]


@pytest.fixture
def operator(cluster: Cluster, proxy: Proxy, served: Served, tmp_path: Path) -> Iterator[Operator]:
    token = cluster.kubectl("create", "token", ACCOUNT, f"--namespace={served.own}").strip()
    arguments = ("--namespace", served.place.namespace, "--own-namespace", served.own)
    with Operator(tmp_path, proxy.url, *arguments, token=token) as running:
        yield running


def test_one_namespace_is_served_and_no_other_is_touched(
    cluster: Cluster, api: Api, served: Served, operator: Operator, proxy: Proxy, admins: Admins
) -> None:
    place = served.place
    with cluster.namespace("other") as name:
        other = Place(api, name)
        other.key()
        other.config()
        before = other.versions()
        place.key()
        place.config()
        place.becomes("Ready", "True", "Ready")
        kubelet = Kubelet()
        proxy.done = kubelet
        admin = kubelet.pods["web-1"] = admins.add(revision="older")
        place.pod("web-1", admin)
        place.becomes("RolledOut", "True", "AllCurrent")
        revision = place.revision()
        place.key()
        place.until(lambda: admin.revision not in ("older", revision), "the rotated key")
        place.becomes("RolledOut", "True", "AllCurrent")
        assert "Ready" in place.events()
        assert other.versions() == before
        assert other.status() == {}
    everywhere = {call.path for call in proxy.calls if "/namespaces/" not in call.path}
    listed = [
        path
        for path in everywhere
        if path.count("/") > 3 or path.endswith(("/secrets", "/pods", "/namespaces"))
    ]
    assert not listed, "asked for more than its namespace"
    assert {
        call.path.split("/namespaces/")[1].split("/")[0]
        for call in proxy.calls
        if "/namespaces/" in call.path
    } == {place.namespace}
    assert "403" not in operator.log()


@pytest.mark.parametrize(
    ("verb", "what", "allowed"),
    [
        ("list", "secrets", True),
        ("patch", "pods/status", True),
        ("patch", "inferenceconfigs/status", True),
        ("delete", "secrets", False),
        ("patch", "pods", False),
        ("delete", "pods", False),
        ("create", "pods", False),
        ("patch", "inferenceconfigs", False),
        ("patch", "replicasets", False),
    ],
)
def test_rights_in_its_namespace(
    cluster: Cluster, served: Served, verb: str, what: str, allowed: bool
) -> None:
    resource, _, subresource = what.partition("/")
    words = [
        "auth",
        "can-i",
        verb,
        resource,
        f"--as={served.account}",
        f"--namespace={served.place.namespace}",
    ]
    assert said(cluster, *words, *([f"--subresource={subresource}"] if subresource else [])) is allowed


def test_no_rights_in_other_namespaces(cluster: Cluster, served: Served) -> None:
    for what in ("secrets", "pods", "inferenceconfigs.inferencesidecar.dev"):
        for verb in ("get", "list", "create", "patch"):
            assert not said(
                cluster, "auth", "can-i", verb, what, f"--as={served.account}", "--namespace=default"
            )


def said(cluster: Cluster, *words: str) -> bool:
    try:
        return cluster.kubectl(*words).strip() == "yes"
    except AssertionError:
        return False


def test_without_the_right_to_write_events_the_status_still_comes(
    cluster: Cluster, served: Served, operator: Operator
) -> None:
    place = served.place
    for name in cluster.get("role", f"--namespace={place.namespace}")["items"]:
        rules = [rule for rule in name["rules"] if rule["resources"] != ["events"]]
        assert len(rules) < len(name["rules"])
        cluster.apply({**_plain(name), "rules": rules}, namespace=place.namespace)
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    assert place.events() == {}


def _plain(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": obj["metadata"]["name"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
