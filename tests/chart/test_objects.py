"""The chart's objects, as Helm makes them from several sets of values (`values/`).

Tested, of every set: selectors and what they select, ports, mounts, Pod Security, the operator's own command line, the
defaults; images; what single values change. Left out: the webhook (test_webhook.py), rights (test_rights.py), values
that are refused (test_values.py), what an API server says of the objects (tests/cluster).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.conftest import Render
from chart.release import CHART, NAMESPACE, VARIANTS, Object, Release, file_of, matches
from inference_config import __version__
from inference_operator import crd, naming
from inference_operator.__main__ import _parser
from inference_operator.inject.marks import DEFAULT_CONTAINER
from inference_operator.inject.shape import effective

pytestmark = pytest.mark.timeout(900)

WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "MutatingWebhookConfiguration"}
COMPONENTS = ("operator", "injector")
OPTED_IN, DECLINED = {naming.INJECT_LABEL: "true"}, {naming.INJECT_LABEL: "false"}


@pytest.fixture(params=VARIANTS)
def release(request: pytest.FixtureRequest, render: Render) -> Release:
    return render(request.param)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_flawless_to_helms_linter(helm: Path, variant: str) -> None:
    command = [str(helm), "lint", "--strict", "--quiet", str(CHART)]
    if variant != "default":
        command += ["--values", str(file_of(variant))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
    assert chart["kubeVersion"] == ">=1.29.0-0"


class TestEveryObject:
    def test_has_a_place_and_labels(self, release: Release) -> None:
        served = {NAMESPACE, *release.values["scope"]["namespaces"]}
        for one in release.objects(tests=True):
            metadata = one["metadata"]
            if one["kind"] in WIDE:
                assert "namespace" not in metadata
            else:
                assert metadata["namespace"] in served
            assert metadata["labels"]["app.kubernetes.io/instance"] == "house"
            assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
            for label in ("team", "app.kubernetes.io/part-of"):
                given = release.values["commonLabels"].get(label, metadata["labels"].get(label))
                assert metadata["labels"].get(label) == given

    def test_has_a_name_of_its_own(self, release: Release) -> None:
        keys = [
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
            for one in release.objects(tests=True)
        ]
        assert len(keys) == len(set(keys))

    def test_outside_of_a_namespace_is_named_after_the_releases(self, release: Release) -> None:
        """Two releases of one name, each for its own namespaces, share nothing but the CRD."""
        wide = [one["metadata"]["name"] for one in release.objects() if one["kind"] in WIDE]
        assert all(
            f".{NAMESPACE}" in name for name in wide if name != "inferenceconfigs.inferencesidecar.dev"
        )

    def test_is_made_for_good_or_goes_after_the_test(self, release: Release) -> None:
        hooks = [
            one["metadata"]["annotations"]
            for one in release.objects(tests=True)
            if "helm.sh/hook" in (one["metadata"].get("annotations") or {})
        ]
        assert len(hooks) == 5
        assert {hook["helm.sh/hook"] for hook in hooks} == {"test"}
        assert {hook["helm.sh/hook-delete-policy"] for hook in hooks} == {
            "before-hook-creation,hook-succeeded"
        }


class TestPods:
    def test_are_those_that_selectors_take(self, release: Release) -> None:
        labels = {component: release.pod(component)["metadata"]["labels"] for component in COMPONENTS}
        for component in COMPONENTS:
            selector = release.deployment(component)["spec"]["selector"]
            assert [other for other in COMPONENTS if matches(selector, labels[other])] == [component]
        for kind in ("PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Service"):
            for one in release.objects(kind):
                spec = one["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                selector = {"matchLabels": selector} if kind == "Service" else selector
                taken = [other for other in COMPONENTS if matches(selector, labels[other])]
                about = one["metadata"]["labels"].get("app.kubernetes.io/component")
                if one["metadata"]["name"].endswith("-sidecars"):
                    assert taken == []
                    assert matches(selector, {naming.INJECTED_LABEL: "config"})
                else:
                    assert taken == ([about] if about in COMPONENTS else list(COMPONENTS))
        (test,) = release.objects("Pod", tests=True)
        service = release.one("Service")["spec"]["selector"]
        assert not matches({"matchLabels": service}, test["metadata"]["labels"])

    def test_spread_themselves(self, release: Release) -> None:
        pod = release.pod("injector")
        for constraint in pod["spec"]["topologySpreadConstraints"]:
            assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
            assert matches(constraint.get("labelSelector") or {}, pod["metadata"]["labels"])

    def test_are_restricted(self, release: Release) -> None:
        """Pod Security's `restricted`, field by field; on the nodes' network all the rest of it."""
        on_the_node = release.values["webhook"]["hostNetwork"]
        for pod in release.pods():
            spec = pod["spec"]
            injector = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "injector"
            assert spec.get("hostNetwork", False) == (on_the_node and injector)
            assert not {"hostPID", "hostIPC"} & set(spec)
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert spec["securityContext"].get("runAsUser", 1) != 0
            kinds = {key for volume in spec.get("volumes") or [] for key in volume} - {"name"}
            assert kinds <= {"configMap", "secret", "emptyDir", "projected", "downwardAPI"}
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert context["readOnlyRootFilesystem"] is True
                assert not context.get("privileged")
                assert not any("hostPort" in port for port in container.get("ports", []))
                assert {"cpu", "memory"} <= set(container["resources"]["requests"])

    def test_mount_what_is_there(self, release: Release) -> None:
        maps = {one["metadata"]["name"] for one in release.objects("ConfigMap")}
        for component in COMPONENTS:
            volumes = {one["name"]: one for one in release.pod(component)["spec"]["volumes"]}
            mounts = release.container(component)["volumeMounts"]
            assert {mount["name"] for mount in mounts} == set(volumes)
            # With a subPath, new content would never be seen.
            assert all(mount["readOnly"] and "subPath" not in mount for mount in mounts)
            assert volumes["defaults"]["configMap"]["name"] in maps

    def test_have_the_ports_that_others_name(self, release: Release) -> None:
        for component in COMPONENTS:
            container = release.container(component)
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports["health"] == release.values[component]["healthPort"]
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
            assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
        (port,) = release.one("Service")["spec"]["ports"]
        assert port["targetPort"] == "webhook"
        assert ports["webhook"] == release.values["webhook"]["port"]

    def test_have_a_token_and_their_own_account(self, release: Release) -> None:
        made = {one["metadata"]["name"] for one in release.objects("ServiceAccount", tests=True)}
        used = set()
        for pod in release.pods():
            used.add(pod["spec"]["serviceAccountName"])
            assert pod["spec"]["automountServiceAccountToken"] is True
        assert len(used) == 3
        assert made <= used
        assert used - made == (
            {"my-injector"} if release.values["serviceAccounts"]["injector"]["name"] else set()
        )

    def test_start_with_arguments_that_the_operator_knows(self, release: Release) -> None:
        values = release.values
        options = {
            component: _parser().parse_args(release.container(component)["args"]) for component in COMPONENTS
        }
        assert [options[component].command for component in COMPONENTS] == ["run", "webhook"]
        assert options["injector"].port == values["webhook"]["port"]
        assert options["injector"].drain_secs == values["injector"]["drainSeconds"]
        assert (
            values["injector"]["drainSeconds"]
            < release.pod("injector")["spec"]["terminationGracePeriodSeconds"]
        )
        for component in COMPONENTS:
            assert options[component].health_port == values[component]["healthPort"]
            (mount,) = [
                one for one in release.container(component)["volumeMounts"] if one["name"] == "defaults"
            ]
            assert options[component].defaults == Path(mount["mountPath"]) / "sidecar.yaml"
            (variable,) = [
                one for one in release.container(component)["env"] if one["name"] == "POD_NAMESPACE"
            ]
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
        assert list(options["operator"].namespace or []) == values["scope"]["namespaces"]

    def test_start_anew_with_new_defaults(self, render: Render) -> None:
        """So that an upgrade that has ended makes pods by the new values alone."""
        for component in COMPONENTS:
            before, after = (
                render("default", *sets).pod(component)["metadata"]["annotations"]
                for sets in ((), ("sidecar.logLevel=debug",))
            )
            assert before != after


class TestDefaults:
    def test_are_read_by_the_operator(self, release: Release) -> None:
        text = release.one("ConfigMap")["data"]["sidecar.yaml"]
        given = yaml.safe_load(text)
        assert not crd.unknown_fields({"spec": {"sidecar": given}})
        sidecar = crd.parse_sidecar(given)
        assert sidecar.image_pull_policy == release.values["images"]["sidecar"]["pullPolicy"]
        assert {key: value for key, value in given.items() if key not in ("image", "imagePullPolicy")} == (
            release.values["sidecar"]
        )

    def test_are_by_default_the_operators_own(self, render: Render) -> None:
        sidecar = crd.parse_sidecar(yaml.safe_load(render().one("ConfigMap")["data"]["sidecar.yaml"]))
        own = effective(crd.Sidecar(), crd.Sidecar(image_pull_policy="IfNotPresent"))
        assert effective(crd.Sidecar(), sidecar) == own


class TestImages:
    @pytest.mark.parametrize(
        ("sets", "image"),
        [
            ((), f"inference-operator:{__version__}"),
            (("registry=registry.example/a",), f"registry.example/a/inference-operator:{__version__}"),
            (("tag=v7", "repository=ai/op"), "ai/op:v7"),
            (("tag=v7", f"digest=sha256:{'0' * 64}"), f"inference-operator@sha256:{'0' * 64}"),
        ],
    )
    def test_of_the_operator(self, render: Render, sets: tuple[str, ...], image: str) -> None:
        release = render("default", *(f"images.operator.{one}" for one in sets))
        assert {container["image"] for pod in release.pods() for container in pod["spec"]["containers"]} == {
            image
        }

    def test_of_the_sidecar(self, render: Render) -> None:
        (defaults,) = render("everything").objects("ConfigMap")
        found = yaml.safe_load(defaults["data"]["sidecar.yaml"])
        assert found["image"] == "registry.example/mirror/ai/sidecar:1"
        digest = f"sha256:{'a' * 64}"
        release = render("default", f"images.sidecar.digest={digest}", "images.sidecar.tag=v1")
        assert (
            yaml.safe_load(release.one("ConfigMap")["data"]["sidecar.yaml"])["image"]
            == f"inference-sidecar@{digest}"
        )


class TestReplicas:
    def test_one_operator_is_replaced_and_injectors_overlap(self, render: Render) -> None:
        release = render()
        operator, injector = (release.deployment(component)["spec"] for component in COMPONENTS)
        assert (operator["replicas"], operator["strategy"]) == (1, {"type": "Recreate"})
        assert injector["replicas"] == 2
        assert injector["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert release.one("PodDisruptionBudget")["spec"]["minAvailable"] == 1

    def test_on_the_nodes_network_ports_are_free_first(self, render: Render) -> None:
        release = render("host_network")
        injector = release.deployment("injector")["spec"]
        assert injector["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
        assert injector["template"]["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
        assert "hostNetwork" not in release.pod("operator")["spec"]

    def test_a_single_injector_can_be_drained(self, render: Render) -> None:
        assert render("default", "injector.replicas=1").objects("PodDisruptionBudget") == []
        off = render("default", "injector.podDisruptionBudget.enabled=false")
        assert off.objects("PodDisruptionBudget") == []


class TestDefinition:
    def test_is_the_one_that_the_operator_prints(self, release: Release) -> None:
        definition = release.one("CustomResourceDefinition")
        assert definition["spec"] == crd.definition()["spec"]
        keeps = definition["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        assert keeps == release.values["crds"]["keep"]

    def test_can_be_left_out(self, render: Render) -> None:
        assert render("default", "crds.enabled=false").objects("CustomResourceDefinition") == []


def test_network_policies_let_in_and_out_what_is_needed(render: Render) -> None:
    policies = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]
        for one in render("everything").objects("NetworkPolicy")
    }
    assert {
        name: [port["port"] for port in open_ports(spec["ingress"])] for name, spec in policies.items()
    } == {
        "operator": ["health"],
        "injector": ["health", "webhook"],
    }
    for spec in policies.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert [port["port"] for port in open_ports(spec["egress"])][:3] == [53, 53, 7443]
    assert len(policies["injector"]["egress"]) == 3
    assert policies["operator"]["egress"][-2]["ports"] == [
        {"port": 1024, "endPort": 65535, "protocol": "TCP"}
    ]
    for spec in policies.values():
        assert spec["egress"][-1]["ports"] == [{"port": 4318, "protocol": "TCP"}]
    assert render().objects("NetworkPolicy") == []


def open_ports(rules: list[Object]) -> Iterator[dict[str, Any]]:
    for rule in rules:
        yield from rule["ports"]


def test_monitors_scrape_the_ports_that_there_are(render: Render) -> None:
    own, sidecars = render("everything").objects("PodMonitor")
    assert own["spec"]["podMetricsEndpoints"] == [
        {"port": "health", "path": "/metrics", "interval": "30s", "scrapeTimeout": "10s"}
    ]
    assert sidecars["spec"]["podMetricsEndpoints"][0]["port"] == naming.ADMIN_PORT_NAME
    assert sidecars["spec"]["namespaceSelector"] == {"matchNames": ["team-a"]}
    everywhere = render("default", "podMonitor.enabled=true").objects("PodMonitor")
    assert everywhere[1]["spec"]["namespaceSelector"] == {"any": True}
    assert render().objects("PodMonitor") == []


def test_people_cannot_take_the_chart_apart(render: Render) -> None:
    """Labels and annotations of the values stand beside those that the chart relies on, never in their place."""
    for component in COMPONENTS:
        metadata = render("everything").pod(component)["metadata"]
        assert metadata["labels"]["app.kubernetes.io/component"] == component
        assert metadata["labels"][naming.INJECT_LABEL] == "false"
        assert metadata["labels"]["tier"] == "platform"
        assert metadata["annotations"]["note"] == "yes"
        assert len(metadata["annotations"]["checksum/defaults"]) == 64
        assert DEFAULT_CONTAINER not in metadata["annotations"]


def test_notes_fit_the_release(helm: Path, tmp_path: Path) -> None:
    def notes(*sets: str) -> str:
        command = [str(helm), "install", "house", str(CHART), "--dry-run=client", "--namespace", NAMESPACE]
        home = {
            name: str(tmp_path) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME")
        }
        for one in sets:
            command += ["--set", one]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=home)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    assert "is there for all namespaces.\n" in notes()
    assert "for namespaces a, b.\n" in notes("scope.namespaces={a,b}")
    assert "failurePolicy is Ignore" in notes("webhook.failurePolicy=Ignore")
    assert "edit and admin" not in notes("rbac.aggregate=false")
    assert f"helm test house --namespace {NAMESPACE}" in notes()
