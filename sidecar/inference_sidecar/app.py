"""The composition root: builds the rooms, gives each what it needs, and the two ASGI apps that `serve` runs.

Enters: where the configuration comes from, and its first reading. Leaves: a `House`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from inference_config.load import Loaded

from . import respond
from .accept import Accept, Door, Front
from .health import Checker, State, admin_routes, health, status_view
from .reload import Live, Source
from .telemetry import Figures, Telemetry
from .upstream import Upstream

_HEALTH: Final = "/health"


class House:
    """Everything of one process but its sockets and signals."""

    def __init__(self, source: Source, loaded: Loaded, telemetry: Telemetry) -> None:
        """Raises ConfigError where the first configuration cannot be put in force."""
        server = loaded.config.server
        self.telemetry = telemetry
        self.live = Live(source, loaded)
        self.figures = Figures(self.live.reloads, self.live.connections)
        self.checker = Checker(self._current)
        self.live.on_swap = self.checker.ask
        self.state = State(self._status)
        self._door = Door(server)
        self.accept = Accept(
            self.live, self._door, self.figures, server.max_concurrent_requests, telemetry.tracing
        )
        self.api: ASGIApp = self._api()
        self.admin: ASGIApp = Starlette(
            routes=admin_routes(self.state, self.figures, telemetry.settings.resource, telemetry.metrics_off)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The tasks that run beside the requests."""
        self.telemetry.start(self.figures)
        tasks = [asyncio.create_task(self.live.run()), asyncio.create_task(self.checker.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.live.upstream.wire.aclose()
            self.accept.settle()

    def _current(self) -> Upstream:
        return self.live.upstream

    def _api(self) -> ASGIApp:
        async def answer(request: Request) -> Response:
            verdict = self._door.judge(request.scope["headers"])
            if verdict.refused is not None:
                reply = respond.refusal(verdict.refused)
                return Response(reply.body, reply.status, media_type="application/json")
            response = health(self.state, self.figures, self.checker, self._current)
            if verdict.origin is not None:
                response.raw_headers.extend(respond.cors(verdict.origin))
            return response

        return Front(self.accept, Starlette(routes=[Route(_HEALTH, answer)]), beside=_HEALTH)

    def _status(self) -> dict[str, object]:
        live = self.live
        refused = live.refused
        return status_view(
            digest=live.upstream.runtime.digest,
            revision=live.upstream.runtime.revision,
            generation=live.generation,
            loaded_at=live.loaded_at,
            refused=(refused.revision, refused.reason, refused.at) if refused else None,
            waiting_for_restart=live.waiting_for_restart,
            draining=not self.state.ready,
        )
