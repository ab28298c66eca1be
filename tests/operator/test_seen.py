"""What the watches told, and which configs an event concerns: changes of configs, Secrets, pods and namespaces.

Left out: where events come from (handlers), what is done about them (tests/cluster/test_operator).
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.pods import config_object, injected, pod_object
from inference_operator import naming
from inference_operator.reconcile import Key, Seen

TEAM, OTHER = Key("shop", "team"), Key("shop", "other")


def versioned(obj: dict[str, Any], version: str, generation: int = 1) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": version, "generation": generation}}


def config(name: str = "team", version: str = "1", generation: int = 1, **spec: Any) -> dict[str, Any]:
    return versioned(config_object(name, **spec), version, generation)


def pod(name: str = "web-1", *, of: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    obj = pod_object(**more) if of is None else of
    return {
        **obj,
        "metadata": {**obj["metadata"], "namespace": "shop", "name": name, "uid": f"uid-of-{name}"},
    }


@pytest.fixture
def seen() -> Seen:
    """Two configs: team selects `app: web`, other is taken by name only."""
    found = Seen()
    list(found.on_config(config(), gone=False))
    list(found.on_config(config("other", selector=None), gone=False))
    return found


def test_a_new_config_concerns_its_neighbours(seen: Seen) -> None:
    """Its selector may take pods from them."""
    assert set(seen.on_config(config("third"), gone=False)) == {TEAM, OTHER, Key("shop", "third")}
    elsewhere = config("team")
    elsewhere["metadata"]["namespace"] = "elsewhere"
    assert list(seen.on_config(elsewhere, gone=False)) == [Key("elsewhere", "team")]


def test_a_status_concerns_its_config_alone_and_a_spec_its_neighbours_too(seen: Seen) -> None:
    assert list(seen.on_config(config(version="2"), gone=False)) == [TEAM]
    assert set(seen.on_config(config(version="3", generation=2), gone=False)) == {TEAM, OTHER}


def test_a_config_that_is_gone_concerns_its_neighbours_and_is_forgotten(seen: Seen) -> None:
    assert set(seen.on_config(config(), gone=True)) == {TEAM, OTHER}
    assert seen.config(TEAM) is None
    assert seen.every() == [OTHER]
    assert [one.name for one in seen.configs("shop")] == ["other"]


def test_a_config_that_cannot_be_read_is_kept_and_chosen_by_nobody(seen: Seen) -> None:
    broken = config("broken", sidecar={"logLevel": "loud"})
    list(seen.on_config(broken, gone=False))
    assert seen.config(Key("shop", "broken")) == broken
    assert {one.name for one in seen.configs("shop")} == {"team", "other"}


def test_a_newer_version_is_read_anew(seen: Seen) -> None:
    list(seen.on_config(config("other", version="2", generation=2, selector={}), gone=False))
    (other,) = [one for one in seen.configs("shop") if one.name == "other"]
    assert other.spec.selector is not None


def test_a_secret_concerns_those_that_name_it_and_the_one_that_it_is_rendered_from(seen: Seen) -> None:
    assert set(seen.on_secret("shop", "openai")) == {TEAM, OTHER}
    assert list(seen.on_secret("shop", naming.rendered_secret("other"))) == [OTHER]
    assert list(seen.on_secret("shop", "unrelated")) == []
    assert list(seen.on_secret("elsewhere", "openai")) == []


def test_a_pod_concerns_the_configs_that_it_counts_for(seen: Seen) -> None:
    assert list(seen.on_pod(pod(), gone=False)) == [TEAM]
    by_name = {naming.CONFIG_ANNOTATION: "other"}
    assert list(seen.on_pod(pod("web-2", annotations=by_name), gone=False)) == [OTHER]
    assert {one.name for one in seen.pods("shop")} == {"web-1", "web-2"}


def test_an_injected_pod_concerns_its_config_before_and_now(seen: Seen) -> None:
    list(seen.on_pod(pod(), gone=False))
    assert set(seen.on_pod(pod(of=injected(pod_object())), gone=False)) == {TEAM}
    assert set(seen.on_pod(pod(), gone=True)) == {TEAM}
    assert seen.pods("shop") == []
    assert seen.uids() == set()


def test_a_pod_that_asks_for_nothing_is_not_kept(seen: Seen) -> None:
    plain = pod_object()
    del plain["metadata"]["labels"][naming.INJECT_LABEL]
    assert list(seen.on_pod(pod(of=plain), gone=False)) == []
    assert seen.pods("shop") == []


def test_what_does_not_count_is_no_news(seen: Seen) -> None:
    """Above all the operator's own nudge."""
    of = injected(pod_object())
    list(seen.on_pod(pod(of=of), gone=False))
    assert list(seen.on_pod(pod(of=of), gone=False)) == []
    annotations = {**of["metadata"]["annotations"], naming.NUDGE_ANNOTATION: "r.0"}
    nudged = {**of, "metadata": {**of["metadata"], "annotations": annotations}}
    assert list(seen.on_pod(pod(of=nudged), gone=False)) == []
    assert seen.pods("shop")[0].nudged == ("r", 0), "but it is remembered"


def test_a_namespace_that_opts_in_or_out_concerns_its_configs(seen: Seen) -> None:
    labels = {naming.INJECT_LABEL: "true"}
    namespace = {"metadata": {"name": "shop", "labels": labels}}
    assert set(seen.on_namespace(namespace, gone=False)) == {TEAM, OTHER}
    assert seen.opted_in("shop")
    assert list(seen.on_namespace(namespace, gone=False)) == []
    plain = pod_object()
    del plain["metadata"]["labels"][naming.INJECT_LABEL]
    assert list(seen.on_pod(pod(of=plain), gone=False)) == [TEAM]
    assert set(seen.on_namespace({"metadata": {"name": "shop"}}, gone=False)) == {TEAM, OTHER}
    assert not seen.opted_in("shop")
    assert list(seen.on_namespace({"metadata": {"name": "elsewhere", "labels": labels}}, gone=True)) == []


def test_injected_pods_are_found_in_all_namespaces(seen: Seen) -> None:
    list(seen.on_pod(pod(of=injected(pod_object())), gone=False))
    list(seen.on_pod(pod("web-2"), gone=False))
    assert [one.name for one in seen.injected()] == ["web-1"]
