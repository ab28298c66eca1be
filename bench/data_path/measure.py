"""Each measurement: one load on one running target.

Enters: a running target and its loads. Leaves: figures, with their unit in their name. Must not: decide whether they
are good, or repeat itself.
"""

from __future__ import annotations

import mmap
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from . import load, machine
from .load import Load
from .targets import Running

MANY, CROWD = 16, 200
CHUNKS, INTERVAL_US = 50, 10_000
BIG_EVERY_US, SMALL_EVERY_US = 25_000, 1_000
SETTLE_SECS = 0.7
SAMPLE_SECS = 0.1

Figures = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """What is measured, with what, for how long."""

    running: Running
    loads: Mapping[str, Load]
    seconds: int

    def pids(self) -> set[int]:
        return machine.tree(self.running.pid) if self.running.pid else set()


class Cpu:
    """CPU time that a target takes between `begin` and `end`."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.seconds = 0.0
        self.of = 0.0

    def begin(self) -> None:
        self._pids = self._subject.pids()
        self._before, self._began = machine.cpu_secs(self._pids), time.monotonic()

    def end(self) -> None:
        self.seconds = machine.cpu_secs(self._pids) - self._before
        self.of = time.monotonic() - self._began

    def figures(self, requests: float) -> Figures:
        """Nothing where there is no proxy."""
        if self._subject.running.pid is None or not requests:
            return {}
        return {"cpu_pct": 100 * self.seconds / self.of, "cpu_us_each": 1e6 * self.seconds / requests}


def plain(subject: Subject) -> tuple[Figures, str]:
    """Requests a second, 16 connections."""
    return _wrk(subject, MANY)


def single(subject: Subject) -> tuple[Figures, str]:
    """How long one request takes, when there is no other."""
    return _wrk(subject, 1)


def _wrk(subject: Subject, connections: int) -> tuple[Figures, str]:
    cpu = Cpu(subject)
    cpu.begin()
    found = load.wrk(subject.running, subject.loads["plain"], connections, subject.seconds)
    cpu.end()
    figures = {
        "requests_per_s": found["requests"] / found["seconds"],
        "p50_us": found["p50_us"],
        "p99_us": found["p99_us"],
    }
    return figures | cpu.figures(found["requests"]), found["fault"]


def first(subject: Subject) -> tuple[Figures, str]:
    """How long the first token takes, one stream at a time."""
    found = load.client(subject.running, subject.loads["stream-5-2000"], subject.seconds).figures()
    return _times(found, "first_us"), found["fault"]


def burst(subject: Subject) -> tuple[Figures, str]:
    """Streams a second, each as fast as it comes, 16 at once."""
    cpu, of = Cpu(subject), subject.loads["stream-100-0"]
    found = load.counted(subject.running, of, subject.seconds, cpu.begin, cpu.end, connections=MANY)
    rate = found["events"] / of.events / found["seconds"]
    return {"streams_per_s": rate, **cpu.figures(rate * found["seconds"])}, found["fault"]


def paced(subject: Subject) -> tuple[Figures, str]:
    """200 streams at the pace of a model. They begin evenly spread over the length of one."""
    cpu, of = Cpu(subject), subject.loads[f"stream-{CHUNKS}-{INTERVAL_US}"]
    length = CHUNKS * INTERVAL_US
    with Memory(subject) as memory:
        found = load.counted(
            subject.running, of, subject.seconds, cpu.begin, cpu.end,
            connections=CROWD, spread_us=length, warmup=1.5 * length / 1e6,
        )  # fmt: skip
    rate = found["events"] / of.events / found["seconds"]
    gaps = {
        "gap_p99_us": found["gap_us"].get("p99", float("nan")),
        "gap_max_us": found["gap_us"].get("max", 0),
    }
    figures = {"streams_per_s": rate, **gaps, **cpu.figures(rate * found["seconds"]), **memory.figures()}
    return figures, found["fault"]


def big(subject: Subject) -> tuple[Figures, str]:
    """Bodies of 500 KB: how long one takes alone, and how long they hold up small requests beside them.

    Both at once: one connection sends 500 KB every 25 ms, another a small request every millisecond. What the small
    ones' longest wait is above their median is how long something kept them waiting, be it the machine. How long the
    event loop was blocked, `native/blocked.c` tells: the longest time that it did not ask for events, and the median
    of each tenth of a second's.
    """
    alone = load.client(subject.running, subject.loads["big"], subject.seconds).figures()
    bodies = load.client(
        subject.running, subject.loads["big"], subject.seconds + 0.5, interval_us=BIG_EVERY_US, warmup=0.2
    )
    small = load.client(subject.running, subject.loads["plain"], subject.seconds, interval_us=SMALL_EVERY_US)
    with Blocked(subject.running.blocked) as blocked:
        beside, sent = small.figures(), bodies.figures()
    waits = beside["total_us"]
    held = (waits.get("max", float("nan")) - waits.get("p50", float("nan"))) / 1000
    figures = _times(alone, "total_us") | {
        "held_ms": held,
        "held_p99_ms": waits.get("p99", float("nan")) / 1000,
        **blocked.figures(),
    }
    return figures, alone["fault"] or beside["fault"] or sent["fault"]


class Watch:
    """What is looked at every now and then while a block runs, in a thread of its own."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        """Look, until `_done` is set."""
        raise NotImplementedError


class Blocked(Watch):
    """How long an event loop was blocked while a block runs: the most, and the median of what was the most in each
    `SAMPLE_SECS`, which tells the loop's own from the machine's pauses."""

    def __init__(self, told: Path | None) -> None:
        super().__init__()
        self._told = told
        self._found: list[float] = []

    def _watch(self) -> None:
        if self._told is None:
            return
        with self._told.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:] = bytes(8)
            while not self._done.wait(SAMPLE_SECS):
                self._found.append(int.from_bytes(shared[:], sys.byteorder) / 1e6)
                shared[:] = bytes(8)

    def figures(self) -> Figures:
        if not self._found:
            return {}
        return {"blocked_ms": max(self._found), "blocked_median_ms": statistics.median(self._found)}


def _times(found: Mapping[str, Any], name: str) -> Figures:
    times = found[name]
    return {f"{part}_us": times[part] for part in ("p50", "p99") if part in times}


def idle(subject: Subject) -> Figures:
    """Memory after the first answer and a moment of rest, and how long that first answer took."""
    if subject.running.pid is None:
        return {}
    time.sleep(SETTLE_SECS)
    pids = subject.pids()
    memory = {"rss_mib": machine.rss_mib(pids), "pss_mib": machine.pss_mib(pids)}
    return {"start_s": subject.running.start_secs, **memory}


class Memory(Watch):
    """The most resident memory while a block runs; PSS, which is costly to ask for, once in the midst of it."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._pids = subject.pids()
        self._middle = subject.seconds / 2 + 1
        self._most = self._shared = 0.0

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._done.wait(SAMPLE_SECS):
            self._most = max(self._most, machine.rss_mib(self._pids))
            if not self._shared and time.monotonic() - began > self._middle:
                self._shared = machine.pss_mib(self._pids)

    def figures(self) -> Figures:
        return {"rss_mib": self._most, "pss_mib": self._shared} if self._pids else {}


SCENARIOS: dict[str, Callable[[Subject], tuple[Figures, str]]] = {
    "plain": plain, "single": single, "first": first, "burst": burst, "paced": paced, "big": big,
}  # fmt: skip
OVER_TLS = ("plain", "single", "first", "burst", "paced")
