"""A rollout over pods that are objects in a real API server, with a scripted /status each.

Tested: stale pods are nudged, again with growing waits, until they are current; a rotation reaches every pod within
seconds and nudges each once; a refused config is told with the pod's reason and heals; pods that give no answer, or
none that can be believed, make RolledOut Unknown and take nothing from Ready; a pod that starts, one that goes;
what only a restart brings. Left out: counting and nudging by table (tests/operator/test_rollout), real kubelets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.harness.kubelet import Kubelet
from cluster.harness.place import Place
from cluster.harness.process import Operator
from cluster.harness.proxy import Proxy
from harness.admin import Admins, reply
from inference_operator.cluster import PODS
from inference_operator.rollout import MAX_ANSWER_BYTES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def operator(proxy: Proxy, place: Place, tmp_path: Path) -> Iterator[Operator]:
    """One of the namespace; its config is ready."""
    with Operator(tmp_path, proxy.url, "--namespace", place.namespace) as running:
        place.key()
        place.config()
        place.becomes("Ready", "True", "Ready")
        yield running


def test_a_stale_pod_is_nudged_until_it_is_current(place: Place, admins: Admins) -> None:
    admin = admins.add(revision="older")
    place.pod("web-1", admin)
    # A pod that is starting is progressing, too.
    place.until(lambda: place.counts() == {"matched": 1, "injected": 1, "stale": 1}, "a stale pod")
    assert place.condition("RolledOut") == ("False", "Progressing")
    assert "web-1" in place.message("RolledOut")
    assert place.condition("Ready") == ("True", "Ready"), "a rollout under way takes nothing from that"
    seen: list[tuple[int, float]] = []

    def nudged_again() -> bool:
        number = place.nudge("web-1")[1]
        if not seen or seen[-1][0] != number:
            seen.append((number, time.monotonic()))
        return number >= 3

    place.until(nudged_again, "more nudges")
    assert [number for number, _ in seen] == sorted({number for number, _ in seen})
    assert seen[-1][1] - seen[-2][1] > 1, "the waits grow"
    admin.revision = place.revision()
    place.becomes("RolledOut", "True", "AllCurrent")
    assert place.nudge("web-1")[0] == place.revision()


def test_a_rotated_key_reaches_every_pod_within_seconds(
    place: Place, proxy: Proxy, admins: Admins, note: Callable[[str], None]
) -> None:
    kubelet = Kubelet()
    proxy.done = kubelet
    for number in range(1, 11):
        admin = kubelet.pods[f"web-{number}"] = admins.add(revision=place.revision())
        place.pod(f"web-{number}", admin)
    place.until(lambda: place.counts().get("current") == 10, "ten pods that are current")
    assert not kubelet.nudges, "a pod that is current needs none"
    before = place.revision()
    began = time.monotonic()
    place.key()
    place.until(lambda: place.revision() != before, "another revision")
    revision = place.revision()
    place.until(lambda: all(one.revision == revision for one in kubelet.pods.values()), "pods that have it")
    note(
        f"a rotated key, from the Secret's change to the last of ten pods' nudges: {time.monotonic() - began:.2f} s"
    )
    place.until(lambda: place.status()["pods"]["current"] == 10, "a status that says so")
    place.becomes("RolledOut", "True", "AllCurrent")
    assert time.monotonic() - began < 5
    assert kubelet.nudges == {name: [f"{revision}.0"] for name in kubelet.pods}


def test_a_refused_config_is_told_and_heals_with_the_next(place: Place, proxy: Proxy, admins: Admins) -> None:
    revision = place.revision()
    admin = admins.add(revision="older", refused="base_url: no such host", refused_revision=revision)
    place.pod("web-1", admin)
    place.pod("web-2", admins.add(revision=revision))
    both = {"matched": 2, "injected": 2, "current": 1, "refused": 1}
    place.until(lambda: place.counts() == both, "one that refuses, one that is current")
    assert place.condition("Ready") == ("False", "Refused")
    assert place.condition("RolledOut") == ("False", "Refused")
    assert "web-1: base_url: no such host" in place.message("RolledOut")
    place.until(lambda: "Refused" in place.events(), "an event")
    proxy.done = kubelet = Kubelet()
    kubelet.pods["web-1"] = admin
    admin.refused = admin.refused_revision = None
    place.change(inference={"defaultModel": "gpt-4o-mini"})
    place.becomes("Ready", "True", "Ready")
    assert admin.revision == place.revision()


def test_pods_that_give_no_answer_make_it_unknown(place: Place, admins: Admins) -> None:
    """Refused connections, silence, lies: none of it is a failure of the rollout, and none of it is believed."""
    said = {
        "web-1": reply(b"x" * (MAX_ANSWER_BYTES + 10)),
        "web-2": reply(b"", "302 Found", "Location: http://127.0.0.1:1/status"),
        "web-3": b"garbage\r\n\r\n",
        "web-4": b"",
    }
    for name, raw in said.items():
        place.pod(name, admins.add(raw=raw))
    gone = admins.add()
    place.pod("web-5", gone)
    admins.close(gone)
    place.pod("web-6", admins.add(revision=place.revision()))
    place.until(
        lambda: place.counts() == {"matched": 6, "injected": 6, "current": 1, "unreachable": 5}, "counts"
    )
    assert place.condition("RolledOut") == ("Unknown", "Unreachable")
    assert "web-1: its /status is too large" in place.message("RolledOut")
    assert place.condition("Ready") == ("True", "Ready")


def test_a_pod_that_answers_again_is_found(place: Place, admins: Admins) -> None:
    admin = admins.add(raw=b"garbage\r\n\r\n")
    place.pod("web-1", admin)
    place.becomes("RolledOut", "Unknown", "Unreachable")
    admin.revision, admin.raw = place.revision(), None
    place.becomes("RolledOut", "True", "AllCurrent")


def test_a_pod_that_starts_and_one_that_goes(place: Place, admins: Admins) -> None:
    place.pod("web-1", None)
    place.pod("web-2", admins.add(revision=place.revision()))
    place.until(lambda: place.counts() == {"matched": 2, "injected": 2, "current": 1}, "one that is starting")
    assert place.condition("RolledOut") == ("False", "Progressing")
    place.api.delete(PODS, place.namespace, "web-1")
    place.becomes("RolledOut", "True", "AllCurrent")
    assert place.counts() == {"matched": 1, "injected": 1, "current": 1}


def test_what_only_a_restart_brings_is_told_with_the_command(place: Place, admins: Admins) -> None:
    admin = admins.add(revision=place.revision())
    place.pod("web-1", admin)
    place.becomes("RolledOut", "True", "AllCurrent")
    assert place.condition("RestartRequired") == ("False", "UpToDate")
    place.change(sidecar={"logLevel": "debug"})
    place.becomes("RestartRequired", "True", "SidecarChanged")
    message = place.message("RestartRequired")
    assert f"kubectl delete pod/web-1 -n {place.namespace}" in message
    assert place.condition("Ready") == ("True", "Ready")
    place.change(sidecar={"logLevel": None})
    place.becomes("RestartRequired", "False", "UpToDate")
