"""What the chart makes for Grafana and for Prometheus' alerts.

Tested: both are off by default; the dashboards in it are those of deploy/grafana, byte for byte but for white space, and
found by their label; the rules are those of deploy/grafana/alerts.yaml where no value says otherwise, and thresholds,
labels and left-out alerts follow the values. Left out: what is in the dashboards and whether rules fire
(tests/telemetry).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from chart.conftest import Render
from chart.release import CHART, NAMESPACE, REPOSITORY, Release, template

pytestmark = pytest.mark.timeout(900)

BOARDS = REPOSITORY / "deploy" / "grafana" / "dashboards"
ON = ("grafana.dashboards.enabled=true", "prometheusRule.enabled=true")


def boards(release: Release) -> list[dict[str, Any]]:
    return [one for one in release.objects("ConfigMap") if "-dashboard-" in one["metadata"]["name"]]


def rules(release: Release) -> dict[str, dict[str, Any]]:
    (group,) = release.one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def plain() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load((REPOSITORY / "deploy" / "grafana" / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_nothing_of_it_by_default(render: Render) -> None:
    release = render("default")
    assert boards(release) == []
    assert release.objects("PrometheusRule") == []


def test_the_dashboards_are_those_beside_the_chart(render: Render) -> None:
    found = boards(render("default", *ON))
    assert len(found) == len(list(BOARDS.iterdir())) == 2
    for one in found:
        ((name, text),) = one["data"].items()
        beside = BOARDS / name.removeprefix("inference-sidecar-")
        assert json.loads(text) == json.loads(beside.read_text(encoding="utf-8"))
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["namespace"] == NAMESPACE
        # One of them more than a ConfigMap holds would fail at the API server.
        assert len(text.encode()) < 512 * 1024


def test_where_and_how_grafana_finds_them_is_a_value(render: Render) -> None:
    for one in boards(render("everything")):
        assert one["metadata"]["namespace"] == "team-a"
        assert one["metadata"]["labels"]["grafana_dashboard"] == "yes"
        assert one["metadata"]["annotations"] == {"grafana_folder": "Inference"}


def test_the_rules_are_those_beside_the_chart(render: Render) -> None:
    assert rules(render("default", *ON)) == plain()


def test_the_rules_follow_the_values(render: Render) -> None:
    release = render("everything")
    assert release.one("PrometheusRule")["metadata"]["labels"]["release"] == "prometheus"
    found = rules(release)
    assert set(plain()) - set(found) == {"InferencePodsUnreachable"}
    assert "@" not in json.dumps(found)
    for name, rule in found.items():
        assert rule["labels"] == {"severity": plain()[name]["labels"]["severity"], "team": "platform"}
    told = {
        "InferenceStreamCompletionLow": ("< 0.9 ", ">= 100"),
        "InferenceTimeToFirstTokenHigh": ("> 30 ", ">= 100"),
        "InferenceErrorRateHigh": ("> 0.1 ", ">= 100"),
        "InferenceErrorRateCritical": ("> 0.5 ", ">= 100"),
        "InferencePodsStale": ("> 1",),
        "InferencePodsRefused": ("> 1",),
        "InferenceCertificateExpiresSoon": ("< 21",),
        "InferenceCertificateExpiresNow": ("< 7",),
    }
    assert set(told) == set(found)
    for name, parts in told.items():
        assert all(part in f"{found[name]['expr']} " for part in parts), (name, found[name]["expr"])


def test_a_threshold_stays_a_number_that_prometheus_reads(render: Render) -> None:
    """Helm keeps numbers as floats, and may write large ones with an exponent."""
    found = rules(render("default", *ON, "prometheusRule.thresholds.minimumRequests=5000000"))
    number = found["InferenceErrorRateHigh"]["expr"].rpartition(">= ")[2]
    assert float(number) == 5_000_000


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("prometheusRule.thresholds.errorRate=5", "/prometheusRule/thresholds/errorRate"),
        ("prometheusRule.thresholds.latency=5", "/prometheusRule/thresholds"),
        ("prometheusRule.disabled={InferencePodStale}", "/prometheusRule/disabled/0"),
        ("grafana.dashboards.namespace=Team", "/grafana/dashboards/namespace"),
    ],
)
def test_a_mistake_is_refused_by_its_name(helm: Any, change: str, named: str) -> None:
    done = template(helm, "default", change)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_schema_knows_every_alert() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    listed = schema["properties"]["prometheusRule"]["properties"]["disabled"]["items"]["enum"]
    assert listed == list(plain())
