"""The injected sidecar by table: its container, its mounts, its environment, its resources.

Left out: who gets one (test_admission), the containers beside it (test_inject_beside), whole pods (test_golden), any
valid pod (test_inject_properties).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.pods import app, injected, pod_object, sidecar, variables
from inference_config.load import load
from inference_config.names import MOUNT_PATH
from inference_config.schema import Config
from inference_operator import crd, naming
from inference_sidecar.__main__ import _parser


class TestSidecar:
    def test_it_is_native_first_and_has_no_readiness_probe(self) -> None:
        made = injected(pod_object(initContainers=[{"name": "migrate", "image": "m"}]))
        assert [one["name"] for one in made["spec"]["initContainers"]] == [naming.CONTAINER, "migrate"]
        assert sidecar(made)["restartPolicy"] == "Always"
        probes = {name: one["httpGet"] for name, one in sidecar(made).items() if name.endswith("Probe")}
        assert probes.keys() == {"startupProbe", "livenessProbe"}
        assert {(one["path"], one["port"]) for one in probes.values()} == {
            ("/readyz", 3001),
            ("/livez", 3001),
        }

    def test_its_arguments_are_what_the_sidecar_takes(self, tmp_path: Any) -> None:
        made = injected(pod_object(), sidecar={"ports": {"api": 4000, "admin": 4001}})
        options = vars(_parser().parse_args(sidecar(made)["args"]))
        assert (options["command"], str(options["config"])) == ("run", MOUNT_PATH)
        flags = {path: options[path] for path in options if path.startswith("server.") and options[path]}
        assert flags == {"server.port": "4000", "server.admin_host": "$(POD_IP)", "server.admin_port": "4001"}

    def test_its_environment_is_known_to_the_sidecar(self, tmp_path: Any) -> None:
        """A variable that means nothing would be a warning, and a CA bundle has to end up in the setting."""
        made = injected(
            pod_object(),
            sidecar={"logLevel": "debug", "caBundle": {"secretRef": {"name": "ca", "key": "c.pem"}}},
        )
        environ = {name: value for name, value in variables(sidecar(made)).items() if isinstance(value, str)}
        file = tmp_path / "config.v1.yaml"
        file.write_text("inference: {provider: echo}\n")
        loaded = load(file, environ)
        assert loaded.warnings == ()
        assert loaded.config.logging.level == "debug"
        assert loaded.config.inference.http.ca_file == f"{naming.CA_PATH}/{naming.CA_FILE}"

    def test_the_secret_is_mounted_whole_and_in_the_sidecar_alone(self) -> None:
        made = injected(pod_object(initContainers=[{"name": "migrate", "image": "m"}]))
        (volume,) = [one for one in made["spec"]["volumes"] if one["name"] == naming.CONFIG_VOLUME]
        assert volume["secret"] == {
            "secretName": "inference-sidecar-team",
            "defaultMode": 0o444,
            "optional": False,
        }
        (mount,) = sidecar(made)["volumeMounts"]
        assert mount == {"name": naming.CONFIG_VOLUME, "mountPath": MOUNT_PATH, "readOnly": True}
        others = [made["spec"]["initContainers"][1], app(made)]
        assert all("volumeMounts" not in one for one in others)

    @pytest.mark.parametrize("kind", ["secretRef", "configMapRef"])
    def test_a_ca_bundle(self, kind: str) -> None:
        made = injected(pod_object(), sidecar={"caBundle": {kind: {"name": "ca", "key": "c.pem"}}})
        (volume,) = [one for one in made["spec"]["volumes"] if one["name"] == naming.CA_VOLUME]
        source = volume["secret" if kind == "secretRef" else "configMap"]
        assert source["items"] == [{"key": "c.pem", "path": naming.CA_FILE}]
        assert "ca" in (source.get("secretName"), source.get("name"))
        assert sidecar(made)["volumeMounts"][1]["mountPath"] == naming.CA_PATH

    def test_it_is_restricted(self) -> None:
        context = sidecar(injected(pod_object()))["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "runAsUser" not in context

    @pytest.mark.parametrize(("user", "own"), [(0, 65_532), (1000, None)])
    def test_a_pod_s_root_is_not_the_sidecar_s(self, user: int, own: int | None) -> None:
        made = injected(pod_object(securityContext={"runAsUser": user}))
        assert sidecar(made)["securityContext"].get("runAsUser") == own

    def test_the_image_and_its_credentials(self) -> None:
        chart = crd.parse_sidecar({"image": "r.example/sidecar:9", "imagePullPolicy": "Always"})
        own = {"imagePullSecrets": [{"name": "registry"}, {"name": "second"}]}
        made = injected(pod_object(imagePullSecrets=[{"name": "registry"}]), chart=chart, sidecar=own)
        assert (sidecar(made)["image"], sidecar(made)["imagePullPolicy"]) == ("r.example/sidecar:9", "Always")
        assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}, {"name": "second"}]
        assert "imagePullSecrets" not in injected(pod_object())["spec"]

    def test_variables_of_the_config_win_but_for_the_injector_s_own(self) -> None:
        env = [
            {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "mine"},
            {"name": "HTTPS_PROXY", "value": "http://p"},
        ]
        found = sidecar(injected(pod_object(), sidecar={"env": env}))["env"]
        names = [one["name"] for one in found]
        assert len(set(names)) == len(names)
        assert {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "mine"} in found
        assert {"name": "HTTPS_PROXY", "value": "http://p"} in found

    def test_telemetry(self) -> None:
        telemetry = {
            "endpoint": "http://otlp:4318", "protocol": "http/protobuf", "sampling": 0.25,
            "headersSecretRef": {"name": "otlp", "key": "headers"}, "resourceAttributes": {"team": "a,b=c $(X)"},
        }  # fmt: skip
        found = variables(sidecar(injected(pod_object(), sidecar={"telemetry": telemetry})))
        assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otlp:4318"
        assert found["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
        assert (found["OTEL_TRACES_SAMPLER"], found["OTEL_TRACES_SAMPLER_ARG"]) == (
            "parentbased_traceidratio",
            "0.25",
        )
        assert found["OTEL_EXPORTER_OTLP_HEADERS"] == {
            "secretKeyRef": {"name": "otlp", "key": "headers", "optional": True}
        }
        attributes = dict(pair.split("=") for pair in found["OTEL_RESOURCE_ATTRIBUTES"].split(","))
        assert attributes["team"] == "a%2Cb%3Dc%20%24%28X%29"
        assert attributes["k8s.pod.name"] == "$(POD_NAME)"
        assert attributes["k8s.deployment.name"] == "web"

    @pytest.mark.parametrize(
        ("owner", "attributes"),
        [
            (("ReplicaSet", "web-5d8c9"), {"kind": "deployment", "name": "web", "own": "k8s.deployment.name"}),
            (("ReplicaSet", "bare"), {"kind": "replicaset", "name": "bare", "own": "k8s.replicaset.name"}),
            (("StatefulSet", "db"), {"kind": "statefulset", "name": "db", "own": "k8s.statefulset.name"}),
            (("Job", "once"), {"kind": "job", "name": "once", "own": "k8s.job.name"}),
            (("Rollout", "x,k8s.pod.name=$(POD_IP)"), {"kind": "rollout", "name": "x%2Ck8s.pod.name%3D%24%28POD_IP%29"}),
            (None, {"kind": "pod", "name": "$(POD_NAME)"}),
        ],
    )  # fmt: skip
    def test_whose_telemetry_it_is(self, owner: tuple[str, str] | None, attributes: dict[str, str]) -> None:
        pod = pod_object()
        pod["metadata"]["ownerReferences"] = (
            [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
        )
        found = variables(sidecar(injected(pod)))["OTEL_RESOURCE_ATTRIBUTES"].split(",")
        told = dict(pair.split("=") for pair in found)
        assert len(told) == len(found)
        assert told["k8s.workload.kind"] == attributes["kind"]
        assert told["k8s.workload.name"] == attributes["name"]
        kinds = {
            name for name in told if re.fullmatch("k8s.(deployment|replicaset|statefulset|job).name", name)
        }
        assert {name: told[name] for name in kinds} == (
            {attributes["own"]: attributes["name"]} if "own" in attributes else {}
        )
        assert told["service.namespace"] == "$(POD_NAMESPACE)"
        assert told["service.instance.id"] == "$(POD_NAMESPACE).$(POD_NAME).inference-sidecar"
        assert "service.name" not in told

    def test_attributes_of_the_config_go_first(self) -> None:
        chart = crd.parse_sidecar(
            {"telemetry": {"resourceAttributes": {"service.name": "a", "team": "platform"}}}
        )
        own = {"telemetry": {"resourceAttributes": {"service.name": "b", "k8s.workload.name": "mine"}}}
        found = variables(sidecar(injected(pod_object(), chart=chart, sidecar=own)))[
            "OTEL_RESOURCE_ATTRIBUTES"
        ]
        told = dict(pair.split("=") for pair in found.split(","))
        assert told.items() >= {"service.name": "b", "team": "platform", "k8s.workload.name": "mine"}.items()

    def test_telemetry_of_the_chart_reaches_every_sidecar(self) -> None:
        """Field by field; and of a Secret with headers the pod has but the reference."""
        telemetry = {"endpoint": "http://otlp:4318", "headersSecretRef": {"name": "otlp", "key": "headers"}}
        chart = crd.parse_sidecar({"telemetry": {**telemetry, "sampling": 0.5}})
        for own in ({}, {"telemetry": {"sampling": 1}}, {"logLevel": "debug"}):
            found = variables(sidecar(injected(pod_object(), chart=chart, sidecar=own)))
            assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otlp:4318"
            assert found["OTEL_EXPORTER_OTLP_HEADERS"] == {
                "secretKeyRef": {"name": "otlp", "key": "headers", "optional": True}
            }
            assert found["OTEL_TRACES_SAMPLER_ARG"] == ("1" if "telemetry" in own else "0.5")

    def test_nothing_configured_exports_nothing(self) -> None:
        found = variables(sidecar(injected(pod_object())))
        assert not [name for name in found if name.startswith("OTEL_EXPORTER")]

    def test_kubelet_expands_only_what_was_declared_before(self) -> None:
        names = list(variables(sidecar(injected(pod_object()))))
        assert names.index("OTEL_RESOURCE_ATTRIBUTES") > max(
            names.index(one) for one in ("POD_NAME", "POD_UID", "NODE_NAME")
        )


EQUAL = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}


class TestResources:
    @pytest.mark.parametrize(
        ("resources", "guaranteed"),
        [
            (EQUAL, True),
            ({"limits": {"cpu": "1", "memory": "1Gi"}}, True),
            ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}, True),
            ({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, False),
            ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}}, False),
            ({"requests": {"cpu": "1", "memory": "1Gi"}}, False),
            ({}, False),
        ],
    )
    def test_the_class_of_the_pod_stays(self, resources: dict[str, Any], guaranteed: bool) -> None:
        found = sidecar(injected(pod_object(app={"resources": resources})))["resources"]
        assert set(found["requests"]) >= {"cpu", "memory"}
        assert (found.get("limits") == found["requests"]) is guaranteed

    def test_one_container_that_is_not_makes_the_pod_burstable(self) -> None:
        pod = pod_object(app={"resources": EQUAL}, initContainers=[{"name": "i", "image": "i"}])
        assert "cpu" not in sidecar(injected(pod))["resources"]["limits"]

    def test_the_larger_of_request_and_limit_counts(self) -> None:
        own = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "512Mi"}}
        found = sidecar(injected(pod_object(app={"resources": EQUAL}), sidecar={"resources": own}))[
            "resources"
        ]
        assert found["limits"] == found["requests"] == {"cpu": "250m", "memory": "1Gi"}

    def test_where_the_pod_as_a_whole_has_resources(self) -> None:
        pod = pod_object(app={"resources": EQUAL}, resources={"limits": {"cpu": "2", "memory": "2Gi"}})
        assert "cpu" not in sidecar(injected(pod))["resources"]["limits"]


def test_no_key_is_in_the_pod() -> None:
    """Not even a reference to the Secret that the key comes from."""
    text = str(injected(pod_object()))
    assert "secretKeyRef" not in text
    assert "'openai'" not in text


def test_the_pod_outlives_the_sidecar_s_drain() -> None:
    """A pod's usual grace is 30 s: within it the sidecar must be done, or kubelet cuts its streams."""
    server = Config().server
    assert server.drain_timeout_secs + server.drain_quiet_secs < 30
