"""A dashboard from rows of panels: ids in order, places on the grid of 24 columns.

Enters: rows. Leaves: JSON of the classic form, as every Grafana from 10 on imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

COLUMNS: Final = 24
TAG: Final = "inference-sidecar"


@dataclass(frozen=True)
class Row:
    """A heading and lines of panels below it; each line has its height and shares the width evenly."""

    title: str
    lines: tuple[tuple[int, tuple[Any, ...]], ...]


def laid_out(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Any],
    links: Sequence[Any],
    rows: Sequence[Row],
) -> str:
    """The dashboard's JSON, a newline at the end."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .editable()
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
    )
    for variable in variables:
        board.with_variable(variable)
    for link in links:
        board.link(link)
    number, top = 0, 0
    for row in rows:
        number += 1
        place = models.GridPos(h=1, w=COLUMNS, x=0, y=top)
        board.with_row(dashboard.Row(row.title).id(number).grid_pos(place))
        top += 1
        for height, panels in row.lines:
            width, left = divmod(COLUMNS, len(panels))
            at = 0
            for order, panel in enumerate(panels):
                number += 1
                wide = width + (1 if order < left else 0)
                board.with_panel(panel.id(number).grid_pos(models.GridPos(h=height, w=wide, x=at, y=top)))
                at += wide
            top += height
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(board.build()) + "\n"
