"""The order of things: repetitions, in each the targets in another order, in each target the measurements.

Enters: what to measure. Leaves: samples. Must not: keep two targets running at a time, or drop a sample that it does
not like: one is measured again only because others used the machine, and the attempt with the least of that counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import check, load, machine, measure, targets
from .figures import DIRECT, TLS, Sample
from .measure import Subject
from .targets import Running, Starter, Target, Upstream


@dataclass(frozen=True)
class Plan:
    """What to measure; scenarios whose upstream speaks TLS end with -tls.

    `foreign` is the part of a core from which on a measurement is disturbed, and done again up to `again` times;
    `most_again` bounds that for the whole run.
    """

    targets: Sequence[Target]
    scenarios: Sequence[str]
    repetitions: int
    seconds: int
    foreign: float
    again: int
    proxy_core: int
    load_core: int

    @property
    def sessions(self) -> list[tuple[Target, bool]]:
        """Each target, and whether its upstream speaks TLS."""
        plain = [(target, False) for target in self.targets if self.of(tls=False)]
        return plain + [(target, True) for target in self.targets if self.of(tls=True) and target.tls]

    def of(self, tls: bool) -> list[str]:
        """The measurements of one session, without their ending."""
        return [name.removesuffix(TLS) for name in self.scenarios if name.endswith(TLS) is tls]

    @property
    def most_again(self) -> int:
        return self.repetitions * sum(len(self.of(tls)) for _, tls in self.sessions) // 2


def order(count: int, repetition: int) -> list[int]:
    """Each repetition begins with another, and every second one goes backwards."""
    turned = [(number + repetition) % count for number in range(count)]
    return turned[::-1] if repetition % 2 else turned


class Run:
    """One run: its samples, and what went wrong."""

    def __init__(
        self, plan: Plan, starter: Starter, upstream: Upstream, load_pids: set[int], work: Path
    ) -> None:
        self.samples: list[Sample] = []
        self.absent: dict[str, str] = {}
        self._plan = plan
        self._starter = starter
        self._upstream = upstream
        self._load_pids = load_pids
        self._work = work
        self._left = plan.most_again

    def all(self) -> None:
        """Every repetition, after a look at whether a wrong answer would be seen at all.

        A target that does not start or answers wrongly is left out from then on.
        """
        with self._starter.running(Target(DIRECT), tls=False) as direct:
            check.client_sees_faults(direct, check.prepare(direct, self._upstream.port, self._work))
        sessions = self._plan.sessions
        for repetition in range(self._plan.repetitions):
            for number in order(len(sessions), repetition):
                target, tls = sessions[number]
                name = target.name + (" (TLS upstream)" if tls else "")
                if name in self.absent:
                    continue
                print(
                    f"repetition {repetition + 1} of {self._plan.repetitions}: {name}",
                    file=sys.stderr,
                    flush=True,
                )
                try:
                    self._session(target, tls, repetition)
                except (check.WrongAnswer, targets.NoAnswer, load.Broken, OSError) as error:
                    self.absent[name] = str(error)
                    print(f"{name} is left out: {error}", file=sys.stderr, flush=True)

    def _session(self, target: Target, tls: bool, repetition: int) -> None:
        before = targets.counts(self._upstream.sink)
        with self._starter.running(target, tls) as running:
            loads = check.prepare(running, self._upstream.port, self._work)
            subject = Subject(running, loads, self._plan.seconds)
            ending = TLS if tls else ""
            if figures := measure.idle(subject):
                self.samples.append(Sample(target.name, "start" + ending, repetition, figures))
            self._warm(running, subject)
            for scenario in self._plan.of(tls):
                self.samples.append(self._sample(subject, scenario, ending, repetition))
        taken = targets.counts(self._upstream.sink)
        if running.pid is not None:
            exported = {name: taken[name] - before[name] for name in ("exports", "export_bytes")}
            self.samples.append(Sample(target.name, "export" + ending, repetition, exported))

    @staticmethod
    def _warm(running: Running, subject: Subject) -> None:
        load.client(running, subject.loads["plain"], 0.3, connections=measure.MANY, warmup=0.1).figures()

    def _sample(self, subject: Subject, scenario: str, ending: str, repetition: int) -> Sample:
        best: Sample | None = None
        attempt, fault = 0, ""
        while True:
            attempt += 1
            pids = subject.pids()
            before = self._mark(pids)
            figures, wrong = measure.SCENARIOS[scenario](subject)
            if wrong:
                self._tell(subject.running, scenario + ending, wrong)
                fault = fault or wrong  # a fault counts, whoever else used the machine meanwhile
            taken = machine.foreign_between(before, self._mark(pids))
            foreign = {"proxy": taken[self._plan.proxy_core], "load": taken[self._plan.load_core]}
            disturbed = max(foreign.values()) > self._plan.foreign
            if best is None or max(foreign.values()) < max(best.foreign.values()):
                best = Sample(
                    subject.running.target.name, scenario + ending, repetition, figures, foreign,
                    disturbed=disturbed,
                )  # fmt: skip
            if not disturbed or attempt > self._plan.again or self._left <= 0:
                return replace(best, attempts=attempt, fault=fault)
            self._left -= 1
            time.sleep(0.2)

    @staticmethod
    def _tell(running: Running, scenario: str, wrong: str) -> None:
        kept = running.keep_log()
        place = "" if kept is None else f"; its log: {kept}"
        print(f"{running.target.name}, {scenario}: {wrong}{place}", file=sys.stderr, flush=True)

    def _mark(self, pids: set[int]) -> machine.Mark:
        return machine.mark(self._plan.proxy_core, pids, self._plan.load_core, self._load_pids)
