"""Injection, whatever the pod: twice is as good as once, nothing of the pod is lost, and every outcome is a value.

Left out: what exactly is put in (test_inject).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from harness.pods import config, pods
from inference_operator import crd, naming
from inference_operator.inject import Injected, Refused, admit, inject, json_patch

CONFIGS = [
    config("team"),
    config("other", selector=None, sidecar={"injectEnv": False, "ports": {"api": 5000, "admin": 5001}}),
]
CHART = crd.parse_sidecar(
    {"imagePullSecrets": [{"name": "registry"}], "telemetry": {"endpoint": "http://o:4318"}}
)
ADDED_LISTS = {"traffic.sidecar.istio.io/excludeInboundPorts", "config.linkerd.io/skip-inbound-ports"}


def named(items: Any) -> dict[str, Any]:
    return {one["name"]: one for one in items or []}


@given(pods)
def test_twice_is_as_good_as_once(pod: dict[str, Any]) -> None:
    before = copy.deepcopy(pod)
    once = admit(pod, "shop", CONFIGS, CHART)
    assert pod == before
    if isinstance(once, Injected):
        again = admit(once.pod, "shop", CONFIGS, CHART)
        assert isinstance(again, Injected)
        assert again.pod == once.pod
        assert set(again.warnings) <= set(once.warnings)


@given(pods)
def test_nothing_of_the_pod_is_lost(pod: dict[str, Any]) -> None:
    found = admit(pod, "shop", CONFIGS, CHART)
    if not isinstance(found, Injected):
        return
    forced = (pod["metadata"].get("annotations") or {}).get(naming.ENV_ANNOTATION) == "force"
    spec, made = pod["spec"], found.pod["spec"]
    touched = {"containers", "initContainers", "volumes", "imagePullSecrets"}
    assert {key: value for key, value in spec.items() if key not in touched}.items() <= made.items()
    for place in touched:
        theirs = [one["name"] for one in spec.get(place) or []]
        assert [one["name"] for one in made.get(place) or [] if one["name"] in theirs] == theirs
    for place in ("containers", "initContainers"):
        for one in spec.get(place) or []:
            kept = named(made[place])[one["name"]]
            assert {key: kept[key] for key in one if key != "env"} == {
                key: one[key] for key in one if key != "env"
            }
            for variable in one.get("env") or []:
                if not (forced and variable["name"].startswith("OPENAI_")):
                    assert variable in kept["env"]
    metadata = found.pod["metadata"]
    assert pod["metadata"]["labels"].items() <= metadata["labels"].items()
    for key, value in (pod["metadata"].get("annotations") or {}).items():
        assert (
            metadata["annotations"][key].startswith(value)
            if key in ADDED_LISTS
            else metadata["annotations"][key] == value
        )


@given(pods)
def test_an_injected_pod_is_whole(pod: dict[str, Any]) -> None:
    """One sidecar, no name twice, every mount of it has a volume, no port twice; and no warning for nothing."""
    found = admit(pod, "shop", CONFIGS, CHART)
    if isinstance(found, Refused):
        assert found.message.endswith(".")
        return
    assert isinstance(found, Injected)
    spec = found.pod["spec"]
    everyone = [*spec["initContainers"], *spec["containers"]]
    assert len({one["name"] for one in everyone}) == len(everyone)
    assert spec["initContainers"][0]["name"] == naming.CONTAINER
    for one in everyone:
        variables = [variable["name"] for variable in one.get("env") or []]
        assert len(set(variables)) == len(variables)
    mounts = {mount["name"] for mount in spec["initContainers"][0]["volumeMounts"]}
    assert mounts <= {volume["name"] for volume in spec["volumes"]}
    for one in everyone[1:]:
        assert not any(mount["name"] in mounts for mount in one.get("volumeMounts") or [])
        for port in one.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                assert str(port["containerPort"]) not in spec["initContainers"][0]["args"]


@given(pods)
def test_the_patch_makes_the_injected_pod(pod: dict[str, Any]) -> None:
    found = inject(pod, CONFIGS[0], CHART)
    if isinstance(found, Injected):
        patch = json_patch(pod, found.pod)
        assert jsonpatch.apply_patch(copy.deepcopy(pod), patch) == found.pod
        assert json_patch(found.pod, found.pod) == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("ab~/", max_size=3),
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "a", "~/", ""]), below, max_size=3)
    ),
    max_leaves=12,
)
_mappings = st.dictionaries(st.text("ab~/", max_size=2), _json, max_size=4)


@given(_mappings, _mappings)
def test_a_patch_turns_one_value_into_the_other(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    patch = json_patch(before, after)
    made = jsonpatch.apply_patch(copy.deepcopy(before), patch)
    assert repr_of(made) == repr_of(after)
    if repr_of(before) == repr_of(after):
        assert patch == []


def repr_of(value: Any) -> str:
    """As JSON tells values apart: true is no 1."""
    return json.dumps(value, sort_keys=True)


def test_a_patch_is_small() -> None:
    """A container put in front is one operation, and moves nothing."""
    before = {"spec": {"initContainers": [{"name": "a", "image": "x"}, {"name": "b"}]}}
    after = {"spec": {"initContainers": [{"name": "new"}, {"name": "a", "image": "y"}, {"name": "b"}]}}
    assert json_patch(before, after) == [
        {"op": "add", "path": "/spec/initContainers/0", "value": {"name": "new"}},
        {"op": "replace", "path": "/spec/initContainers/1/image", "value": "y"},
    ]
