"""Pictures of the dashboards' panels, drawn from what a real Prometheus answered after a run of the real sidecars.

    PYTHONPATH=tests python -m telemetry.pictures [SECONDS]      writes docs/images/*.png; minutes by default five

Enters: the checked-in dashboards, a scene (`scene`), its Prometheus by OTLP. Leaves: a picture a dashboard. Grafana
itself is not to be had here: places, titles, units and thresholds are the dashboards' own, the drawing is not. Must not
draw anything that no query answered.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cluster.kube import build
from telemetry.boards import BOARDS, REPOSITORY, board, filled
from telemetry.scene import Scene, begun
from telemetry.stack import Prometheus

IMAGES = REPOSITORY / "docs" / "images"
SECONDS = 300
WINDOW = "30s"
STEP = 5.0
DOTS = 120
"""Exemplars of a panel at most; Grafana leaves some out, too."""
INK, FAINT, GRID = "#24292e", "#6a737d", "#e1e4e8"
PALETTE = ("#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0")
NAMED = {"green": "#56A64B", "red": "#E02F44", "blue": "#3274D9", "orange": "#FF780A", "purple": "#A352CC"}

WELL = {"plain": 5, "other model": 4, "stream": 8, "thinking": 2, "embedding": 3, "response": 2, "retried": 0.4,
        "refused": 0.2, "left": 0.3, "fails": 0.1, "cut": 0.05}  # fmt: skip
TROUBLE = {**WELL, "limited": 3, "cut": 1.5, "retried": 3, "thinking": 6}


def drive(scene: Scene, seconds: float) -> None:
    """A load that comes and goes, with a spell of trouble at its upstream."""
    chance = random.Random(7)
    began = time.time()
    while (gone := time.time() - began) < seconds:
        part = gone / seconds
        mix = TROUBLE if 0.55 < part < 0.75 else WELL
        busy = 3 + round(3 * math.sin(part * math.pi * 3) ** 2)
        scene.load.round(*chance.choices(list(mix), weights=list(mix.values()), k=busy))
        scene.operator.note()
        if int(part * 4) > scene.reloads:
            scene.reload()
        time.sleep(0.3)
    scene.settled()
    scene.at = time.time()


def drawn(file: Path, scene: Scene) -> bytes:
    """One dashboard as a PNG of few colours."""
    shown = [panel for panel in board(file)["panels"] if not from_tempo(panel)]
    while shown[-1]["type"] == "row":
        shown.pop()  # what stood below is Tempo's
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown)
    figure = Figure(figsize=(19, height * 0.36), dpi=72, facecolor="white")
    for panel in shown:
        place = panel["gridPos"]
        left, width = place["x"] / 24, place["w"] / 24
        bottom, tall = 1 - (place["y"] + place["h"]) / height, place["h"] / height
        if panel["type"] == "row":
            figure.text(0.006, bottom + tall * 0.35, panel["title"], size=13, weight="bold", color=INK)
            continue
        margin = (0.026, 0.36 * 0.22 / (height * 0.36))
        axes = figure.add_axes(
            (left + margin[0], bottom + tall * 0.2, width - margin[0] - 0.006, tall * 0.62)
        )
        axes.set_title(panel["title"], size=9.5, color=INK, loc="left", pad=5)
        PAINTERS[panel["type"]](axes, panel, scene)
    raw = BytesIO()
    figure.savefig(raw, format="png")
    small = BytesIO()
    Image.open(raw).convert("RGB").quantize(96).save(small, format="png", optimize=True)
    return small.getvalue()


def from_tempo(panel: dict[str, Any]) -> bool:
    return any(target["datasource"]["type"] == "tempo" for target in panel.get("targets", []))


def lines(axes: Axes, panel: dict[str, Any], scene: Scene) -> None:
    """Values over time."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    found = list(over_time(panel, scene))
    times = sorted({at for _, points in found for at, _ in points})
    base = dict.fromkeys(times, 0.0)
    for order, (name, points) in enumerate(found):
        color = color_of(panel, name, order)
        finite = [(at, value) for at, value in points if math.isfinite(value)]
        label = f"{name}  {written(finite[-1][1], unit)}" if finite else name
        if stacked:
            values = dict(finite)
            top = {at: base[at] + values.get(at, 0.0) for at in times}
            axes.fill_between(
                times, list(base.values()), list(top.values()), color=color, alpha=0.65, label=label, lw=0.6
            )
            base = top
        else:
            axes.plot(
                [at for at, _ in points], [value for _, value in points], color=color, lw=1.3, label=label
            )
    points = sorted(exemplars(panel, scene))
    for at, value in points[:: 1 + len(points) // DOTS]:
        axes.plot(at, value, marker="D", ms=2.5, color=PALETTE[5], alpha=0.5)
    top = axes.get_ylim()[1]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and step["value"] < top:
            axes.axhline(step["value"], color=NAMED.get(step["color"], step["color"]), lw=0.8, ls="--")
    dressed(axes, unit, scene)
    axes.set_ylim(bottom=0)
    if found:
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=4 if panel["gridPos"]["w"] > 6 else 2, fontsize=6.5, frameon=False,
            handlelength=1, columnspacing=1, labelcolor=FAINT,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color=FAINT)


def number(axes: Axes, panel: dict[str, Any], scene: Scene) -> None:
    """One figure, or a few, in the colour of its threshold."""
    axes.axis("off")
    found = scene.stack.otlp.query(
        filled(panel["targets"][0]["expr"], f"{int(scene.at - scene.since)}s"), scene.at
    )
    defaults = panel["fieldConfig"]["defaults"]
    for order, (labels, value) in enumerate(found):
        steps = [
            step
            for step in defaults["thresholds"]["steps"]
            if step["value"] is None or value >= step["value"]
        ]
        color = NAMED.get(steps[-1]["color"], steps[-1]["color"])
        where = (order + 0.5) / len(found)
        big = 20 if len(found) == 1 else 15
        shown = round(value) if defaults.get("decimals") == 0 else value
        axes.text(0.5, where, written(shown, defaults["unit"]), size=big, weight="bold", color=color,
                  ha="center", va="center", transform=axes.transAxes)  # fmt: skip
        if len(found) > 1:
            axes.text(0.5, where - 0.2, legend(panel["targets"][0], labels), size=7, color=FAINT,
                      ha="center", va="center", transform=axes.transAxes)  # fmt: skip
    if not found:
        axes.text(0.5, 0.5, defaults["noValue"], ha="center", color=FAINT, transform=axes.transAxes)


def rows(axes: Axes, panel: dict[str, Any], scene: Scene) -> None:
    """A table."""
    axes.axis("off")
    (organized,) = [one["options"] for one in panel["transformations"] if one["id"] == "organize"]
    names = dict(sorted(organized["renameByName"].items(), key=lambda one: organized["indexByName"][one[0]]))
    keys = [name for name in names if not name.startswith("Value #")]
    units = {
        one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]
    }
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    order: dict[tuple[str, ...], float] = {}
    for target in panel["targets"]:
        heading = names[f"Value #{target['refId']}"]
        expr = filled(target["expr"], f"{int(scene.at - scene.since)}s")
        for labels, value in scene.stack.otlp.query(expr, scene.at):
            key = tuple(labels.get(name, "") for name in keys)
            cells.setdefault(key, {})[heading] = written(value, units[heading])
            order.setdefault(key, value)
    headings = [names[name] for name in names if name.startswith("Value #")]
    body = [
        [*key, *(cells[key].get(heading, "-") for heading in headings)]
        for key in sorted(cells, key=lambda key: -order[key])
    ]
    made = axes.table(
        cellText=body, colLabels=[*(names[key] for key in keys), *headings], loc="upper center", edges="B"
    )
    made.auto_set_font_size(False)
    made.set_fontsize(8)
    made.scale(1, 1.3)
    for cell in made.get_celld().values():
        cell.set_edgecolor(GRID)
        cell.get_text().set_color(INK)


def spread(axes: Axes, panel: dict[str, Any], scene: Scene) -> None:
    """A heatmap of a histogram's buckets."""
    found = {float(name.replace("+Inf", "inf")): dict(points) for name, points in over_time(panel, scene)}
    bounds = sorted(found)
    times = sorted({at for points in found.values() for at in points})
    counts, below = [], dict.fromkeys(times, 0.0)
    for bound in bounds:
        counts.append([max(0.0, found[bound].get(at, 0.0) - below[at]) for at in times])
        below = {at: found[bound].get(at, 0.0) for at in times}
    axes.pcolormesh(times, range(len(bounds)), counts, cmap="Oranges", shading="nearest")
    axes.set_yticks(range(0, len(bounds), 3), [f"{bound:g} s" for bound in bounds[::3]])
    dressed(axes, None, scene)


PAINTERS = {"timeseries": lines, "stat": number, "table": rows, "heatmap": spread}


def dressed(axes: Axes, unit: str | None, scene: Scene) -> None:
    axes.set_xlim(scene.since + 10, scene.at)
    axes.set_xticks([])
    axes.tick_params(labelsize=7, colors=FAINT, length=0)
    axes.grid(visible=True, color=GRID, lw=0.6)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    if unit is not None:
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda value, _: written(value, unit))


def over_time(panel: dict[str, Any], scene: Scene) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for target in panel["targets"]:
        expr = filled(target["expr"], WINDOW)
        for labels, points in scene.stack.otlp.over_time(expr, scene.since + 10, scene.at, STEP):
            yield legend(target, labels), points


def exemplars(panel: dict[str, Any], scene: Scene) -> Iterator[tuple[float, float]]:
    prometheus: Prometheus = scene.stack.otlp
    for target in panel["targets"][:1]:
        if target.get("exemplar"):
            expr = filled(target["expr"], WINDOW)
            for one in prometheus.ask(
                "query_exemplars", query=expr, start=f"{scene.since}", end=f"{scene.at}"
            ):
                for point in one["exemplars"]:
                    yield point["timestamp"], float(point["value"])


def legend(target: dict[str, Any], labels: dict[str, str]) -> str:
    text: str = target["legendFormat"]
    for name in set(labels) | {part.partition("}}")[0] for part in text.split("{{")[1:]}:
        text = text.replace(f"{{{{{name}}}}}", labels.get(name, ""))
    return text.strip() or "(none)"


def color_of(panel: dict[str, Any], name: str, order: int) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name and override["properties"][0]["id"] == "color":
            color: str = override["properties"][0]["value"]["fixedColor"]
            return NAMED.get(color, color)
    return PALETTE[order % len(PALETTE)]


def written(value: float, unit: str) -> str:
    """As Grafana writes units, nearly."""
    match unit:
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "currencyUSD":
            return f"${value:,.2f}" if value >= 0.1 else f"${value:.4f}"
        case "s" if value >= 86400:
            return f"{value / 86400:.3g} d"
        case "s":
            return f"{value:.3g} s" if value >= 1 or value == 0 else f"{value * 1000:.3g} ms"
        case "reqps" | "ops" | "cpm":
            return f"{value:.3g}{ {'reqps': ' req/s', 'ops': ' /s', 'cpm': ' /min'}[unit] }"
        case _:
            return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS

    def find(name: str) -> Path:
        return build.programs("collector" if name == "collector" else "prometheus")[name]

    with tempfile.TemporaryDirectory() as folder, begun(find, Path(folder)) as scene:
        drive(scene, seconds)
        IMAGES.mkdir(exist_ok=True)
        for file in BOARDS:
            picture = IMAGES / f"{file.stem}.png"
            picture.write_bytes(drawn(file, scene))
            print(f"{picture.relative_to(REPOSITORY)}: {picture.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
