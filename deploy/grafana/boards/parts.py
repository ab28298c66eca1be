"""Panels and variables of one look: what every one of them has, in one place.

Enters: titles, descriptions, queries, units. Leaves: builders of Grafana's SDK; `layout` gives them ids and places.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    tempo,
    timeseries,
)
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TEMPO: Final = models.DataSourceRef(type_val="tempo", uid="${tempo}")

GREEN, YELLOW, RED, BLUE = "green", "#EAB839", "red", "blue"
COLORS: Final = {
    "completed": GREEN, "failed": RED, "refused": "orange", "cancelled": "#8F8F8F",
    "applied": GREEN, "current": GREEN, "stale": YELLOW, "unreachable": "purple",
    "input": BLUE, "output": "#B877D9",
}  # fmt: skip
"""The same word has the same colour in every panel."""

Steps = Sequence[tuple[float | None, str]]


@dataclass(frozen=True)
class Query:
    """One target. `exemplars`: points that lead to a trace; only series sent by OTLP have them."""

    expr: str
    legend: str
    exemplars: bool = False


def series(
    title: str, description: str, unit: str, *queries: Query,
    stacked: bool = False, most: float | None = None, steps: Steps = (), links: Sequence[dashboard.DashboardLink] = (),
    decimals: int | None = None,
) -> timeseries.Panel:  # fmt: skip
    """Values over time; none is drawn as a gap."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(60 if stacked else 8)
        .show_points(kinds.VisibilityMode.AUTO)
        .span_nulls(False)
        .no_value("No data")
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .thresholds(thresholds(steps or ((None, GREEN),)))
        .tooltip(
            common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .data_links(list(links))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if most is not None:
        panel.max(most)
    if decimals is not None:
        panel.decimals(decimals)
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphTresholdsStyleMode.DASHED))
    for word, color in COLORS.items():
        if any(query.legend == word or query.legend.startswith("{{") for query in queries):
            value = {"mode": "fixed", "fixedColor": color}
            panel.override_by_name(word, [models.DynamicConfigValue(id_val="color", value=value)])
    return targets(panel, queries)


def figure(
    title: str, description: str, unit: str, query: Query,
    *, steps: Steps = ((None, GREEN),), empty: str = "No requests", decimals: int | None = None, trend: bool = False,
    links: Sequence[dashboard.DashboardLink] = (),
) -> stat.Panel:  # fmt: skip
    """One number: of the whole time, or the newest with its course (`trend`)."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .no_value(empty)
        .thresholds(thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.AREA if trend else kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.AUTO)
        .data_links(list(links))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return targets(panel, [query], instant=not trend)


def grid(
    title: str, description: str, columns: dict[str, tuple[Query, str]], keys: dict[str, str],
    links: dict[str, dashboard.DashboardLink],
) -> table.Panel:  # fmt: skip
    """Rows by the labels `keys` (label → heading), one column a query (heading → query and unit)."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .no_value("-")
        .thresholds(thresholds(((None, GREEN),)))
        .sort_by([common.TableSortByFieldState().display_name(next(iter(columns))).desc(True)])
    )
    for letter, query in zip("ABCDEFGH", columns.values(), strict=False):
        panel.with_target(target(query[0], letter).instant().format(PromQueryFormat.TABLE))
    renamed = {f"Value #{letter}": heading for letter, heading in zip("ABCDEFGH", columns, strict=False)}
    order = [*keys, *renamed]
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: at for at, name in enumerate(order)},
                "renameByName": {**keys, **renamed},
            },
        )
    )
    for heading, (_, unit) in columns.items():
        panel.override_by_name(heading, [models.DynamicConfigValue(id_val="unit", value=unit)])
    for heading, link in links.items():
        panel.override_by_name(
            heading, [models.DynamicConfigValue(id_val="links", value=[link.build().to_json()])]
        )
    return panel


def spread(title: str, description: str, unit: str, query: Query) -> heatmap.Panel:
    """A histogram over time: one row a bucket, the colour is the count."""
    panel = (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(kinds.AxisPlacement.LEFT))
        .no_value("No requests")
    )
    panel.with_target(target(query, "A").format(PromQueryFormat.HEATMAP).range())
    return panel


def traces(title: str, description: str, traceql: str) -> table.Panel:
    """The newest traces that a TraceQL query finds."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(TEMPO)
        .no_value("No traces")
        .show_header(True)
        .with_target(
            tempo.TempoQuery().query_type("traceql").query(traceql).limit(20).ref_id("A").datasource(TEMPO)
        )
    )


def targets(panel: Any, queries: Sequence[Query], *, instant: bool = False) -> Any:
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        made = target(query, letter)
        panel.with_target(made.instant() if instant else made.range())
    return panel


def target(query: Query, letter: str) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(letter)
        .datasource(PROMETHEUS)
    )
    return made.exemplar(True) if query.exemplars else made


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [models.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def explore(title: str, traceql: str) -> dashboard.DashboardLink:
    """A link of a panel's points to the traces of the shown time, in Explore."""
    pane = {
        "datasource": "${tempo}",
        "queries": [
            {
                "refId": "A",
                "datasource": {"type": "tempo", "uid": "${tempo}"},
                "queryType": "traceql",
                "query": traceql,
                "limit": 20,
            }
        ],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    coded = quote(json.dumps({"traces": pane}, separators=(",", ":")), safe="")
    # Grafana fills in its variables before anything decodes the address.
    panes = re.sub(r"%24%7B(\w+)(?:%3A(\w+))?%7D", _variable, coded)
    return dashboard.DashboardLink(title).url(f"/explore?schemaVersion=1&panes={panes}").target_blank(True)


def _variable(found: re.Match[str]) -> str:
    return f"${{{found[1]}:{found[2]}}}" if found[2] else f"${{{found[1]}}}"


def source(name: str, title: str, kind: str) -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(name).label(title).type(kind)


def choice(name: str, title: str, description: str, query: str) -> dashboard.QueryVariable:
    """Values of a label. All of them is `.*`, which takes series without the label, too: outside of Kubernetes."""
    return (
        dashboard.QueryVariable(name)
        .label(title)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": "A"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def typed(name: str, title: str, description: str, value: str) -> dashboard.TextBoxVariable:
    """A box to type in."""
    return dashboard.TextBoxVariable(name).label(title).description(description).default_value(value)
