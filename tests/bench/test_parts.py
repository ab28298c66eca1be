"""What the bench takes from the sidecar's image."""

from __future__ import annotations

from pathlib import Path

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
