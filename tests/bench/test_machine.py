"""Foreign load: what others took of a core, out of /proc; and which processes are ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from data_path import machine
from data_path.machine import TICK, Mark, Process, descendants, foreign, foreign_between, idle_by_core

STAT = """cpu  300 0 100 900 60 0 10 0 0 0
cpu0 100 0 50 400 50 0 5 0 0 0
cpu1 200 0 50 500 10 0 5 0 0 0
cpu11 1 0 1 1 0 0 0 0 0 0
intr 12345 0 0
ctxt 999
"""


def test_idle_includes_waiting_for_a_disk_and_is_told_by_core() -> None:
    assert idle_by_core(STAT) == {0: 450 * TICK, 1: 510 * TICK, 11: 1 * TICK}


@pytest.mark.parametrize(
    ("seconds", "idle", "own", "expected"),
    [
        (10.0, 10.0, 0.0, 0.0),
        (10.0, 4.0, 6.0, 0.0),
        (10.0, 4.0, 3.0, 0.3),
        (10.0, 0.0, 0.0, 1.0),
        (10.0, 5.0, 5.1, 0.0),
        (0.0, 0.0, 0.0, 0.0),
    ],
    ids=["idle", "all ours", "some", "all", "never below nothing", "no time"],
)
def test_foreign_load(seconds: float, idle: float, own: float, expected: float) -> None:
    assert foreign(seconds, idle, own) == pytest.approx(expected)


def test_each_core_is_judged_by_its_own_processes() -> None:
    before = Mark(100.0, {0: 50.0, 1: 60.0, 2: 9.0}, {0: 5.0, 1: 7.0})
    after = Mark(104.0, {0: 51.0, 1: 62.0, 2: 9.0}, {0: 8.0, 1: 8.0})
    assert foreign_between(before, after) == {0: pytest.approx(0.0), 1: pytest.approx(0.25)}


def test_a_name_with_blanks_and_brackets() -> None:
    line = "42 (a) (b c) S 7 42 42 0 -1 4194560 100 200 0 0 30 12 5 1 20 0 1 0 100 0 0"
    assert Process.read(line) == Process(42, 7, 42 * TICK, 6 * TICK)


def test_descendants_of_descendants_are_ours_and_others_are_not() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1}
    processes = {pid: Process(pid, parent, 0.0, 0.0) for pid, parent in parents.items()}
    assert descendants(2, processes) == {2, 3, 4}


def test_a_real_process_and_its_child() -> None:
    # Its child uses some of the ticks that CPU time is counted in before it waits.
    child = "'sum(range(10**7)); input()'"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            while len(ours := machine.tree(process.pid)) < 2:
                assert process.poll() is None
            assert process.pid in ours
            assert os.getpid() not in ours
            while machine.cpu_secs(ours) < 0.05:
                assert process.poll() is None
            assert 1 < machine.pss_mib(ours) <= machine.rss_mib(ours) < 500
        finally:
            process.communicate("\n")


def test_a_mark_counts_what_this_process_used() -> None:
    core = min(os.sched_getaffinity(0))
    before = machine.mark(core + 1, [], core, [])
    while (after := machine.mark(core + 1, [], core, [])).own[core] - before.own[core] < 0.05:
        assert after.clock - before.clock < 60
    assert after.own[core + 1] == 0
    assert 0 < after.own[core] - before.own[core] <= after.clock - before.clock + 0.01
