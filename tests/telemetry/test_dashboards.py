"""The dashboards as files: what Grafana needs of them, and that they ask for nothing but what there is.

Tested: generated and checked in are the same; ids, uids, the grid, datasources, variables, units, descriptions, legends;
links; every query is PromQL, every metric and label in it is one that the code has, and every metric that the code has
is shown somewhere. Left out: what the queries answer (test_proof.py).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from inference_operator.telemetry import names as operator_names
from inference_sidecar.telemetry import names
from telemetry.boards import (
    BOARDS,
    CHOSEN,
    REPOSITORY,
    Target,
    board,
    filled,
    panels,
    rules,
    selectors,
    targets,
)

UNSHOWN = {
    names.REQUEST_DURATION: "the same figures as OPERATION_DURATION, under a name for others' dashboards",
}
UNSHOWN_OF_THE_OPERATOR = {operator_names.BUILD_INFO: "the version of one Deployment, which kubectl shows"}
FROM_PROMETHEUS = {"job", "le"}
BUILT_IN = {"__rate_interval", "__range", "__from", "__to", "__url_time_range", "__data", "__all"}

QUERIES = list(targets())


@pytest.fixture(params=BOARDS, ids=lambda file: file.stem)
def shown(request: pytest.FixtureRequest) -> dict[str, Any]:
    return board(request.param)


def series_of(metric: Any) -> set[str]:
    parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return {f"{metric.prometheus}{part}" for part in parts}


def labels_of(metric: Any) -> set[str]:
    own = {names.label(attribute) for attribute in metric.attributes}
    return own | {names.label(attribute) for attribute in names.PROMOTED} | FROM_PROMETHEUS


KNOWN = {
    name: labels_of(metric)
    for metric in (*names.METRICS, *operator_names.METRICS)
    for name in series_of(metric)
}


def test_what_is_checked_in_is_what_the_generator_makes() -> None:
    generator = REPOSITORY / "deploy" / "grafana" / "generate.py"
    done = subprocess.run(
        [sys.executable, str(generator), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run: make dashboards\n{done.stdout}{done.stderr}"


def test_each_has_a_uid_of_its_own_that_lasts() -> None:
    """Links and bookmarks name it."""
    assert [board(file)["uid"] for file in BOARDS] == [
        "inference-sidecar-platform",
        "inference-sidecar-workload",
    ]


class TestEveryDashboard:
    def test_is_of_the_form_that_every_grafana_imports(self, shown: dict[str, Any]) -> None:
        assert shown["schemaVersion"] <= 42
        assert shown.get("id") is None
        assert shown["title"].startswith("Inference Sidecar / ")
        assert shown["description"]

    def test_has_ids_of_its_own(self, shown: dict[str, Any]) -> None:
        ids = [panel["id"] for panel in shown["panels"]]
        assert ids == list(range(1, len(ids) + 1))

    def test_fills_the_grid_without_overlap_or_hole(self, shown: dict[str, Any]) -> None:
        taken: Counter[tuple[int, int]] = Counter()
        for panel in shown["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    taken[x, y] += 1
        assert set(taken.values()) == {1}
        height = max(y for _, y in taken) + 1
        assert len(taken) == 24 * height

    def test_takes_every_datasource_from_a_variable(self, shown: dict[str, Any]) -> None:
        uids = {"prometheus": "${datasource}", "tempo": "${tempo}"}
        asking = [*panels(shown), *(target for panel in panels(shown) for target in panel["targets"])]
        asking += [one for one in shown["templating"]["list"] if one["type"] == "query"]
        for one in asking:
            assert one["datasource"]["uid"] == uids[one["datasource"]["type"]]

    def test_explains_each_panel(self, shown: dict[str, Any]) -> None:
        for panel in panels(shown):
            assert len(panel["description"]) > 20, panel["title"]
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
            assert panel["options"], panel["title"]
            if panel["type"] in ("timeseries", "stat"):
                assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
                assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]

    def test_has_titles_that_tell_panels_apart(self, shown: dict[str, Any]) -> None:
        """Within a row: the same figure may stand at a glance and over time."""
        row, seen = "", Counter[tuple[str, str]]()
        for panel in shown["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            seen[row, panel["title"]] += 1
        assert set(seen.values()) == {1}

    def test_has_the_variables_that_it_uses(self, shown: dict[str, Any]) -> None:
        named = [variable["name"] for variable in shown["templating"]["list"]]
        assert len(named) == len(set(named))
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(shown))) - BUILT_IN
        assert used == set(named)

    def test_lets_people_choose_all(self, shown: dict[str, Any]) -> None:
        """`.*` and not a list of values: series without the label, as outside of Kubernetes, belong to it."""
        chosen = [one for one in shown["templating"]["list"] if one["type"] == "query"]
        assert {one["name"] for one in chosen} >= {"namespace", "model"}
        for one in chosen:
            assert (one["includeAll"], one["multi"], one["allValue"]) == (True, True, ".*")
            (query,) = re.findall(r"^label_values\((.+), (\w+)\)$", one["query"]["query"])
            (selector,) = selectors(filled(query[0], "60s"))
            assert query[1] in KNOWN[selector.name]


@pytest.mark.parametrize("target", QUERIES, ids=lambda target: "/".join(target.key))
class TestEveryQuery:
    def test_asks_for_metrics_and_labels_that_there_are(self, target: Target) -> None:
        found = list(selectors(filled(target.expr, "60s")))
        assert found
        for selector in found:
            assert selector.name in KNOWN
            used = {matcher.name for matcher in selector.matchers.matchers}
            assert used <= KNOWN[selector.name], (selector.name, used)

    def test_sums_up_by_labels_that_there_are(self, target: Target) -> None:
        known = set().union(*(KNOWN[one.name] for one in selectors(filled(target.expr, "60s"))))
        by = {
            name.strip()
            for names_ in re.findall(r"by \(([^)]*)\)", target.expr)
            for name in names_.split(",")
        }
        assert by <= known
        legend = set(re.findall(r"{{(\w+)}}", target.legend))
        assert legend <= by, "a legend names a label that the query has summed away"

    def test_looks_as_far_back_as_it_should(self, target: Target) -> None:
        """Rates over what Grafana counts right for the interval; a figure over the time shown."""
        windows = set(re.findall(r"\[([^\]]+)\]", target.expr))
        assert windows <= {"$__range" if target.instant else "$__rate_interval"}

    def test_has_a_legend_for_each_series(self, target: Target) -> None:
        if target.panel["type"] != "table":
            assert target.legend


def test_every_metric_is_shown() -> None:
    asked = {one.name for target in QUERIES for one in selectors(filled(target.expr, "60s"))}
    for metrics, unshown in (
        (names.METRICS, UNSHOWN),
        (operator_names.METRICS, UNSHOWN_OF_THE_OPERATOR),
    ):
        for metric in metrics:
            assert bool(series_of(metric) & asked) is (metric not in unshown), metric.name


def test_alerts_ask_for_metrics_and_labels_that_there_are() -> None:
    for rule in rules().values():
        for selector in selectors(rule["expr"]):
            assert {one.name for one in selector.matchers.matchers} <= KNOWN[selector.name]
        by = {name for part in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in part.split(", ")} - {
            "le"
        }
        told = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert told == by, "who is told has to learn of what"


def test_latency_leads_to_traces() -> None:
    for target in QUERIES:
        over_time = target.panel["type"] == "timeseries"
        of_requests = re.search(r"histogram_quantile.*rate\(gen_ai_", target.expr)
        if over_time and of_requests:
            assert target.exemplars, target.key
            assert target.panel["fieldConfig"]["defaults"]["links"], target.key


def test_links_to_traces_are_what_explore_reads() -> None:
    seen = 0
    for file in BOARDS:
        for panel in panels(board(file)):
            for link in panel["fieldConfig"]["defaults"].get("links", []):
                seen += 1
                address = re.sub(
                    r"\$\{(\w+)(:\w+)?\}", lambda found: CHOSEN.get(found[1], "uid"), link["url"]
                )
                parts = urlsplit(address)
                assert parts.path == "/explore"
                asked = parse_qs(parts.query, strict_parsing=True)
                assert asked["schemaVersion"] == ["1"]
                (pane,) = json.loads(asked["panes"][0]).values()
                (query,) = pane["queries"]
                assert query["datasource"] == {"type": "tempo", "uid": "uid"}
                assert query["queryType"] == "traceql"
                assert query["query"].startswith("{ span.gen_ai.provider.name != nil")
                assert '=~ ".*"' in query["query"]
                assert "$" not in unquote(address)
    assert seen > 20


def test_links_between_dashboards_lead_somewhere() -> None:
    uids = {board(file)["uid"]: board(file) for file in BOARDS}
    for file in BOARDS:
        found = re.findall(r"/d/([\w-]+)", Path(file).read_text())
        assert found
        assert set(found) <= set(uids)
    workloads = json.dumps(board(BOARDS[0]))
    for variable in re.findall(r"var-(\w+)=", workloads):
        assert variable in {one["name"] for one in uids["inference-sidecar-workload"]["templating"]["list"]}
