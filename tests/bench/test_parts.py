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
    starter = Starter(tmp_path, Upstream(1, 2, 3), 0, Path("sidecar"))
    _, environment = starter._command(target, 4, "http://127.0.0.1:1")
    assert environment["PYTHONOPTIMIZE"] == "0"
    assert environment["PYTHONUNBUFFERED"] == parts.image_environment()["PYTHONUNBUFFERED"]
