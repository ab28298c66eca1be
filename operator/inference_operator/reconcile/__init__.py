"""The story of one InferenceConfig: read → render → apply → nudge → observe → status.

Enters: a key, and what the watches have told. Leaves: the rendered Secret, patched annotations, a status, events;
and in how many seconds to look again. Safe to run at any time, any number of times, and to be killed anywhere:
every step looks at what is there, and writes only what differs.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

from pydantic import SecretStr

from inference_config.names import REVISION_FILE

from .. import crd, inject, manifests, naming, render, rollout, status
from ..cluster import CONFIGS, EVENTS, SECRETS, Cluster, ClusterError
from ..errors import InvalidObject
from ..sidecars import Sidecars
from ..status import Fault, Findings
from .lag import Lag, version_of
from .observe import Observer
from .queue import Queue
from .seen import Key, Seen
from .wake import wake

__all__ = ["Key", "Lag", "Queue", "Reconciler", "Seen", "version_of"]

FIRST_LOOK_SECS: Final = 0.25
"""After a nudge: kubelet takes about as long to bring a Secret's new content into a pod."""
LAST_LOOK_SECS: Final = 15.0
SILENT_SECS: Final = 10.0
ECHO_SECS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Told:
    """A status as it was written, when, and of which object: one of the same name may have followed it."""

    status: crd.Status
    at: float
    uid: str


@dataclass(frozen=True, slots=True)
class _Written:
    """What came of reading, rendering and applying."""

    secrets: Fault | None = None
    rendering: Fault | None = None
    digest: str | None = None
    revision: str | None = None
    standing: bool = False
    changed: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Basis:
    """What `_write` worked from, and what came of it: none of it has to be read again while it stands."""

    uid: str
    generation: int
    secrets: Mapping[str, str]
    written: _Written


class Reconciler:
    """Brings one config after the other to where it should be. One object for the whole process."""

    def __init__(
        self, cluster: Cluster, sidecars: Sidecars, seen: Seen, defaults: Callable[[], crd.Sidecar]
    ) -> None:
        """`defaults`: what the chart says of the sidecar's container, read anew each time."""
        self._cluster = cluster
        self._seen = seen
        self._defaults = defaults
        self._observer = Observer(cluster, sidecars)
        self._told: dict[Key, _Told] = {}
        self._bases: dict[Key, _Basis] = {}
        self._looks: dict[Key, int] = {}

    def counts(self, key: Key) -> crd.PodCounts | None:
        """Pods of one config, as they were last told."""
        told = self._told.get(key)
        return None if told is None else told.status.pods

    def refresh(self) -> None:
        """Forget what pods said that are gone, and read every Secret again at the next turn, whatever was told."""
        self._observer.forget_but(self._seen.uids())
        self._bases.clear()

    def wrote(self, obj: Mapping[str, Any]) -> bool:
        """Whether a config is as it was told last: its event is the echo of the operator's own status."""
        metadata, current = crd.head(obj)
        told = self._told.get(Key(metadata.namespace, metadata.name))
        return (
            told is not None
            and told.uid == metadata.uid
            and told.status == current
            and current.observed_generation == metadata.generation
        )

    def knows(self, key: Key, secret: str, version: str | None) -> bool:
        """Whether this version of a Secret is the one that the config was rendered from, or that it was written as."""
        basis = self._bases.get(key)
        return basis is not None and version is not None and basis.secrets.get(secret) == version

    async def reconcile(self, key: Key) -> float | None:
        """Do all that is to be done now. Returns seconds until the next look, None where events will tell.

        Raises ClusterError where the API server did not do its part.
        """
        obj = self._seen.config(key)
        if obj is None:
            self._told.pop(key, None)
            self._bases.pop(key, None)
            self._looks.pop(key, None)
            return None
        try:
            config = crd.parse(obj)
        except InvalidObject as error:
            await self._tell_invalid(key, obj, error)
            return None
        written = self._stands(key, config) or await self._write(key, config)
        found, again = await self._observe(key, config, written)
        await self._tell(key, config.metadata, config.status, found, config)
        return again

    async def deleted(self, obj: Mapping[str, Any]) -> None:
        """A config is gone. Its pods serve on with what they have loaded; whoever looks at events is told so."""
        try:
            config = crd.parse(obj)
        except InvalidObject:
            return
        namespace = config.metadata.namespace
        pods = [pod.name for pod in self._seen.pods(namespace) if pod.config == config.name and not pod.over]
        if pods:
            message = (
                f"Deleted while {len(pods)} pods had its sidecar. They serve on with what they have loaded; new ones "
                "are refused until the InferenceConfig is made again."
            )
            await self._cluster.apply(
                EVENTS, manifests.event(config.metadata, "Warning", "DeletedInUse", message, _now())
            )

    async def _wake(self, config: crd.InferenceConfig) -> None:
        """The config has become ready: whoever waited for it need not wait for a controller's backoff."""
        namespace = config.metadata.namespace
        configs, opted_in = self._seen.configs(namespace), self._seen.opted_in(namespace)
        await wake(self._cluster, config, configs, opted_in=opted_in, now=_now())

    def _stands(self, key: Key, config: crd.InferenceConfig) -> _Written | None:
        """What was written last, where the watches tell the very versions that it came of."""
        basis = self._bases.get(key)
        if basis is None or (basis.uid, basis.generation) != (
            config.metadata.uid,
            config.metadata.generation,
        ):
            return None
        told = {name: self._seen.secret_version(key.namespace, name) for name in basis.secrets}
        return basis.written if told == basis.secrets else None

    async def _write(self, key: Key, config: crd.InferenceConfig) -> _Written:
        """Read the key, render, and apply the rendered Secret where it differs."""
        self._bases.pop(key, None)
        namespace, inference = config.metadata.namespace, config.spec.inference
        reference = inference.api_key_secret_ref
        source = None if reference is None else await self._cluster.get(SECRETS, namespace, reference.name)
        versions = {} if source is None or reference is None else {reference.name: version_of(source)}
        name = naming.rendered_secret(config.name)
        live = await self._cluster.get(SECRETS, namespace, name)
        if live is not None and not manifests.is_ours(config, live):
            message = f"Secret {name} is there already and not this config's. Delete or rename it."
            return _Written(rendering=Fault("NameTaken", message), versions=versions)
        standing = live is not None
        before = _Written(revision=_revision(live), standing=standing, versions=versions)
        resolved = render.resolve_key(reference, source)
        if isinstance(resolved, render.Unresolved):
            return _replace(before, secrets=Fault(resolved.reason, resolved.message))
        rendered = _rendered(config, resolved, live)
        if isinstance(rendered, render.Invalid):
            return _replace(before, rendering=Fault("Invalid", rendered.message))
        wanted = manifests.rendered_secret(config, rendered.files)
        changed = False
        if live is None or not manifests.is_applied(wanted, live):
            live, changed = await self._cluster.apply(SECRETS, wanted), True
        written = _Written(None, None, rendered.digest, rendered.revision, True, changed, versions)
        secrets = {**versions, name: version_of(live)}
        self._bases[key] = _Basis(
            config.metadata.uid, config.metadata.generation, secrets, replace(written, changed=False)
        )
        return written

    async def _observe(
        self, key: Key, config: crd.InferenceConfig, written: _Written
    ) -> tuple[Findings, float | None]:
        """Ask the pods, nudge those that are behind, and sum up."""
        seen = self._seen.pods(key.namespace)
        own = [pod for pod in seen if pod.injected and pod.config == config.name and not pod.over]
        revision = written.revision or ""
        answers = await self._observer.answers(own, revision, just_written=written.changed)
        stands = rollout.judge(
            config,
            self._seen.configs(key.namespace),
            self._observer.as_nudged(seen),
            answers,
            revision=revision,
            shape=inject.shape(config.spec.sidecar, self._defaults()),
        )
        next_nudge = await self._observer.nudge(stands.nudges, revision)
        found = Findings(
            secrets=written.secrets,
            rendering=written.rendering,
            needs_key=config.spec.inference.api_key_secret_ref is not None,
            standing=written.standing,
            digest=written.digest or config.status.config_digest,
            revision=written.revision,
            secret_resource_versions=written.versions,
            counts=stands.counts,
            stale=stands.stale,
            refusals=stands.refusals,
            silent=stands.silent,
            bare=stands.bare,
            restarts=stands.restarts(),
            conflicts=stands.conflicts,
        )
        return found, self._again(key, stands, next_nudge, changed=written.changed)

    def _again(
        self, key: Key, stands: rollout.Rollout, next_nudge: float | None, *, changed: bool
    ) -> float | None:
        """Look soon after a nudge, then ever less often; pods that give no answer are asked from time to time."""
        if changed:
            self._looks.pop(key, None)
        if not stands.stale:
            self._looks.pop(key, None)
            return SILENT_SECS if stands.silent or stands.refusals else None
        looks = self._looks[key] = self._looks.get(key, -1) + 1
        look = min(FIRST_LOOK_SECS * 1.5**looks, LAST_LOOK_SECS)
        return look if next_nudge is None else min(look, next_nudge)

    async def _tell(
        self,
        key: Key,
        metadata: crd.Metadata,
        current: crd.Status,
        found: Findings,
        config: crd.InferenceConfig | None = None,
    ) -> None:
        """Write the status where it changed, and do what the change is worth: events, and waking up those that
        waited for `config`. The status comes last: whoever is killed before it does the rest again."""
        told = self._told.get(key)
        if told is not None and told.uid != metadata.uid:
            told = None
        before = current if told is None else told.status
        now, moment = _now(), time.monotonic()
        after = status.tell(metadata, before, found, now)
        # What was written just now may not have come back by the watch yet.
        just_told = told is not None and told.status == after and moment - told.at < ECHO_SECS
        if after != current and not just_told:
            for news in status.events(before, after):
                await self._tell_event(metadata, news, now)
            if config is not None and _is_ready(after) and not _is_ready(before):
                await self._wake(config)
            try:
                await self._cluster.apply(CONFIGS, manifests.status(metadata, after), subresource="status")
            except ClusterError as error:
                if error.status == HTTPStatus.NOT_FOUND:  # deleted meanwhile: the watch will say so
                    return
                raise
            self._told[key] = _Told(after, moment, metadata.uid)
        elif told is None:
            self._told[key] = _Told(after, moment, metadata.uid)

    async def _tell_event(self, metadata: crd.Metadata, news: status.Told, now: str) -> None:
        try:
            await self._cluster.apply(
                EVENTS, manifests.event(metadata, news.kind, news.reason, news.message, now)
            )
        except ClusterError as error:
            if not error.forbidden:  # by the role, or because the namespace is going: the status tells it too
                raise

    async def _tell_invalid(self, key: Key, obj: Mapping[str, Any], error: InvalidObject) -> None:
        """A spec that the schema let through and this version cannot read, such as one of a newer version."""
        metadata, current = crd.head(obj)
        live = await self._cluster.get(SECRETS, key.namespace, naming.rendered_secret(key.name))
        fault = Fault("InvalidSpec", str(error))
        found = Findings(rendering=fault, standing=live is not None, revision=_revision(live))
        await self._tell(key, metadata, current, found)


def _rendered(
    config: crd.InferenceConfig, key: SecretStr | None, live: Mapping[str, Any] | None
) -> render.Rendered | render.Invalid:
    salt = render.salt_of(live) or os.urandom(render.SALT_BYTES)
    return render.render(config.spec.inference, key, salt)


def _replace(before: _Written, *, secrets: Fault | None = None, rendering: Fault | None = None) -> _Written:
    return _Written(
        secrets, rendering, before.digest, before.revision, before.standing, False, before.versions
    )


def _is_ready(told: crd.Status) -> bool:
    condition = told.condition("Ready")
    return condition is not None and condition.status == "True"


def _revision(live: Mapping[str, Any] | None) -> str | None:
    """The revision of the rendered Secret that stands."""
    encoded = ((live or {}).get("data") or {}).get(REVISION_FILE)
    try:
        return None if encoded is None else base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
