"""The whole story, on the chart as people install it: from `helm install` to `helm uninstall`.

Tested, in one go and in this order: installation, a pod that came too early, an InferenceConfig, the injected pods,
apps on the official SDK, a key rotated under load, a live change, changes that are refused, what status tells, a
Secret that is deleted and comes back, a cold change, an upgrade and a rollback under load with old sidecars, the end.
Every step goes on where the one before ended. Left out: what goes wrong by itself (test_trouble), other workloads than
a Deployment (test_workloads).
"""

from __future__ import annotations

import base64
import shlex
from typing import Any

import pytest

from cluster import objects
from cluster.harness.admissions import Admissions
from cluster.harness.api import Api
from cluster.kube.cluster import CommandFailed
from cluster.release import Release
from cluster.stage import Stage, Watch, restarts, sidecar, until
from inference_config.names import GROUP

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

KEYS = ("sk-story-first-2f6c1d", "sk-story-second-8b0e7a", "sk-story-third-5d93c4", "sk-story-fourth-a17e60")
REPLICAS = 3
INFERENCE: dict[str, Any] = {
    "apiKeySecretRef": {"name": "openai", "key": "api-key"},
    "baseUrl": "http://upstream/v1",
    "defaultModel": "gpt-4o",
}
SELECTOR = {"matchLabels": {"app": "web"}}


def inference_config(sidecar: dict[str, Any] | None = None, **inference: Any) -> dict[str, Any]:
    """The InferenceConfig of the story, with changes."""
    return objects.config(inference={**INFERENCE, **inference}, sidecar=sidecar or {}, selector=SELECTOR)


def test_the_story(release: Release, stage: Stage, api: Api) -> None:
    the_chart_is_installed(release, stage)
    an_app_without_a_config_is_refused(stage)
    a_config_is_applied_and_the_app_comes_up(stage)
    the_pods_have_a_sidecar_and_no_key(stage)
    apps_call_without_a_key(stage)
    a_key_is_rotated_under_load(stage, KEYS[0], KEYS[1])
    the_config_changes_in_running_pods(stage)
    what_is_wrong_is_refused_at_once(stage)
    people_see_where_things_stand(stage)
    the_secret_is_deleted_and_comes_back(stage)
    a_cold_change_names_the_pods_and_the_command(stage)
    the_chart_is_upgraded_under_load(release, stage, api)
    a_key_is_rotated_under_load(stage, KEYS[2], KEYS[3])
    the_chart_is_rolled_back_under_load(release, stage)
    nothing_ever_showed_a_key(release, stage)
    the_chart_is_uninstalled(release, stage)


def the_chart_is_installed(release: Release, stage: Stage) -> None:
    watch = Watch(stage.note)
    release.install()
    watch.took("helm install --wait", 30)
    # The first pod, at the first try: what `--wait` promises.
    stage.apply(objects.config("first", inference={"provider": "echo"}))
    first = objects.pod(
        "first", stage.image, labels=objects.OPTED_IN, annotations={f"{GROUP}/config": "first"}
    )
    assert sidecar(stage.dry_run(first)) is not None
    stage.kubectl("delete", "inferenceconfig", "first")


def an_app_without_a_config_is_refused(stage: Stage) -> None:
    stage.start(replicas=REPLICAS)

    def refused() -> list[str]:
        (replica_set,) = stage.get("replicasets", "--selector=app=web")["items"]
        return stage.events(replica_set["metadata"]["name"], "FailedCreate")

    until("the Deployment was made into a ReplicaSet", lambda: stage.get("replicasets")["items"])
    # Each wait of its controller is twice the one before, from 5 ms on: this many, and it would come in 5 s.
    until("the controller has long waits", lambda: len(refused()) >= 11)
    message = refused()[0]
    assert f"no InferenceConfig in namespace {stage.namespace} selects this pod" in message
    assert "Create one whose spec.selector matches the pod's labels" in message
    assert not stage.pods()
    stage.kubectl("wait", "--for=condition=Ready", "pod/upstream", "--timeout=60s")


def a_config_is_applied_and_the_app_comes_up(stage: Stage) -> None:
    watch = Watch(stage.note)
    stage.apply(objects.secret(KEYS[0]), inference_config())
    stage.kubectl("wait", "--for=condition=Ready", "inferenceconfig/openai", "--timeout=30s")
    watch.took("apply, until the InferenceConfig is Ready", 5)
    until("the pods that were refused", lambda: len(stage.pods()) == REPLICAS)
    watch.took("apply, until the refused pods are made", 5)
    (replica_set,) = stage.get("replicasets", "--selector=app=web")["items"]
    assert f"{GROUP}/touched-at" in replica_set["metadata"]["annotations"]
    stage.until_rolled_out()
    watch.took("apply, until the app is up", 30)


def the_pods_have_a_sidecar_and_no_key(stage: Stage) -> None:
    pods = stage.pods()
    for pod in pods:
        first = pod["spec"]["initContainers"][0]
        assert (first["name"], first["restartPolicy"]) == ("inference-sidecar", "Always")
        assert first["startupProbe"]["httpGet"]["port"] == first["livenessProbe"]["httpGet"]["port"] == 3001
        assert "readinessProbe" not in first
        env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:3000/v1"
        assert pod["metadata"]["annotations"][f"{GROUP}/injected-config"] == "openai"
    assert not shown(KEYS, str(pods))


def apps_call_without_a_key(stage: Stage) -> None:
    for name in stage.names():
        calls = stage.until_calls(name, 4)
        assert {call["how"] for call in calls} == {"plain", "streamed"}
        assert not [call for call in calls if not call["ok"]]
    came = stage.ledger()
    assert {entry["key"] for entry in came} == {KEYS[0]}
    assert {entry["pod"] for entry in came} == {pod["status"]["podIP"] for pod in stage.pods()}


def a_key_is_rotated_under_load(stage: Stage, old: str, new: str) -> None:
    stage.until_condition("RolledOut", "True")
    revision = stage.get("inferenceconfig", "openai")["status"]["revision"]
    with stage.under_load() as load:
        last = stage.ledger()[-1]
        assert last["key"] == old
        watch = Watch(stage.note)
        stage.apply(objects.secret(new))

        def told() -> bool:
            status = stage.get("inferenceconfig", "openai")["status"]
            return bool(status["revision"] != revision and status["pods"]["current"] == REPLICAS)

        until("status counts every pod as current", told)
        watch.took("rotation, until status has every pod current", 5)
    assert load.calls
    assert not load.failed
    came = stage.ledger(after=last["number"])
    slowest = max((entry["at"] for entry in came if entry["key"] == old), default=last["at"]) - last["at"]
    stage.note(f"rotation, until no pod uses the old key: {slowest:.1f} s, {len(load.calls)} calls, 0 failed")
    assert slowest < 5
    assert {entry["pod"] for entry in came if entry["key"] == new} == {
        pod["status"]["podIP"] for pod in stage.pods()
    }


def the_config_changes_in_running_pods(stage: Stage) -> None:
    pods = stage.pods()
    name = pods[0]["metadata"]["name"]
    assert stage.ask(name, "o3")["ok"]
    watch = Watch(stage.note)
    with stage.under_load() as load:
        stage.apply(inference_config(allowedModels=["gpt-4o"]))
        stage.until_condition("RolledOut", "True", reason="AllCurrent")
        watch.took("change of the config, until every pod has it", 5)
    refused = stage.ask(name, "o3")
    assert not refused["ok"]
    assert "o3" in refused["error"]
    assert not load.failed
    after = stage.pods()
    assert [pod["metadata"]["uid"] for pod in after] == [pod["metadata"]["uid"] for pod in pods]
    assert restarts(after) == 0


def what_is_wrong_is_refused_at_once(stage: Stage) -> None:
    """By the API server, where the schema can tell; by the operator, where the contract alone can."""
    without_key = objects.config(inference={"baseUrl": "http://upstream/v1"}, selector=SELECTOR)
    assert "apiKeySecretRef is needed unless provider is echo" in stage.refusal(without_key)
    assert "timeoutSecs" in stage.refusal(inference_config(http={"timeoutSecs": -1}))
    assert "timeoutSec" in stage.refusal(inference_config(http={"timeoutSec": 30}))

    with stage.under_load() as load:
        stage.apply(inference_config(baseUrl="http://upstream:port/v1"))
        found = stage.until_condition("Rendered", "False")
        assert "spec.inference.baseUrl" in found["message"]
        assert "go on with what was rendered last" in found["message"]
        assert stage.condition("Ready")["status"] == "False"
    assert not load.failed
    stage.apply(inference_config())
    stage.until_condition("Ready", "True")


def people_see_where_things_stand(stage: Stage) -> None:
    stage.until_condition("RolledOut", "True")
    head, line = stage.kubectl("get", "infc", "openai").splitlines()
    assert head.split() == ["NAME", "PROVIDER", "MODEL", "PODS", "CURRENT", "READY", "AGE"]
    assert line.split()[:-1] == ["openai", "openai", "gpt-4o", str(REPLICAS), str(REPLICAS), "True"]
    assert stage.counts() == {
        "matched": REPLICAS, "injected": REPLICAS, "current": REPLICAS,
        "stale": 0, "refused": 0, "unreachable": 0,
    }  # fmt: skip
    status = stage.get("inferenceconfig", "openai")["status"]
    version = stage.get("secret", "openai")["metadata"]["resourceVersion"]
    assert status["secretResourceVersions"] == {"openai": version}
    explained = stage.kubectl("explain", "inferenceconfig.spec.inference.allowedModels")
    assert "DESCRIPTION" in explained


def the_secret_is_deleted_and_comes_back(stage: Stage) -> None:
    watch = Watch(stage.note)
    stage.kubectl("delete", "secret", "openai")
    found = stage.until_condition("SecretsResolved", "False", reason="SecretNotFound")
    watch.took("Secret deleted, until the condition says so", 5)
    assert "kubectl create secret generic openai" in found["message"]
    until("an event", lambda: stage.events("openai", "SecretNotFound"))
    with stage.under_load() as load:
        going, *_ = stage.names()
        others = set(stage.names())
        assert stage.ask(going, "gpt-4o")["ok"]
    assert not load.failed
    # What was rendered stands, so a pod that is made now has it, too.
    stage.kubectl("delete", "pod", going, "--wait=false")
    (made,) = until("a pod in place of the other", lambda: set(stage.names()) - others)
    stage.kubectl("wait", "--for=condition=Ready", f"pod/{made}", "--timeout=60s")
    assert stage.until_calls(made, 1)[0]["ok"]
    assert stage.ledger()[-1]["key"] == KEYS[1]

    watch = Watch(stage.note)
    stage.apply(objects.secret(KEYS[2]))
    stage.until_condition("Ready", "True")
    stage.until_condition("RolledOut", "True", reason="AllCurrent")
    watch.took("Secret made again, until every pod has its key", 5)


def a_cold_change_names_the_pods_and_the_command(stage: Stage) -> None:
    assert stage.condition("RestartRequired")["status"] == "False"
    before = stage.names()
    stage.apply(inference_config(sidecar={"logLevel": "warning"}))
    found = stage.until_condition("RestartRequired", "True")
    assert all(name in found["message"] for name in before)
    command = f"kubectl rollout restart deployment/web -n {stage.namespace}"
    assert command in found["message"]
    assert stage.names() == before, "nobody but its owner restarts a workload"

    watch = Watch(stage.note)
    stage.cluster.kubectl(*shlex.split(command)[1:])
    stage.until_rolled_out()
    stage.until_condition("RestartRequired", "False")
    stage.until_condition("RolledOut", "True", reason="AllCurrent")
    watch.took("rollout restart of the app, until all is up to date", 45)
    until("the old pods are gone", lambda: len(stage.names()) == REPLICAS)


def the_chart_is_upgraded_under_load(release: Release, stage: Stage, api: Api) -> None:
    """With a default that pods take at their next restart: until then old sidecars work with the new release.

    Injectors are replaced one by one as by any rolling restart, while pods are asked for all the time.
    """
    kept = kept_by_releases(release, stage)
    before = {pod["metadata"]["uid"] for pod in release.pods("injector")}
    asking = objects.pod("asks", stage.image, labels={"app": "web", **objects.OPTED_IN})
    with stage.under_load() as load, Admissions(api.access, stage.namespace, asking) as admissions:
        watch = Watch(stage.note)
        release.upgrade("sidecar.resources.requests.memory=98Mi", "operator.podAnnotations.story=upgraded")
        watch.took("helm upgrade --wait, under load", 60)
        stage.until_condition("RestartRequired", "True")
        release.until_alone("inference-sidecar-injector")
    assert load.calls
    assert not load.failed
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in release.pods("injector"))
    stage.note(
        f"injectors replaced under {len(admissions.made)} admissions, {len(admissions.failed())} failed"
    )
    assert not admissions.failed(), admissions.failed()[0].failure
    assert kept_by_releases(release, stage) == kept
    assert stage.counts()["current"] == REPLICAS


def the_chart_is_rolled_back_under_load(release: Release, stage: Stage) -> None:
    kept = kept_by_releases(release, stage)
    with stage.under_load() as load:
        release.rollback()
        stage.until_condition("RestartRequired", "False")
    assert not load.failed
    assert kept_by_releases(release, stage) == kept


def kept_by_releases(release: Release, stage: Stage) -> list[str]:
    """What makes certificates and InferenceConfigs the same as before."""
    where = f"--namespace={release.namespace}"
    certificates = stage.cluster.get("secret", f"{release.name}-certificates", where)
    webhooks = stage.cluster.get("mutatingwebhookconfiguration", release.webhook)["webhooks"]
    bundles = {webhook["clientConfig"].get("caBundle", "") for webhook in webhooks}
    config = stage.get("inferenceconfig", "openai")
    assert all(bundles)
    return [str(certificates["data"]), str(bundles), config["metadata"]["uid"], str(config["spec"])]


def nothing_ever_showed_a_key(release: Release, stage: Stage) -> None:
    """Everything that people see of a namespace without the right to read its Secrets, and all that was logged."""
    seen = stage.kubectl("get", "pods,inferenceconfigs,events,replicasets,configmaps", "--output=json")
    logs = [
        stage.log(name, container) for name in stage.names() for container in ("app", "inference-sidecar")
    ]
    assert not shown(KEYS, seen, release.logs(), *logs)


def shown(keys: tuple[str, ...], *texts: str) -> list[str]:
    """Which keys are in `texts`, as they are or encoded."""
    forms = [form for key in keys for form in (key, base64.b64encode(key.encode()).decode())]
    return [form for form in forms if any(form in text for text in texts)]


def the_chart_is_uninstalled(release: Release, stage: Stage) -> None:
    with stage.under_load() as load:
        watch = Watch(stage.note)
        release.uninstall()
        watch.took("helm uninstall --wait", 60)
    assert not load.failed, "what runs goes on"
    with pytest.raises(CommandFailed, match="not found"):
        stage.cluster.get("mutatingwebhookconfiguration", release.webhook)
    free = objects.pod("free", stage.image, "sleep", "60", labels=objects.OPTED_IN)
    stage.apply(free)
    assert sidecar(stage.get("pod", "free")) is None
    assert stage.get("inferenceconfig", "openai")["spec"]["inference"]["defaultModel"] == "gpt-4o"
