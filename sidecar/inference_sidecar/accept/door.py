"""Who may come in: by Host, by Origin, and what a browser is told.

Enters: a request's headers. Leaves: a `Verdict`. Pure. Bound to loopback, a sidecar is reachable by every web
page that its user opens; a page elsewhere must not spend the key, be it by DNS rebinding (Host gives it
away) or by a plain cross-site request (Origin does).
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from inference_config.schema import Server

from ..records import Headers, Reason, Refusal


class Verdict(NamedTuple):
    """`refused`: why the request may not come in, None where it may. `origin`: the page's origin as it came,
    where there is one that was accepted: it is told that it may read the answer."""

    refused: Refusal | None
    origin: bytes | None = None


_WELCOME = Verdict(None)


class Door:
    """The rules of one server, which change with a restart only."""

    def __init__(self, server: Server) -> None:
        self._hosts = frozenset(host.lower().rstrip(".") for host in server.allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in server.allowed_origins)
        self._guarded = server.host is None or is_loopback(server.host)
        self._any_host = not self._guarded and not self._hosts
        self._any_origin = not self._guarded and not self._origins
        self._known: bytes | None = None  # the last Host that was accepted: apps write the same each time

    def judge(self, headers: Headers) -> Verdict:
        """Judge by the Host and Origin lines. A request without either is no browser's."""
        origin: bytes | None = None
        for name, value in headers:
            if name == b"host" and not self._host_accepted(value):
                return Verdict(
                    Refusal(
                        Reason.FORBIDDEN_HOST,
                        f"Host '{_shown(value)}' is not served here: neither a loopback name nor in server.allowed_hosts.",
                    )
                )
            if name == b"origin":
                if not self._origin_accepted(value):
                    return Verdict(
                        Refusal(
                            Reason.FORBIDDEN_ORIGIN,
                            f"Origin '{_shown(value)}' may not call: neither a loopback origin nor in server.allowed_origins.",
                        )
                    )
                origin = value
        return _WELCOME if origin is None else Verdict(None, origin)

    def _host_accepted(self, value: bytes) -> bool:
        if value == self._known:
            return True
        host = _host_of(value.decode("latin-1"))
        accepted = self._any_host or is_loopback(host) or host in self._hosts
        if accepted:
            self._known = value
        return accepted

    def _origin_accepted(self, value: bytes) -> bool:
        text = value.decode("latin-1").lower()
        if self._any_origin or text.rstrip("/") in self._origins or "*" in self._origins:
            return True
        scheme, _, authority = text.partition("://")
        return scheme in ("http", "https") and is_loopback(_host_of(authority))


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(authority: str) -> str:
    """The host of `host:port` or `[v6]:port`, in lower case."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        return authority.partition("]")[0][1:]
    return authority.partition(":")[0].rstrip(".")


def _shown(value: bytes) -> str:
    return value[:100].decode("ascii", "backslashreplace")
