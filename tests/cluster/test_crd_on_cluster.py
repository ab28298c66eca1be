"""The CustomResourceDefinition in a real API server: what it takes, what it refuses and in which words, what it fills
in, and what kubectl makes of it.

Tested: it is structural and established; good objects; bad ones by table, for bounds, patterns and every CEL rule;
defaults; unknown fields; kubectl explain, columns, short name, wait; the status as a subresource, applied
server-side. No operator runs. Left out: the schema by itself (tests/operator/test_crd_schema).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.harness.api import Api, Refused
from cluster.harness.definition import DEFINITIONS
from cluster.harness.place import Place
from cluster.kube.cluster import Cluster, CommandFailed
from inference_operator import crd
from inference_operator.cluster import CONFIGS
from inference_operator.naming import API_VERSION, FIELD_MANAGER, KIND

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

KEY = {"name": "openai", "key": "api-key"}
MINIMAL: dict[str, Any] = {"inference": {"apiKeySecretRef": KEY}}
NOW = "2026-01-02T03:04:05Z"


def judged(place: Place, spec: Any, name: str = "team") -> dict[str, Any]:
    """What would be stored."""
    obj = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    path = f"{CONFIGS.path(place.namespace)}?dryRun=All&fieldValidation=Strict"
    return place.api.call("POST", path, obj)


def with_part(path: str, value: Any) -> dict[str, Any]:
    """The least spec, with one more field."""
    spec = copy.deepcopy(MINIMAL)
    *above, last = path.split(".")
    branch = spec
    for name in above:
        branch = branch.setdefault(name, {})
    branch[last] = value
    return spec


GOOD: dict[str, dict[str, Any]] = {
    "least": MINIMAL,
    "echo needs no key": {"inference": {"provider": "echo"}},
    "azure": with_part("inference", {"provider": "azure", "baseUrl": "https://r.openai.azure.com", "apiKeySecretRef": KEY}),
    "selector": with_part("selector", {"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
    "empty selector": with_part("selector", {}),
    "resources": with_part("sidecar.resources", {"requests": {"cpu": 1, "memory": "96Mi"}}),
    "env": with_part("sidecar.env", [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]),
    "ca bundle": with_part("sidecar.caBundle", {"configMapRef": {"name": "ca", "key": "ca.crt"}}),
    "telemetry": with_part("sidecar.telemetry", {"endpoint": "http://collector:4318", "sampling": 0.5}),
}  # fmt: skip
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"inference": {}}, "apiKeySecretRef is needed"),
    "no inference": ({}, "spec.inference: Required"),
    "azure without URL": ({"inference": {"provider": "azure", "apiKeySecretRef": KEY}}, "baseUrl is needed"),
    "provider": (with_part("inference.provider", "acme"), "Unsupported value"),
    "a field nobody knows": (with_part("inference.defaultModle", "x"), "unknown field"),
    "a Secret's name": (with_part("inference.apiKeySecretRef", {"name": "Up", "key": "k"}), "should match"),
    "equal ports": (with_part("sidecar.ports", {"api": 4000, "admin": 4000}), "must be different"),
    "equal to a default": (with_part("sidecar.ports", {"admin": 3000}), "must be different"),
    "a low port": (with_part("sidecar.ports", {"api": 80}), "1024"),
    "reserved variable": (with_part("sidecar.env", [{"name": "POD_IP", "value": "x"}]), "set by the injector"),
    "hot variable": (
        with_part("sidecar.env", [{"name": "INFERENCE_INFERENCE_PROVIDER", "value": "x"}]), "belongs in spec.inference",
    ),
    "two values": (
        with_part("sidecar.env", [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        "exclude each other",
    ),
    "a variable twice": (with_part("sidecar.env", [{"name": "A"}, {"name": "A"}]), "Duplicate value"),
    "no CA": (with_part("sidecar.caBundle", {}), "exactly one of"),
    "two CAs": (with_part("sidecar.caBundle", {"configMapRef": KEY, "secretRef": KEY}), "exactly one of"),
    "In without values": (
        with_part("selector", {"matchExpressions": [{"key": "app", "operator": "In"}]}), "In and NotIn need values",
    ),
    "Exists with values": (
        with_part("selector", {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}),
        "Exists and DoesNotExist have none",
    ),
    "gRPC's port": (with_part("sidecar.telemetry", {"endpoint": "https://collector.o:4317/v1"}), "over HTTP it is 4318"),
    "sampling": (with_part("sidecar.telemetry", {"sampling": 2}), "less than or equal to 1"),
    "level": (with_part("sidecar.logLevel", "loud"), "Unsupported value"),
}  # fmt: skip


def test_it_is_structural_and_established(api: Api, definition: None) -> None:
    told = api.get(DEFINITIONS, None, crd.definition()["metadata"]["name"])["status"]["conditions"]
    conditions = {one["type"]: one["status"] for one in told}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("name", GOOD)
def test_it_takes(place: Place, name: str) -> None:
    stored = judged(place, GOOD[name])
    crd.parse(stored)  # and the operator reads it


def test_it_refuses(place: Place) -> None:
    wrong = {}
    for name, (spec, words) in BAD.items():
        try:
            judged(place, spec)
            wrong[name] = "was taken"
        except Refused as refused:
            if words not in str(refused):
                wrong[name] = str(refused)
    assert not wrong


def test_defaults_are_filled_in_where_a_part_is_there(place: Place) -> None:
    stored = judged(place, with_part("sidecar.ports", {"api": 4000}))
    assert stored["spec"]["sidecar"]["ports"] == {"api": 4000, "admin": 3001}
    assert "sidecar" not in judged(place, MINIMAL)["spec"], "what is absent comes from the chart"


def test_a_field_nobody_knows_is_dropped_where_the_caller_does_not_ask(place: Place) -> None:
    created = place.config(inference={"apiKeySecretRef": KEY, "defaultModle": "x"})
    assert created["spec"]["inference"].keys() >= {"apiKeySecretRef"}
    assert "defaultModle" not in created["spec"]["inference"]


def _explained(cluster: Cluster, path: str) -> bool:
    """A kind that is served already may be missing from discovery for some seconds."""
    try:
        return bool(cluster.kubectl("explain", path))
    except CommandFailed:
        return False


def test_kubectl_explains_every_part(cluster: Cluster, place: Place) -> None:
    place.until(lambda: _explained(cluster, "infc"), "the API server tells kubectl of the kind", seconds=60)
    for path, words in {
        "infc": "Which model provider",
        "infc.spec.inference": "Hot",
        "infc.spec.sidecar": "Cold",
        "infc.spec.selector": "oldest config wins",
        "infc.spec.inference.apiKeySecretRef": "The upstream's key",
        "infc.status.conditions": "what to do",
        "infc.status.pods": "counted",
    }.items():
        assert words in " ".join(cluster.kubectl("explain", path).split())


def test_columns_and_wait_and_status_by_kubectl(cluster: Cluster, place: Place) -> None:
    place.config()
    spec = place.seen()["spec"]
    condition = {
        "type": "Ready", "status": "True", "reason": "Ready", "message": "m", "lastTransitionTime": NOW,
        "observedGeneration": 1,
    }  # fmt: skip
    told = {"observedGeneration": 1, "pods": {"matched": 3, "current": 2}, "conditions": [condition]}
    place.apply_status("team", told, FIELD_MANAGER)
    where = f"--namespace={place.namespace}"
    head, row = cluster.kubectl("get", "infc", where).splitlines()
    assert head.split() == ["NAME", "PROVIDER", "MODEL", "PODS", "CURRENT", "READY", "AGE"]
    provider = spec["inference"].get("provider")
    words = row.split()
    assert words[0] == "team"
    assert words[1 if provider else 0] == (provider or "team")
    assert words[-5:-1] == ["gpt-4o", "3", "2", "True"]
    cluster.kubectl("wait", "--for=condition=Ready", "infc/team", where, "--timeout=5s")
    assert place.seen()["metadata"]["generation"] == 1, "a status is no new generation"


def test_the_status_is_written_by_its_own_way_alone(place: Place) -> None:
    place.config()
    place.api.merge(CONFIGS, place.namespace, "team", {"status": {"pods": {"matched": 9}}})
    assert place.counts() == {}
    manager = "somebody"
    condition = {"type": "Ready", "status": "Maybe", "reason": "R", "lastTransitionTime": NOW}
    with pytest.raises(Refused, match="Unsupported value"):
        place.apply_status("team", {"conditions": [condition]}, manager)
    with pytest.raises(Refused, match="greater than or equal to 0"):
        place.apply_status("team", {"pods": {"matched": -1}}, manager)


def test_two_writers_of_a_status_keep_each_their_conditions(place: Place) -> None:
    """The list of conditions is a map by type."""
    place.config()
    for kind in ("Ready", "Foreign"):
        condition = {"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": NOW}
        place.apply_status("team", {"conditions": [condition]}, f"manager-of-{kind}")
    assert {one["type"] for one in place.status()["conditions"]} == {"Ready", "Foreign"}
