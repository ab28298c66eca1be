"""Sockets, signals, the end: runs the webhook's two uvicorn servers in one loop.

Enters: apps, ports, a certificate. Leaves: an exit code. At SIGTERM it says that it is not ready and serves on
until the Service has forgotten it; uvicorn by itself would close its listeners first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette

from inference_config import __version__

from ..telemetry import LOGGER
from .app import Door
from .certificate import Served

KEEP_ALIVE_SECS: Final = 120
"""Longer than the API server keeps idle connections (90 s), so that it never writes into a closing one."""
CUT_SECS: Final = 5
"""After the drain, the time that reviews which are at work get."""
TICK_SECS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Ports:
    """Sockets that are bound, and listen once they are served."""

    inject: socket.socket
    health: socket.socket


@dataclass(frozen=True, slots=True)
class House:
    """What is served, and what it hangs on."""

    inject: Starlette
    health: Starlette
    door: Door
    served: Served


async def serve(house: House, ports: Ports, drain_secs: float) -> int:
    """Serve until a signal comes. Returns the exit code."""
    signals = Signals()
    with signals.taken():
        return await until(signals.first, house, ports, drain_secs)


async def until(stop: asyncio.Event, house: House, ports: Ports, drain_secs: float) -> int:
    """Serve until `stop`, or until one of the tasks ends by itself, which is a fault. Returns the exit code."""
    health = _Server(_config(house.health), ports.health)
    inject = _Server(_config(house.inject, house.served), ports.inject)
    tasks = [asyncio.ensure_future(one) for one in (health.serve(), house.served.keep())]
    try:
        await _first(stop.wait(), house.served.first.wait(), *tasks)
        if house.served.first.is_set():
            tasks.append(asyncio.ensure_future(inject.serve()))
            await _first(stop.wait(), _started(health, inject), *tasks)
            house.door.serving = inject.started
            _announce(ports)
            await _first(stop.wait(), *tasks)
        if not stop.is_set():
            return 1
        house.door.draining = True
        LOGGER.info("draining", extra={"fields": {"secs": drain_secs}})
        # Endpoints go within moments, but nobody says when.
        await _first(asyncio.sleep(drain_secs if house.door.serving else 0), *tasks)
        return 0
    finally:
        health.should_exit = inject.should_exit = True
        tasks[1].cancel()
        _tell(await asyncio.gather(*tasks, return_exceptions=True))
        for sock in (ports.inject, ports.health):
            sock.close()
        LOGGER.info("stopped")


class Signals:
    """SIGTERM and SIGINT: the first asks for a drain, the second ends the process where it stands."""

    def __init__(self) -> None:
        self.first = asyncio.Event()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take the signals while the block runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _came(self, number: int) -> None:
        if self.first.is_set():
            logging.shutdown()
            sys.stdout.flush()
            os._exit(128 + number)
        self.first.set()


class _Server(uvicorn.Server):
    """uvicorn without its own signals, on a socket that is bound already."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket) -> None:
        super().__init__(config)
        self._socket = sock

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`."""
        await self._serve(sockets or [self._socket])


def _config(app: Starlette, served: Served | None = None) -> uvicorn.Config:
    more: dict[str, Any] = {}
    if served is not None:
        more["ssl_context_factory"] = lambda _config, _default: served.context
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECS,
        timeout_graceful_shutdown=CUT_SECS,
        backlog=1024,
        **more,
    )


async def _first(*awaited: Awaitable[object]) -> None:
    """Wait until one of them is over. Tasks go on, mere coroutines end with it."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, one in zip(tasks, awaited, strict=True):
            if task is not one:
                task.cancel()


async def _started(*servers: _Server) -> None:
    while not all(one.started for one in servers):
        await asyncio.sleep(TICK_SECS)


def _announce(ports: Ports) -> None:
    fields = {"inject": _shown(ports.inject), "health": _shown(ports.health), "version": __version__}
    LOGGER.info("listening", extra={"fields": fields})


def _tell(results: list[BaseException | None]) -> None:
    for error in results:
        if isinstance(error, Exception):
            LOGGER.error("the webhook stopped by a fault of its own", exc_info=error)


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
