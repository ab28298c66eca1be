"""From a host and a port to an open `Link`: names, several addresses, and why it did not open.

Enters: a host name or an address, a port. Leaves: a connected link, or OSError (UnicodeError where the name is
none). Must not know TLS or HTTP. The caller has the clock, and cancels: nothing is left open then.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from itertools import chain, zip_longest
from typing import Any, Final

from .link import Link

ATTEMPT_DELAY_S: Final = 0.25
"""Head start of one address before the next is tried beside it (RFC 8305)."""


async def dial(host: str, port: int, links: set[Link]) -> Link:
    """The first link that opens. `links` is where it is listed for as long as it is open."""
    return await race(await _addresses(unbracketed(host), port), links)


def reason(exc: OSError | UnicodeError) -> str:
    """Why, in words that name no content: certificates and errno only."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "TLS error").replace("_", " ").lower()
    if isinstance(exc, UnicodeError):
        return "not a valid host name"
    if exc.errno == errno.EBADF:
        return "closed by the sidecar"
    return exc.strerror or (str(exc.args[0]) if exc.args else "connection lost")


def unbracketed(host: str) -> str:
    """`::1` of `[::1]`: proxies are named an IPv6 address with its brackets, sockets without."""
    return host[1:-1] if host.startswith("[") else host


async def _addresses(host: str, port: int) -> list[Any]:
    """`getaddrinfo` in the order in which to try: families alternate, the resolver's first one leads."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [info for info in found if info[0] == found[0][0]]
    second = [info for info in found if info[0] != found[0][0]]
    return [info for info in chain.from_iterable(zip_longest(first, second)) if info is not None]


async def race(addresses: list[Any], links: set[Link]) -> Link:
    """The first link that opens. Raises the first OSError where none does."""
    if len(addresses) == 1:
        return await _open(addresses[0], links)
    waiting = deque(addresses)
    running: set[asyncio.Task[Link]] = set()
    losers: set[asyncio.Task[Link]] = set()
    failure: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_open(waiting.popleft(), links)))
            delay = ATTEMPT_DELAY_S if waiting else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            losers = done
            for task in done:
                if task.exception() is None:
                    losers = done - {task}
                    return task.result()
                failure = failure or task.exception()
    finally:
        for task in running | losers:
            task.add_done_callback(_discard)
            task.cancel()
    raise failure or OSError("no address")


async def _open(info: tuple[int, int, int, str, Any], links: set[Link]) -> Link:
    link = Link(info[0], info[1], info[2], links)
    await link.connect(info[4])
    return link


def _discard(task: asyncio.Task[Link]) -> None:
    """A link that opened although another had won is of no use."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
