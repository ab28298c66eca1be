"""The bench's statistics: medians, percentiles, ratios, and what is said of each goal."""

from __future__ import annotations

import math

import pytest

from data_path.figures import (
    DIRECT,
    GOALS,
    LITELLM,
    NGINX,
    SIDECAR,
    TENSORZERO,
    Sample,
    difference,
    lookup,
    median,
    percentile,
    ratio,
    verdicts,
)


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([float(value) for value in range(101)], 0.99, 99.0),
        ([10.0, 20.0], 0.0, 10.0),
        ([10.0, 20.0], 1.0, 20.0),
        ([10.0, 20.0], 0.25, 12.5),
    ],
)
def test_percentile(values: list[float], part: float, expected: float) -> None:
    assert percentile(values, part) == pytest.approx(expected)


@pytest.mark.parametrize(("values", "part"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1)])
def test_percentile_of_nothing_and_of_no_part(values: list[float], part: float) -> None:
    with pytest.raises(ValueError, match="a percentile needs"):
        percentile(values, part)


def test_median_is_not_moved_by_one_outlier() -> None:
    assert median([1.0, 2.0, 1000.0]) == 2.0
    assert median([1.0, 2.0]) == 1.5
    assert median([]) is None


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1.0, 4.0, 0.25),
        (None, 4.0, None),
        (1.0, None, None),
        (1.0, 0.0, None),
        (1.0, -2.0, None),
        (-1.0, 2.0, -0.5),
    ],
)
def test_ratio(part: float | None, whole: float | None, expected: float | None) -> None:
    assert ratio(part, whole) == expected


def test_difference_needs_both() -> None:
    assert difference(3.0, 1.0) == 2.0
    assert difference(None, 1.0) is None
    assert difference(3.0, None) is None


def _samples(target: str, scenario: str, name: str, values: list[float]) -> list[Sample]:
    return [Sample(target, scenario, number, {name: value}) for number, value in enumerate(values)]


def test_lookup_is_the_median_over_repetitions() -> None:
    look = lookup(_samples(NGINX, "plain", "requests_per_s", [1.0, 9.0, 2.0]))
    assert look(NGINX, "plain", "requests_per_s") == 2.0
    assert look(NGINX, "plain", "p50_us") is None
    assert look(SIDECAR, "plain", "requests_per_s") is None


def _verdict(
    samples: list[Sample], figure: str, wanted: str
) -> tuple[float | None, float | None, float | None, bool | None]:
    [found] = [one for one in verdicts(samples) if (one.goal.figure, one.goal.wanted) == (figure, wanted)]
    return found.value, found.least, found.greatest, found.met


@pytest.mark.parametrize(
    ("other", "wanted", "value", "met"),
    [
        (NGINX, "≥ 0.15 × nginx", 0.15, True),
        (NGINX, "≥ 0.15 × nginx", 0.1499, False),
        (TENSORZERO, "≥ 1.0 × TensorZero", 1.0, True),
        (TENSORZERO, "≥ 1.0 × TensorZero", 0.99, False),
        (LITELLM, "≥ 80 × LiteLLM", 80.1, True),
        (LITELLM, "≥ 80 × LiteLLM", 79.9, False),
    ],
)
def test_a_rate_is_a_multiple_of_another(other: str, wanted: str, value: float, met: bool) -> None:
    samples = _samples(other, "plain", "requests_per_s", [10000.0])
    samples += _samples(SIDECAR, "plain", "requests_per_s", [10000 * value])
    found, _, _, was_met = _verdict(samples, "plain requests/s at 16", wanted)
    assert found == pytest.approx(value)
    assert was_met is met


def test_what_is_added_is_compared_not_what_it_takes() -> None:
    samples = [
        sample
        for target, times in ((DIRECT, [100.0, 100.0]), (NGINX, [200.0, 150.0]), (SIDECAR, [300.0, 280.0]))
        for sample in _samples(target, "single", "p50_us", times)
    ]
    value, least, greatest, met = _verdict(samples, "added p50 at 1 connection", "≤ 2 × nginx")
    assert value == pytest.approx(190 / 75)
    assert (least, greatest) == (pytest.approx(2.0), pytest.approx(3.6))
    assert met is False


def test_more_than_nginx_is_no_fault_where_less_is_asked() -> None:
    samples = _samples(NGINX, "paced", "gap_p99_us", [13000.0]) + _samples(
        SIDECAR, "paced", "gap_p99_us", [12000.0]
    )
    assert _verdict(samples, "200 paced streams, gap p99", "≤ 1.3 × nginx")[3] is True


def test_nothing_measured_is_no_verdict() -> None:
    assert [(one.value, one.met) for one in verdicts([])] == [(None, None)] * len(GOALS)


def test_a_figure_that_is_not_a_number_meets_no_goal() -> None:
    assert not any(goal.met(math.nan) for goal in GOALS)


def test_the_goals_of_plain_and_tls_upstream_are_the_same() -> None:
    tls = {
        (goal.figure.removesuffix(", TLS upstream"), goal.wanted) for goal in GOALS if "TLS" in goal.figure
    }
    assert len(tls) == 6
    assert tls <= {(goal.figure, goal.wanted) for goal in GOALS if "TLS" not in goal.figure}
