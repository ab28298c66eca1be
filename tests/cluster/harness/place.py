"""A namespace with words for what is in it: keys, configs, injected pods that are objects only, and what is told of them.

Enters: what a test wants there. Leaves: conditions, events, versions, as the API server has them. Pods have a
scheduler that does not exist, so no kubelet meets them; their /status is a port of loopback.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from cluster.harness.api import APPLY, Api, Refused
from harness.admin import Admin
from harness.evidence import EVIDENCE
from inference_config.names import REVISION_FILE
from inference_operator import crd, naming
from inference_operator.cluster import CONFIGS, EVENTS, PODS, SECRETS, Resource
from inference_operator.inject import Injected, inject

SECS = 20.0
QUOTAS = Resource("v1", "resourcequotas")


@dataclass(frozen=True)
class Place:
    """One namespace."""

    api: Api
    namespace: str

    def key(
        self, name: str = "openai", *, entry: str = "api-key", value: str | None = None, **more: Any
    ) -> str:
        """A Secret with a key of the upstream's, made or changed; the key. `more`: of the object."""
        text = EVIDENCE.new_key() if value is None else value
        data = {entry: base64.b64encode(text.encode()).decode()}
        obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data, **more}
        if self.api.find(SECRETS, self.namespace, name) is None:
            self.api.create(SECRETS, self.namespace, obj)
        else:
            # Entry by entry: what is left out of a merge stays.
            old = self.api.get(SECRETS, self.namespace, name)["data"] or {}
            self.api.merge(SECRETS, self.namespace, name, {"data": {**dict.fromkeys(old), **data}})
        return text

    def config(self, name: str = "team", **spec: Any) -> dict[str, Any]:
        """An InferenceConfig that selects `app: web`. `spec`: parts of it that are different."""
        given = {
            "inference": {"apiKeySecretRef": {"name": "openai", "key": "api-key"}, "defaultModel": "gpt-4o"},
            "selector": {"matchLabels": {"app": "web"}},
            **spec,
        }
        obj = {
            "apiVersion": naming.API_VERSION,
            "kind": naming.KIND,
            "metadata": {"name": name},
            "spec": {part: value for part, value in given.items() if value is not None},
        }
        return self.api.create(CONFIGS, self.namespace, obj)

    def change(self, name: str = "team", **spec: Any) -> None:
        """Parts of the spec, merged."""
        self.api.merge(CONFIGS, self.namespace, name, {"spec": spec})

    def refuse_pods(self) -> None:
        """Keeps controllers from making pods, by a quota, as an injector does that refuses them."""
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        self.api.create(QUOTAS, self.namespace, quota)
        self.until(self._pods_refused, "a quota in force")

    def _pods_refused(self) -> bool:
        """Admission hears of a quota by a watch of its own, some time after the quota has its status."""
        try:
            self.api.create(PODS, self.namespace, bare_pod("probe"))
        except Refused as refused:
            return refused.status == HTTPStatus.FORBIDDEN and "quota" in str(refused)
        self.api.delete(PODS, self.namespace, "probe")
        return False

    def seen(self, name: str = "team") -> dict[str, Any]:
        return self.api.get(CONFIGS, self.namespace, name)

    def status(self, name: str = "team") -> dict[str, Any]:
        return dict(self.seen(name).get("status") or {})

    def rendered(self, name: str = "team") -> dict[str, Any] | None:
        """The Secret that the sidecars mount."""
        return self.api.find(SECRETS, self.namespace, naming.rendered_secret(name))

    def revision(self, name: str = "team") -> str:
        """What lies in that Secret."""
        secret = self.rendered(name)
        return "" if secret is None else base64.b64decode(secret["data"][REVISION_FILE]).decode()

    def condition(self, kind: str, name: str = "team") -> tuple[str, str]:
        """Status and reason."""
        for one in self.status(name).get("conditions", []):
            if one["type"] == kind:
                return one["status"], one["reason"]
        return "", ""

    def message(self, kind: str, name: str = "team") -> str:
        return next(str(one["message"]) for one in self.status(name)["conditions"] if one["type"] == kind)

    def counts(self, name: str = "team") -> dict[str, int]:
        """Pods by state, without the zeros."""
        return {state: number for state, number in self.status(name).get("pods", {}).items() if number}

    def events(self, name: str = "team") -> dict[str, str]:
        """Messages by reason."""
        found = self.api.items(EVENTS, self.namespace)
        return {one["reason"]: one["message"] for one in found if one["involvedObject"]["name"] == name}

    def becomes(self, kind: str, status: str, reason: str, name: str = "team", seconds: float = SECS) -> None:
        """Waits until a condition says so."""
        self.until(
            lambda: self.condition(kind, name) == (status, reason), f"{kind} {status} {reason}", name, seconds
        )

    def until(self, true: Callable[[], bool], what: str, name: str = "team", seconds: float = SECS) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                told = [
                    f"{one['type']} {one['status']} {one['reason']}: {one['message']}"
                    for one in (self.api.find(CONFIGS, self.namespace, name) or {})
                    .get("status", {})
                    .get("conditions", [])
                ]
                raise AssertionError("\n".join([f"not within {seconds:g} s: {what}. Told:", *told]))
            time.sleep(0.05)

    def pod(
        self, name: str, admin: Admin | None, *, config: str = "team", labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """An injected pod of Deployment web whose sidecar has started; None: one that has not."""
        obj = bare_pod(name, labels)
        found = inject(obj, crd.parse(self.seen(config)), crd.Sidecar())
        assert isinstance(found, Injected)
        made = dict(found.pod)
        container = next(one for one in made["spec"]["initContainers"] if one["name"] == naming.CONTAINER)
        if admin is not None:
            for port in container["ports"]:
                port["containerPort"] = (
                    admin.port if port["name"] == naming.ADMIN_PORT_NAME else port["containerPort"]
                )
        self.api.create(PODS, self.namespace, made)
        state = (
            {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
            if admin
            else {"waiting": {"reason": "PodInitializing"}}
        )
        told = {
            "name": naming.CONTAINER, "image": "example/sidecar:1", "imageID": "", "ready": admin is not None,
            "restartCount": 0, "started": admin is not None, "state": state,
        }  # fmt: skip
        where = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]} if admin else {}
        change = {"status": {"phase": "Running", **where, "initContainerStatuses": [told]}}
        return self.api.merge(PODS, self.namespace, name, change, "status")

    def bare(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """A pod that asked for a sidecar and came up without."""
        self.api.create(PODS, self.namespace, bare_pod(name, labels))

    def nudge(self, name: str) -> tuple[str, int]:
        """Revision and number of a pod's last nudge."""
        annotations = self.api.get(PODS, self.namespace, name)["metadata"].get("annotations") or {}
        revision, _, number = annotations.get(naming.NUDGE_ANNOTATION, ".-1").rpartition(".")
        return revision, int(number)

    def versions(self) -> dict[str, str]:
        """resourceVersion of everything that the operator may write to."""
        found = {}
        for kind in (CONFIGS, SECRETS, PODS, EVENTS):
            for obj in self.api.items(kind, self.namespace):
                found[f"{kind.plural}/{obj['metadata']['name']}"] = obj["metadata"]["resourceVersion"]
        return found

    def apply_status(self, name: str, status: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Server-side, as the operator does."""
        obj = {
            "apiVersion": naming.API_VERSION, "kind": naming.KIND, "metadata": {"name": name}, "status": status,
        }  # fmt: skip
        path = CONFIGS.path(self.namespace, name, "status")
        return self.api.call("PATCH", f"{path}?fieldManager={manager}", obj, APPLY)

    def gone(self, kind: Any, name: str) -> bool:
        return self.api.find(kind, self.namespace, name) is None


def bare_pod(name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "web", naming.INJECT_LABEL: "true", **(labels or {})},
        },
        "spec": {"schedulerName": "nobody", "containers": [{"name": "app", "image": "example/app:1"}]},
    }
