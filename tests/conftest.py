"""Fixtures of the whole suite: the scripted upstream, sidecar processes, and the search for leaked keys.

Sidecars of one configuration are shared (`sidecar`, `hasty`, `start`); a test that changes or stops one has
its own (`spawn`). Every one of them ends with SIGTERM, exit code 0 and a search of all that it said; no test can
forget it.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from harness import answers
from harness.evidence import EVIDENCE
from harness.process import OF_THE_RUN, Sidecar, Start, merged
from harness.upstream import ScriptedUpstream

# A busy machine is slow, and no test is one of speed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport", choices=("asyncio", "httpcore"),
        help="what every sidecar of this run speaks upstream with (inference.http.transport); default: auto",
    )  # fmt: skip
    parser.addoption(
        "--compiled", action="store_true", help="refuse to run where the sidecar is not compiled (`make compiled`)"
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    transport = config.getoption("--transport")
    if transport is not None:
        OF_THE_RUN["INFERENCE_INFERENCE_HTTP_TRANSPORT"] = transport
    if config.getoption("--compiled"):
        found = importlib.util.find_spec("inference_sidecar.relay")
        if not (found and found.origin and found.origin.endswith(".so")):
            raise pytest.UsageError(f"the sidecar that is found first is not compiled: {found}")


@pytest.fixture(autouse=True)
def _no_leaked_key() -> Iterator[None]:
    yield
    assert not EVIDENCE.leaks(), "a configured key came out; sources above"


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(answers.typical) as running:
        yield running


def write_config(path: Path, base_url: str, key: str, changes: dict[str, Any]) -> Path:
    """A configuration that retries at once and speaks to nobody unasked, with `changes` laid over it."""
    base: dict[str, Any] = {
        "inference": {
            "api_key": key,
            "base_url": base_url,
            "health_check_interval_secs": 0,
            "http": {"timeout_secs": 10, "retry_backoff_ms": 1},
        },
        "server": {"drain_quiet_secs": 0.05},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged(base, changes)))  # YAML holds JSON
    return path


def end(sidecars: list[Sidecar]) -> None:
    """The end that every sidecar must come to, told where it did not."""
    for sidecar in sidecars:
        sidecar.terminate()
    faults = []
    for sidecar in sidecars:
        code = sidecar.wait()
        faults += sidecar.faults() + ([] if code == 0 else [f"exit code {code}", *sidecar.output[-20:]])
    assert not faults, "\n".join(faults)
    assert not EVIDENCE.leaks()


class Fleet:
    """Sidecars by configuration, ended together."""

    def __init__(self, upstream: ScriptedUpstream, factory: pytest.TempPathFactory) -> None:
        self._upstream = upstream
        self._factory = factory
        self._running: dict[str, Sidecar] = {}

    def start(
        self,
        changes: dict[str, Any] | None = None,
        base_url: str | None = None,
        flags: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
    ) -> Sidecar:
        name = json.dumps([changes, base_url, flags, environ], sort_keys=True)
        if name not in self._running:
            key = EVIDENCE.new_key()
            path = self._factory.mktemp("sidecar") / "config.yaml"
            config = write_config(path, base_url or f"{self._upstream.url}/v1", key, changes or {})
            self._running[name] = Sidecar(config, key, *flags, environ=environ)
        return self._running[name]

    def end(self) -> None:
        for sidecar in self._running.values():
            if sidecar.process.poll() is None:
                sidecar.show()
        end(list(self._running.values()))


@pytest.fixture(scope="module")
def start(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`start({...changes}, base_url=..., flags=(...), environ={...})`: a sidecar that the tests of a file share."""
    fleet = Fleet(upstream, tmp_path_factory)
    yield fleet.start
    fleet.end()


@pytest.fixture(scope="session")
def _shared(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    fleet = Fleet(upstream, tmp_path_factory)
    yield fleet.start
    fleet.end()


@pytest.fixture
def spawn(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Start]:
    """Like `start`, but a sidecar of the test's own; one that the test did not end is ended here.

    `config`: a file that is there already. `files`: name → content, written beside the config before the start.
    `environ`: variables of the process.
    """
    running: list[Sidecar] = []
    numbers = itertools.count(1)

    def begin(
        changes: dict[str, Any] | None = None,
        base_url: str | None = None,
        flags: tuple[str, ...] = (),
        config: Path | None = None,
        key: str | None = None,
        files: dict[str, str] | None = None,
        environ: dict[str, str] | None = None,
    ) -> Sidecar:
        secret = key or EVIDENCE.new_key()
        if config is None:
            folder = tmp_path / f"sidecar{next(numbers)}"
            config = write_config(
                folder / "config.yaml", base_url or f"{upstream.url}/v1", secret, changes or {}
            )
        for name, content in (files or {}).items():
            (config.parent / name).write_text(content)
        running.append(Sidecar(config, secret, *flags, environ=environ))
        return running[-1]

    yield begin
    end([sidecar for sidecar in running if sidecar.process.poll() is None])


@pytest.fixture(scope="session")
def sidecar(_shared: Start) -> Sidecar:
    """The sidecar that most tests share: defaults, but for retries that don't wait."""
    return _shared()


@pytest.fixture(scope="session")
def hasty(_shared: Start) -> Sidecar:
    """One whose patience is short, for tests in which an upstream is silent."""
    http = {"timeout_secs": 1, "stream_idle_timeout_secs": 0.7, "connect_timeout_secs": 0.5, "max_retries": 3}
    return _shared({"inference": {"http": http}})
