"""Owns sockets, signals and the end: runs two uvicorn servers in one loop, and drains before they stop.

Enters: where the configuration comes from. Leaves: an exit code. uvicorn by itself takes the signals and closes
its listeners first; a sidecar goes on serving while the app beside it is stopping, so that is done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop

from inference_config import __version__
from inference_config.schema import Server

from ..accept import is_loopback
from ..app import House
from ..reload import Source
from ..telemetry import LOGGER, Telemetry, configure, set_up
from .protocol import Connection
from .sockets import ListenError, bind, url

KEEP_ALIVE_SECS: Final = 75
"""Longer than clients keep idle connections, so that they close first and never write into a closing one."""
CUT_SECS: Final = 2.0
"""After the drain's bound, the time that open requests get to say that they are cut."""
TICK_SECS: Final = 0.05
YOUNG_OBJECTS: Final = 10_000
"""So many more objects than before, and Python looks for those that hold one another. By its default of 700 it does so in the
midst of any few requests, and finds nothing: theirs are freed as they end."""


def run(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    """Serve until told to stop. Returns the exit code. Raises ConfigError before anything is served."""
    source = Source(path, environ, flags)
    loaded = source.load()
    telemetry = set_up(environ)
    form = configure(loaded.config.logging.level, loaded.config.logging.format)
    logging.getLogger("uvicorn.error").addFilter(_not_ours)
    for warning in loaded.warnings:
        LOGGER.warning(warning)
    server = loaded.config.server
    try:
        api = bind(server.host, server.port, "server.host and server.port")
        admin = bind(server.admin_host, server.admin_port, "server.admin_host and server.admin_port")
    except ListenError as error:
        LOGGER.error(str(error))
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        house = runner.run(_build(source, loaded, telemetry))
        code = runner.run(_serve(house, server, api, admin, form))
    telemetry.stop()
    return code


async def _build(source: Source, loaded: Any, telemetry: Telemetry) -> House:
    return House(source, loaded, telemetry)


async def _serve(
    house: House, server: Server, api: list[socket.socket], admin: list[socket.socket], form: str
) -> int:
    signals = _Signals(house.accept.settle)
    servers = [_Server(_uvicorn(house.api, server), api), _Server(_uvicorn(house.admin, server), admin)]
    with signals.taken():
        async with house.running():
            tasks = [asyncio.create_task(one.serve()) for one in servers]
            while not all(one.started for one in servers):
                await asyncio.sleep(0.001)
            # What is here now stays to the end: to look through it again and again would hold up requests.
            gc.freeze()
            gc.set_threshold(YOUNG_OBJECTS)
            _announce(house, server, api, admin, form)
            await signals.first.wait()
            house.state.ready = False
            LOGGER.info(
                "draining",
                extra={"fields": {"open": house.accept.open, "timeout_secs": server.drain_timeout_secs}},
            )
            await _drain(house, server)
            for one in servers:
                one.should_exit = True
            await asyncio.wait(tasks)
    LOGGER.info("stopped")
    return 0


async def _drain(house: House, server: Server) -> None:
    """Wait until nothing is open and it has been quiet for a while; past the bound, cut what is left."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while clock() - began < server.drain_timeout_secs:
        quiet_since = max(began, house.accept.last_seen)
        if house.accept.open == 0 and clock() - quiet_since >= server.drain_quiet_secs:
            return
        await asyncio.sleep(TICK_SECS)
    if house.accept.open:
        LOGGER.warning("drain timed out", extra={"fields": {"cut": house.accept.open}})
        house.accept.cut()
    end = clock() + CUT_SECS
    while house.accept.open and clock() < end:
        await asyncio.sleep(TICK_SECS)


class _Signals:
    """SIGTERM and SIGINT: the first asks for a drain, the second ends the process where it stands."""

    def __init__(self, last_word: Callable[[], None]) -> None:
        """`last_word` is called before the process ends where it stands."""
        self.first = asyncio.Event()
        self._last_word = last_word

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
            self._last_word()
            logging.shutdown()
            sys.stdout.flush()
            os._exit(128 + number)
        self.first.set()


class _Server(uvicorn.Server):
    """uvicorn without its own signals, on sockets that are bound already."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config)
        self._sockets = sockets

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`."""
        await self._serve(sockets or self._sockets)


def _uvicorn(app: Any, server: Server) -> uvicorn.Config:
    protocol: Any = partial(
        Connection, max_head=server.max_header_bytes, head_secs=server.header_timeout_secs
    )
    return uvicorn.Config(
        app,
        http=protocol,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_keep_alive=KEEP_ALIVE_SECS,
        timeout_graceful_shutdown=1,
        backlog=1024,
    )


def _not_ours(record: logging.LogRecord) -> bool:
    """uvicorn's own start and stop are told better here."""
    return record.levelno >= logging.ERROR


def _announce(
    house: House, server: Server, api: list[socket.socket], admin: list[socket.socket], form: str
) -> None:
    runtime = house.live.upstream.runtime
    addresses = [url(sock) for sock in api]
    LOGGER.info(
        "listening",
        extra={
            "fields": {
                "api": addresses,
                "admin": url(admin[0]),
                "provider": runtime.config.inference.provider,
                "upstream": None if runtime.config.inference.provider == "echo" else runtime.target.origin,
                "version": __version__,
                "digest": runtime.digest,
                "revision": runtime.revision,
            }
        },
    )
    if server.host is not None and not is_loopback(server.host):
        LOGGER.warning(
            "the API is not bound to loopback: whoever reaches it spends tokens",
            extra={"fields": {"host": server.host}},
        )
    if form == "text":
        print(_tour(addresses[0], runtime.config.inference.provider, runtime.target.origin), flush=True)  # noqa: T201


def _tour(address: str, provider: str, origin: str) -> str:
    upstream = "the embedded echo (no network, no key)" if provider == "echo" else origin
    return f"""
  OpenAI API   {address}/v1
  upstream     {upstream}

  Try:
    curl {address}/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{{"model": "gpt-4", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

    curl -N {address}/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{{"model": "gpt-4", "messages": [{{"role": "user", "content": "Tell me a story."}}], "stream": true}}'

    curl {address}/v1/models
    curl {address}/health
"""
