"""Which proxy leads to a host, as the environment says it: to the upstream, and to a collector of telemetry.

Enters: a URL and environment variables. Leaves: a `Proxy`, or None for the direct way.
Must not open connections, and must not let a proxy's password be seen: not in a repr, not in an error.

As curl and Python's own urllib have it: `https_proxy` or `http_proxy` by the URL's scheme, else
`all_proxy`; lower case wins over upper, and an empty one switches it off. `HTTP_PROXY` does not count where
`REQUEST_METHOD` is set: there it is a header that a client sent to a CGI program. `no_proxy` is followed to
the letter: loopback goes through the proxy unless it is listed.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` is scheme, host and port alone. `authorization` is the value of Proxy-Authorization."""

    url: str
    authorization: SecretStr | None = None


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Raises ValueError, which names the variable and never its value."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS.get(parts.scheme, 0)
    for scheme in (parts.scheme, "all"):
        name, value = _variable(f"{scheme}_proxy", environ)
        if value:
            _, exceptions = _variable("no_proxy", environ)
            return None if _is_excepted(host, port, exceptions) else _parse(name, value)
    return None


def _variable(lower: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The name that counts, and its value: empty where there is none."""
    if lower in environ:
        return lower, environ[lower].strip()
    upper = lower.upper()
    if upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
        return upper, ""
    return upper, environ.get(upper, "").strip()


def _parse(name: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{name}: is not a valid proxy URL") from None
    if parts.scheme.startswith("socks"):
        raise ValueError(f"{name}: SOCKS proxies are not supported; use an http:// or https:// proxy")
    if parts.scheme not in _PORTS:
        raise ValueError(f"{name}: must be an http:// or https:// proxy")
    host = parts.hostname or ""
    if not host or not host.isascii() or any(char <= " " for char in host):
        raise ValueError(f"{name}: is not a valid proxy URL")
    authority = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{authority}:{port or _PORTS[parts.scheme]}"
    if parts.username is None:
        return Proxy(url)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(url, SecretStr(f"Basic {base64.b64encode(credentials).decode()}"))


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """`no_proxy`: names (with all below them), addresses, networks, each with a port or without, or `*`."""
    return any(
        entry == "*" or _matches(host, port, entry.lower())
        for entry in exceptions.replace(",", " ").split()
    )  # fmt: skip


def _matches(host: str, port: int, entry: str) -> bool:
    if "/" in entry:
        return _in_network(host, entry)
    name, wanted_port = _split_port(entry)
    if wanted_port and wanted_port != str(port):
        return False
    address = _address(host)
    if address is not None:
        return address == _address(name)
    domain = name.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _split_port(entry: str) -> tuple[str, str]:
    """Name and port of `name:port` or `[address]:port`; a bare IPv6 address has no port."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":")
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, ""


def _in_network(host: str, entry: str) -> bool:
    address = _address(host)
    try:
        return address is not None and address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
