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


def config(
    name: str = "team", version: str = "1", generation: int = 1, uid: str | None = None, **spec: Any
) -> dict[str, Any]:
    made = versioned(config_object(name, **spec), version, generation)
    return made if uid is None else {**made, "metadata": {**made["metadata"], "uid": uid}}


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


def test_what_was_deleted_and_made_again_is_there_in_whatever_order_it_is_told(seen: Seen) -> None:
    """The watch tells of the one that went and of its successor on two ways: neither waits for the other."""
    successor = config(version="30", uid="uid-of-the-second")
    list(seen.on_config(successor, gone=False))
    assert list(seen.on_config(config(version="19"), gone=False)) == []
    assert list(seen.on_config(config(version="20"), gone=True)) == []
    assert seen.config(TEAM) == successor
    assert seen.every() == [TEAM, OTHER]
    assert set(seen.on_config(config(version="31", uid="uid-of-the-second"), gone=True)) == {TEAM, OTHER}


def test_versions_that_are_no_numbers_are_taken_as_they_come(seen: Seen) -> None:
    for version in ("b", "a", "9", ""):
        list(seen.on_config(config(version=version), gone=False))
        assert seen.config(TEAM) == config(version=version)


def test_versions_of_secrets_are_kept_and_forgotten(seen: Seen) -> None:
    list(seen.on_secret("shop", "openai", "7"))
    assert seen.secret_version("shop", "openai") == "7"
    assert seen.secret_version("elsewhere", "openai") is None
    assert set(seen.on_secret("shop", "openai", None)) == {TEAM, OTHER}
    assert seen.secret_version("shop", "openai") is None


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
    assert set(seen.on_secret("shop", "openai", "7")) == {TEAM, OTHER}
    assert list(seen.on_secret("shop", naming.rendered_secret("other"), "7")) == [OTHER]
    assert list(seen.on_secret("shop", "unrelated", "7")) == []
    assert list(seen.on_secret("elsewhere", "openai", "7")) == []


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
