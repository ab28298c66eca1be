"""Admin ports of pods that are objects only: what a test has them answer to GET /status, byte for byte.

Enters: for each a script. Leaves: its answers on a port of loopback, and how often it was asked. Runs on a thread
of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

Result = TypeVar("Result")


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer of HTTP/1.1."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode() + body


@dataclass
class Admin:
    """One pod's. `revision`: what it says that it has loaded. `raw`: said in place of that; b"" says nothing, and
    keeps the caller waiting. `asked`: is set at each call, for a test to clear and await."""

    port: int = 0
    revision: str = ""
    refused: str | None = None
    refused_revision: str | None = None
    waiting: list[str] = field(default_factory=list)
    raw: bytes | None = None
    calls: int = 0
    asked: threading.Event = field(default_factory=threading.Event)

    def says(self) -> bytes:
        if self.raw is not None:
            return self.raw
        said: dict[str, Any] = {
            "revision": self.revision,
            "waiting_for_restart": self.waiting,
            "refused": None,
        }
        if self.refused is not None:
            said["refused"] = {"reason": self.refused, "revision": self.refused_revision}
        return reply(json.dumps(said).encode())


class Admins:
    """Any number of them. `most`: how many were being asked at one time."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="admins")
        self._servers: dict[int, asyncio.Server] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Admins:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._within(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(self, **said: Any) -> Admin:
        """A new one, on a port of its own."""
        admin = Admin(**said)
        admin.port = self._within(self._serve(admin.says, admin))
        return admin

    def close(self, admin: Admin) -> None:
        """Nobody listens there from now on."""

        async def end() -> None:
            self._servers.pop(admin.port).close()

        self._within(end())

    def _within(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, says: Callable[[], bytes], admin: Admin) -> int:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._waiting.add(task)
            self._now += 1
            self.most = max(self.most, self._now)
            try:
                await reader.readuntil(b"\r\n\r\n")
                admin.calls += 1
                admin.asked.set()
                if said := says():
                    writer.write(said)
                    await writer.drain()
                else:
                    await reader.read()  # until the caller goes
            except (ConnectionError, asyncio.IncompleteReadError):
                pass  # the caller's right
            finally:
                self._now -= 1
                self._waiting.discard(task)
                writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
        port = int(server.sockets[0].getsockname()[1])
        self._servers[port] = server
        return port

    async def _close(self) -> None:
        for server in self._servers.values():
            server.close()
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
