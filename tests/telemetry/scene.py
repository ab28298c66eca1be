"""One run of everything: a load whose like was there before, told by both ways, and the moment to ask about it.

Enters: programs, a folder, how many rounds. Leaves: both Prometheus with their series, the ledger of the time between
two moments. The first round is before the first moment: a counter's first value is no increase to Prometheus, so what a
window shows in full is what happened to series that there were.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

from harness import answers
from harness.process import clean_environment
from harness.upstream import ScriptedUpstream
from telemetry.load import Ledger, Load, configured, pods
from telemetry.stack import EVERY_SECS, Find, Stack, running, until

SIDECARS, OPERATOR = "sidecars", "operator"


@dataclass
class Operator:
    """Its metrics' process, see `operating`."""

    port: int
    noted: int = 0

    def note(self) -> None:
        with urlopen(Request(f"http://127.0.0.1:{self.port}/", data=b""), timeout=10) as answer:
            assert answer.status == 200
        self.noted += 1


@dataclass
class Scene:
    """`since` and `at`: the two moments (Unix time); `ledger`, `rounds`, `reloads`: what was between them. `whole` and
    `attempts`: from the start to the second."""

    stack: Stack
    load: Load
    operator: Operator
    since: float = 0
    at: float = 0
    ledger: Ledger = field(default_factory=Ledger)
    whole: Ledger = field(default_factory=Ledger)
    attempts: int = 0
    rounds: int = 0
    reloads: int = 0
    _reloaded: int = 0

    @property
    def window(self) -> int:
        """Seconds to look back from `at`; begins when all that was before `since` had been told."""
        return int(self.at - self.since)

    @property
    def slack(self) -> float:
        """What Prometheus may make of an increase: it stretches what it has to the window's two ends."""
        return self.window / (self.window - 4 * EVERY_SECS)

    def settled(self) -> None:
        """Waits until both have been told of every request and of every round, in full and twice."""
        wanted = {
            "sum(inference_sidecar_requests_total)": len(self.load.ledger.entries),
            "sum(inference_operator_reconcile_duration_seconds_count)": 4 * self.operator.noted,
        }
        for way, prometheus in self.stack.both():
            for expr, count in wanted.items():
                until(
                    lambda: prometheus.number(expr) == count,  # noqa: B023  asked within the loop
                    f"{way}: {expr} is {count}, not {prometheus.number(expr)}",
                )
        time.sleep(2 * EVERY_SECS)

    def reload(self) -> None:
        """One sidecar takes a configuration, and refuses one."""
        pod = self.load.pods[0]
        place, upstream, key = pod.sidecar.config.parent, self.load.upstream, pod.sidecar.key
        for settings, word in (
            ({"max_idle_connections": 21 + self._reloaded}, "configuration loaded"),
            ({"timeout_secs": -1}, "configuration refused"),
        ):
            mark = len(pod.sidecar.lines)
            configured(place, upstream, key, **settings)
            pod.sidecar.line(
                lambda line: line.get("message") == word,  # noqa: B023  asked within the loop
                word, after=mark, timeout=30,
            )  # fmt: skip
        self._reloaded += 1
        self.reloads += 1


@contextmanager
def begun(find: Find, folder: Path) -> Iterator[Scene]:
    """A scene after its first moment. Everything runs inside of the block."""
    with (
        running(find, folder) as stack,
        ScriptedUpstream(answers.typical) as upstream,
        pods(upstream, folder / "pods", stack.environment) as sidecars,
        operating(stack) as operator,
    ):
        ports = [pod.sidecar.admin_port for pod in sidecars]
        stack.scraped({SIDECARS: ports, OPERATOR: [operator.port]})
        scene = Scene(stack, Load(upstream, sidecars), operator)
        scene.load.round()
        scene.operator.note()
        scene.reload()
        scene.settled()
        scene.reloads, scene.since = 0, time.time()
        # The window's first sample has to be of this time of rest.
        time.sleep(3 * EVERY_SECS)
        yield scene


@contextmanager
def played(find: Find, folder: Path, rounds: int, pause: float) -> Iterator[Scene]:
    """A scene whose second moment is now."""
    with begun(find, folder) as scene:
        mark = len(scene.load.ledger.entries)
        for _ in range(rounds):
            scene.load.round()
            scene.operator.note()
            scene.rounds += 1
            time.sleep(pause)
        scene.reload()
        scene.settled()
        scene.ledger, scene.whole = scene.load.ledger.since(mark), scene.load.ledger.since(0)
        scene.attempts, scene.at = len(scene.load.upstream.exchanges), time.time()
        yield scene


@contextmanager
def operating(stack: Stack) -> Iterator[Operator]:
    """The operator's metrics, until the block ends."""
    environ = stack.environment(k8s_namespace_name="inference-sidecar", k8s_pod_name="operator-1")
    tests = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "telemetry.operating"],
        env={**clean_environment(), **environ},
        cwd=tests,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield Operator(int(process.stdout.readline()))
        process.stdin.close()
        process.wait(20)
