"""The injector: a stateless webhook that gives pods their sidecar at admission.

Enters: AdmissionReviews of the API server, over TLS. Leaves: answers. Any number of replicas serve side by side:
all that they know is read from the API server when it is needed. Must not write to the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from inference_config import __version__

from ..cluster import CONFIGS, Cluster
from ..defaults import Defaults
from ..health import Health, bind
from ..telemetry import INJECTOR, Metrics, configure
from .app import Door, inject_app
from .certificate import ReadPair, Served, of_files, of_secret
from .injector import Injector
from .serve import House, Ports, serve

__all__ = ["FromFiles", "FromSecret", "Settings", "run"]


@dataclass(frozen=True, slots=True)
class FromSecret:
    """The certificate is kept in a Secret."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class FromFiles:
    """The certificate is kept in two files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    certificate: FromSecret | FromFiles
    defaults: Path | None = None
    host: str = "::"
    port: int = 8443
    health_port: int = 8081
    drain_secs: float = 5.0


def run(settings: Settings) -> int:
    """Serve until told to stop. Returns the exit code. Raises OperatorError where the settings cannot be used."""
    configure()
    defaults = Defaults(settings.defaults)
    with Metrics.told(__version__, INJECTOR) as metrics:
        ports = Ports(bind(settings.host, settings.port), bind(settings.host, settings.health_port))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(settings, defaults, metrics, ports))


async def _run(settings: Settings, defaults: Defaults, metrics: Metrics, ports: Ports) -> int:
    async with Cluster.connected() as cluster:

        async def read(namespace: str) -> Sequence[Mapping[str, Any]]:
            return await cluster.items(CONFIGS, namespace)

        door = Door()
        served = Served(_certificate(settings, cluster), metrics)
        injector = Injector(read, defaults, metrics)
        health = Health(alive=lambda: None, ready=door.why_not_ready, metrics=metrics.text)
        house = House(inject_app(injector, door), health.app(), door, served)
        return await serve(house, ports, settings.drain_secs)


def _certificate(settings: Settings, cluster: Cluster) -> ReadPair:
    match settings.certificate:
        case FromSecret(namespace, name):
            return of_secret(cluster, namespace, name)
        case FromFiles(certificate, key):
            return of_files(certificate, key)
