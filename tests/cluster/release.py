"""The chart as people install it, by real Helm.

Enters: a cluster, a namespace, images. Leaves: a release, what it says of itself, and where an installation fails, what
one would look at next. Must not know what is tested with it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cluster.kube.cluster import Cluster, CommandFailed
from cluster.stage import until
from harness.container import REPOSITORY

CHART: Final = REPOSITORY / "helm" / "inference-sidecar"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass
class Release:
    """The chart as people install it."""

    cluster: Cluster
    namespace: str
    sidecar_image: str
    operator_image: str
    name: str = "inference-sidecar"
    installed: bool = False

    @property
    def webhook(self) -> str:
        return f"{self.name}.{self.namespace}"

    def install(self, *values: str) -> None:
        """As people do it. What a failure leaves is told with it."""
        if not self.installed:
            self.installed = True  # what fails halfway has to be removed, too
            self._helm("install", *self._images(), *sets(values))

    def bring_about(self) -> None:
        """Installed where it is not, and brought up to the chart and the images of this tree where it is."""
        self.installed = True
        # What somebody has set by hand meanwhile stays as it is.
        self._helm("upgrade", "--install", "--create-namespace", "--reset-then-reuse-values", *self._images())

    def upgrade(self, *values: str, texts: Sequence[str] = ()) -> None:
        """`texts`: values that stay text, whatever they look like."""
        self._helm("upgrade", "--reuse-values", *sets(values), *sets(texts, "--set-string"))

    def rollback(self) -> None:
        self.cluster.helm("rollback", self.name, f"--namespace={self.namespace}", "--wait", "--timeout=120s")

    def uninstall(self) -> None:
        if self.installed:
            self.cluster.helm(
                "uninstall", self.name, f"--namespace={self.namespace}", "--wait", "--timeout=120s"
            )
            self.installed = False

    def scale(self, deployment: str, replicas: int) -> None:
        """To so many pods, and no other."""
        where = f"--namespace={self.namespace}"
        self.cluster.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}", where)
        self.until_up(deployment)
        self.until_alone(deployment)

    def until_alone(self, deployment: str) -> None:
        """There are no pods but those of now: one that drains still serves, and no Deployment counts it."""
        where = f"--namespace={self.namespace}"
        spec = self.cluster.get("deployment", deployment, where)["spec"]
        labels = ",".join(f"{name}={value}" for name, value in spec["selector"]["matchLabels"].items())

        def pods() -> int:
            return len(self.cluster.get("pods", f"--selector={labels}", where)["items"])

        until(f"{deployment} has {spec['replicas']} pods", lambda: pods() == spec["replicas"])

    def until_up(self, deployment: str) -> None:
        """As many pods as there should be are Ready."""
        where = f"--namespace={self.namespace}"

        def settled() -> bool:
            found = self.cluster.get("deployment", deployment, where)
            wanted, status = found["spec"]["replicas"], found["status"]
            counts = [status.get(name, 0) for name in ("replicas", "readyReplicas", "availableReplicas")]
            return counts == [wanted] * 3 and status["observedGeneration"] == found["metadata"]["generation"]

        until(f"{deployment} is up", settled)

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Those of operator or injector that are not about to go."""
        where = (f"--namespace={self.namespace}", f"--selector=app.kubernetes.io/component={component}")
        found = self.cluster.get("pods", *where)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def kill_one(self, component: str) -> None:
        """A pod of operator or injector, at once and without a word."""
        name = self.pods(component)[0]["metadata"]["name"]
        where = f"--namespace={self.namespace}"
        self.cluster.kubectl("delete", "pod", name, where, "--force", "--grace-period=0", "--wait=false")

    @contextlib.contextmanager
    def without_webhook(self) -> Iterator[None]:
        """As if somebody had deleted it, and brought it back by the chart."""
        kept = self.cluster.get("mutatingwebhookconfiguration", self.webhook)
        self.cluster.kubectl("delete", "mutatingwebhookconfiguration", self.webhook)
        try:
            yield
        finally:
            kept["metadata"] = {name: kept["metadata"][name] for name in ("name", "labels", "annotations")}
            for webhook in kept["webhooks"]:
                del webhook["clientConfig"]["caBundle"]
            self.cluster.kubectl("create", "--filename=-", stdin=json.dumps(kept))

    def is_trusted(self) -> bool:
        """Whether the API server knows the injectors' authority."""
        webhooks = self.cluster.get("mutatingwebhookconfiguration", self.webhook)["webhooks"]
        return all(webhook["clientConfig"].get("caBundle") for webhook in webhooks)

    def test(self, timeout_secs: int = 60) -> str:
        """`helm test`, with what its pod said."""
        where = f"--namespace={self.namespace}"
        return self.cluster.helm("test", self.name, where, "--logs", f"--timeout={timeout_secs}s")

    def said_by_test(self) -> str:
        """By the pod of a `helm test` that did not succeed, which stays for that."""
        return self.cluster.kubectl("logs", f"{self.name}-test", f"--namespace={self.namespace}")

    def logs(self) -> str:
        """Of operator and injectors."""
        labels = f"--selector=app.kubernetes.io/instance={self.name}"
        return self.cluster.kubectl("logs", labels, f"--namespace={self.namespace}", "--tail=-1", "--prefix")

    def evidence(self) -> str:
        """What one would look at next: events, pods that are not Ready, what all of them said."""
        where = f"--namespace={self.namespace}"
        told = [self._told("get", "events", "--sort-by=.lastTimestamp", where)]
        for pod in self.cluster.get("pods", where)["items"]:
            name = pod["metadata"]["name"]
            conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
            if conditions.get("Ready") != "True":
                told.append(self._told("describe", "pod", name, where))
                told.append(self._told("logs", name, where, "--tail=40", "--previous"))
            told.append(self._told("logs", name, where, "--tail=40"))
        return "\n".join(told)

    def _told(self, *command: str) -> str:
        """What kubectl says, be it that there is nothing to say."""
        head = f"--- kubectl {' '.join(command)}"
        try:
            return f"{head}\n{self.cluster.kubectl(*command)}"
        except CommandFailed as error:
            return f"{head}\n{error.stderr}"

    def _helm(self, verb: str, *arguments: str) -> None:
        where = (self.name, str(CHART), f"--namespace={self.namespace}")
        try:
            self.cluster.helm(verb, *where, *arguments, "--wait", "--timeout=120s")
        except CommandFailed as error:
            error.add_note(self.evidence())
            raise

    def _images(self) -> Iterator[str]:
        for part, image in (("sidecar", self.sidecar_image), ("operator", self.operator_image)):
            repository, _, tag = image.rpartition(":")
            yield from ("--set", f"images.{part}.repository={repository},images.{part}.tag={tag}")


def sets(values: Sequence[str], flag: str = "--set") -> Iterator[str]:
    """As Helm's arguments."""
    for value in values:
        yield from (flag, value)
