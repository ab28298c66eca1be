"""Samples → medians, ratios, and whether each goal is met. Pure.

Enters: what each measurement gave, by target, scenario and repetition. Leaves: medians, and for each goal the measured
value, its range over the repetitions, and the verdict. Must not: round in favour of anybody; a goal whose parts were
not measured has no verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# From a target, a scenario and a figure's name to its value, None where it was not measured.
Lookup = Callable[[str, str, str], float | None]

DIRECT, NGINX, SIDECAR = "direct", "nginx", "sidecar"
TENSORZERO, LITELLM = "tensorzero", "litellm"
TLS = "-tls"  # ends the name of a scenario whose upstream speaks TLS


@dataclass(frozen=True)
class Sample:
    """One measurement of one target.

    `figures` have their unit in their name. `foreign` is the part of each core (0–1) that others took meanwhile,
    `attempts` how often it was measured, `disturbed` that the best attempt still had too much of that.
    """

    target: str
    scenario: str
    repetition: int
    figures: Mapping[str, float]
    foreign: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 1
    disturbed: bool = False
    fault: str = ""


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0–1) of all lie, interpolated between the two nearest.

    Raises:
        ValueError: There are no values, or `part` is none.

    """
    if not values or not 0 <= part <= 1:
        raise ValueError("a percentile needs values, and a part from 0 to 1")
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Iterable[float]) -> float | None:
    """The median, None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """`part / whole`; None where either is missing or `whole` is not positive, and so cannot be compared with."""
    if part is None or whole is None or whole <= 0:
        return None
    return part / whole


def difference(value: float | None, base: float | None) -> float | None:
    """`value - base`, None where either is missing."""
    return None if value is None or base is None else value - base


def lookup(samples: Iterable[Sample]) -> Lookup:
    """Medians over all repetitions."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for sample in samples:
        for name, value in sample.figures.items():
            values.setdefault((sample.target, sample.scenario, name), []).append(value)
    return lambda target, scenario, name: median(values.get((target, scenario, name), ()))


@dataclass(frozen=True)
class Goal:
    """What is asked of the sidecar. `measured` computes it from a lookup."""

    figure: str
    wanted: str
    limit: float
    at_least: bool
    unit: str
    measured: Callable[[Lookup], float | None]

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Verdict:
    """A goal, its value from the medians, the least and the greatest over single repetitions."""

    goal: Goal
    value: float | None
    least: float | None
    greatest: float | None

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.goal.met(self.value)


def of(target: str, scenario: str, name: str) -> Callable[[Lookup], float | None]:
    return lambda look: look(target, scenario, name)


def against(other: str, scenario: str, name: str) -> Callable[[Lookup], float | None]:
    """The sidecar's figure as a multiple of another's."""
    return lambda look: ratio(look(SIDECAR, scenario, name), look(other, scenario, name))


def added(target: str, scenario: str, name: str) -> Callable[[Lookup], float | None]:
    """What a target adds to the figure without a proxy."""
    return lambda look: difference(look(target, scenario, name), look(DIRECT, scenario, name))


def added_against(scenario: str, name: str) -> Callable[[Lookup], float | None]:
    """What the sidecar adds, as a multiple of what nginx adds."""
    return lambda look: ratio(added(SIDECAR, scenario, name)(look), added(NGINX, scenario, name)(look))


def _of_path(tls: str) -> list[Goal]:
    beside = ", TLS upstream" if tls else ""
    return [
        Goal(f"plain requests/s at 16{beside}", "≥ 0.15 × nginx", 0.15, True, "×",
             against(NGINX, "plain" + tls, "requests_per_s")),
        Goal(f"added p50 at 1 connection{beside}", "≤ 2 × nginx", 2, False, "×",
             added_against("single" + tls, "p50_us")),
        Goal(f"added time to first token, p50{beside}", "≤ 2 × nginx", 2, False, "×",
             added_against("first" + tls, "p50_us")),
        Goal(f"bursts of 100 chunks, streams/s at 16{beside}", "≥ 1 × nginx", 1, True, "×",
             against(NGINX, "burst" + tls, "streams_per_s")),
        Goal(f"200 paced streams, gap p99{beside}", "≤ 1.3 × nginx", 1.3, False, "×",
             against(NGINX, "paced" + tls, "gap_p99_us")),
        Goal(f"200 paced streams, delivered{beside}", "≥ 0.99 × direct", 0.99, True, "×",
             against(DIRECT, "paced" + tls, "streams_per_s")),
    ]  # fmt: skip


GOALS = [
    Goal("plain requests/s at 16", "≥ 1.0 × TensorZero", 1, True, "×",
         against(TENSORZERO, "plain", "requests_per_s")),
    Goal("plain requests/s at 16", "≥ 80 × LiteLLM", 80, True, "×", against(LITELLM, "plain", "requests_per_s")),
    *_of_path(""),
    Goal("resident memory, idle", "≤ 48 MiB", 48, False, "MiB", of(SIDECAR, "start", "rss_mib")),
    Goal("resident memory, 200 streams", "≤ 64 MiB", 64, False, "MiB", of(SIDECAR, "paced", "rss_mib")),
    Goal("start to first answer", "≤ 0.5 s", 0.5, False, "s", of(SIDECAR, "start", "start_s")),
    Goal("500 KB body, added p50", "≤ 2 ms", 2, False, "ms",
         lambda look: ratio(added(SIDECAR, "big", "p50_us")(look), 1000)),
    Goal("500 KB bodies, the event loop blocked, longest", "≤ 2 ms", 2, False, "ms", of(SIDECAR, "big", "blocked_ms")),
    *_of_path(TLS),
]  # fmt: skip


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """Each goal, judged by medians over all repetitions; the range tells how sure that is."""
    whole = lookup(samples)
    single = [
        lookup([sample for sample in samples if sample.repetition == repetition])
        for repetition in sorted({sample.repetition for sample in samples})
    ]
    judged = []
    for goal in GOALS:
        found = [value for look in single if (value := goal.measured(look)) is not None]
        judged.append(Verdict(goal, goal.measured(whole), min(found, default=None), max(found, default=None)))
    return judged
