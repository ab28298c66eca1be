"""The bench's table: nothing that was missed, disturbed or absent is left unsaid."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from data_path.figures import DIRECT, NGINX, SIDECAR, TLS, Sample
from data_path.plot import draw
from data_path.report import BEGIN, END, NOTHING, Setting, included, markdown, number

SETTING = Setting({"processor": "a CPU", "cores": "2"}, {"nginx": "1.22"}, 3, 2, 0.03, {}, whole=False)
QUIET = {"proxy": 0.01, "load": 0.0}
EXPORTED = Sample(SIDECAR, "export", 0, {"exports": 3, "export_bytes": 4096})


def _rate(target: str, value: float, scenario: str = "plain", **more: object) -> Sample:
    sample = Sample(target, scenario, 0, {"requests_per_s": value}, QUIET)
    return replace(sample, **more)  # type: ignore[arg-type]


RATES = [_rate(DIRECT, 50000), _rate(NGINX, 40000), _rate(SIDECAR, 2000), EXPORTED]


def _row(text: str, section: str, name: str) -> list[str]:
    part = text.split(f"## {section}\n")[1].split("\n## ", maxsplit=1)[0]
    [line] = [line for line in part.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, NOTHING), (math.nan, NOTHING), (0.04567, "0.0457"), (0.5, "0.50"), (9.876, "9.88"), (43.21, "43.2"),
     (43558.4, "43558"), (-3.456, "-3.46")],
)  # fmt: skip
def test_numbers(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_a_target_s_figures_and_their_ratio_to_nginx() -> None:
    text = markdown(RATES, SETTING)
    assert _row(text, "Requests", SIDECAR) == [SIDECAR, "2000", "0.0500"]
    assert _row(text, "Requests", DIRECT) == [DIRECT, "50000", "1.25"]


def test_a_goal_that_was_missed_says_so() -> None:
    assert _row(markdown(RATES, SETTING), "Goals", "plain requests/s at 16")[2:] == [
        "0.0500 ×", "0.0500 to 0.0500", "**not met**",
    ]  # fmt: skip
    met = [_rate(NGINX, 40000), _rate(SIDECAR, 8000)]
    assert _row(markdown(met, SETTING), "Goals", "plain requests/s at 16")[4] == "met"


def test_a_whole_run_lists_every_goal_and_a_part_those_that_it_measured() -> None:
    assert markdown(RATES, SETTING).count("not measured") == 0
    assert "| start to first answer | ≤ 0.5 s | – | – | not measured |" in markdown(
        RATES, replace(SETTING, whole=True)
    )


def test_the_upstream_with_tls_has_sections_of_its_own() -> None:
    text = markdown([*RATES, _rate(NGINX, 30000, "plain" + TLS)], SETTING)
    assert _row(text, "Requests, TLS upstream", NGINX) == [NGINX, "30000", "1.00"]
    assert "| sidecar |" not in text.split("## Requests, TLS upstream")[1]


def test_a_disturbed_measurement_is_told_with_how_much() -> None:
    disturbed = _rate(SIDECAR, 2000, foreign={"proxy": 0.21, "load": 0.02}, attempts=3, disturbed=True)
    text = markdown([*RATES[:2], disturbed, EXPORTED], SETTING)
    assert "3 measurements; 2 more gave way" in text
    assert "**In 1 of them others took more than 3% of a core**" in text
    assert "up to 21% of the proxy's and 2% of the load's" in text
    assert _row(text, "Foreign load", SIDECAR) == [SIDECAR, "1 of 1", "21.0%", "2.0%"]


def test_a_quiet_machine_is_told_too() -> None:
    text = markdown(RATES, SETTING)
    assert "3 measurements; 0 more gave way" in text
    assert "others took" not in text


def test_an_absent_target_and_a_wrong_answer_are_told() -> None:
    absent = replace(
        SETTING, absent={"tensorzero": "tensorzero did not answer; its log ends:\n  ...\nno such port"}
    )
    text = markdown(
        [*RATES[:2], _rate(SIDECAR, 1, fault="wrong answers: 7, the first: cut off"), EXPORTED], absent
    )
    assert "- tensorzero was given up: tensorzero did not answer; its log ends: … no such port" in text
    assert "- sidecar, plain, repetition 1: wrong answers: 7, the first: cut off" in text


NOT_EXPORTED = Sample(SIDECAR, "export" + TLS, 0, {"exports": 0, "export_bytes": 0})


@pytest.mark.parametrize("exports", [[], [NOT_EXPORTED], [EXPORTED, NOT_EXPORTED]])
def test_a_sidecar_that_exported_nothing_is_told(exports: list[Sample]) -> None:
    assert "exported no telemetry" in markdown([*RATES[:3], *exports], SETTING)
    assert "exported no telemetry" not in markdown(RATES, SETTING)


def test_a_page_gets_the_goals_between_its_markers_and_keeps_the_rest() -> None:
    page = f"before\n{BEGIN}\nold results\n{END}\nafter\n"
    once = included(page, RATES, SETTING)
    assert once.startswith(f"before\n{BEGIN}\n")
    assert once.endswith(f"\n{END}\nafter\n")
    assert "| plain requests/s at 16 | ≥ 0.15 × nginx | 0.0500 × | 0.0500 to 0.0500 | **not met** |" in once
    assert "old results" not in once
    assert included(once, RATES, SETTING) == once
    with pytest.raises(ValueError, match="no place for results"):
        included("a page without markers", RATES, SETTING)


def test_a_picture_of_what_there_is(tmp_path: Path) -> None:
    draw(RATES, tmp_path / "some.png")
    draw([], tmp_path / "none.png")
    some, none = ((tmp_path / name).read_bytes() for name in ("some.png", "none.png"))
    assert some.startswith(b"\x89PNG")
    assert len(some) > len(none)
