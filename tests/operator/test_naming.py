"""Names in the cluster: they fit, two never become one, and a pod's workload is what kubectl calls it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_operator import naming

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)


@given(NAMES)
def test_every_name_fits(name: str) -> None:
    assert len(naming.rendered_secret(name)) <= 253
    assert len(naming.event(name, "Reason", "message")) <= 253
    value = naming.label_value(name)
    assert len(value) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", value)


@given(NAMES, NAMES)
def test_two_names_stay_two(first: str, second: str) -> None:
    for made in (naming.rendered_secret, naming.label_value):
        assert (made(first) == made(second)) == (first == second)


def test_what_differs_only_where_it_is_cut_stays_two() -> None:
    assert naming.label_value("a" * 80 + "x") != naming.label_value("a" * 80 + "y")
    assert naming.label_value("a" * 63) == "a" * 63


def test_the_same_story_is_the_same_event() -> None:
    assert naming.event("team", "Ready", "text") == naming.event("team", "Ready", "text")
    assert naming.event("team", "Ready", "text") != naming.event("team", "Ready", "other text")


@pytest.mark.parametrize(
    ("owner", "labels", "workload"),
    [
        ({"kind": "ReplicaSet", "name": "web-5d8c9"}, {"pod-template-hash": "5d8c9"}, "deployment/web"),
        ({"kind": "ReplicaSet", "name": "web"}, {}, "replicaset/web"),
        ({"kind": "StatefulSet", "name": "db"}, {}, "statefulset/db"),
        ({"kind": "DaemonSet", "name": "agent"}, {}, "daemonset/agent"),
        ({"kind": "Job", "name": "once"}, {}, "job/once"),
    ],
)
def test_workloads(owner: dict[str, Any], labels: dict[str, str], workload: str) -> None:
    metadata = {"name": "pod-1", "labels": labels, "ownerReferences": [{**owner, "controller": True}]}
    assert str(naming.workload_of({"metadata": metadata})) == workload


def test_a_pod_that_stands_alone() -> None:
    assert str(naming.workload_of({"metadata": {"name": "lonely"}})) == "pod/lonely"
    not_controlled = {"name": "lonely", "ownerReferences": [{"kind": "Node", "name": "n1"}]}
    assert str(naming.workload_of({"metadata": not_controlled})) == "pod/lonely"
