"""Where the story is played: a namespace with an upstream and apps, as seen by kubectl.

Enters: a cluster, images. Leaves: what the API server, the upstream's ledger and the apps' own logs say. Everything
that is waited for is asked for again and again until a deadline. Must not decide what is right.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cluster import objects
from cluster.kube.cluster import Cluster, CommandFailed

PATIENCE_SECS: Final = 60.0
LOOK_SECS: Final = 0.1

Found = TypeVar("Found")
Note = Callable[[str], None]
"""`note("what: 1.2 s")`: a line of the summary at the end."""


def until(what: str, look: Callable[[], Found | None], secs: float = PATIENCE_SECS) -> Found:
    """What `look` finds, as soon as that is something."""
    deadline = time.monotonic() + secs
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {secs:g} s: {what}"
        time.sleep(LOOK_SECS)  # neither a log nor a ledger tells of itself
    return found


class Watch:
    """Seconds since it was made, told once."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._since = time.monotonic()

    def took(self, what: str, at_most: float) -> None:
        seconds = time.monotonic() - self._since
        self._note(f"{what}: {seconds:.1f} s")
        assert seconds < at_most, what


@dataclass(frozen=True)
class Load:
    """What apps did while the context lasted; complete after it."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [call for call in self.calls if not call["ok"]]


@dataclass
class Stage:
    """A namespace."""

    cluster: Cluster
    namespace: str
    image: str
    note: Note

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, stdin=stdin)

    def apply(self, *made: dict[str, Any]) -> None:
        self.cluster.apply(*made, namespace=self.namespace)

    def get(self, *arguments: str) -> dict[str, Any]:
        return self.cluster.get(*arguments, f"--namespace={self.namespace}")

    def pods(self, app: str = "web") -> list[dict[str, Any]]:
        """Those that are not about to go."""
        found = self.get("pods", f"--selector=app={app}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def names(self, app: str = "web") -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods(app)]

    def condition(self, kind: str, name: str = "openai") -> dict[str, Any]:
        """The condition; for a spec that was not looked at yet, one without content."""
        found = self.get("inferenceconfig", name)
        status = found.get("status", {})
        if status.get("observedGeneration") != found["metadata"]["generation"]:
            return {"status": None, "reason": None, "message": ""}
        return next(dict(one) for one in status["conditions"] if one["type"] == kind)

    def counts(self, name: str = "openai") -> dict[str, int]:
        """status.pods."""
        return dict(self.get("inferenceconfig", name)["status"]["pods"])

    def until_condition(self, kind: str, status: str, name: str = "openai", **more: str) -> dict[str, Any]:
        """The condition, once it has that status (and reason)."""
        wanted = {"status": status, **more}

        def look() -> dict[str, Any] | None:
            found = self.condition(kind, name)
            return found if wanted.items() <= found.items() else None

        return until(f"{kind} of {name} is {wanted}", look)

    def events(self, name: str, reason: str) -> list[str]:
        """The messages of the events of that reason on the object of that name, each as often as it was said."""
        fields = f"--field-selector=involvedObject.name={name},reason={reason}"
        found = self.get("events", fields)["items"]
        return [str(event["message"]) for event in found for _ in range(event.get("count") or 1)]

    def until_rolled_out(self, what: str = "deployment/web") -> None:
        self.kubectl("rollout", "status", what, f"--timeout={PATIENCE_SECS:g}s")

    def ledger(self, after: int = 0) -> list[dict[str, Any]]:
        """What reached the upstream since entry `after`."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/upstream:8080/proxy/ledger?after={after}"
        return [json.loads(line) for line in self.cluster.kubectl("get", "--raw", path).splitlines()]

    def log(self, pod: str, container: str = "app") -> str:
        return self.kubectl("logs", pod, f"--container={container}")

    def calls(self, pod: str) -> list[dict[str, Any]]:
        """What the app in `pod` says of its calls."""
        return [json.loads(line) for line in self.log(pod).splitlines()]

    def until_calls(self, pod: str, number: int) -> list[dict[str, Any]]:
        """The same, once it has made so many."""

        def enough() -> list[dict[str, Any]] | None:
            calls = self.calls(pod)
            return calls if len(calls) >= number else None

        return until(f"{number} calls of {pod}", enough)

    @contextlib.contextmanager
    def under_load(self, app: str = "web") -> Iterator[Load]:
        """The calls that the pods of now make while the context lasts, and a few before and after."""
        load = Load()
        before = {name: max(0, len(self.calls(name)) - 1) for name in self.names(app)}
        yield load
        for name, skipped in before.items():
            made = self.until_calls(name, len(self.calls(name)) + 3)
            load.calls.extend(made[skipped:])

    def ask(self, pod: str, model: str) -> dict[str, Any]:
        """One call for `model` from within an app's container."""
        # What it says is wanted, and not how it ended.
        command = ("sh", "-c", f"MODEL={model} CALLS=1 PAUSE=0 python app.py || true")
        return dict(json.loads(self.kubectl("exec", pod, "--container=app", "--", *command)))

    def refusal(self, made: dict[str, Any]) -> str:
        """Why the API server does not take it."""
        try:
            self.apply(made)
        except CommandFailed as error:
            return error.stderr
        raise AssertionError(f"{made['metadata']['name']} was taken")

    def dry_run(self, made: dict[str, Any]) -> dict[str, Any]:
        """The object as it would be after every admission."""
        arguments = ("create", "--dry-run=server", "--output=json", "--filename=-")
        return dict(json.loads(self.kubectl(*arguments, stdin=json.dumps(made))))

    def start(self, *, replicas: int) -> None:
        """The upstream, and Deployment web: apps that ask for a sidecar and call without end."""
        labels = {"app": "web", **objects.OPTED_IN}
        made = objects.template(self.image, "python", "app.py", labels=labels)
        self.apply(
            *objects.upstream(self.image), objects.workload("Deployment", "web", made, replicas=replicas)
        )


def sidecar(pod: dict[str, Any]) -> dict[str, Any] | None:
    """The sidecar's container of a pod, None where there is none."""
    containers = pod["spec"].get("initContainers", [])
    return next((dict(one) for one in containers if one["name"] == "inference-sidecar"), None)


def restarts(pods: list[dict[str, Any]]) -> int:
    """How often any container of `pods` was started again."""
    lists = ("containerStatuses", "initContainerStatuses")
    return sum(one["restartCount"] for pod in pods for each in lists for one in pod["status"].get(each, []))
