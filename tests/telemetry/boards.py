"""The checked-in dashboards and alert rules, as tests look at them.

Enters: deploy/grafana. Leaves: panels, targets, rules, the metrics and labels that a query names. Must not use the code
that generates them: what is tested is what people import.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

REPOSITORY = Path(__file__).parents[2]
GRAFANA = REPOSITORY / "deploy" / "grafana"
BOARDS = tuple(sorted((GRAFANA / "dashboards").glob("*.json")))
ALERTS = GRAFANA / "alerts.yaml"

PRICES = {
    "input_price": "0.15",
    "output_price": "0.60",
    "special_models": "gpt-4.*|o[0-9].*",
    "special_input_price": "2.50",
    "special_output_price": "10",
}
CHOSEN = {"job": ".*", "namespace": ".*", "workload": ".*", "pod": ".*", "model": ".*", **PRICES}
"""What Grafana puts in where nothing was chosen: All is `.*`, a box has its default."""


@dataclass(frozen=True)
class Target:
    """One query of one panel. `key`: the board's file, the panel's title, the query's letter."""

    key: tuple[str, str, str]
    expr: str
    legend: str
    instant: bool
    exemplars: bool
    panel: Mapping[str, Any]


def board(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def panels(of: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All but the rows."""
    return [panel for panel in of["panels"] if panel["type"] != "row"]


def targets(kind: str = "prometheus") -> Iterator[Target]:
    """Every query to that kind of datasource."""
    for file in BOARDS:
        for panel in panels(board(file)):
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    yield Target(
                        (file.stem, panel["title"], target["refId"]),
                        target.get("expr", ""),
                        target.get("legendFormat", ""),
                        target.get("instant", False),
                        target.get("exemplar", False),
                        panel,
                    )


def rules() -> dict[str, dict[str, Any]]:
    """Alert rules by name."""
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def filled(expr: str, window: str, chosen: Mapping[str, str] = CHOSEN) -> str:
    """The query as Grafana sends it, for one time window. Raises KeyError for a variable that there is not."""
    values = {"__rate_interval": window, "__range": window, **chosen}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def selectors(expr: str) -> Iterator[Any]:
    """Every selector of a query that has its variables filled in."""
    waiting = [promql.parse(expr)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, promql.VectorSelector):
            yield node
        for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
            below = getattr(node, name, None)
            if below is not None:
                waiting.append(below)
        waiting += list(getattr(node, "args", None) or [])


def condition(expr: str) -> tuple[str, str, float]:
    """What an alert compares, how, and with what; without the part that asks for enough traffic."""
    node = promql.parse(expr)
    while isinstance(node, promql.BinaryExpr) and str(node.op) == "and":
        node = node.lhs
    assert isinstance(node, promql.BinaryExpr), expr
    return node.lhs.prettify(), str(node.op), float(node.rhs.val)
