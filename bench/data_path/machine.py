"""The machine, as /proc tells it: cores, what a process takes, and what others take meanwhile.

Enters: /proc. Leaves: CPU seconds, resident memory, foreign load per core. Must not: start or stop anything.

Foreign load on a core is the time in which it was not idle, less the CPU time of our own processes, which are pinned
to one core each. Idle time comes from /proc/stat, where the kernel counts it exactly, and includes waiting for a disk.
Time that the kernel spends on interrupts counts as ours where it falls into our processes' time, as foreign elsewhere;
on kernels that account it apart (CONFIG_IRQ_TIME_ACCOUNTING) it is all foreign: then more is reported, never less.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def idle_by_core(stat: str) -> dict[int, float]:
    """Seconds since boot in which each core had nothing to run, from the text of /proc/stat."""
    found = {}
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            idle, waiting = int(fields[3]), int(fields[4])
            found[int(name.removeprefix("cpu"))] = (idle + waiting) * TICK
    return found


def foreign(seconds: float, idle: float, own: float) -> float:
    """The part (0–1) of a core that others took in `seconds`, of which it was idle for some and ours for some."""
    if seconds <= 0:
        return 0.0
    return min(1.0, max(0.0, (seconds - idle - own) / seconds))


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat."""

    pid: int
    parent: int
    cpu_secs: float
    reaped_secs: float

    @classmethod
    def read(cls, text: str) -> Process:
        pid, rest = text.split(" (", 1)
        fields = rest.rsplit(") ", 1)[1].split()  # a name may hold blanks and brackets
        ticks = [int(field) for field in fields[11:15]]
        return cls(int(pid), int(fields[1]), (ticks[0] + ticks[1]) * TICK, (ticks[2] + ticks[3]) * TICK)


def _processes() -> dict[int, Process]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = Process.read((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    return found


def descendants(root: int, processes: Mapping[int, Process]) -> set[int]:
    """A process and all that came of it."""
    tree, grown = {root}, True
    while grown:
        more = {process.pid for process in processes.values() if process.parent in tree} - tree
        tree |= more
        grown = bool(more)
    return tree


def tree(root: int) -> set[int]:
    """The process ids of a process and all that came of it."""
    return descendants(root, _processes())


def cpu_secs(pids: Iterable[int]) -> float:
    """CPU time of these processes, and of those of their children that have ended."""
    total = 0.0
    for pid in pids:
        process = Process.read(Path(f"/proc/{pid}/stat").read_text())
        total += process.cpu_secs + process.reaped_secs
    return total


def rss_mib(pids: Iterable[int]) -> float:
    """Resident memory; pages that processes share are counted in each."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * PAGE / MIB


def pss_mib(pids: Iterable[int]) -> float:
    """Resident memory; pages that are shared, with anybody, are counted in part."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


@dataclass(frozen=True)
class Mark:
    """A moment: the clock, idle time by core, our own CPU time by core. All in seconds."""

    clock: float
    idle: Mapping[int, float]
    own: Mapping[int, float]


def mark(proxy_core: int, proxy: Iterable[int], load_core: int, load: Iterable[int]) -> Mark:
    """Now. `load` are the upstream's processes; this one and its ended children are on that core, too."""
    mine = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    here = mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime
    own = {proxy_core: cpu_secs(proxy), load_core: cpu_secs(load) + here}
    return Mark(time.monotonic(), idle_by_core(Path("/proc/stat").read_text()), own)


def foreign_between(first: Mark, second: Mark) -> dict[int, float]:
    """Foreign load of each core that is ours, between two moments."""
    return {
        core: foreign(
            second.clock - first.clock,
            second.idle[core] - first.idle[core],
            second.own[core] - first.own[core],
        )
        for core in first.own
    }


def describe() -> dict[str, str]:
    """The machine in words, for the table."""
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    return {"processor": model, "cores": str(os.cpu_count()), "kernel": platform.release().split("-")[0]}
