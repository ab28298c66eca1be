"""An API server that fails, as the operator meets it: it converges by itself, or /livez says that it does not.

Tested: conflicts, bursts of 5xx at the start and later, a slow API server, watches that break off, 410 within a watch
and in place of one watch and of every, a watch that stands still while changes go by, the API server killed and
started again. No resync helps here: its time is far away. Left out: faults of pods (test_rollout_on_cluster).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.harness.kubelet import Kubelet
from cluster.harness.place import Place
from cluster.harness.process import Operator
from cluster.harness.proxy import Call, Proxy, writes
from cluster.kube import start
from cluster.kube.cluster import Cluster
from harness.admin import Admins
from inference_operator.cluster import CONFIGS, PODS
from inference_operator.handlers import STALLED_PROBES, Pace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PROBE_SECS = 0.5
EXPIRED = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure",'
    b'"message":"too old resource version","reason":"Expired","code":410}}\n'
)
GONE = (
    b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"The resourceVersion for the provided watch is too old.","reason":"Gone","code":410}'
)


@pytest.fixture
def operator(proxy: Proxy, place: Place, tmp_path: Path) -> Iterator[Operator]:
    """One of the namespace, at rest: a config is ready, its pod is current."""
    pace = Pace(resync_secs=3600, probe_secs=PROBE_SECS)
    with Operator(tmp_path, proxy.url, "--namespace", place.namespace, pace=pace) as running:
        yield running


@pytest.fixture(autouse=True)
def kubelet(proxy: Proxy, place: Place, admins: Admins) -> Kubelet:
    kubelet = Kubelet()
    proxy.done = kubelet
    place.key()
    place.config()
    admin = kubelet.pods["web-1"] = admins.add(revision="older")
    place.pod("web-1", admin)
    return kubelet


def at_rest(place: Place, but: str = "", seconds: float = 20) -> str:
    """Waits until the pod has what was rendered last, which is not `but`; its revision."""

    def is_so() -> bool:
        status = place.status()
        return (
            status.get("revision") not in (None, but)
            and place.condition("RolledOut") == ("True", "AllCurrent")
            and status["revision"] == place.revision()
        )

    place.until(is_so, "a rollout that has come to its end", seconds=seconds)
    return place.revision()


def answers(call: Call) -> bool:
    return not call.watch


def watches_secrets(call: Call) -> bool:
    return call.watch and call.path.endswith("/secrets")


def test_conflicts(operator: Operator, proxy: Proxy, place: Place) -> None:
    before = at_rest(place)
    fault = proxy.fail(writes, 409, times=3)
    place.key()
    at_rest(place, before)
    assert fault.met == 3


def test_a_burst_of_errors(operator: Operator, proxy: Proxy, place: Place) -> None:
    before = at_rest(place)
    fault = proxy.fail(answers, 503, times=8)
    place.key()
    at_rest(place, before, 40)
    assert fault.met == 8
    assert operator.health("/livez")[0] == 200


def test_errors_from_the_start_on(proxy: Proxy, place: Place, tmp_path: Path) -> None:
    proxy.fail(lambda call: True, 500, times=6)
    pace = Pace(resync_secs=3600, probe_secs=PROBE_SECS)
    with Operator(tmp_path, proxy.url, "--namespace", place.namespace, pace=pace):
        at_rest(place, seconds=40)


def test_an_api_server_that_is_slow(operator: Operator, proxy: Proxy, place: Place) -> None:
    before = at_rest(place)
    proxy.delay_secs = 0.4
    place.key()
    at_rest(place, before)
    assert operator.health("/livez")[0] == 200


def test_watches_that_break_off_while_something_changes(
    operator: Operator, proxy: Proxy, place: Place
) -> None:
    before = at_rest(place)
    for _ in range(3):
        proxy.stall(True)
        place.key()
        proxy.cut_watches()
        proxy.stall(False)
        before = at_rest(place, before)


def test_a_version_that_is_too_old(operator: Operator, proxy: Proxy, place: Place) -> None:
    before = at_rest(place)
    fault = proxy.fail(watches_secrets, 200, times=2, body=EXPIRED)
    proxy.stall(True)
    place.key()
    proxy.cut_watches()
    proxy.stall(False)
    before = at_rest(place, before)
    operator.until(lambda: fault.met == 2, "both faults")
    place.key()
    at_rest(place, before)


@pytest.mark.parametrize(("status", "body"), [(410, GONE), (200, EXPIRED)], ids=["answer", "event"])
def test_no_watch_is_to_be_had_for_a_while(
    operator: Operator, proxy: Proxy, place: Place, status: int, body: bytes
) -> None:
    """410 to each of them, again and again, as from an API server whose cache begins anew."""
    operator.expect("The resourceVersion for the provided watch is too old.")
    before = at_rest(place)
    process = operator.pid
    fault = proxy.fail(lambda call: call.watch, status, times=10_000, body=body)
    proxy.cut_watches()
    place.change(inference={"defaultModel": "gpt-4o-mini"})
    place.key()
    operator.until(lambda: fault.met >= 6, "attempts")
    assert operator.pid == process
    fault.times = 0
    before = at_rest(place, before)
    assert place.status()["observedGeneration"] == place.seen()["metadata"]["generation"]
    # And by its watches, not by having looked once.
    place.change(inference={"defaultModel": "gpt-4o"})
    at_rest(place, before)
    assert operator.pid == process
    assert operator.health("/livez")[0] == 200


def test_one_watch_of_several_breaks_off_for_good(operator: Operator, proxy: Proxy, place: Place) -> None:
    """The others are begun anew with it: none of them goes on beside its successor."""
    operator.expect("The resourceVersion for the provided watch is too old.")
    before = at_rest(place)
    operator.until(lambda: len(proxy.watched()) == 3, "watches: of configs, Secrets, pods")
    watched = proxy.watched()
    assert set(watched.values()) == {1}
    fault = proxy.fail(lambda call: call.watch and call.path.endswith("/pods"), 410, body=GONE)
    proxy.cut_watches()
    place.key()
    before = at_rest(place, before)
    assert fault.met == 1
    operator.until(lambda: proxy.watched().keys() == watched.keys(), "watches")
    place.key()
    at_rest(place, before)
    assert proxy.watched() == watched


def test_a_watch_that_stands_still_is_noticed(operator: Operator, proxy: Proxy, place: Place) -> None:
    at_rest(place)
    operator.until(lambda: operator.health("/livez")[0] == 200, "a process that lives")
    proxy.stall(True)
    place.change(inference={"defaultModel": "gpt-4o-mini"})
    began = time.monotonic()
    operator.until(lambda: operator.health("/livez")[0] == 503, "notice")
    assert time.monotonic() - began < PROBE_SECS * (STALLED_PROBES + 2) + 1
    assert "stands still" in operator.health("/livez")[1]
    operator.kill()  # kubelet's part
    proxy.stall(False)
    operator.start()
    place.until(lambda: place.status().get("observedGeneration") == 2, "the change")
    assert operator.health("/livez")[0] == 200


def test_what_a_watch_that_stands_still_does_not_tell_is_done_all_the_same(
    operator: Operator, proxy: Proxy, place: Place, admins: Admins
) -> None:
    """By the lists that it is checked with: kubelet, too, takes its time to begin the process anew."""
    at_rest(place)
    pods = place.counts()["injected"]
    proxy.stall(True)
    place.change(inference={"defaultModel": "gpt-4o-mini"})
    place.pod("web-more", admins.add(revision=place.revision()))
    place.until(lambda: place.status().get("observedGeneration") == 2, "the change")
    place.until(lambda: place.counts().get("injected") == pods + 1, "the pod that was made")
    place.api.delete(PODS, place.namespace, "web-more")
    place.until(lambda: place.counts().get("injected") == pods, "the pod that went")
    place.api.delete(CONFIGS, place.namespace, "team")
    operator.until(lambda: 'config="team"' not in operator.health("/metrics")[1], "the config that went")
    proxy.stall(False)


def test_a_watch_with_nothing_to_tell_is_not_taken_for_one_that_stands_still(
    operator: Operator, proxy: Proxy, place: Place
) -> None:
    at_rest(place)
    mark = len(proxy.calls)

    def probes() -> int:
        return sum(
            call.method == "GET" and call.path.endswith("/inferenceconfigs") for call in proxy.calls[mark:]
        )

    operator.until(lambda: probes() > 2 * STALLED_PROBES or operator.health("/livez")[0] != 200, "probes")
    assert operator.health("/livez")[0] == 200


def test_the_api_server_killed_and_started_again(
    cluster: Cluster, operator: Operator, proxy: Proxy, place: Place
) -> None:
    if cluster.node is None:
        pytest.skip("a cluster of one's own is not to be disturbed")
    before = at_rest(place)
    start.restart_api_server(cluster)
    place.key()
    at_rest(place, before, 60)
    operator.until(lambda: operator.health("/livez")[0] == 200, "a process that lives", 30)
