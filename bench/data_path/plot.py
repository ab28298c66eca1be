"""Samples → the picture: one bar for each target and figure.

Enters: samples. Leaves: a PNG. Must not: show what the table does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from .figures import DIRECT, SIDECAR, TLS, Lookup, Sample, difference, lookup, ratio
from .report import number

COLOURS = {SIDECAR: "#1f6fb4", DIRECT: "#c9c9c9"}
OTHERS = "#7f7f7f"


def _plain(scenario: str, name: str, scale: float = 1) -> Callable[[Lookup, str], float | None]:
    return lambda look, target: ratio(look(target, scenario, name), scale)


def _added(scenario: str, name: str) -> Callable[[Lookup, str], float | None]:
    return lambda look, target: (
        None if target == DIRECT else difference(look(target, scenario, name), look(DIRECT, scenario, name))
    )


PANELS: list[tuple[str, Callable[[Lookup, str], float | None], bool]] = [
    ("plain requests/s at 16, more is better", _plain("plain", "requests_per_s"), True),
    ("added p50 at 1, µs", _added("single", "p50_us"), True),
    ("added time to first token, µs", _added("first", "p50_us"), True),
    ("bursts, streams/s at 16, more is better", _plain("burst", "streams_per_s"), False),
    ("200 paced streams, gap p99, ms", _plain("paced", "gap_p99_us", 1000), False),
    ("200 paced streams, CPU of the proxy, %", _plain("paced", "cpu_pct"), False),
    ("RSS at 200 streams, MiB", _plain("paced", "rss_mib"), False),
    ("TLS upstream: plain requests/s at 16, more is better", _plain("plain" + TLS, "requests_per_s"), True),
]


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Medians. Axes of rates and times are logarithmic where targets lie orders of magnitude apart."""
    look = lookup(samples)
    targets = list(dict.fromkeys(sample.target for sample in samples))
    figure, axes = plt.subplots(4, 2, figsize=(12, 13), layout="constrained")
    for axis, (title, value, logarithmic) in zip(axes.flat, PANELS, strict=True):
        found = [(target, value(look, target)) for target in targets]
        shown = [(target, height) for target, height in found if height is not None and height > 0]
        names, heights = [target for target, _ in shown], [height for _, height in shown]
        bars = axis.barh(names, heights, color=[COLOURS.get(name, OTHERS) for name in names])
        axis.bar_label(bars, labels=[number(height) for height in heights], padding=3)
        axis.set_title(title, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        if logarithmic and shown:
            axis.set_xscale("log")
    figure.savefig(path, dpi=110)
    plt.close(figure)
