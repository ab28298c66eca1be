"""What injection does to the rest of a pod, by table: the containers beside the sidecar and what they are warned of,
labels and annotations, a second time after others were at the pod.

Left out: the sidecar itself (test_inject).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from harness.pods import NO_CHART, app, config, injected, outcome, pod_object, variables
from inference_operator import crd, naming
from inference_operator.inject import shape


class TestBeside:
    URL, KEY = "http://127.0.0.1:3000/v1", "inference-sidecar"

    def test_app_and_init_containers_are_told(self) -> None:
        made = injected(pod_object(initContainers=[{"name": "migrate", "image": "m"}]))
        for one in (app(made), made["spec"]["initContainers"][1]):
            assert variables(one) == {"OPENAI_BASE_URL": self.URL, "OPENAI_API_KEY": self.KEY}

    def test_what_they_have_is_kept_and_warned_of(self) -> None:
        env = [
            {"name": "OPENAI_BASE_URL", "value": "https://api.openai.com/v1"},
            {"name": "OWN", "value": "1"},
        ]
        found = outcome(pod_object(app={"env": env}))
        assert variables(app(dict(found.pod))) == {
            "OPENAI_API_KEY": self.KEY, "OPENAI_BASE_URL": "https://api.openai.com/v1", "OWN": "1",
        }  # fmt: skip
        (warning,) = found.warnings
        assert "container app has an OPENAI_BASE_URL of its own" in warning

    def test_force(self) -> None:
        env = [{"name": "OPENAI_BASE_URL", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]
        found = outcome(pod_object(app={"env": env}, annotations={naming.ENV_ANNOTATION: "force"}))
        assert variables(app(dict(found.pod)))["OPENAI_BASE_URL"] == self.URL
        assert found.warnings == ()

    def test_forbid(self) -> None:
        pod = pod_object(
            app={"envFrom": [{"secretRef": {"name": "x"}}]}, annotations={naming.ENV_ANNOTATION: "forbid"}
        )
        found = outcome(pod)
        assert app(dict(found.pod)) == app(pod)
        assert found.warnings == ()

    def test_the_config_s_switch_and_the_pod_s_say_over_it(self) -> None:
        off = {"injectEnv": False}
        assert "env" not in app(injected(pod_object(), sidecar=off))
        assert "env" in app(injected(pod_object(annotations={naming.ENV_ANNOTATION: "force"}), sidecar=off))

    def test_env_from_is_warned_of(self) -> None:
        (warning,) = outcome(pod_object(app={"envFrom": [{"configMapRef": {"name": "x"}}]})).warnings
        assert "container app has envFrom" in warning

    @pytest.mark.parametrize(
        ("env", "warned"),
        [
            ([{"name": "HTTP_PROXY", "value": "http://p"}], True),
            ([{"name": "all_proxy", "value": "http://p"}], True),
            (
                [
                    {"name": "HTTP_PROXY", "value": "http://p"},
                    {"name": "NO_PROXY", "value": ".svc,10.0.0.0/8"},
                ],
                True,
            ),
            (
                [
                    {"name": "HTTP_PROXY", "value": "http://p"},
                    {"name": "NO_PROXY", "value": ".svc, 127.0.0.1"},
                ],
                False,
            ),
            ([{"name": "HTTP_PROXY", "value": "http://p"}, {"name": "no_proxy", "value": "*"}], False),
            (
                [
                    {"name": "HTTP_PROXY", "value": "http://p"},
                    {"name": "NO_PROXY", "valueFrom": {"fieldRef": {}}},
                ],
                False,
            ),
            ([{"name": "HTTP_PROXY", "value": ""}], False),
            ([{"name": "HTTPS_PROXY", "value": "http://p"}], False),
        ],
    )
    def test_proxies(self, env: list[dict[str, Any]], warned: bool) -> None:
        found = outcome(pod_object(app={"env": env})).warnings
        assert bool(found) is warned
        assert all("NO_PROXY with 127.0.0.1" in warning for warning in found)

    def test_a_shared_process_namespace_is_warned_of(self) -> None:
        (warning,) = outcome(pod_object(shareProcessNamespace=True)).warnings
        assert "shareProcessNamespace" in warning


class TestMarks:
    def test_stamps(self) -> None:
        metadata = injected(pod_object())["metadata"]
        assert metadata["labels"][naming.INJECTED_LABEL] == "team"
        assert metadata["annotations"][naming.INJECTED_ANNOTATION] == "team"
        assert metadata["annotations"][naming.SCHEMA_ANNOTATION] == "1"
        assert metadata["annotations"][naming.SHAPE_ANNOTATION] == shape(config().spec.sidecar, NO_CHART)
        assert metadata["annotations"]["kubectl.kubernetes.io/default-container"] == "app"

    def test_what_others_said_is_kept(self) -> None:
        said = {"kubectl.kubernetes.io/default-container": "other", "free": "text"}
        annotations = injected(pod_object(annotations=said))["metadata"]["annotations"]
        assert said.items() <= annotations.items()

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (None, "3001"), ("", "3001"), ("9090", "9090,3001"), ("3001", "3001"), ("25, 3001", "25, 3001"),
            ("3000-3010", "3000-3010"), ("13001,3002-3010", "13001,3002-3010,3001"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize(
        "mesh", ["traffic.sidecar.istio.io/excludeInboundPorts", "config.linkerd.io/skip-inbound-ports"]
    )
    def test_meshes_leave_the_admin_port_alone(self, mesh: str, before: str | None, after: str) -> None:
        annotations = {} if before is None else {mesh: before}
        assert injected(pod_object(annotations=annotations))["metadata"]["annotations"][mesh] == after

    def test_the_shape_is_of_what_needs_a_restart(self) -> None:
        base = shape(config().spec.sidecar, NO_CHART)
        hot = config(inference={"apiKeySecretRef": {"name": "x", "key": "y"}, "defaultModel": "other"})
        assert shape(hot.spec.sidecar, NO_CHART) == base
        assert shape(config(sidecar={"logLevel": "debug"}).spec.sidecar, NO_CHART) != base
        assert shape(config().spec.sidecar, crd.parse_sidecar({"image": "newer"})) != base
        said_twice = crd.parse_sidecar({"image": crd.BUILTIN.image})
        assert shape(said_twice, NO_CHART) == base


class TestAgain:
    """Admission may call twice, and others change the pod in between."""

    def test_what_others_added_to_the_sidecar_stays(self) -> None:
        first = injected(pod_object())
        added = copy.deepcopy(first)
        container = added["spec"]["initContainers"][0]
        container["volumeMounts"].append({"name": "token", "mountPath": "/var/run/secrets/token"})
        container["resources"]["limits"]["cpu"] = "2"
        container["imagePullPolicy"] = "IfNotPresent"
        assert injected(added) == added

    def test_what_came_later_is_told_too(self) -> None:
        first = injected(pod_object())
        first["spec"]["containers"].append({"name": "late", "image": "l"})
        first["spec"]["initContainers"].insert(0, {"name": "mesh", "image": "m"})
        again = injected(first)
        assert variables(again["spec"]["containers"][1])["OPENAI_BASE_URL"] == TestBeside.URL
        assert [one["name"] for one in again["spec"]["initContainers"]] == ["mesh", naming.CONTAINER]

    def test_a_changed_config_makes_a_new_sidecar(self) -> None:
        first = injected(
            pod_object(), sidecar={"logLevel": "debug", "caBundle": {"secretRef": {"name": "c", "key": "k"}}}
        )
        again = injected(first)
        assert again == injected(pod_object()) | {"metadata": again["metadata"]}
        assert again["metadata"]["annotations"] == injected(pod_object())["metadata"]["annotations"]

    def test_nothing_that_enters_is_changed(self) -> None:
        pod = pod_object(app={"env": [{"name": "A", "value": "b"}]}, initContainers=[], volumes=[])
        before = copy.deepcopy(pod)
        injected(injected(pod))
        assert pod == before
