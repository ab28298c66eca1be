"""Dashboards and alerts asked of the real Prometheus, that got its series from real sidecars by either way.

    sidecars and the operator's metrics ──OTLP──▶ real collector ──▶ real Prometheus 3
                                        └──/metrics──▶ a second one, that scrapes

Tested, under a mixed load (plain, streams, retried, failed, refused, cut, left): every counter equals the ledger, to the
one; every query of every panel and every alert's expression has an answer by both ways, and where the ledger knows, the
right one; what is open shows while it is open; exemplars lead to traces that there are; the alert rules load and are
evaluated. Left out: Grafana and Tempo themselves, which are not to be had here; an injected pod (tests/cluster).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from inference_operator.telemetry import names as operator_names
from inference_sidecar.telemetry import names
from telemetry.boards import Target, condition, filled, rules, targets
from telemetry.conftest import Program
from telemetry.expected import (
    ERROR,
    MODEL,
    NAMESPACE,
    OUTCOME,
    POD,
    TOKENS,
    WORKLOAD,
    Expected,
    failed,
    judged,
)
from telemetry.load import OTHER_CHAT, UNKNOWN, Entry
from telemetry.scene import Scene, played
from telemetry.stack import Prometheus, until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

ROUNDS, PAUSE = 12, 2.0
WAYS = ("otlp", "scrape")


@pytest.fixture(scope="module")
def scene(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with played(program, tmp_path_factory.mktemp("telemetry"), ROUNDS, PAUSE) as now:
        yield now


@pytest.fixture(scope="module")
def expected(scene: Scene) -> Expected:
    return Expected(scene)


@pytest.fixture(params=WAYS)
def prometheus(request: pytest.FixtureRequest, scene: Scene) -> Prometheus:
    found: Prometheus = getattr(scene.stack, request.param)
    return found


def ask(prometheus: Prometheus, scene: Scene, expr: str) -> list[tuple[dict[str, str], float]]:
    return prometheus.query(filled(expr, f"{scene.window}s"), scene.at)


class TestEveryCounter:
    """Raw values since the processes' start, in full: no window, no rate, no tolerance."""

    def equal(
        self, scene: Scene, prometheus: Prometheus, metric: str, labels: dict[str, str], of: Any
    ) -> None:
        by = ", ".join(labels)
        found = prometheus.query(f"sum by ({by}) ({metric}) > 0", scene.at)
        told = {tuple(one.get(label, "") for label in labels): value for one, value in found}
        assert told == scene.whole.count(*labels.values(), of=of)

    def test_of_requests(self, scene: Scene, prometheus: Prometheus) -> None:
        by = {
            NAMESPACE: "namespace", WORKLOAD: "workload", POD: "pod", "gen_ai_operation_name": "operation",
            MODEL: "model", OUTCOME: "outcome", ERROR: "error",
        }  # fmt: skip
        self.equal(scene, prometheus, names.REQUESTS.prometheus, by, lambda entry: 1)

    def test_of_retries(self, scene: Scene, prometheus: Prometheus) -> None:
        by = {POD: "pod", MODEL: "model"}
        self.equal(scene, prometheus, names.RETRIES.prometheus, by, lambda entry: entry.retries)

    def test_of_streams(self, scene: Scene, prometheus: Prometheus) -> None:
        by = {POD: "pod", MODEL: "model", OUTCOME: "outcome"}
        self.equal(scene, prometheus, names.STREAMS.prometheus, by, lambda entry: entry.stream)
        duration = f"{names.STREAM_DURATION.prometheus}_count"
        self.equal(scene, prometheus, duration, by, lambda entry: entry.stream)

    def test_of_chunks_and_the_gaps_between_them(self, scene: Scene, prometheus: Prometheus) -> None:
        by = {POD: "pod", MODEL: "model"}
        self.equal(scene, prometheus, names.STREAM_CHUNKS.prometheus, by, lambda entry: entry.chunks)
        gaps = f"{names.TIME_PER_OUTPUT_CHUNK.prometheus}_count"
        self.equal(scene, prometheus, gaps, by, lambda entry: max(0, entry.chunks - 1))

    @pytest.mark.parametrize(("kind", "at"), [("input", 0), ("output", 1)])
    def test_of_tokens(self, scene: Scene, prometheus: Prometheus, kind: str, at: int) -> None:
        by = {NAMESPACE: "namespace", MODEL: "model"}
        of = f'{{{TOKENS}="{kind}"}}'
        sums, counts = (f"{names.TOKEN_USAGE.prometheus}_{part}{of}" for part in ("sum", "count"))
        self.equal(scene, prometheus, sums, by, lambda entry: entry.tokens[at] or 0)
        self.equal(scene, prometheus, counts, by, lambda entry: entry.tokens[at] is not None)

    def test_of_times(self, scene: Scene, prometheus: Prometheus) -> None:
        by = {POD: "pod", MODEL: "model"}

        def went_up(entry: Entry) -> bool:
            return entry.outcome != "refused"

        for metric, of in (
            (names.OPERATION_DURATION, went_up),
            (names.REQUEST_DURATION, went_up),
            (names.TIME_TO_FIRST_CHUNK, lambda entry: entry.stream),
            (names.TIME_TO_FIRST_TOKEN, lambda entry: entry.stream),
            (names.TIME_PER_OUTPUT_TOKEN, lambda entry: entry.stream and entry.outcome == "completed"),
            (names.TOKENS_PER_SECOND, lambda entry: entry.stream and entry.outcome == "completed"),
        ):
            self.equal(scene, prometheus, f"{metric.prometheus}_count", by, of)

    def test_the_upstreams_ledger_holds_as_many_attempts(self, scene: Scene, prometheus: Prometheus) -> None:
        """What went up is what completed, failed or was left, and the retries."""
        up = f'{names.REQUESTS.prometheus}{{{OUTCOME}!="refused"}}'
        told = prometheus.query(f"sum({up}) + sum({names.RETRIES.prometheus})", scene.at)
        assert told[0][1] == scene.attempts

    def test_no_name_that_a_client_made_up_is_a_label(self, scene: Scene, prometheus: Prometheus) -> None:
        models = prometheus.ask(f"label/{MODEL}/values")
        assert set(models) == {entry.model for entry in scene.whole.entries if entry.model}
        assert UNKNOWN in models
        assert OTHER_CHAT in models


@pytest.mark.parametrize("target", list(targets()), ids=lambda target: "/".join(target.key))
class TestEveryQuery:
    def test_is_answered_and_right(
        self, scene: Scene, expected: Expected, prometheus: Prometheus, target: Target
    ) -> None:
        samples = ask(prometheus, scene, target.expr)
        assert samples, "No data"
        assert all(math.isfinite(value) for _, value in samples), samples
        expected.check(target)(samples)

    def test_is_answered_alike_by_both_ways(self, scene: Scene, target: Target) -> None:
        one, other = (
            {frozenset(labels.items()): value for labels, value in ask(each, scene, target.expr)}
            for _, each in scene.stack.both()
        )
        assert set(one) == set(other)
        for labels, value in one.items():
            assert math.isclose(value, other[labels], rel_tol=0.1, abs_tol=1e-6), labels

    def test_has_no_value_that_is_none(self, scene: Scene, prometheus: Prometheus, target: Target) -> None:
        """In a time of rest with a past: nothing moves, a share of nothing is no share, and no quantile is NaN."""
        samples = prometheus.query(filled(target.expr, "2s"), scene.since + 2.5)
        assert all(math.isfinite(value) for _, value in samples), samples
        title = target.key[1]
        if "rate(" in target.expr or "increase(" in target.expr:
            assert all(value == 0 for _, value in samples), samples
        if title.startswith(("Error rate", "Streams completed")) or "quantile" in target.expr:
            assert not samples
        if title in ("Errors by type", "Retries", "Refused"):
            assert samples


@pytest.mark.parametrize("name", list(rules()))
class TestEveryAlert:
    def test_looks_at_what_there_is(self, scene: Scene, prometheus: Prometheus, name: str) -> None:
        value, comparison, _ = condition(rules()[name]["expr"])
        samples = prometheus.query(value.replace("5m]", f"{scene.window}s]"), scene.at)
        assert samples, "No data"
        assert all(math.isfinite(one) for _, one in samples)
        assert comparison in ("<", ">")
        of_workloads = {"InferenceErrorRateHigh": judged, "InferenceErrorRateCritical": judged}
        if name in of_workloads:
            self._share(scene, samples, of_workloads[name], failed)
        if name == "InferenceStreamCompletionLow":
            self._share(
                scene, samples, lambda entry: entry.stream and judged(entry), lambda entry: not failed(entry)
            )

    @staticmethod
    def _share(scene: Scene, samples: Any, whole: Any, part: Any) -> None:
        wholes = scene.ledger.count("namespace", "workload", of=whole)
        parts = scene.ledger.count("namespace", "workload", of=lambda entry: whole(entry) and part(entry))
        found = {(labels[NAMESPACE], labels[WORKLOAD]): value for labels, value in samples}
        assert set(found) == set(wholes)
        for key, value in found.items():
            assert math.isclose(value, parts[key] / wholes[key], rel_tol=0.02)

    def test_is_loaded_and_evaluated(self, scene: Scene, prometheus: Prometheus, name: str) -> None:
        def rule() -> dict[str, Any]:
            (group,) = prometheus.ask("rules", type="alert")["groups"]
            (found,) = [one for one in group["rules"] if one["name"] == name]
            return dict(found)

        assert (
            until(lambda: rule()["health"] != "unknown" and rule(), f"{name} is evaluated")["health"] == "ok"
        )
        # More than a quarter of this load fails, and pods of the scene are stale, refused and unreachable.
        waiting = not name.startswith(("InferenceCertificate", "InferenceTimeToFirstToken"))
        assert until(lambda: bool(rule()["alerts"]) == waiting, f"{name} is pending: {waiting}")


def test_every_metric_of_the_code_is_there(scene: Scene, prometheus: Prometheus) -> None:
    told = set(prometheus.ask("label/__name__/values"))
    for metric in (*names.METRICS, *operator_names.METRICS):
        suffix = "_bucket" if metric.kind == "histogram" else ""
        assert metric.prometheus + suffix in told, metric.name


def test_every_series_of_a_sidecar_says_where_it_is_from(scene: Scene, prometheus: Prometheus) -> None:
    promoted = {names.label(attribute) for attribute in names.PROMOTED}
    for metric in names.METRICS:
        name = f"{metric.prometheus}_count" if metric.kind == "histogram" else metric.prometheus
        for labels, _ in prometheus.query(name, scene.at):
            assert promoted <= set(labels), metric.name


def test_what_is_open_shows_while_it_is_open(scene: Scene, prometheus: Prometheus) -> None:
    def shown(title: str, board: str, **wanted: str) -> float:
        (target,) = [one for one in targets() if one.key[:2] == (board, title)]
        found = prometheus.query(filled(target.expr, "60s"))
        return sum(value for labels, value in found if wanted.items() <= labels.items())

    with scene.load.held(2):
        until(lambda: shown("Open requests", "platform", k8s_namespace_name="shop") == 4, "four in shop")
        until(lambda: shown("Open requests", "workload", k8s_pod_name="api-1") == 2, "two at api-1")
        until(lambda: shown("Connections to upstreams", "platform", state="active") == 6, "six are used")
    until(lambda: shown("Open requests", "platform") == 0, "none is open")


def test_exemplars_lead_to_traces(scene: Scene) -> None:
    """By OTLP: the point that Grafana draws has the id of a trace that Tempo was sent."""
    traces = scene.stack.tempo.trace_ids()
    assert traces
    for target in targets():
        if target.exemplars:
            found = scene.stack.otlp.ask(
                "query_exemplars",
                query=filled(target.expr, f"{scene.window}s"),
                start=f"{scene.since}",
                end=f"{scene.at}",
            )
            ids = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
            assert ids, target.key
            assert ids <= traces, target.key
