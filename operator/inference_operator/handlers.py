"""kopf's part: watches, and nothing else of it. Parses an event, hands it on, and keeps its hands off objects.

Enters: events of InferenceConfigs, Secrets, pods, namespaces. Leaves: keys in the queue, reconciled by workers of our
own. Low-level events only: kopf's other handlers would put finalizers, progress and copies of what they saw on
objects. Of a Secret nothing is kept but that it changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, cast

import kopf

from inference_config.names import GROUP

from . import naming
from .cluster import CONFIGS, NAMESPACES, PODS, Cluster, ClusterError, Resource
from .reconcile import Key, Lag, Queue, Reconciler, Seen, version_of
from .telemetry import LOGGER, Metrics

WORKERS: Final = 8
RESYNC_SECS: Final = 300.0
PROBE_SECS: Final = 20.0
RETRY_SECS: Final = 2.0
STALLED_PROBES: Final = 3
"""So many probes in a row that find something the watch has not told since the one before mean that it stands
still."""
STEADY_SECS: Final = 60.0
MAX_REASON: Final = 300
WATCH_TASK: Final = "watcher for "
"""What the names of kopf's tasks begin with that watch one kind each."""
MAX_BREAKS: Final = 5
"""So many times in a row may kopf give up without having watched for STEADY_SECS, before the process does, too."""

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
        take_signals: Callable[[], None] = lambda: None,
    ) -> None:
        """`take_signals` puts the process's own signal handlers back: kopf takes their place when it starts."""
        self.stalled = False
        self.started = asyncio.Event()
        self._cluster = cluster
        self._reconciler = reconciler
        self._seen = seen
        self._metrics = metrics
        self._scope = scope
        self._pace = pace
        self._take_signals = take_signals
        self._queue: Queue[Key] = Queue()
        self._lags = {CONFIGS: Lag(), PODS: Lag()}
        self._behind = 0

    async def run(self) -> None:
        """Watch and reconcile until cancelled. Raises what kopf gave up for, where it does so again and again."""
        await self._learn()
        tasks = [asyncio.ensure_future(self._work()) for _ in range(WORKERS)]
        tasks += [asyncio.ensure_future(one) for one in (self._resync(), self._probe(), self._watch())]
        await _until_one_ends(tasks)

    async def _watch(self) -> None:
        """kopf's watches, begun anew where it gives up: it does for answers that it does not expect, such as a plain
        410 to a watch. It lists everything again then, so nothing is missed."""
        breaks = 0
        while True:
            began = monotonic()
            try:
                await self._watch_once()
            except Exception as error:
                breaks = breaks + 1 if monotonic() - began < STEADY_SECS else 1
                if breaks > MAX_BREAKS:
                    raise
                wait = RETRY_SECS * 2 ** (breaks - 1)
                LOGGER.warning(
                    "the watches broke off (%s: %s); beginning anew in %g s",
                    type(error).__name__, str(error)[:MAX_REASON], wait,
                )  # fmt: skip
                await asyncio.sleep(wait)

    async def _watch_once(self) -> None:
        # kopf's own `operator` would also cancel whatever was begun beside it, when it ends.
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_settings(),
            clusterwide=self._scope.clusterwide,
            namespaces=list(self._scope.namespaces),
            standalone=True,
            # Else kopf asks who the user is, and a container's user has a number and no name.
            identity=cast(Any, naming.FIELD_MANAGER),
        )
        self._take_signals()
        await _until_one_ends(tasks, _watches)
        raise RuntimeError("kopf ended")

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
            self._heard(CONFIGS, obj)
            keys = list(self._seen.on_config(obj, gone=gone))
            if gone:
                self._add(keys)
                await self._tell_deleted(obj)
            elif len(keys) > 1 or not self._reconciler.wrote(obj):
                self._add(keys)

        @kopf.on.event("", "v1", "secrets", registry=registry)
        async def secret(event: kopf.RawEvent, namespace: str | None, name: str | None, **_: Any) -> None:
            obj = dict(event["object"])
            version = None if event["type"] == "DELETED" else version_of(obj)
            keys = self._seen.on_secret(namespace or "", name or "", version)
            self._add(key for key in keys if not self._reconciler.knows(key, name or "", version))

        @kopf.on.event("", "v1", "pods", registry=registry)
        async def pod(event: kopf.RawEvent, **_: Any) -> None:
            obj = dict(event["object"])
            self._heard(PODS, obj)
            self._add(self._seen.on_pod(obj, gone=event["type"] == "DELETED"))

        if self._scope.clusterwide:

            @kopf.on.event("", "v1", "namespaces", registry=registry)
            async def of_namespace(event: kopf.RawEvent, **_: Any) -> None:
                self._add(self._seen.on_namespace(dict(event["object"]), gone=event["type"] == "DELETED"))

        return registry

    def _heard(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        self._lags[resource].told(obj["metadata"]["uid"], version_of(obj))

    def _add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._queue.add(key)

    async def _tell_deleted(self, obj: dict[str, Any]) -> None:
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
                if counts is None:
                    self._metrics.forget(str(key))
                else:
                    self._metrics.pods(str(key), counts.model_dump())

    async def _resync(self) -> None:
        """Whatever was missed is made good, spread over time."""
        while True:
            await asyncio.sleep(self._pace.resync_secs)
            self._reconciler.refresh()
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
        """Whether the watches have told all that was listed the time before. What they have not is taken from the
        list of now, and what is not in it was let go without a word: between a list and a watch, say."""
        late = 0
        for resource, labels in ((CONFIGS, ""), (PODS, naming.INJECTED_LABEL)):
            before = self._known(resource)
            there = {obj["metadata"]["uid"]: obj for obj in await self._listed(resource, labels)}
            versions = {uid: version_of(obj) for uid, obj in there.items()}
            known = {uid: version_of(obj) for uid, obj in self._known(resource).items()}
            for uid in self._lags[resource].listed(versions, known):
                late += 1
                self._take(resource, there[uid], gone=False)
            for uid in before.keys() - there.keys():
                self._take(resource, before[uid], gone=True)
        return not late

    def _known(self, resource: Resource) -> dict[str, dict[str, Any]]:
        """What was told of, by uid, as little of it as is needed to let it go. Of a pod no version is kept."""
        if resource is CONFIGS:
            return self._seen.stubs()
        return {
            pod.uid: {"metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}}
            for pod in self._seen.injected()
        }

    def _take(self, resource: Resource, obj: Mapping[str, Any], *, gone: bool) -> None:
        take = self._seen.on_config if resource is CONFIGS else self._seen.on_pod
        self._add(take(obj, gone=gone))

    async def _listed(self, resource: Resource, labels: str) -> list[dict[str, Any]]:
        scopes: Sequence[str | None] = self._scope.namespaces or (None,)
        return [obj for scope in scopes for obj in await self._cluster.items(resource, scope, labels=labels)]


async def _until_one_ends(
    tasks: Collection[asyncio.Task[Any]], first: Callable[[], Collection[asyncio.Task[Any]]] = tuple
) -> None:
    """Raises what it ended by. The others end with it, those that `first` gives by then before them."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _end(first())
        await _end(tasks)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _watches() -> list[asyncio.Task[Any]]:
    """kopf's, by the name that it gives them. Where one fails, kopf leaves the others to themselves: they would go on
    beside their successors, or wait for credentials that nobody brings any more."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(WATCH_TASK)]


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
    # Else an end of its watches would be the process's, minutes later.
    settings.process.ultimate_exiting_timeout = None
    return settings
