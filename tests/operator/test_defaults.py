"""The chart-wide defaults: read, read again when their file changes, kept where it becomes useless.

Left out: what becomes of them in a pod (test_inject).
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from inference_operator import crd
from inference_operator.defaults import Defaults, read
from inference_operator.errors import InvalidObject


def test_without_a_file_there_are_none() -> None:
    assert Defaults(None)() == crd.Sidecar()


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(text)
    assert Defaults(file)() == crd.Sidecar()


def test_a_change_is_seen(tmp_path: Path) -> None:
    """A mounted ConfigMap is a link that is pointed elsewhere."""
    for name, image in (("one", "a:1"), ("two", "b:2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "defaults.yaml").write_text(f"image: {image}\n")
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "one")
    defaults = Defaults(link / "defaults.yaml")
    assert defaults().image == "a:1"
    newer = tmp_path / "newer"
    newer.symlink_to(tmp_path / "two")
    newer.replace(link)
    assert defaults().image == "b:2"


def test_the_last_good_ones_hold_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("image: a:1\n")
    defaults = Defaults(file)
    file.write_text("image: [no, image]\n")
    with caplog.at_level(logging.ERROR):
        assert defaults().image == "a:1"
        assert defaults().image == "a:1"
    assert [record.getMessage().count("image") for record in caplog.records] == [1]
    file.unlink()
    assert defaults().image == "a:1"
    file.write_text("image: a:3\n")
    assert defaults().image == "a:3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "one mapping is wanted"),
        ("a: b: c", "no valid YAML"),
        ("imag: a", "defaults.yaml: imag: an unknown field"),
        ("image: {}", "defaults.yaml: image: "),
    ],
)
def test_what_cannot_be_used_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(text)
    with pytest.raises(InvalidObject, match=said):
        Defaults(file)


def test_no_file_where_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidObject, match="no such file"):
        read(tmp_path / "defaults.yaml")
