"""kopf's part: watches, and nothing else of it. Parses an event, hands it on, and keeps its hands off objects.

Enters: events of InferenceConfigs, Secrets, pods, namespaces. Leaves: keys in the queue, reconciled by workers of our
own. Low-level events only: kopf's other handlers would put finalizers, progress and copies of what they saw on
objects. Of a Secret nothing is kept but that it changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, cast

import kopf

from inference_config.names import GROUP

from . import naming
from .cluster import CONFIGS, NAMESPACES, PODS, Cluster, ClusterError
from .reconcile import Key, Queue, Reconciler, Seen
from .telemetry import LOGGER, Metrics

WORKERS: Final = 4
RESYNC_SECS: Final = 300.0
PROBE_SECS: Final = 20.0
RETRY_SECS: Final = 2.0
STALLED_PROBES: Final = 3
"""So many probes in a row that find the watch behind the API server mean that it stands still."""

_UNSEEN_SECRETS: Final = (
    "helm.sh/release.v1",
    "kubernetes.io/service-account-token",
    "kubernetes.io/dockerconfigjson",
    "bootstrap.kubernetes.io/token",
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often all configs are looked at again, and the watches are checked."""

    resync_secs: float = RESYNC_SECS
    probe_secs: float = PROBE_SECS


@dataclass(frozen=True, slots=True)
class Scope:
    """Which namespaces are looked after; none named: all."""

    namespaces: tuple[str, ...] = ()

    @property
    def clusterwide(self) -> bool:
        """Whether that is the whole cluster."""
        return not self.namespaces


class Watcher:
    """Events in, reconciles out."""

    def __init__(
        self,
        cluster: Cluster,
        reconciler: Reconciler,
        seen: Seen,
        metrics: Metrics,
        scope: Scope,
        pace: Pace,
    ) -> None:
        self.stalled = False
        self.started = asyncio.Event()
        self._cluster = cluster
        self._reconciler = reconciler
        self._seen = seen
        self._metrics = metrics
        self._scope = scope
        self._pace = pace
        self._queue: Queue[Key] = Queue()
        self._behind = 0

    async def run(self) -> None:
        """Watch and reconcile until cancelled, or until kopf gives up."""
        settings = _settings()
        await self._learn()
        tasks = [asyncio.ensure_future(self._work()) for _ in range(WORKERS)]
        tasks += [asyncio.ensure_future(self._resync()), asyncio.ensure_future(self._probe())]
        watch = asyncio.ensure_future(
            kopf.operator(
                registry=self._registry(),
                settings=settings,
                clusterwide=self._scope.clusterwide,
                namespaces=list(self._scope.namespaces),
                standalone=True,
                # Else kopf asks who the user is, and a container's user has a number and no name.
                identity=cast(Any, naming.FIELD_MANAGER),
            )
        )
        try:
            done, _ = await asyncio.wait([watch, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watch, *tasks):
                task.cancel()
            await asyncio.gather(watch, *tasks, return_exceptions=True)

    async def _learn(self) -> None:
        """See everything once before anything is done: watches start in no order, and half of a config's pods would
        be told as all of them."""
        while True:
            try:
                if self._scope.clusterwide:
                    for obj in await self._cluster.items(NAMESPACES, None):
                        list(self._seen.on_namespace(obj, gone=False))
                for namespace in self._scope.namespaces or (None,):
                    for obj in await self._cluster.items(CONFIGS, namespace):
                        self._add(self._seen.on_config(obj, gone=False))
                    for obj in await self._cluster.items(PODS, namespace):
                        list(self._seen.on_pod(obj, gone=False))
            except ClusterError as error:
                LOGGER.warning("%s; asking again in %g s", error, RETRY_SECS)
                await asyncio.sleep(RETRY_SECS)
            else:
                return

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

        @kopf.on.event(GROUP, "v1alpha1", naming.PLURAL, registry=registry)
        async def config(event: kopf.RawEvent, **_: Any) -> None:
            gone = event["type"] == "DELETED"
            obj = dict(event["object"])
            self._add(self._seen.on_config(obj, gone=gone))
            if gone:
                await self._tell_deleted(obj)

        @kopf.on.event("", "v1", "secrets", registry=registry)
        async def secret(namespace: str | None, name: str | None, **_: Any) -> None:
            self._add(self._seen.on_secret(namespace or "", name or ""))

        @kopf.on.event("", "v1", "pods", registry=registry)
        async def pod(event: kopf.RawEvent, **_: Any) -> None:
            self._add(self._seen.on_pod(dict(event["object"]), gone=event["type"] == "DELETED"))

        if self._scope.clusterwide:

            @kopf.on.event("", "v1", "namespaces", registry=registry)
            async def of_namespace(event: kopf.RawEvent, **_: Any) -> None:
                self._add(self._seen.on_namespace(dict(event["object"]), gone=event["type"] == "DELETED"))

        return registry

    def _add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._queue.add(key)

    async def _tell_deleted(self, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        self._metrics.forget(f"{metadata['namespace']}/{metadata['name']}")
        try:
            await self._reconciler.deleted(obj)
        except ClusterError as error:
            LOGGER.warning("an event could not be written: %s", error)

    async def _work(self) -> None:
        """One worker: a key after the other."""
        while True:
            key = await self._queue.next()
            began = monotonic()
            try:
                again = await self._reconciler.reconcile(key)
            except ClusterError as error:
                wait = self._queue.failed(key)
                self._metrics.reconciled("failed", monotonic() - began)
                LOGGER.warning("%s: %s; trying again in %.1f s", key, error, wait)
            except Exception:  # noqa: BLE001  the edge of a worker: one config's fault must not stop the others
                wait = self._queue.failed(key)
                self._metrics.reconciled("broken", monotonic() - began)
                LOGGER.exception("%s: internal error; trying again in %.1f s", key, wait)
            else:
                self._queue.done(key, again)
                self._metrics.reconciled("done", monotonic() - began)
                counts = self._reconciler.counts(key)
                if counts is not None:
                    self._metrics.pods(str(key), counts.model_dump())

    async def _resync(self) -> None:
        """Whatever was missed is made good, spread over time."""
        while True:
            await asyncio.sleep(self._pace.resync_secs)
            self._reconciler.prune()
            keys = self._seen.every()
            for position, key in enumerate(keys):
                self._queue.add(key, self._pace.resync_secs / 2 * position / max(len(keys), 1))

    async def _probe(self) -> None:
        """A watch that stands still looks like one that has nothing to tell: so the API server is asked as well."""
        while True:
            try:
                self._behind = 0 if await self._keeps_up() else self._behind + 1
            except ClusterError as error:
                LOGGER.warning("the watch could not be checked: %s", error)
            else:
                self.started.set()
            self.stalled = self._behind >= STALLED_PROBES
            await asyncio.sleep(self._pace.probe_secs)

    async def _keeps_up(self) -> bool:
        before = [obj for key in self._seen.every() if (obj := self._seen.config(key)) is not None]
        there = await self._listed(CONFIGS)
        known = {
            (key.namespace, key.name): str(obj["metadata"].get("resourceVersion"))
            for key in self._seen.every()
            if (obj := self._seen.config(key)) is not None
        }
        # What was known before the list and is not in it is gone, though no watch has told: it may have been
        # deleted between a list and a watch.
        for metadata in (obj["metadata"] for obj in before):
            if (metadata["namespace"], metadata["name"]) not in there:
                self._add(self._seen.on_config({"metadata": metadata}, gone=True))
        if there != known:
            return False
        pods = self._seen.injected()
        there = await self._listed(PODS, labels=naming.INJECTED_LABEL)
        for pod in pods:
            if (pod.namespace, pod.name) not in there:
                self._add(
                    self._seen.on_pod({"metadata": {"namespace": pod.namespace, "uid": pod.uid}}, gone=True)
                )
        seen = {(pod.namespace, pod.name) for pod in self._seen.injected()}
        return there.keys() <= seen

    async def _listed(self, resource: Any, labels: str = "") -> dict[tuple[str, str], str]:
        scopes: Sequence[str | None] = self._scope.namespaces or (None,)
        found: dict[tuple[str, str], str] = {}
        for namespace in scopes:
            for obj in await self._cluster.items(resource, namespace, labels=labels):
                metadata = obj["metadata"]
                found[metadata["namespace"], metadata["name"]] = str(metadata.get("resourceVersion"))
        return found


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.watching.field_selectors["secrets"] = ",".join(f"type!={name}" for name in _UNSEEN_SECRETS)
    settings.queueing.idle_timeout = 1.0
    return settings
