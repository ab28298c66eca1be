"""The operator as a process, against a real API server: what it makes of an InferenceConfig, and what it leaves alone.

Tested: renders once and writes nothing when nothing changed, through resyncs and a restart; each fault of a Secret
as condition and event, healed by itself; a name that is taken; a spec that this version cannot read; deletion in
use; selectors in conflict; a config made again at once under its name; workloads whose pods were refused are
touched; a namespace that is going. Left out: pods' answers (test_rollout_on_cluster), roles (test_operator_rights),
faults of the API server (test_operator_faults), the injector.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.harness.api import Api
from cluster.harness.place import Place, bare_pod
from cluster.harness.process import Operator
from cluster.harness.proxy import Proxy
from harness.admin import Admins
from inference_config.names import KEY_FILE
from inference_operator import naming
from inference_operator.cluster import CONFIGS, PODS, SECRETS, WORKLOADS, Resource
from inference_operator.handlers import Pace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RESYNC_SECS = 0.4
DEFINITION = "inferenceconfigs.inferencesidecar.dev"


@pytest.fixture(scope="module")
def door(api: Api) -> Iterator[Proxy]:
    with Proxy(api.access) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def operator(door: Proxy, definition: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One for all tests here, that looks after the whole cluster, and often."""
    pace = Pace(resync_secs=RESYNC_SECS, probe_secs=2)
    with Operator(tmp_path_factory.mktemp("operator"), door.url, pace=pace) as running:
        yield running


def reconciles(operator: Operator) -> int:
    """That have ended well, so far."""
    lines = operator.health("/metrics")[1].splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if 'reconciles_total{outcome="done"}' in line)


def test_a_config_is_rendered_and_becomes_ready(place: Place) -> None:
    key = place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    secret = place.rendered()
    assert secret is not None
    assert base64.b64decode(secret["data"][KEY_FILE]).decode() == key
    assert secret["metadata"]["ownerReferences"][0]["uid"] == place.seen()["metadata"]["uid"]
    assert {one["manager"] for one in secret["metadata"]["managedFields"]} == {naming.FIELD_MANAGER}
    status = place.status()
    assert status["revision"] == place.revision()
    assert status["observedGeneration"] == 1
    assert list(status["secretResourceVersions"]) == ["openai"]
    assert place.condition("RolledOut") == ("True", "NoPods")


def test_nothing_is_put_on_objects_but_what_is_ours(place: Place, admins: Admins) -> None:
    """No finalizer, no progress, no copy of what was seen."""
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    place.pod("web-1", admins.add(revision=place.revision()))
    place.becomes("RolledOut", "True", "AllCurrent")
    for kind, name in ((CONFIGS, "team"), (SECRETS, "openai"), (PODS, "web-1")):
        metadata = place.api.get(kind, place.namespace, name)["metadata"]
        assert "finalizers" not in metadata
        assert not [key for key in metadata.get("annotations") or {} if "kopf" in key or "handled" in key]


def test_nothing_is_written_when_nothing_changed(
    place: Place, operator: Operator, door: Proxy, admins: Admins
) -> None:
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    place.pod("web-1", admins.add(revision=place.revision()))
    place.becomes("RolledOut", "True", "AllCurrent")
    before, mark, done = place.versions(), len(door.calls), reconciles(operator)
    operator.until(lambda: reconciles(operator) >= done + 5, "further reconciles")
    operator.stop()
    operator.start()
    done = reconciles(operator)
    operator.until(lambda: reconciles(operator) >= done + 5, "reconciles after the restart")
    assert place.versions() == before
    ours = [call for call in door.writes_since(mark) if f"/{place.namespace}/" in call.path]
    assert not ours, [call.kind for call in ours]


def test_a_change_of_ours_by_others_is_undone(place: Place) -> None:
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    revision, name = place.revision(), naming.rendered_secret("team")
    place.api.merge(SECRETS, place.namespace, name, {"data": {"revision": "eA=="}})
    place.until(lambda: place.revision() == revision, "the revision is put right")
    place.api.delete(SECRETS, place.namespace, name)
    place.until(lambda: place.rendered() is not None, "the Secret is made again")


FAULTS: dict[str, dict[str, Any]] = {
    "KeyNotFound": {"entry": "other"},
    "KeyEmpty": {"value": ""},
    "KeyInvalid": {"value": "two\nlines"},
    "WrongSecretType": {"type": "kubernetes.io/ssh-auth", "entry": "ssh-privatekey"},
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_fault_of_the_secret_is_told_and_heals_by_itself(place: Place, reason: str) -> None:
    place.key(**FAULTS[reason])
    place.config()
    place.becomes("Ready", "False", reason)
    assert place.condition("SecretsResolved") == ("False", reason)
    assert "openai" in place.message("SecretsResolved")
    assert place.rendered() is None
    place.until(lambda: reason in place.events(), "an event")
    if "type" in FAULTS[reason]:
        place.api.delete(SECRETS, place.namespace, "openai")
    place.key()
    place.becomes("Ready", "True", "Ready")
    place.until(lambda: "Ready" in place.events(), "an event that it is well again")


def test_a_secret_that_comes_later_heals_the_config(place: Place) -> None:
    place.config()
    place.becomes("Ready", "False", "SecretNotFound")
    assert "kubectl create secret generic openai" in place.message("SecretsResolved")
    place.key()
    place.becomes("Ready", "True", "Ready")


def test_a_secret_deleted_in_use_leaves_the_last_good_config_standing(place: Place, admins: Admins) -> None:
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    revision = place.revision()
    place.pod("web-1", admins.add(revision=revision))
    place.becomes("RolledOut", "True", "AllCurrent")
    place.api.delete(SECRETS, place.namespace, "openai")
    place.becomes("Ready", "False", "SecretNotFound")
    place.until(lambda: "SecretNotFound" in place.events(), "an event")
    assert "rendered last" in place.message("Ready")
    assert place.revision() == revision, "new pods start with it"
    assert place.counts() == {"matched": 1, "injected": 1, "current": 1}
    place.key()
    place.becomes("Ready", "True", "Ready")
    assert place.revision() != revision


def test_a_name_that_is_taken_is_told_and_not_written_over(place: Place) -> None:
    place.key()
    name = naming.rendered_secret("team")
    theirs = {"metadata": {"name": name}, "stringData": {"mine": "x"}}
    before = place.api.create(SECRETS, place.namespace, theirs)
    place.config()
    place.becomes("Ready", "False", "NameTaken")
    assert name in place.message("Rendered")
    assert place.api.get(SECRETS, place.namespace, name) == before
    place.api.delete(SECRETS, place.namespace, name)
    place.becomes("Ready", "True", "Ready")


def test_a_spec_that_the_contract_refuses_is_told(place: Place) -> None:
    """What no schema of the API server's says."""
    place.key()
    reference = {"name": "openai", "key": "api-key"}
    place.config(inference={"apiKeySecretRef": reference, "extraHeaders": {"Authorization": "mine"}})
    place.becomes("Ready", "False", "Invalid")
    assert "spec.inference.extraHeaders" in place.message("Rendered")
    assert "mine" not in place.message("Rendered")
    place.until(lambda: "Invalid" in place.events(), "an event")
    place.change(inference={"extraHeaders": None})
    place.becomes("Ready", "True", "Ready")


def test_a_deletion_in_use_is_told_by_an_event(place: Place, admins: Admins) -> None:
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    place.pod("web-1", admins.add(revision=place.revision()))
    place.becomes("RolledOut", "True", "AllCurrent")
    place.api.delete(CONFIGS, place.namespace, "team")
    place.until(lambda: "DeletedInUse" in place.events(), "an event")
    name = naming.rendered_secret("team")
    # Kubernetes' garbage collector looks for new kinds twice a minute, and this one may be that new.
    place.until(lambda: place.gone(SECRETS, name), "the rendered Secret goes with its config", seconds=60)


def test_a_config_made_again_at_once_is_ready_again(place: Place) -> None:
    """Its rendered Secret was the one of before until garbage collection came."""
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    for _ in range(3):
        place.api.delete(CONFIGS, place.namespace, "team")
        place.config()
    place.becomes("Ready", "True", "Ready", seconds=60)
    uid = place.seen()["metadata"]["uid"]

    def owned() -> bool:
        secret = place.rendered()
        return secret is not None and secret["metadata"]["ownerReferences"][0]["uid"] == uid

    place.until(owned, "a rendered Secret of its own", seconds=60)
    place.until(lambda: place.status().get("revision") == place.revision(), "its status says so", seconds=60)


def test_of_two_configs_that_select_a_pod_the_older_wins(place: Place, admins: Admins) -> None:
    place.key()
    place.config("older")
    place.becomes("Ready", "True", "Ready", "older")
    created = place.seen("older")["metadata"]["creationTimestamp"]
    while True:  # the API server's times are whole seconds
        younger = place.config("younger")
        if younger["metadata"]["creationTimestamp"] > created:
            break
        place.api.delete(CONFIGS, place.namespace, "younger")
        time.sleep(0.1)
    place.pod("web-1", admins.add(revision=place.revision("older")), config="older")
    place.becomes("Conflict", "True", "OlderSelectsSamePods", "younger")
    assert "older" in place.message("Conflict", "younger")
    assert place.condition("Conflict", "older") == ("False", "NoConflict")
    assert place.counts("younger") == {}
    place.change("younger", selector={"matchLabels": {"app": "other"}})
    place.becomes("Conflict", "False", "NoConflict", "younger")


def test_a_pod_without_its_sidecar_is_counted_and_told(place: Place) -> None:
    place.key()
    place.bare("web-1")
    place.config()
    place.becomes("RolledOut", "False", "NotInjected")
    assert place.counts() == {"matched": 1}
    assert "web-1" in place.message("RolledOut")


def test_a_bare_pod_of_a_namespace_that_asks_for_all_is_counted(place: Place, operator: Operator) -> None:
    """Whatever the watches tell first."""
    place.key()
    labels = {naming.INJECT_LABEL: "true"}
    place.api.merge(Resource("v1", "namespaces"), None, place.namespace, {"metadata": {"labels": labels}})
    pod = bare_pod("web-1")
    del pod["metadata"]["labels"][naming.INJECT_LABEL]
    place.api.create(PODS, place.namespace, pod)
    place.config()
    place.becomes("RolledOut", "False", "NotInjected")
    operator.stop()
    operator.start()
    done = reconciles(operator)
    operator.until(lambda: reconciles(operator) >= done + 5, "reconciles after the restart")
    assert place.condition("RolledOut") == ("False", "NotInjected")


def test_what_a_config_had_kept_from_being_made_is_touched(place: Place) -> None:
    """The controller is kept from making pods by a quota here, as it is by an injector that refuses them."""
    place.refuse_pods()
    sets = WORKLOADS["ReplicaSet"]
    for name, app in (("waiting", "web"), ("foreign", "other")):
        template = bare_pod(name, {"app": app})
        labels = template["metadata"].pop("labels")
        template = {"metadata": {"labels": labels}, "spec": {"containers": template["spec"]["containers"]}}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": app}}, "template": template}
        place.api.create(sets, place.namespace, {"metadata": {"name": name}, "spec": spec})

    def touched(name: str) -> bool:
        metadata = place.api.get(sets, place.namespace, name)["metadata"]
        return naming.TOUCH_ANNOTATION in (metadata.get("annotations") or {})

    place.config()
    place.becomes("Ready", "False", "SecretNotFound")
    assert not touched("waiting")
    place.key()
    place.until(lambda: touched("waiting"), "the ReplicaSet is touched")
    place.becomes("Ready", "True", "Ready")
    assert not touched("foreign")


def test_a_spec_of_a_newer_version_is_told_and_the_last_good_config_stands(place: Place) -> None:
    """As after a rollback of the operator: the API server's schema knows more than the operator does."""
    place.key()
    place.config()
    place.becomes("Ready", "True", "Ready")
    revision = place.revision()
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{DEFINITION}"
    spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/sidecar/properties"
    levels = place.api.call("GET", path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "spec"
    ]
    known = levels["properties"]["sidecar"]["properties"]["logLevel"]["enum"]
    media = "application/json-patch+json"

    def allow(values: list[str]) -> None:
        change = [{"op": "replace", "path": f"{spec}/logLevel/enum", "value": values}]
        place.api.call("PATCH", path, change, media)

    allow([*known, "trace"])
    try:
        place.until(lambda: _changed(place, "trace"), "a level that is newer")
        place.becomes("Ready", "False", "InvalidSpec")
        assert "logLevel" in place.message("Rendered")
        assert place.revision() == revision
        place.change(sidecar={"logLevel": "info"})
        place.becomes("Ready", "True", "Ready")
    finally:
        allow(known)


def _changed(place: Place, level: str) -> bool:
    """Whether the API server takes it by now."""
    try:
        place.change(sidecar={"logLevel": level})
    except AssertionError:
        return False
    return True
