"""The rights that the chart gives, exactly: not one more than the table, not one less.

Tested: for each component, where served namespaces are all or named and certificates the operator's or not, every
right by place, group, resource, verb and name; what people get. Left out: whether the rights suffice (tests/cluster runs
on them).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chart.conftest import Render
from chart.release import NAMESPACE, Release

pytestmark = pytest.mark.timeout(900)

Right = tuple[str, str, str, str]
"""Where ("*" is everywhere), API group and resource, verb, and of which name ("*" is any)."""

CERTIFICATES = "house-inference-sidecar-certificates"
CONFIGURATION = f"house-inference-sidecar.{NAMESPACE}"
GROUP = "inferencesidecar.dev"
SERVED = {
    "operator": {
        f"{GROUP}/inferenceconfigs": "get list watch",
        f"{GROUP}/inferenceconfigs/status": "get patch update",
        "/secrets": "get list watch create patch",
        "/pods": "get list watch",
        "/pods/status": "patch",
        "/events": "get create update patch",
        "apps/replicasets": "get list",
        "apps/statefulsets": "get list",
        "apps/daemonsets": "get list",
        "apps/replicasets/status": "patch",
        "apps/statefulsets/status": "patch",
        "apps/daemonsets/status": "patch",
        "batch/jobs": "get list",
        "batch/jobs/status": "patch",
    },
    "injector": {f"{GROUP}/inferenceconfigs": "get list"},
}
CLUSTER = {"operator": {"/namespaces": "get list watch"}, "injector": {}}
EVENTS = {"/events": "get create update patch"}


def rights(where: str, table: dict[str, str], name: str = "*") -> set[Right]:
    return {(where, what, verb, name) for what, verbs in table.items() for verb in verbs.split()}


def with_own_certificates(component: str) -> set[Right]:
    """What it takes to keep certificates, or to read them."""
    if component == "injector":
        return rights(NAMESPACE, {"/secrets": "get"}, CERTIFICATES)
    configuration = {"admissionregistration.k8s.io/mutatingwebhookconfigurations": "get patch"}
    return (
        rights(NAMESPACE, {"/secrets": "create"})
        | rights(NAMESPACE, {"/secrets": "get update"}, CERTIFICATES)
        | rights("*", configuration, CONFIGURATION)
    )


def granted(release: Release, component: str) -> set[Right]:
    """What the component's account has, over all bindings that name it."""
    account = release.pod(component)["spec"]["serviceAccountName"]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    found: set[Right] = set()
    for kind in ("Role", "ClusterRole"):
        for binding in release.objects(f"{kind}Binding"):
            if binding["subjects"] != [subject]:
                continue
            assert binding["roleRef"]["kind"] == kind
            where = binding["metadata"].get("namespace", "*")
            (role,) = [
                one
                for one in release.objects(kind)
                if one["metadata"]["name"] == binding["roleRef"]["name"]
                and one["metadata"].get("namespace", "*") == where
            ]
            found |= set(of_role(role["rules"], where))
    return found


def of_role(rules: list[dict[str, list[str]]], where: str) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", ["*"]):
                        yield where, f"{group}/{resource}", verb, name


@pytest.mark.parametrize("component", ["operator", "injector"])
def test_cluster_wide(render: Render, component: str) -> None:
    expected = (
        rights("*", SERVED[component]) | rights("*", CLUSTER[component]) | with_own_certificates(component)
    )
    expected |= rights(NAMESPACE, EVENTS) if component == "operator" else set()
    assert granted(render(), component) == expected


@pytest.mark.parametrize("component", ["operator", "injector"])
def test_in_named_namespaces(render: Render, component: str) -> None:
    expected = with_own_certificates(component)
    for namespace in ("team-a", "team-b"):
        expected |= rights(namespace, SERVED[component])
    expected |= rights(NAMESPACE, EVENTS) if component == "operator" else set()
    assert granted(render("named"), component) == expected


@pytest.mark.parametrize("variant", ["own_certificates", "cert_manager"])
@pytest.mark.parametrize("component", ["operator", "injector"])
def test_with_certificates_of_others(render: Render, component: str, variant: str) -> None:
    """Nobody needs to reach for them: a volume brings them."""
    expected = rights("*", SERVED[component]) | rights("*", CLUSTER[component])
    expected |= rights(NAMESPACE, EVENTS) if component == "operator" else set()
    assert granted(render(variant), component) == expected


def test_in_named_namespaces_with_certificates_of_others_nothing_is_wide(render: Render) -> None:
    release = render("everything")
    assert release.objects("ClusterRole") == release.objects("ClusterRoleBinding") == []


def test_the_release_may_serve_its_own_namespace(render: Render) -> None:
    release = render("default", f"scope.namespaces={{{NAMESPACE}}}")
    assert granted(release, "injector") == rights(NAMESPACE, SERVED["injector"]) | with_own_certificates(
        "injector"
    )


def test_none_is_made_where_none_is_wanted(render: Render) -> None:
    release = render("default", "rbac.create=false", "rbac.aggregate=false")
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        assert release.objects(kind) == []


def test_people(render: Render) -> None:
    """Whoever writes an InferenceConfig can use any Secret: `view`, which may read none, is not to."""
    roles = {one["metadata"]["name"].rpartition(":")[2]: one for one in render().objects("ClusterRole")}
    into = {
        name: {
            label.rpartition("-")[2]
            for label, value in roles[name]["metadata"]["labels"].items()
            if "aggregate-to" in label and value == "true"
        }
        for name in roles
    }
    assert into == {
        "editor": {"edit", "admin"},
        "viewer": {"view", "edit", "admin"},
        "operator": set(),
        "injector": set(),
    }
    changing = "create update patch delete deletecollection"
    status = rights("*", {f"{GROUP}/inferenceconfigs/status": "get"})
    reading = rights("*", {f"{GROUP}/inferenceconfigs": "get list watch"}) | status
    assert set(of_role(roles["viewer"]["rules"], "*")) == reading
    assert set(of_role(roles["editor"]["rules"], "*")) == reading | rights(
        "*", {f"{GROUP}/inferenceconfigs": changing}
    )


@pytest.mark.parametrize(
    ("variant", "sets", "namespace"),
    [
        ("default", (), NAMESPACE),
        ("named", (), "team-a"),
        ("default", (f"webhook.excludedNamespaces={{{NAMESPACE}}}",), "default"),
    ],
)
def test_the_test_may_ask_for_a_pod_where_pods_are_injected(
    render: Render, variant: str, sets: tuple[str, ...], namespace: str
) -> None:
    release = render(variant, *sets)
    hooks = {
        one["kind"]: one for one in release.objects(tests=True) if one["metadata"]["name"].endswith("-test")
    }
    assert list(of_role(hooks["Role"]["rules"], namespace)) == [(namespace, "/pods", "create", "*")]
    for kind in ("Role", "RoleBinding", "InferenceConfig"):
        assert hooks[kind]["metadata"]["namespace"] == namespace
    (container,) = hooks["Pod"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    assert (environ["NAMESPACE"], environ["CONFIG"]) == (
        namespace,
        hooks["InferenceConfig"]["metadata"]["name"],
    )
    assert hooks["Pod"]["metadata"]["namespace"] == NAMESPACE
    assert hooks["RoleBinding"]["subjects"][0]["name"] == hooks["Pod"]["spec"]["serviceAccountName"]
