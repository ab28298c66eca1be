"""What the process tells of itself: /health for people and apps, and the admin port for machines.

Enters: what is in force, and the figures. Leaves: JSON and Prometheus text. Nothing on the admin port can
reach upstream; the connectivity check runs by itself, off every request's path, and spends no tokens.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from inference_config import __version__
from inference_config.names import SCHEMA_VERSIONS

from .telemetry import LOGGER, Figures, exposition
from .telemetry.prometheus import CONTENT_TYPE
from .upstream import Upstream


class Checker:
    """Asks from time to time whether the upstream answers at all."""

    def __init__(self, current: Callable[[], Upstream]) -> None:
        self.reachable: bool | None = None
        self.checked_at: float | None = None
        self.latency_ms: float | None = None
        self.error: str | None = None
        self._current = current
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Check again soon: the configuration has changed."""
        self._asked.set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self._asked.clear()
            interval = self._current().runtime.config.inference.health_check_interval_secs
            if interval:
                try:
                    await self.check()
                except Exception:  # noqa: BLE001  the edge of a task that must outlive any one check
                    LOGGER.exception("the connectivity check failed")
            try:
                async with asyncio.timeout(interval or None):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def check(self) -> None:
        """Check once."""
        upstream = self._current()
        started = time.monotonic()
        reachable, error = await upstream.reachable(
            upstream.runtime.config.inference.http.connect_timeout_secs
        )
        self.latency_ms = round((time.monotonic() - started) * 1000, 2) if reachable else None
        self.reachable, self.error, self.checked_at = reachable, error, time.time()

    def view(self) -> dict[str, object]:
        """The `upstream` part of /health."""
        return {
            "reachable": self.reachable,
            "checked_at": _iso(self.checked_at),
            "latency_ms": self.latency_ms,
            "error": self.error,
        }


class State:
    """What health reports beside the figures; `app` keeps it up to date."""

    def __init__(self, status: Callable[[], dict[str, object]]) -> None:
        self.ready = True
        self.started = time.monotonic()
        self.status = status


def health(state: State, figures: Figures, checker: Checker, current: Callable[[], Upstream]) -> Response:
    """/health: status, version, uptime, configuration, upstream, and every figure with its unit in its name."""
    runtime = current().runtime
    status = state.status()
    return JSONResponse(
        {
            "status": "degraded" if checker.reachable is False else "ok",
            "version": __version__,
            "uptime_secs": round(time.monotonic() - state.started, 1),
            "provider": runtime.config.inference.provider,
            "config": {name: status[name] for name in ("digest", "revision", "generation", "loaded_at")},
            "upstream": checker.view(),
            **figures.health(),
        }
    )


def admin_routes(
    state: State,
    figures: Figures,
    resource_attributes: Mapping[str, str] | None = None,
    metrics_off: str | None = None,
) -> list[Route]:
    """/livez, /readyz, /status and /metrics; `resource_attributes` say on the last whose figures they are,
    `metrics_off` why it is not there."""
    attributes = resource_attributes or {}

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if state.ready else PlainTextResponse("draining\n", 503)

    async def status(_: Request) -> Response:
        return JSONResponse(state.status())

    async def metrics(_: Request) -> Response:
        if metrics_off is not None:
            return PlainTextResponse(f"Not served: {metrics_off}.\n", 404)
        return Response(exposition(figures, __version__, attributes), headers={"content-type": CONTENT_TYPE})

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/status", status),
        Route("/metrics", metrics),
    ]


def status_view(
    *, digest: str, revision: str, generation: int, loaded_at: float, refused: tuple[str | None, str, float] | None,
    waiting_for_restart: tuple[str, ...], draining: bool,
) -> dict[str, object]:  # fmt: skip
    """/status: what is loaded, and what was not and why."""
    return {
        "version": __version__,
        "schema_version": SCHEMA_VERSIONS[0],
        "digest": digest,
        "revision": revision,
        "generation": generation,
        "loaded_at": _iso(loaded_at),
        "refused": None
        if refused is None
        else {"revision": refused[0], "reason": refused[1], "at": _iso(refused[2])},
        "waiting_for_restart": list(waiting_for_restart),
        "draining": draining,
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
