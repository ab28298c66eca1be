"""The webhook's certificates in the cluster: kept in a Secret, renewed, and trusted by the webhook configuration.

Enters: names, a clock. Leaves: a Secret that the injectors read, and its authorities as caBundle of every webhook of
the configuration. A certificate is trusted before it is served: so caBundle is written first, and where that fails
the Secret waits. Must not touch a Secret that it did not make.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import certs, manifests, naming
from .cluster import SECRETS, WEBHOOKS, Cluster, ClusterError
from .errors import OperatorError
from .telemetry import LOGGER, Metrics

CHECK_SECS: Final = 20.0
"""Whoever applies the webhook configuration anew may empty its caBundle, and every pod is refused until it is back."""
ABSENT_SECS: Final = 2.0
"""While the webhook configuration is not there yet: an installation waits."""
FIRST_RETRY_SECS: Final = 1.0
LAST_RETRY_SECS: Final = 60.0
_TRIES: Final = 4


class NotOurs(OperatorError):
    """The Secret of that name belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where everything is. `configuration` None: caBundle is somebody else's to fill in."""

    namespace: str
    secret: str
    service: str
    configuration: str | None = None


def utc_now() -> datetime.datetime:
    """The clock."""
    return datetime.datetime.now(datetime.UTC)


async def keep(
    cluster: Cluster,
    names: Names,
    metrics: Metrics,
    in_place: asyncio.Event,
    *,
    now: Callable[[], datetime.datetime] = utc_now,
) -> None:
    """Look after them for ever. `in_place` is set once a pod can be injected as far as certificates go."""
    failures = 0
    while True:
        try:
            done = await once(cluster, names, metrics, now())
        except OperatorError as error:
            wait = min(FIRST_RETRY_SECS * 2 ** min(failures, 10), LAST_RETRY_SECS)
            failures += 1
            LOGGER.warning("the webhook's certificates: %s; trying again in %g s", error, wait)
        else:
            failures = 0
            wait = CHECK_SECS if done else ABSENT_SECS
            (in_place.set if done else in_place.clear)()
        await asyncio.sleep(wait)


async def once(cluster: Cluster, names: Names, metrics: Metrics, now: datetime.datetime) -> bool:
    """Do what is due. Returns whether all is in place: False while the webhook configuration does not exist.

    Raises ClusterError, NotOurs.
    """
    for last in [False] * (_TRIES - 1) + [True]:
        secret = await cluster.get(SECRETS, names.namespace, names.secret)
        before = _kept(secret, names)
        kept = certs.renewed(before, naming.service_hosts(names.service, names.namespace), now)
        trusted = await _trust(cluster, names, kept.bundle)
        try:
            if kept != before:
                await _store(cluster, names, secret, kept)
        except ClusterError as error:
            if last or not error.conflict:
                raise
            continue
        break
    metrics.certificate_expires(certs.expiry(kept.leaf.certificate))
    metrics.certificate_expires(certs.expiry(kept.authorities[0].certificate), "authority")
    return trusted


def _kept(secret: Mapping[str, Any] | None, names: Names) -> certs.Kept | None:
    """What the Secret holds; None where there is nothing that can be used."""
    if secret is None:
        return None
    labels = secret["metadata"].get("labels") or {}
    if labels.get("app.kubernetes.io/managed-by") != naming.FIELD_MANAGER:
        raise NotOurs(
            f"the Secret {names.namespace}/{names.secret} was not made by the operator. Delete it, have the "
            "certificates kept under another name, or let the injector serve that Secret as your own certificate."
        )
    try:
        files = {
            name: base64.b64decode(content, validate=True)
            for name, content in (secret.get("data") or {}).items()
        }
    except (TypeError, binascii.Error):
        return None
    return certs.kept_of(files)


async def _store(cluster: Cluster, names: Names, before: Mapping[str, Any] | None, kept: certs.Kept) -> None:
    made = manifests.certificates_secret(names.secret, names.namespace, kept.files())
    if before is None:
        await cluster.create(SECRETS, made)
    else:
        # With the resourceVersion that was read, and all that others have put on it.
        await cluster.replace(SECRETS, {**before, "data": made["data"]})
    fields = {
        "secret": names.secret,
        "leaf_expires": certs.expiry(kept.leaf.certificate).isoformat(),
        "authorities": len(kept.authorities),
    }
    LOGGER.info("the webhook's certificates were renewed", extra={"fields": fields})


async def _trust(cluster: Cluster, names: Names, bundle: bytes) -> bool:
    """Have the API server trust `bundle`. Returns whether it does."""
    if names.configuration is None:
        return True
    found = await cluster.get(WEBHOOKS, None, names.configuration)
    if found is None:
        return False
    webhooks = found.get("webhooks") or []
    encoded = base64.b64encode(bundle).decode()
    if all((one.get("clientConfig") or {}).get("caBundle") == encoded for one in webhooks):
        return True
    change = manifests.ca_bundle(len(webhooks), bundle)
    if await cluster.patch(WEBHOOKS, None, names.configuration, change) is None:
        return False
    LOGGER.info("caBundle was filled in", extra={"fields": {"configuration": names.configuration}})
    return True
