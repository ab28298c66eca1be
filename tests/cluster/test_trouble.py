"""What goes wrong in a cluster, and how it heals.

Tested: no injector left; an injector lost; the operator killed before a rotation; a pod that came up without
its sidecar; two configs for one pod; a config that a sidecar refuses; a config deleted in use. Left out: what people
get wrong in the course of the story (test_story), certificates that end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from cluster import objects
from cluster.release import Release
from cluster.stage import Stage, Watch, sidecar, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _installed(release: Release) -> Iterator[None]:
    release.install()
    yield
    # A test that scaled something down has brought it back; one that failed before that must not hurt the next.
    release.scale("inference-sidecar", 1)
    release.scale("inference-sidecar-injector", 2)


def web(stage: Stage, replicas: int = 2) -> None:
    """Deployment web, whose pods ask for a sidecar and wait."""
    labels = {"app": "web", **objects.OPTED_IN}
    made = objects.template(stage.image, "sleep", "600", labels=labels)
    stage.apply(objects.workload("Deployment", "web", made, replicas=replicas))


def test_without_an_injector_only_those_wait_that_asked_for_one(release: Release, stage: Stage) -> None:
    stage.apply(objects.echo())
    release.scale("inference-sidecar-injector", 0)
    web(stage)
    stage.apply(objects.pod("other", stage.image, "sleep", "600", labels={"app": "other"}))
    stage.kubectl("wait", "--for=condition=Ready", "pod/other", "--timeout=30s")
    (replica_set,) = until("a ReplicaSet", lambda: stage.get("replicasets")["items"])
    name = replica_set["metadata"]["name"]
    message = until("pods are refused", lambda: stage.events(name, "FailedCreate"))[0]
    assert "inject.inferencesidecar.dev" in message
    assert not stage.pods()

    release.scale("inference-sidecar-injector", 2)
    watch = Watch(stage.note)
    stage.until_rolled_out()
    watch.took("injectors back, until the app that waited is up", 60)
    assert all(sidecar(pod) for pod in stage.pods())


def test_an_injector_that_is_lost_is_not_missed(release: Release, stage: Stage) -> None:
    stage.apply(objects.echo())
    release.kill_one("injector")
    pod = objects.pod("asks", stage.image, labels=objects.OPTED_IN)
    assert all(sidecar(stage.dry_run(pod)) for _ in range(10))
    release.until_up("inference-sidecar-injector")


def test_an_operator_that_is_killed_goes_on_where_it_was(release: Release, stage: Stage) -> None:
    stage.start(replicas=1)
    inference = {"apiKeySecretRef": {"name": "openai", "key": "api-key"}, "baseUrl": "http://upstream/v1"}
    stage.apply(objects.secret("sk-before-0c1d"), objects.config(inference=inference, selector={}))
    stage.until_condition("Ready", "True")
    stage.until_rolled_out()
    stage.until_condition("RolledOut", "True", reason="AllCurrent")
    with stage.under_load() as load:
        release.kill_one("operator")
        stage.apply(objects.secret("sk-after-7b2e"))
        watch = Watch(stage.note)
        until("the new key is in use", lambda: stage.ledger()[-1]["key"] == "sk-after-7b2e")
        watch.took("rotation while the operator is killed, until the new key is in use", 60)
    assert not load.failed
    release.until_up("inference-sidecar")
    stage.until_condition("RolledOut", "True", reason="AllCurrent")


def test_a_pod_that_came_up_without_its_sidecar_is_told(release: Release, stage: Stage) -> None:
    """Made while there was no webhook: nobody refused it, and nobody injected it."""
    stage.apply(objects.echo())
    with release.without_webhook():
        web(stage, replicas=1)
        stage.until_rolled_out()
    (name,) = stage.names()
    found = stage.until_condition("RolledOut", "False", "echo", reason="NotInjected")
    assert name in found["message"]
    counts = stage.counts("echo")
    assert (counts["matched"], counts["injected"]) == (1, 0)

    until("the webhook is trusted again", release.is_trusted)
    stage.kubectl("rollout", "restart", "deployment/web")
    stage.until_rolled_out()
    stage.until_condition("RolledOut", "True", "echo", reason="AllCurrent")


def test_of_two_configs_for_one_pod_the_older_wins(stage: Stage) -> None:
    stage.apply(objects.echo("older"))
    stage.until_condition("Ready", "True", "older")
    created = stage.get("inferenceconfig", "older")["metadata"]["creationTimestamp"]

    def is_younger() -> bool:
        """Times of creation are in whole seconds."""
        stage.kubectl("delete", "inferenceconfig", "younger", "--ignore-not-found")
        stage.apply(objects.echo("younger"))
        return bool(stage.get("inferenceconfig", "younger")["metadata"]["creationTimestamp"] > created)

    until("a config of another second", is_younger)
    web(stage, replicas=1)
    stage.until_rolled_out()
    found = stage.until_condition("Conflict", "True", "younger")
    assert found["message"].startswith("older is older and selects")
    assert stage.condition("Conflict", "older")["status"] == "False"
    stage.until_condition("RolledOut", "True", "older", reason="AllCurrent")
    assert (stage.counts("older")["current"], stage.counts("younger")["matched"]) == (1, 0)

    stage.kubectl("delete", "inferenceconfig", "older")
    messages = until("an event", lambda: stage.events("older", "DeletedInUse"))
    assert "Deleted while 1 pod" in messages[0]
    assert stage.names(), "the pod serves on"
    stage.until_condition("Conflict", "False", "younger")


def test_a_config_that_a_sidecar_refuses_is_told_with_its_reason(stage: Stage) -> None:
    """What only the pod can know: its authorities have become nonsense by the time that a new config comes."""
    authorities = stage.get("configmap", "kube-root-ca.crt")["data"]["ca.crt"]
    sidecar = {"caBundle": {"configMapRef": {"name": "authorities", "key": "ca.crt"}}}
    inference = {"apiKeySecretRef": {"name": "openai", "key": "api-key"}, "baseUrl": "https://upstream/v1"}
    trust(stage, authorities)
    stage.apply(
        objects.secret("sk-any-51e7"), objects.config(inference=inference, sidecar=sidecar, selector={})
    )
    web(stage, replicas=1)
    stage.until_rolled_out()
    stage.until_condition("RolledOut", "True", reason="AllCurrent")
    (name,) = stage.names()
    trust(stage, "nonsense", seen_by=name)
    changed = {**inference, "allowedModels": ["gpt-4o"]}
    stage.apply(objects.config(inference=changed, sidecar=sidecar, selector={}))
    found = stage.until_condition("RolledOut", "False", reason="Refused")
    assert name in found["message"]
    assert "found no certificates" in found["message"]
    assert stage.counts()["refused"] == 1
    assert stage.condition("Ready")["status"] == "False"

    watch = Watch(stage.note)
    trust(stage, authorities, seen_by=name)
    stage.until_condition("RolledOut", "True", reason="AllCurrent")
    watch.took("what a sidecar refused is mended, until status says so", 30)


def trust(stage: Stage, text: str, *, seen_by: str = "") -> None:
    """Make `text` the sidecars' authorities, in the files of the pod `seen_by` too: kubelet would take a minute."""
    meta = {"name": "authorities"}
    stage.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": text}})
    numbers = itertools.count()

    def there() -> bool:
        stage.kubectl("annotate", "--overwrite", "pod", seen_by, f"example.com/look={next(numbers)}")
        file = "/etc/inference-sidecar-ca/ca.crt"
        read = stage.kubectl("exec", seen_by, "--container=inference-sidecar", "--", "cat", file)
        return read.strip() == text.strip()

    if seen_by:
        until("the pod has the authorities", there)
