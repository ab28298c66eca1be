"""Samples → the table, in Markdown. Pure.

Enters: samples, verdicts, what was measured on. Leaves: text. Must not: hide a goal that was missed, a measurement that
was disturbed, or a target that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .figures import (
    DIRECT,
    NGINX,
    SIDECAR,
    TLS,
    Lookup,
    Sample,
    Verdict,
    difference,
    lookup,
    ratio,
    verdicts,
)

NOTHING = "–"
BEGIN, END = "<!-- results of make bench: begin -->", "<!-- results of make bench: end -->"


@dataclass(frozen=True)
class Setting:
    """What was measured on, and with what."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    repetitions: int
    seconds: int
    foreign: float
    absent: Mapping[str, str]
    whole: bool  # every measurement of every usual target


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, without an exponent."""
    if value is None or value != value:
        return NOTHING
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:.{digits}f}{unit}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), "|---|" + "---:|" * (len(head) - 1), *(_row(row) for row in rows)]


def goals(found: Sequence[Verdict]) -> list[str]:
    """Each goal and its verdict; nothing where there are none."""
    if not found:
        return []
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = []
    for verdict in found:
        unit = f" {verdict.goal.unit}"
        span = NOTHING
        if verdict.least is not None:
            span = f"{number(verdict.least)} to {number(verdict.greatest)}"
        rows.append(
            [verdict.goal.figure, verdict.goal.wanted, number(verdict.value, unit) if verdict.value is not None
             else NOTHING, span, words[verdict.met]]
        )  # fmt: skip
    return ["## Goals", "", *_table(["figure", "goal", "measured", "single repetitions", ""], rows), ""]


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[Lookup, str, str], float | None]


def _plainly(title: str, scenario: str, name: str, scale: float = 1) -> _Column:
    def value(look: Lookup, target: str, tls: str) -> float | None:
        return ratio(look(target, scenario + tls, name), scale)

    return _Column(title, value)


def _of_nginx(scenario: str, name: str) -> _Column:
    def value(look: Lookup, target: str, tls: str) -> float | None:
        return ratio(look(target, scenario + tls, name), look(NGINX, scenario + tls, name))

    return _Column("× nginx", value)


def _added(title: str, scenario: str, name: str, scale: float = 1) -> _Column:
    def value(look: Lookup, target: str, tls: str) -> float | None:
        if target == DIRECT:
            return None
        more = difference(look(target, scenario + tls, name), look(DIRECT, scenario + tls, name))
        return ratio(more, scale)

    return _Column(title, value)


REQUESTS = [
    _plainly("requests/s at 16", "plain", "requests_per_s"),
    _of_nginx("plain", "requests_per_s"),
    _plainly("CPU of the proxy, µs each", "plain", "cpu_us_each"),
    _plainly("p50 at 1, µs", "single", "p50_us"),
    _added("added, µs", "single", "p50_us"),
    _plainly("first token p50, µs", "first", "p50_us"),
    _added("added, µs", "first", "p50_us"),
    _added("500 KB body, added p50, µs", "big", "p50_us"),
    _plainly("small requests held up, ms", "big", "held_ms"),
    _plainly("loop blocked, longest, ms", "big", "blocked_ms"),
    _plainly("of each 0.1 s, median, ms", "big", "blocked_median_ms"),
]
STREAMS = [
    _plainly("bursts of 100, streams/s at 16", "burst", "streams_per_s"),
    _of_nginx("burst", "streams_per_s"),
    _plainly("CPU of the proxy, µs each", "burst", "cpu_us_each"),
    _plainly("200 paced, streams/s", "paced", "streams_per_s"),
    _plainly("CPU of the proxy, %", "paced", "cpu_pct"),
    _plainly("gap p99, ms", "paced", "gap_p99_us", 1000),
    _of_nginx("paced", "gap_p99_us"),
]
PROCESS = [
    _plainly("RSS idle, MiB", "start", "rss_mib"),
    _plainly("RSS at 200 streams, MiB", "paced", "rss_mib"),
    _plainly("PSS idle, MiB", "start", "pss_mib"),
    _plainly("PSS at 200 streams, MiB", "paced", "pss_mib"),
    _plainly("start to first answer, s", "start", "start_s"),
    _plainly("exports, bytes", "export", "export_bytes"),
]


def _section(title: str, columns: Sequence[_Column], samples: Sequence[Sample], tls: str) -> list[str]:
    look = lookup(samples)
    targets = list(dict.fromkeys(sample.target for sample in samples))
    cells = [[number(column.value(look, target, tls)) for column in columns] for target in targets]
    shown = [place for place in range(len(columns)) if any(row[place] != NOTHING for row in cells)]
    rows = [
        [target, *(row[place] for place in shown)]
        for target, row in zip(targets, cells, strict=True)
        if any(cell != NOTHING for cell in row)
    ]
    if not rows:
        return []
    return [f"## {title}", "", *_table(["", *(columns[place].title for place in shown)], rows), ""]


def _disturbed(samples: Sequence[Sample], setting: Setting) -> list[str]:
    timed = [sample for sample in samples if sample.foreign]
    if not timed:
        return []
    again = sum(sample.attempts - 1 for sample in timed)
    lines = [
        "## Foreign load", "",
        f"{len(timed)} measurements; {again} more gave way to one with less foreign load.",
    ]  # fmt: skip
    marked = [sample for sample in timed if sample.disturbed]
    if not marked:
        return [*lines, ""]
    worst = {core: max(sample.foreign[core] for sample in marked) for core in ("proxy", "load")}
    lines += [
        f"**In {len(marked)} of them others took more than {setting.foreign:.0%} of a core** in every attempt,",
        f"up to {worst['proxy']:.0%} of the proxy's and {worst['load']:.0%} of the load's. They are in the figures.",
        "",
    ]  # fmt: skip
    shares: dict[str, list[Sample]] = {}
    for sample in timed:
        shares.setdefault(sample.target, []).append(sample)
    rows = [
        [target, f"{sum(sample.disturbed for sample in of)} of {len(of)}",
         *(f"{sum(sample.foreign[core] for sample in of) / len(of):.1%}" for core in ("proxy", "load"))]
        for target, of in shares.items()
    ]  # fmt: skip
    head = ["", "disturbed", "foreign, proxy's core, mean", "foreign, load's core, mean"]
    return [*lines, *_table(head, rows), ""]


def _in_one_line(text: str) -> str:
    lines = text.strip().splitlines()
    return " … ".join(dict.fromkeys((lines[0], lines[-1])))


def _faults(samples: Sequence[Sample], setting: Setting) -> list[str]:
    wrong = [f"- {name} was given up: {_in_one_line(why)}" for name, why in setting.absent.items()]
    wrong += [
        f"- {sample.target}, {sample.scenario}, repetition {sample.repetition + 1}: {sample.fault}"
        for sample in samples if sample.fault
    ]  # fmt: skip
    exports = [
        sample.figures["exports"] for sample in samples
        if sample.target == SIDECAR and sample.scenario.removesuffix(TLS) == "export"
    ]  # fmt: skip
    if any(sample.target == SIDECAR for sample in samples) and not (exports and all(exports)):
        wrong.append("- The sidecar exported no telemetry, at least once: its figures are those without.")
    return ["## What went wrong", "", *wrong, ""] if wrong else []


def _told(setting: Setting) -> str:
    told = "; ".join(
        f"{name} {value}" for name, value in [*setting.machine.items(), *setting.versions.items()]
    )
    return f"Medians of {setting.repetitions} repetitions, {setting.seconds} s each. {told}."


def markdown(samples: Sequence[Sample], setting: Setting) -> str:
    """The whole report."""
    # A run of a part is asked about that part.
    judged = [verdict for verdict in verdicts(samples) if setting.whole or verdict.value is not None]
    lines = [
        "# The data path", "",
        "docs/performance.md says what is measured, and how to read this.", "",
        _told(setting), "",
        *goals(judged),
        *_faults(samples, setting),
        *_disturbed(samples, setting),
    ]  # fmt: skip
    for beside, tls in (("", ""), (", TLS upstream", TLS)):
        lines += _section("Requests" + beside, REQUESTS, samples, tls)
        lines += _section("Streams" + beside, STREAMS, samples, tls)
        lines += _section("Process" + beside, PROCESS, samples, tls)
    return "\n".join(lines).rstrip() + "\n"


def included(page: str, samples: Sequence[Sample], setting: Setting) -> str:
    """A page with the goals of this run between its two markers.

    Raises:
        ValueError: The page lacks a marker.

    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for results")
    lines = [
        begin, "", *goals(verdicts(samples)), _told(setting), "",
        *_faults(samples, setting), *_disturbed(samples, setting),
        "[The whole table](../bench/results/data_path.md).", "",
        "![What each target does](../bench/results/data_path.png)", "",
    ]  # fmt: skip
    return before + "\n".join(lines) + end + after
