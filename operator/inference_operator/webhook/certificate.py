"""The certificate that is served: read, tried, and taken into use while connections go on.

Enters: where it is kept, a Secret or two files. Leaves: an `ssl.SSLContext` for the listener, which hands each new
handshake to the context of the newest certificate. One that cannot be used never takes the place of one that can.
The key stays in memory, and never comes into a log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from ..certs import LEAF_FILE, LEAF_KEY_FILE, Pair, expiry
from ..cluster import SECRETS, Cluster, ClusterError
from ..errors import OperatorError
from ..telemetry import LOGGER, Metrics

POLL_SECS: Final = 10.0
FIRST_POLL_SECS: Final = 0.5
"""Before there is any: an installation waits for it."""

ReadPair = Callable[[], Awaitable[Pair]]
"""Certificate (with what it is chained to) and key. Raises Unusable, ClusterError."""


class Unusable(OperatorError):
    """There is no certificate, or none that can be served. The message says why, and quotes nothing."""


def of_secret(cluster: Cluster, namespace: str, name: str) -> ReadPair:
    """Out of a Secret with the usual two keys, read by the API: a mount would wait for kubelet."""

    async def read() -> Pair:
        secret = await cluster.get(SECRETS, namespace, name)
        if secret is None:
            raise Unusable(f"the Secret {namespace}/{name} does not exist yet")
        data = secret.get("data") or {}
        try:
            files = [base64.b64decode(data[file], validate=True) for file in (LEAF_FILE, LEAF_KEY_FILE)]
        except (KeyError, TypeError, binascii.Error):
            raise Unusable(f"the Secret {namespace}/{name} lacks {LEAF_FILE} or {LEAF_KEY_FILE}") from None
        return Pair(*files)

    return read


def of_files(certificate: Path, key: Path) -> ReadPair:
    """Out of two files."""

    def both() -> Pair:
        return Pair(certificate.read_bytes(), key.read_bytes())

    async def read() -> Pair:
        try:
            return await asyncio.to_thread(both)
        except OSError as error:
            raise Unusable(f"{error.filename}: {(error.strerror or 'an error').lower()}") from None

    return read


class Served:
    """The certificate in use. `context` is for the listener; nothing can be served before `first` is set."""

    def __init__(self, read: ReadPair, metrics: Metrics, poll_secs: float = POLL_SECS) -> None:
        self.first = asyncio.Event()
        self.context = _context()
        self._read = read
        self._metrics = metrics
        self._poll_secs = poll_secs
        self._newest = self.context
        self._pair: Pair | None = None
        self._told = ""
        # A context of its own for each certificate: one that had several would keep those of other kinds of key.
        self.context.sni_callback = self._choose

    async def keep(self) -> None:
        """Look for a newer one, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_secs if self.first.is_set() else FIRST_POLL_SECS)

    async def look(self) -> None:
        """Look once, and take what is new. What goes wrong is told once, until it changes."""
        try:
            pair = await self._read()
            if pair != self._pair:
                self._take(pair)
        except (Unusable, ClusterError) as error:
            if str(error) != self._told:
                LOGGER.warning("no newer certificate: %s", error)
            self._told = str(error)
        else:
            self._told = ""

    def _take(self, pair: Pair) -> None:
        context = _loaded(pair)
        try:
            ends = expiry(pair.certificate)
        except ValueError:
            raise Unusable("the certificate cannot be read") from None
        self._newest, self._pair = context, pair
        self._metrics.certificate_expires(ends)
        self.first.set()
        LOGGER.info("certificate in use", extra={"fields": {"expires": ends.isoformat()}})

    def _choose(self, connection: ssl.SSLObject, host: str | None, context: ssl.SSLContext) -> None:
        """Called by OpenSSL at each handshake, with or without a name of the host."""
        del host, context
        connection.context = self._newest


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _loaded(pair: Pair) -> ssl.SSLContext:
    """A context that serves `pair`. OpenSSL wants a file: this one is of memory, and gone with its descriptor."""
    context = _context()
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(pair.certificate.rstrip() + b"\n" + pair.key)
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise Unusable(f"certificate and key cannot be used together: {reason}") from None
    finally:
        os.close(descriptor)
    return context
