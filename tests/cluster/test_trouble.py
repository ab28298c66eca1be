"""What goes wrong in a cluster, and how it heals.

Tested: no injector left, and `helm test` that says so; an injector lost; an injector killed under continuous
admissions; the operator killed before a rotation; a sidecar killed for its memory; a pod that came up without its
sidecar; two configs for one pod; a config that a sidecar refuses; a config deleted in use. Left out: what people get
wrong in the course of the story (test_story), certificates that end.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import objects
from cluster.harness.admissions import Admissions
from cluster.harness.api import Api
from cluster.kube.cluster import Cluster, CommandFailed
from cluster.release import Release
from cluster.stage import Stage, Watch, restarts, sidecar, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MISSED_SECS = 5.0
KEYS = ("sk-memory-first-91d0c4", "sk-memory-second-3ae57b")
LIMIT = {"resources": {"limits": {"memory": "128Mi"}}}
INFERENCE: dict[str, Any] = {
    "apiKeySecretRef": {"name": "openai", "key": "api-key"},
    "baseUrl": "http://upstream/v1",
}

# Each call lacks the last of its 32 MiB, so all that came of it has to be kept.
FLOOD = """
import socket
head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\n"
calls = []
try:
    for _ in range(8):
        calls.append(socket.create_connection(("127.0.0.1", 3000)))
        calls[-1].sendall(head + b"Content-Length: %d\\r\\n\\r\\n" % (32 << 20))
        for _ in range(31):
            calls[-1].sendall(bytes(1 << 20))
    print("all were taken")
except OSError as error:
    print(type(error).__name__)
"""


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
    with pytest.raises(CommandFailed):
        release.test(timeout_secs=5)
    assert "failed calling webhook" in release.said_by_test()

    release.scale("inference-sidecar-injector", 2)
    watch = Watch(stage.note)
    stage.until_rolled_out()
    watch.took("injectors back, until the app that waited is up", 60)
    assert all(sidecar(pod) for pod in stage.pods())
    assert "gets the sidecar" in release.test()


def test_an_injector_that_is_lost_is_not_missed(release: Release, stage: Stage) -> None:
    stage.apply(objects.echo())
    release.kill_one("injector")
    pod = objects.pod("asks", stage.image, labels=objects.OPTED_IN)
    assert all(sidecar(stage.dry_run(pod)) for _ in range(10))
    release.until_up("inference-sidecar-injector")


def test_an_injector_that_is_killed_is_missed_for_moments(
    cluster: Cluster, release: Release, stage: Stage, api: Api
) -> None:
    """Its calls break off, and new ones meet nobody until its address is taken out or it is there again. Whoever is
    refused in between is refused, and not let in without a sidecar."""
    if cluster.node is None:
        pytest.skip("nobody kills a process in a cluster of one's own")
    stage.apply(objects.echo())
    pod = objects.pod("asks", stage.image, labels=objects.OPTED_IN)
    with Admissions(api.access, stage.namespace, pod) as admissions:
        until("admissions", lambda: len(admissions.made) >= 100)
        assert not admissions.failed()
        (one, *others) = release.pods("injector")
        cluster.node.kill_container(one, "injector")
        killed = time.monotonic()
        until(
            "it is started again", lambda: restarts(release.pods("injector")) == restarts([one, *others]) + 1
        )
        release.until_up("inference-sidecar-injector")
        back = time.monotonic()
        until("admissions since", lambda: len([each for each in admissions.made if each.at > back]) >= 200)
    failed = admissions.failed()
    missed = max((each.at for each in failed), default=killed) - killed
    stage.note(
        f"an injector of two killed: {len(failed)} of {len(admissions.made)} admissions failed, the last "
        f"{missed:.1f} s after; back after {back - killed:.1f} s"
    )
    assert all("failed calling webhook" in each.failure for each in failed)
    assert missed < MISSED_SECS
    assert not admissions.failed(since=back)


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


def test_a_sidecar_without_memory_comes_back_with_what_is_current(stage: Stage) -> None:
    stage.start(replicas=1)
    stage.apply(objects.secret(KEYS[0]), objects.config(inference=INFERENCE, sidecar=LIMIT, selector={}))
    stage.until_condition("Ready", "True")
    stage.until_rolled_out()
    (name,) = stage.names()
    stage.until_condition("RolledOut", "True", reason="AllCurrent")

    kill(stage, name, nth=1)
    until("the app's calls succeed again", lambda: succeeds(stage, name))
    tell_gap(stage, name)

    # A second time within ten minutes, and kubelet waits 10 s before it starts it again.
    kill(stage, name, nth=2)
    found = stage.until_condition("RolledOut", "Unknown", reason="Unreachable")
    assert f"{name}: its sidecar is in CrashLoopBackOff" in found["message"]
    assert stage.counts() == {**NOBODY, "matched": 1, "injected": 1, "unreachable": 1}
    assert stage.condition("Ready")["status"] == "True", "the config is as good as before"
    changed = {**INFERENCE, "allowedModels": ["gpt-4o"]}
    stage.apply(objects.secret(KEYS[1]), objects.config(inference=changed, sidecar=LIMIT, selector={}))
    stage.until_condition("Ready", "True")
    assert state(stage, name)["restartCount"] == 1, "it was to change while nothing runs"

    until("the sidecar is started again", lambda: state(stage, name)["restartCount"] == 2)
    stage.until_condition("RolledOut", "True", reason="AllCurrent")
    assert stage.counts() == {**NOBODY, "matched": 1, "injected": 1, "current": 1}
    until("the app's calls succeed again", lambda: succeeds(stage, name))
    assert stage.ledger()[-1]["key"] == KEYS[1]
    assert "o3" in stage.ask(name, "o3")["error"]
    assert restarts(stage.pods()) == 2, "the app was never started again"


NOBODY = dict.fromkeys(("matched", "injected", "current", "stale", "refused", "unreachable"), 0)


def kill(stage: Stage, name: str, nth: int) -> None:
    """By the kernel, for the `nth` time; returns as soon as kubelet has seen it."""
    said = stage.kubectl("exec", name, "--container=app", "--", "python", "-c", FLOOD)
    assert said.strip() in ("ConnectionResetError", "BrokenPipeError"), said

    def ended() -> dict[str, Any] | None:
        found = state(stage, name)
        ends = found["restartCount"] + ("running" not in found["state"])
        end = found["state"].get("terminated") or found["lastState"].get("terminated")
        return end if ends >= nth else None

    end = until("the sidecar was killed", ended)
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)


def state(stage: Stage, name: str) -> dict[str, Any]:
    """What kubelet says of the sidecar's container."""
    (found,) = stage.get("pod", name)["status"]["initContainerStatuses"]
    return dict(found)


def succeeds(stage: Stage, name: str) -> bool:
    calls = stage.calls(name)
    return bool(calls) and bool(calls[-1]["ok"])


def tell_gap(stage: Stage, name: str) -> None:
    """How long it was felt."""
    failed = [call["at"] for call in stage.calls(name) if not call["ok"]]
    gap = failed[-1] - failed[0] if failed else 0.0
    stage.note(f"sidecar killed for its memory: calls failed for {gap:.1f} s, {len(failed)} in all")


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
