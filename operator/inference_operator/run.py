"""The operator's composition root: builds the rooms, gives each what it needs, runs them until it is told to stop.

Enters: options. Leaves: an exit code. One of these is active in a cluster; nothing is lost where it is killed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from inference_config import __version__

from . import rotate
from .cluster import Cluster, ClusterError
from .defaults import Defaults
from .handlers import Pace, Scope, Watcher
from .health import Health, serving
from .reconcile import Reconciler, Seen
from .rollout import MAX_ANSWER_BYTES
from .sidecars import Sidecars
from .telemetry import LOGGER, OPERATOR, Metrics, configure

MIN_MINOR: Final = 29
"""Native sidecars are on by default from Kubernetes 1.29 on."""
RETRY_SECS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `certificates`: None where they are somebody else's."""

    scope: Scope
    defaults: Path | None
    health_port: int
    certificates: rotate.Names | None
    pace: Pace = field(default_factory=Pace)


async def run(options: Options) -> int:
    """Run until SIGTERM or SIGINT. Raises OperatorError where the defaults or the environment cannot be used."""
    configure()
    defaults = Defaults(options.defaults)
    seen = Seen()
    stopping = asyncio.Event()
    with Metrics.told(__version__, OPERATOR) as metrics, _Signals(stopping) as signals:
        async with Cluster.connected() as cluster, Sidecars.asking(MAX_ANSWER_BYTES) as sidecars:
            reconciler = Reconciler(cluster, sidecars, seen, defaults)
            watcher = Watcher(cluster, reconciler, seen, metrics, options.scope, options.pace, signals.take)
            trusted = asyncio.Event()
            health = Health(
                alive=lambda: "a watch stands still" if watcher.stalled else None,
                ready=lambda: _why_not_ready(watcher, trusted),
                metrics=metrics.text,
            )
            async with serving(health, options.health_port):
                tasks = [
                    asyncio.ensure_future(watcher.run()),
                    asyncio.ensure_future(_checked_version(cluster)),
                    asyncio.ensure_future(_certificates(cluster, options.certificates, metrics, trusted)),
                ]
                stop = asyncio.ensure_future(stopping.wait())
                LOGGER.info("started", extra={"fields": {
                    "version": __version__, "namespaces": list(options.scope.namespaces) or "all",
                }})  # fmt: skip
                try:
                    await _until_stopped(stop, tasks)
                finally:
                    for task in (stop, *tasks):
                        task.cancel()
                    await asyncio.gather(stop, *tasks, return_exceptions=True)
    LOGGER.info("stopped")
    return 0


def _why_not_ready(watcher: Watcher, trusted: asyncio.Event) -> str | None:
    """A pod can be injected once the API server trusts the injectors: an installation waits for that."""
    if not trusted.is_set():
        return "the webhook's certificates are not in place"
    return None if watcher.started.is_set() else "the API server has not answered yet"


async def _until_stopped(stop: asyncio.Task[bool], tasks: Iterable[asyncio.Task[None]]) -> None:
    """Until a signal comes."""
    pending = set(tasks)
    while not stop.done():
        await asyncio.wait({stop, *pending}, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in pending if task.done()]:
            pending.discard(task)
            task.result()  # a room that fails ends the process: a new one starts from what is there


async def _certificates(
    cluster: Cluster, names: rotate.Names | None, metrics: Metrics, trusted: asyncio.Event
) -> None:
    if names is None:
        trusted.set()
        return
    await rotate.keep(cluster, names, metrics, trusted)


async def _checked_version(cluster: Cluster) -> None:
    """Say it where pods could not start: an older API server drops a sidecar's restartPolicy without a word."""
    while True:
        try:
            major, minor = await cluster.version()
        except ClusterError as error:
            LOGGER.warning("%s; asking again in %g s", error, RETRY_SECS)
            await asyncio.sleep(RETRY_SECS)
            continue
        if (major, minor) < (1, MIN_MINOR):
            LOGGER.error("Kubernetes 1.%d or newer is required; this is %d.%d", MIN_MINOR, major, minor)
        return


class _Signals:
    """SIGTERM and SIGINT set an event, for as long as this is entered."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping

    def take(self) -> None:
        """Have them, whoever had them before."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
