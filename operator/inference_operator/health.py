"""What kubelet and Prometheus ask a process of the operator's: /livez, /readyz, /metrics over plain HTTP.

Enters: what to say, as functions. Leaves: answers, while a block runs. Must not know what is healthy. Sockets are bound
here for the webhook too.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .errors import OperatorError
from .telemetry import CONTENT_TYPE

TICK_SECS: Final = 0.01


class CannotListen(OperatorError):
    """An address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Health:
    """`alive` and `ready`: why not, in a few words, None where all is well. `metrics`: Prometheus text."""

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]
    metrics: Callable[[], str]

    def app(self) -> Starlette:
        """The three paths."""

        async def livez(_: Request) -> Response:
            return _said(self.alive())

        async def readyz(_: Request) -> Response:
            return _said(self.ready())

        async def figures(_: Request) -> Response:
            return Response(self.metrics(), headers={"content-type": CONTENT_TYPE})

        return Starlette(
            routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", figures)]
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket of that address; `::` stands for all, and so it does where there is no IPv6. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _bound(found[0][0], found[0][4])
    except OSError as error:
        if host == "::" and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            return bind("0.0.0.0", port)  # noqa: S104  what `::` was meant to be
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}") from None


@asynccontextmanager
async def serving(health: Health, port: int) -> AsyncIterator[None]:
    """Answer on all addresses while the block runs. Raises CannotListen where the port cannot be had."""
    sock = bind("::", port)
    config = uvicorn.Config(
        health.app(),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.ensure_future(server.serve([sock]))
    try:
        while not (server.started or task.done()):
            await asyncio.sleep(TICK_SECS)
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        sock.close()


class _Server(uvicorn.Server):
    """uvicorn without its own signals: the process's are its root's."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`."""
        await self._serve(sockets)


def _said(why_not: str | None) -> Response:
    return PlainTextResponse("ok\n") if why_not is None else PlainTextResponse(f"{why_not}\n", 503)


def _bound(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
