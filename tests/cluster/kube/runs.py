"""The folders of clusters, one each, and the removal of a cluster with all that it left on the machine.

Leaves: a new folder, locked for as long as the process lives that wanted it; the folders that are there; a
machine without them. A cluster whose owner died, or that died itself, is removed by whoever comes next. Only
processes whose mounts show that they belong to a folder are ended, by a handle that can't come to mean another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

BASE = Path("/var/tmp")  # on a disk, and the same for all clones of the repository
PREFIX = "inference-sidecar-cluster-"
CONTROL_GROUPS = Path("/sys/fs/cgroup")
END_SECS = 120.0
"""Usually three. But with the node go its mounts, and the kernel writes what those hold to a disk that is others' too."""


def create() -> tuple[Path, int]:
    """A folder and the lock on it, which the process holds until it ends or closes that file."""
    # It gets its name when the lock is on it: one without a lock would be taken for a dead process's.
    folder = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=BASE))
    lock = os.open(folder / "owner", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder.rename(folder.with_name(folder.name.removeprefix("."))), lock


def keep(folder: Path) -> None:
    """Has the cluster stay when its process ends, until somebody removes it."""
    (folder / "kept").touch()


def existing() -> Iterator[Path]:
    """The folders of this user, others' of the same name aside."""
    for folder in BASE.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # removed by somebody meanwhile
            if not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
                yield folder


def claim(folder: Path) -> int | None:
    """The lock on a folder that no living process holds; None where one does, or where it is gone by now."""
    try:
        lock = os.open(folder / "owner", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def kept(folder: Path) -> bool:
    """Whether it is one that stays, and lives."""
    return (folder / "kept").exists() and first_process(folder) is not None


def sweep(*, also_kept: bool = False) -> list[str]:
    """Removes what dead processes left, and on demand what was to stay; says what it removed."""
    removed = []
    for folder in existing():
        lock = claim(folder)
        if lock is None:
            continue
        try:
            if folder.exists() and (also_kept or not kept(folder)):
                remove(folder)
                removed.append(folder.name)
        finally:
            os.close(lock)
    return removed


def first_process(folder: Path) -> int | None:
    """The process id of the node's first process, None where it has ended."""
    try:
        pid = int((folder / "first.pid").read_text())
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
    except (OSError, ValueError):
        return None
    return pid if f"/{folder.name}/var /var " in mounts else None


def remove(folder: Path) -> None:
    """Ends the node, waits for the end, and removes its control groups and its folder."""
    end_first_process(folder)
    remove_control_groups(folder.name)
    # Mounts belong to the node's own namespace; to find one here would mean to delete what is mounted there.
    mounts = Path("/proc/self/mountinfo").read_text()
    assert f"{folder.name}/" not in mounts, f"something is mounted below {folder}"
    shutil.rmtree(folder)


def end_first_process(folder: Path) -> None:
    pid = first_process(folder)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if first_process(folder) != pid:  # it ended before the handle was there
                return
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            # The kernel reports the first process's end when those of all others are behind it.
            ended, _, _ = select.select([handle], [], [], END_SECS)
            assert ended, f"process {pid} did not end"
        finally:
            os.close(handle)


def create_control_groups(name: str) -> None:
    """A group below which kubelet makes those of its pods, in each hierarchy."""
    if (CONTROL_GROUPS / "cgroup.controllers").exists():
        (CONTROL_GROUPS / name).mkdir()
        return
    for hierarchy in {each.resolve() for each in CONTROL_GROUPS.iterdir()}:
        if (hierarchy / "cgroup.procs").exists():
            (hierarchy / name).mkdir()


def remove_control_groups(name: str) -> None:
    """In the one hierarchy, or in each of the old kind."""
    for top in {found.resolve() for found in (*CONTROL_GROUPS.glob(name), *CONTROL_GROUPS.glob(f"*/{name}"))}:
        for folder, _, _ in os.walk(top, topdown=False):
            Path(folder).rmdir()
