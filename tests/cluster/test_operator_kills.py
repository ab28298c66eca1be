"""The operator killed (SIGKILL) at every write of a config's first rollout, before it was done and after, then started
again: it converges, and nothing is lost or done by halves.

The rollout has all that there is to write: the rendered Secret, a pod's nudge, events, a workload whose pods were
refused, the status. Between two writes it only reads. Left out: faults of the API server (test_operator_faults).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.harness.api import Api
from cluster.harness.kubelet import Kubelet
from cluster.harness.place import Place, bare_pod
from cluster.harness.process import Operator
from cluster.harness.proxy import Proxy, writes
from cluster.kube.cluster import Cluster
from harness.admin import Admins
from inference_operator import naming
from inference_operator.cluster import EVENTS, WORKLOADS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SETS = WORKLOADS["ReplicaSet"]


class Scene:
    """A namespace in which everything waits for its operator: a key, a config, a pod that has something older, and a
    ReplicaSet that is kept from making a pod."""

    def __init__(self, place: Place, admins: Admins, proxy: Proxy) -> None:
        self.place = place
        self.kubelet = Kubelet()
        proxy.done = self.kubelet
        place.key()
        place.config()
        self.admin = self.kubelet.pods["web-1"] = admins.add(revision="older")
        place.pod("web-1", self.admin)
        place.refuse_pods()
        pod = bare_pod("waiting")
        template = {
            "metadata": {"labels": pod["metadata"]["labels"]},
            "spec": {"containers": pod["spec"]["containers"]},
        }
        labels = {"app": "web", naming.INJECT_LABEL: "true", "set": "waiting"}
        template["metadata"]["labels"] = labels
        spec = {"replicas": 1, "selector": {"matchLabels": {"set": "waiting"}}, "template": template}
        place.api.create(SETS, place.namespace, {"metadata": {"name": "waiting"}, "spec": spec})

    def settled(self) -> bool:
        """Where every way must end."""
        place = self.place
        revision = place.revision()
        metadata = place.api.get(SETS, place.namespace, "waiting")["metadata"]
        return (
            revision != ""
            and place.condition("Ready") == ("True", "Ready")
            and place.condition("RolledOut") == ("True", "AllCurrent")
            and place.status()["revision"] == revision
            and self.admin.revision == revision
            and place.nudge("web-1")[0] == revision
            and naming.TOUCH_ANNOTATION in (metadata.get("annotations") or {})
            and "Ready" in place.events()
        )

    def until_settled(self) -> None:
        self.place.until(self.settled, "everything is in its place")
        reasons = [
            one["reason"]
            for one in self.place.api.items(EVENTS, self.place.namespace)
            if "team" in one["metadata"]["name"]
        ]
        assert len(reasons) == len(set(reasons)), f"told twice: {reasons}"


def test_killed_at_every_write_it_converges(
    cluster: Cluster, api: Api, definition: None, admins: Admins, tmp_path: Path, note: Callable[[str], None]
) -> None:
    written = _undisturbed(cluster, api, admins, tmp_path)
    assert {"PATCH secrets", "PATCH pods/status", "PATCH events", "PATCH replicasets/status"} < set(written)
    for nth, after in itertools.product(range(1, len(written) + 1), (False, True)):
        folder = tmp_path / f"{nth}{after}"
        folder.mkdir()
        with cluster.namespace("kill") as name, Proxy(api.access) as proxy:
            scene = Scene(Place(api, name), admins, proxy)
            held = proxy.hold(writes, nth, after=after)
            with Operator(folder, proxy.url, "--namespace", name) as operator:
                assert held.reached.wait(20), f"no write {nth}\n{operator.tail()}"
                operator.kill()
                proxy.let_go(held)
                operator.start(ready=False)
                scene.until_settled()
                operator.until_ready()
    note(f"operator killed before and after each of {', '.join(written)}")


def _undisturbed(cluster: Cluster, api: Api, admins: Admins, folder: Path) -> list[str]:
    """What is written, in order, up to the end of the story."""
    with cluster.namespace("kill") as name, Proxy(api.access) as proxy:
        scene = Scene(Place(api, name), admins, proxy)
        with Operator(folder, proxy.url, "--namespace", name):
            scene.until_settled()
        return [call.kind for call in proxy.calls if call.writes]
