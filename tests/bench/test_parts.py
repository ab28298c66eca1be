"""What the bench takes from the sidecar's image, and what it loads before each target."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_path import parts
from data_path.targets import QUIET, Starter, Upstream, known


def test_the_sidecar_starts_with_the_variables_of_its_image() -> None:
    found = parts.image_environment()
    assert found["PYTHONOPTIMIZE"] == "2"
    assert found["PYTHONUNBUFFERED"] == "1"
    assert not [name for name in found if name.startswith(("PIP", "PATH"))]


def test_what_a_run_sets_counts_for_more_than_the_image(tmp_path: Path) -> None:
    target = known({"PYTHONOPTIMIZE": "0"}, {})[QUIET]
    starter = Starter(tmp_path, Upstream(1, 2, 3), 0, parts.SIDECAR)
    _, environment = starter._command(target, 4, "http://127.0.0.1:1")
    assert environment["PYTHONOPTIMIZE"] == "0"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_another_checkouts_sidecar_may_write_its_bytecode(tmp_path: Path) -> None:
    starter = Starter(tmp_path, Upstream(1, 2, 3), 0, Path("elsewhere/inference-sidecar"))
    _, environment = starter._command(known({}, {})[QUIET], 4, "http://127.0.0.1:1")
    assert environment["PYTHONOPTIMIZE"] == "2"
    assert "PYTHONDONTWRITEBYTECODE" not in environment


LOOP = """
import select, time
poll = select.epoll()
for _ in range(3):
    poll.poll(0.001)
    until = time.monotonic() + 0.03
    while time.monotonic() < until:
        pass
    poll.poll(3)
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_how_long_a_loop_was_blocked(tmp_path: Path) -> None:
    """What it was busy for counts, and what it waited for does not."""
    library, told = tmp_path / "blocked.so", tmp_path / "told"
    words = ["make", "--silent", "-C", str(parts.BENCH / "native"), f"OUT={tmp_path}", str(library)]
    subprocess.run(words, check=True)
    told.write_bytes(bytes(8))
    environment = {"LD_PRELOAD": str(library), "BLOCKED_FILE": str(told)}
    subprocess.run([sys.executable, "-c", LOOP], check=True, env=environment)
    assert 0.03 <= int.from_bytes(told.read_bytes(), sys.byteorder) / 1e9 < 3
