"""Admission by table: who is asked for, which config it is, what is refused and in which words.

Left out: what an injected pod becomes (test_inject, test_inject_beside).
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.pods import NO_CHART, app, config, injected, pod_object, sidecar, variables
from inference_operator import naming
from inference_operator.inject import Injected, Refused, Skipped, admit, inject, unwanted

INJECT = naming.INJECT_LABEL


def refused(pod: dict[str, Any], **spec: Any) -> Refused:
    found = inject(pod, config(**spec), NO_CHART)
    assert isinstance(found, Refused), found
    return found


class TestWanted:
    @pytest.mark.parametrize(
        ("label", "namespace", "reason"),
        [
            ("true", False, None),
            ("true", True, None),
            (None, True, None),
            (None, False, "NotOptedIn"),
            ("false", True, "OptedOut"),
            ("yes", True, "NotOptedIn"),
        ],
    )
    def test_labels(self, label: str | None, namespace: bool, reason: str | None) -> None:
        labels = {} if label is None else {INJECT: label}
        skipped = unwanted({"metadata": {"labels": labels}}, namespace_opted_in=namespace)
        assert (None if skipped is None else skipped.reason) == reason

    def test_a_pod_that_kubelet_runs_from_a_file(self) -> None:
        pod = pod_object(annotations={"kubernetes.io/config.mirror": "x"})
        found = admit(pod, "shop", [config()], NO_CHART)
        assert isinstance(found, Skipped)
        assert found.reason == "StaticPod"


class TestChoice:
    OLD, YOUNG = (
        config("z-old", created="2026-01-01T00:00:00Z"),
        config("a-young", created="2026-02-01T00:00:00Z"),
    )
    UNNAMED = config("by-name", selector=None)

    def chosen(self, pod: dict[str, Any]) -> str:
        found = admit(pod, "shop", [self.YOUNG, self.UNNAMED, self.OLD], NO_CHART)
        assert isinstance(found, Injected), found
        return str(found.pod["metadata"]["annotations"][naming.INJECTED_ANNOTATION])

    def test_the_oldest_that_selects(self) -> None:
        assert self.chosen(pod_object()) == "z-old"

    def test_the_one_that_the_pod_names(self) -> None:
        for name in ("a-young", "by-name"):
            assert self.chosen(pod_object(annotations={naming.CONFIG_ANNOTATION: name})) == name

    def test_one_that_was_injected_keeps_its_config(self) -> None:
        first = injected(pod_object(), name="a-young")
        assert self.chosen(first) == "a-young"
        first["metadata"]["annotations"][naming.INJECTED_ANNOTATION] = "gone"
        assert self.chosen(first) == "z-old"

    def test_none_is_there(self) -> None:
        found = admit(pod_object(), "shop", [], NO_CHART)
        assert isinstance(found, Refused)
        assert found.reason == "NoConfig"
        assert "in namespace shop" in found.message
        assert "Create one" in found.message

    def test_none_selects(self) -> None:
        found = admit(pod_object(labels={"app": "other"}), "shop", [self.OLD, self.UNNAMED], NO_CHART)
        assert isinstance(found, Refused)
        assert "it has by-name, z-old" in found.message

    def test_the_named_one_is_missing(self) -> None:
        found = admit(
            pod_object(annotations={naming.CONFIG_ANNOTATION: "typo"}), "shop", [self.OLD], NO_CHART
        )
        assert isinstance(found, Refused)
        assert found.reason == "ConfigNotFound"
        assert "typo" in found.message


class TestRefusals:
    @pytest.mark.parametrize(
        ("pod", "reason", "way_out"),
        [
            (pod_object(hostNetwork=True), "HostNetwork", "Remove hostNetwork"),
            (pod_object(os={"name": "windows"}), "Windows", f'{INJECT}: "false"'),
            (
                pod_object(app={"ports": [{"containerPort": 3000}]}),
                "PortConflict",
                f'{naming.PORT_ANNOTATION}: "3100"',
            ),
            (
                pod_object(
                    app={"ports": [{"containerPort": 3001, "protocol": "TCP"}, {"containerPort": 3100}]}
                ),
                "PortConflict",
                f'{naming.ADMIN_PORT_ANNOTATION}: "3101"',
            ),
            (pod_object(annotations={naming.PORT_ANNOTATION: "http"}), "BadAnnotation", "1024 to 65535"),
            (pod_object(annotations={naming.PORT_ANNOTATION: "80"}), "BadAnnotation", "1024 to 65535"),
            (pod_object(annotations={naming.PORT_ANNOTATION: "3001"}), "PortConflict", "both 3001"),
            (pod_object(annotations={naming.ENV_ANNOTATION: "maybe"}), "BadAnnotation", "force, forbid"),
            (pod_object(initContainers=[{"name": naming.CONTAINER}]), "NameTaken", "Rename it"),
            (pod_object(volumes=[{"name": naming.CONFIG_VOLUME, "emptyDir": {}}]), "NameTaken", "Rename it"),
        ],
    )
    def test_it_says_what_to_do(self, pod: dict[str, Any], reason: str, way_out: str) -> None:
        found = refused(pod)
        assert found.reason == reason
        assert way_out in found.message

    def test_a_stamp_does_not_make_an_app_a_sidecar(self) -> None:
        stamped = pod_object(annotations={naming.INJECTED_ANNOTATION: "team"})
        stamped["spec"]["containers"][0]["name"] = naming.CONTAINER
        assert refused(stamped).reason == "NameTaken"

    def test_what_is_no_conflict(self) -> None:
        injected(
            pod_object(app={"ports": [{"containerPort": 3000, "protocol": "UDP"}, {"containerPort": 8080}]})
        )
        injected(pod_object(hostNetwork=False))

    def test_an_annotation_solves_it(self) -> None:
        pod = pod_object(
            app={"ports": [{"containerPort": 3000}]}, annotations={naming.PORT_ANNOTATION: "3100"}
        )
        made = injected(pod)
        assert variables(app(made))["OPENAI_BASE_URL"] == "http://127.0.0.1:3100/v1"
        assert sidecar(made)["args"][4] == "3100"
