"""docs/configuration.md says what the schema says, and has every setting."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from inference_config.settings import SETTINGS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_what_the_code_says(generator: ModuleType) -> None:
    for name, page in generator.PAGES.items():
        assert (DOCS / name).read_text(encoding="utf-8") == page(), f"run: python docs/generate.py ({name})"


def test_every_setting_has_its_row_and_a_description(generator: ModuleType) -> None:
    page = generator.configuration()
    for setting in SETTINGS.values():
        if setting.variable:
            assert page.count(f"| `{setting.path}` | `{setting.variable}` |") == 1
            assert setting.description


def test_check_tells_a_page_that_is_out_of_date(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generator, "HERE", tmp_path)
    assert generator.main(["--check"]) == 1
    assert "configuration.md: out of date" in capsys.readouterr().out
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
