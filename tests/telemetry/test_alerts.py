"""The alert rules, judged by promtool: the rule engine of the real Prometheus on series that a test writes.

Tested, of every rule: it fires where there is trouble that lasts, with the labels and words that tell of what; it is
silent where all is well, where there is no data, where there is little traffic, where the trouble is short, and where
it is another's. Left out: that the series are what sidecars send (test_proof.py).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from telemetry.boards import ALERTS, REPOSITORY, rules
from telemetry.conftest import Program

pytestmark = pytest.mark.timeout(900)

MINUTES = 60
WEB = {"k8s_namespace_name": "shop", "k8s_workload_name": "web"}
API = {"k8s_namespace_name": "search", "k8s_workload_name": "api"}
CONFIG = {"config_namespace": "shop", "config": "openai"}
DAY = 86400

A_FEW = "0+0.5x60"
"""One in two minutes, all the time."""

Labels = Mapping[str, str]


def series(name: str, labels: Labels, values: str) -> tuple[str, str]:
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inner}}}", values


def each_minute(count: int, minutes: int = MINUTES) -> str:
    """A counter that rises by `count` a minute."""
    return f"0+{count}x{minutes}"


def requests(owner: Labels, **outcomes: str) -> list[tuple[str, str]]:
    """By outcome and, as sidecars have it, by more labels and from more than one pod."""
    return [
        series("inference_sidecar_requests_total", {**owner, "k8s_pod_name": pod, "outcome": outcome}, values)
        for outcome, values in outcomes.items()
        for pod in ("a", "b")
    ]


def streams(owner: Labels, **outcomes: str) -> list[tuple[str, str]]:
    return [
        series("inference_sidecar_streams_total", {**owner, "outcome": outcome}, values)
        for outcome, values in outcomes.items()
    ]


def first_tokens(model: str, within: Mapping[str, int]) -> list[tuple[str, str]]:
    """`within`: bucket → streams a minute that are in it or below."""
    labels = {"k8s_namespace_name": "shop", "gen_ai_request_model": model}
    name = "gen_ai_server_time_to_first_token_seconds"
    buckets = [
        series(f"{name}_bucket", {**labels, "le": le}, each_minute(count)) for le, count in within.items()
    ]
    return [*buckets, series(f"{name}_count", labels, each_minute(within["+Inf"]))]


def pods(state: str, values: str, config: Labels = CONFIG) -> tuple[str, str]:
    return series("inference_operator_pods", {**config, "state": state}, values)


def certificate(which: str, days: float, pod: str = "a") -> tuple[str, str]:
    labels = {"certificate": which, "pod": pod}
    name = "inference_operator_certificate_expiry_timestamp_seconds"
    return series(name, labels, f"{days * DAY:.0f}+0x{MINUTES}")


@dataclass(frozen=True)
class Case:
    """`fires`: alert → labels with which, besides its severity; at `minute`."""

    what: str
    given: list[tuple[str, str]]
    fires: list[tuple[str, Labels]] = field(default_factory=list)
    minute: int = 30


WELL = [
    *requests(WEB, completed=each_minute(100)),
    *streams(WEB, completed=each_minute(100)),
    *first_tokens("gpt-4", {"1.0": 100, "10.0": 100, "20.0": 100, "+Inf": 100}),
    pods("stale", f"0+0x{MINUTES}"), pods("refused", f"0+0x{MINUTES}"), pods("unreachable", f"0+0x{MINUTES}"),
    certificate("leaf", 60), certificate("authority", 300),
]  # fmt: skip

CASES = [
    Case("no data", []),
    Case("all is well", WELL),
    Case("little of everything fails", [*requests(WEB, completed=each_minute(98), failed=each_minute(2)), *streams(WEB, completed=each_minute(98), failed=each_minute(2))]),
    Case("streams are cut", streams(WEB, completed=each_minute(9), failed=each_minute(1)), [("InferenceStreamCompletionLow", WEB)]),
    Case("every stream is cut", streams(WEB, failed=each_minute(9)), [("InferenceStreamCompletionLow", WEB)]),
    Case("streams are cut for five minutes only", streams(WEB, completed=each_minute(9), failed="0+9x5 45+0x55"), minute=12),
    Case("apps leave their streams", streams(WEB, completed=each_minute(5), cancelled=each_minute(50))),
    Case("half of a few streams are cut", streams(WEB, completed=A_FEW, failed=A_FEW)),
    Case("another's streams are cut", [*streams(WEB, completed=each_minute(9)), *streams(API, failed=each_minute(9))], [("InferenceStreamCompletionLow", API)]),
    Case("one request in ten fails", requests(WEB, completed=each_minute(9), failed=each_minute(1)), [("InferenceErrorRateHigh", WEB)]),
    Case("one request in two fails", requests(WEB, completed=each_minute(5), failed=each_minute(5)), [("InferenceErrorRateHigh", WEB), ("InferenceErrorRateCritical", WEB)]),
    Case("every request fails", requests(WEB, failed=each_minute(9)), [("InferenceErrorRateHigh", WEB), ("InferenceErrorRateCritical", WEB)]),
    Case("apps make mistakes and leave", requests(WEB, completed=each_minute(9), refused=each_minute(50), cancelled=each_minute(50))),
    Case("half of a few requests fail", requests(WEB, completed=A_FEW, failed=A_FEW)),
    Case("a single request fails", requests(WEB, failed="0 0 0 1+0x50"), minute=9),
    Case("outside of Kubernetes", requests({}, failed=each_minute(9)), [("InferenceErrorRateHigh", {}), ("InferenceErrorRateCritical", {})]),
    Case("requests failed for a moment", requests(WEB, completed=each_minute(90), failed="0 0 90+0x58"), minute=8),
    Case("first tokens are slow for one model", [*first_tokens("gpt-4", {"10.0": 100, "20.0": 100, "+Inf": 100}), *first_tokens("o3", {"10.0": 80, "20.0": 100, "+Inf": 100})], [("InferenceTimeToFirstTokenHigh", {"k8s_namespace_name": "shop", "gen_ai_request_model": "o3"})]),
    Case("first tokens are slow for few", first_tokens("o3", {"10.0": 0, "20.0": 1, "+Inf": 1})),
    Case("pods stay stale", [pods("stale", f"2+0x{MINUTES}"), pods("stale", f"0+0x{MINUTES}", {**CONFIG, "config": "other"})], [("InferencePodsStale", CONFIG)]),
    Case("pods are stale during a rollout", [pods("stale", "0 0 5x10 0x40")]),
    Case("pods refuse", [pods("refused", f"1+0x{MINUTES}")], [("InferencePodsRefused", CONFIG)], minute=10),
    Case("pods do not answer", [pods("unreachable", f"1+0x{MINUTES}")], [("InferencePodsUnreachable", CONFIG)]),
    Case("an InferenceConfig is gone", [pods("stale", "2+0x20 stale")], minute=40),
    Case("a certificate ends in ten days, seen by two", [certificate("leaf", 10), certificate("leaf", 60, "b"), certificate("authority", 300)], [("InferenceCertificateExpiresSoon", {"certificate": "leaf"})]),
    Case("a certificate ends in two days", [certificate("authority", 2)], [("InferenceCertificateExpiresSoon", {"certificate": "authority"}), ("InferenceCertificateExpiresNow", {"certificate": "authority"})]),
    Case("a certificate has ended", [certificate("leaf", 0)], [("InferenceCertificateExpiresSoon", {"certificate": "leaf"}), ("InferenceCertificateExpiresNow", {"certificate": "leaf"})]),
]  # fmt: skip

WORDS = [
    (Case("", streams(WEB, completed=each_minute(9), failed=each_minute(1))), "InferenceStreamCompletionLow", WEB, "shop/web: only 90% of streams complete."),
    (Case("", requests(WEB, completed=each_minute(1), failed=each_minute(3))), "InferenceErrorRateCritical", WEB, "shop/web: 75% of requests fail."),
    (Case("", [pods("stale", f"2+0x{MINUTES}")]), "InferencePodsStale", CONFIG, "InferenceConfig shop/openai: 2 pods still run with an older configuration."),
    (Case("", [certificate("leaf", 10)], minute=0 + 30), "InferenceCertificateExpiresSoon", {"certificate": "leaf"}, "The webhook's leaf ends in 9.979 days."),
]  # fmt: skip


def judged(promtool: Path, folder: Path, tests: list[dict[str, Any]]) -> None:
    """promtool's verdict; an AssertionError with its words where it is not content."""
    file = folder / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run(
        [str(promtool), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def severity(alert: str) -> str:
    return str(rules()[alert]["labels"]["severity"])


def given(case: Case) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.given],
    }


def test_they_are_rules_without_a_mistake(program: Program) -> None:
    done = subprocess.run(
        [str(program("promtool")), "check", "rules", "--lint=all", "--lint-fatal", str(ALERTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_fires_for_what_is_trouble_and_for_nothing_else(program: Program, tmp_path: Path, case: Case) -> None:
    expected = [
        {
            "labels": series(
                "ALERTS",
                {"alertname": name, "alertstate": "firing", "severity": severity(name), **labels},
                "",
            )[0],
            "value": 1,
        }
        for name, labels in case.fires
    ]
    asked = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{case.minute}m", "exp_samples": expected}
    judged(program("promtool"), tmp_path, [{**given(case), "promql_expr_test": [asked]}])


@pytest.mark.parametrize(("case", "alert", "labels", "summary"), WORDS, ids=lambda each: str(each)[:30])
def test_tells_of_what(
    program: Program, tmp_path: Path, case: Case, alert: str, labels: Labels, summary: str
) -> None:
    told = {"summary": summary, "description": rules()[alert]["annotations"]["description"]}
    asked = {
        "alertname": alert,
        "eval_time": f"{case.minute}m",
        "exp_alerts": [{"exp_labels": {"severity": severity(alert), **labels}, "exp_annotations": told}],
    }
    judged(program("promtool"), tmp_path, [{**given(case), "alert_rule_test": [asked]}])


def test_every_rule_is_seen_to_fire() -> None:
    fired = {name for case in CASES for name, _ in case.fires}
    assert fired == set(rules())


def test_the_docs_list_every_rule() -> None:
    """With its severity and how long it waits; a threshold is a value of the chart."""
    text = (REPOSITORY / "docs" / "grafana.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (Inference\w+) \| (\w+) \| (.+) \| `(\w+)` \|$", text, re.MULTILINE)
    assert [name for name, *_ in listed] == list(rules())
    values = yaml.safe_load((REPOSITORY / "helm" / "inference-sidecar" / "values.yaml").read_text())
    thresholds = values["prometheusRule"]["thresholds"]
    for name, told, when, threshold in listed:
        assert told == severity(name)
        written = (
            f"{thresholds[threshold] * 100:g} %"
            if 0 < thresholds[threshold] < 1
            else f"{thresholds[threshold]:g} "
        )
        assert threshold == "pods" or written in f"{when} ", (name, written)
        if " for " in when:
            assert when.rpartition(" for ")[2].replace(" min", "m") == rules()[name]["for"]
