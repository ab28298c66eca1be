"""Sockets to listen on. Enters: host and port. Leaves: bound sockets, or `ListenError` with a public message."""

from __future__ import annotations

import errno
import socket
from typing import Final

_TRIES: Final = 20
_NO_IPV6: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})


class ListenError(Exception):
    """An address cannot be listened on."""


def bind(host: str | None, port: int, setting: str) -> list[socket.socket]:
    """Bind one address, or both loopbacks where `host` is None (a machine without IPv6 has but one).

    Port 0 takes any free port, the same on both. `setting` names the configuration in errors.
    """
    if host is not None:
        return [_bind(*_resolve(host, port, setting), setting)]
    for last in [False] * (_TRIES - 1) + [True]:
        first = _bind(socket.AF_INET, ("127.0.0.1", port), setting)
        chosen = first.getsockname()[1]
        try:
            return [first, _bind(socket.AF_INET6, ("::1", chosen), setting)]
        except ListenError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_IPV6:
                return [first]
            first.close()
            if port != 0 or last:
                raise
    raise AssertionError("unreachable")


def url(sock: socket.socket) -> str:
    """`http://host:port` of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(host: str, port: int, setting: str) -> tuple[int, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{setting}: cannot listen on {host}: {error.strerror}") from error
    family, _, _, _, address = found[0]
    return family, address


def _bind(family: int, address: tuple[object, ...], setting: str) -> socket.socket:
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` stands for every address, IPv4's too; `::1` is bound beside 127.0.0.1.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ListenError(
            f"{setting}: cannot listen on {address[0]} port {address[1]}: {error.strerror}"
        ) from error
    return sock
