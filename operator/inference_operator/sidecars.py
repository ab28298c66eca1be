"""Asks injected pods what they have loaded.

Enters: addresses. Leaves: for each the body of its /status, or why there is none. A pod is not trusted: its answer
is bounded in size and time, no redirect is followed, nothing is sent but a GET. However many pods there are, a
bounded number is asked at once, and all of them within a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import httpx

AT_ONCE: Final = 32
POD_SECS: Final = 1.5
ALL_SECS: Final = 20.0

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Address:
    """A pod's address and its sidecar's admin port."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Unheard:
    """No answer. `reason` is public."""

    reason: str


class Sidecars:
    """Asks pods, for any number of tasks at once within one bound."""

    def __init__(self, client: httpx.AsyncClient, max_bytes: int) -> None:
        """Of an answer at most `max_bytes` and one are read."""
        self._client = client
        self._max_bytes = max_bytes
        self._places = asyncio.Semaphore(AT_ONCE)

    @classmethod
    @asynccontextmanager
    async def asking(cls, max_bytes: int) -> AsyncIterator[Self]:
        """With a client that ignores proxies (a pod is never behind one) and keeps no connection."""
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
        async with httpx.AsyncClient(trust_env=False, timeout=POD_SECS, limits=limits) as client:
            yield cls(client, max_bytes)

    async def ask(self, addresses: Mapping[Name, Address]) -> dict[Name, bytes | Unheard]:
        """What each said. Those that there was no time for are left out."""
        said: dict[Name, bytes | Unheard] = {}
        tasks = {asyncio.ensure_future(self._ask(address)): name for name, address in addresses.items()}
        if not tasks:
            return said
        try:
            done, _ = await asyncio.wait(tasks, timeout=ALL_SECS)
            for task in done:
                said[tasks[task]] = task.result()
        finally:
            for task in tasks:
                task.cancel()
        return said

    async def _ask(self, address: Address) -> bytes | Unheard:
        host = f"[{address.ip}]" if ":" in address.ip else address.ip
        async with self._places:
            try:
                async with asyncio.timeout(POD_SECS):
                    return await self._get(f"http://{host}:{address.port}/status")
            except TimeoutError:
                return Unheard(f"no answer from port {address.port} within {POD_SECS:g} s")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                return Unheard(f"port {address.port}: {type(error).__name__}")

    async def _get(self, url: str) -> bytes | Unheard:
        body = bytearray()
        async with self._client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            if response.status_code != httpx.codes.OK:
                return Unheard(f"its /status answered {response.status_code}")
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > self._max_bytes:
                    break
        return bytes(body[: self._max_bytes + 1])
