"""What operator and injector tell of themselves: /metrics, read back by its grammar, and log lines.

Left out: OTLP (test_operator_otlp), which calls are made when (test_webhook, test_rotate, the reconciler's own tests).
"""

from __future__ import annotations

import datetime
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.evidence import EVIDENCE
from harness.exposition import samples
from inference_operator.errors import OperatorError
from inference_operator.telemetry import LOGGER, Metrics, configure, names


def test_before_anything_happened() -> None:
    assert samples(Metrics("1.2.3").text()) == {'build_info{version="1.2.3"}': 1}


def test_reconciles() -> None:
    metrics = Metrics("1")
    for outcome, seconds in [("done", 0.02), ("done", 0.3), ("failed", 90.0)]:
        metrics.reconciled(outcome, seconds)
    found = samples(metrics.text())
    assert found['reconciles_total{outcome="done"}'] == 2
    assert found['reconciles_total{outcome="failed"}'] == 1
    buckets = [value for key, value in found.items() if key.startswith("reconcile_duration_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert found['reconcile_duration_seconds_bucket{le="0.025"}'] == 1
    assert found['reconcile_duration_seconds_bucket{le="30.0"}'] == 2
    assert found['reconcile_duration_seconds_bucket{le="+Inf"}'] == 3
    assert found["reconcile_duration_seconds_count{}"] == 3
    assert found["reconcile_duration_seconds_sum{}"] == pytest.approx(90.32)


def test_a_bound_belongs_to_its_bucket() -> None:
    metrics = Metrics("1")
    metrics.admitted("injected", "", 0.005)
    assert samples(metrics.text())['admission_duration_seconds_bucket{le="0.005"}'] == 1


def test_pods_are_replaced_and_forgotten() -> None:
    metrics = Metrics("1")
    metrics.pods("shop/team", {"current": 3, "stale": 1})
    metrics.pods("shop/team", {"current": 4, "stale": 0})
    metrics.pods("other/team", {"current": 1})
    found = samples(metrics.text())
    assert found['pods{config="team",config_namespace="shop",state="current"}'] == 4
    assert found['pods{config="team",config_namespace="shop",state="stale"}'] == 0
    metrics.forget("shop/team")
    metrics.forget("shop/team")
    assert [key for key in samples(metrics.text()) if key.startswith("pods{")] == [
        'pods{config="team",config_namespace="other",state="current"}'
    ]


def test_pods_of_configs_that_come_and_go() -> None:
    """The SDK by itself would have all of them in one series after the first 2000, and forget none."""
    metrics = Metrics("1")
    for generation in range(3):
        keys = [f"preview-{generation}/config-{number}" for number in range(1000)]
        for key in keys:
            metrics.pods(key, {"current": 1, "stale": 0, "refused": 0})
        assert len([key for key in samples(metrics.text()) if key.startswith("pods")]) == 3000
        for key in keys:
            metrics.forget(key)
    metrics.pods("shop/team", {"current": 7})
    found = samples(metrics.text())
    assert {key: value for key, value in found.items() if key.startswith("pods")} == {
        'pods{config="team",config_namespace="shop",state="current"}': 7
    }


def test_nothing_but_what_is_named() -> None:
    """Every metric, under its name for Prometheus, with its labels and no other."""
    metrics = Metrics("1")
    metrics.reconciled("done", 0.1)
    metrics.admitted("injected", "", 0.1)
    metrics.pods("shop/team", {"current": 1})
    metrics.certificate_expires(datetime.datetime.now(datetime.UTC))
    labels: dict[str, set[str]] = {}
    for key in samples(metrics.text()):
        name, _, rest = key.partition("{")
        name = re.sub("(?<=seconds)_(bucket|sum|count)$", "", name)
        labels.setdefault(f"inference_operator_{name}", set()).update(
            re.findall(r'([a-z_]+)="', rest.replace('le="', '"'))
        )
    assert labels == {metric.prometheus: set(metric.attributes) for metric in names.METRICS}


def test_admissions() -> None:
    metrics = Metrics("1")
    metrics.admitted("injected", "", 0.01)
    metrics.admitted("refused", "NoConfig", 0.01)
    metrics.admitted("refused", "NoConfig", 0.01)
    found = samples(metrics.text())
    assert found['admissions_total{outcome="injected",reason=""}'] == 1
    assert found['admissions_total{outcome="refused",reason="NoConfig"}'] == 2
    assert found["admission_duration_seconds_count{}"] == 3


def test_the_end_of_certificates_to_the_second() -> None:
    metrics = Metrics("1")
    at = datetime.datetime(2027, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    metrics.certificate_expires(at)
    metrics.certificate_expires(at, "authority")
    assert (
        samples(metrics.text())['certificate_expiry_timestamp_seconds{certificate="leaf"}'] == at.timestamp()
    )
    metrics.certificate_expires(at + datetime.timedelta(days=1))
    ends = samples(metrics.text())['certificate_expiry_timestamp_seconds{certificate="leaf"}']
    assert ends == at.timestamp() + 86_400
    assert len([key for key in samples(metrics.text()) if key.startswith("certificate")]) == 2


def test_the_documentation_has_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operator.md").read_text()
    rows = {line for line in text.splitlines() if line.startswith("| `inference_operator_")}
    assert rows == {
        f"| `{metric.prometheus}` | {metric.kind} | {', '.join(f'`{one}`' for one in metric.attributes)} | "
        f"{metric.description} |".replace("|  |", "| |")
        for metric in names.METRICS
    }


def test_labels_are_escaped() -> None:
    metrics = Metrics('a"b\\c\nd')
    assert 'version="a\\"b\\\\c\\nd"' in metrics.text()
    samples(metrics.text())


class TestLog:
    @pytest.fixture
    def stream(self) -> Iterator[io.StringIO]:
        handlers = logging.getLogger().handlers[:]
        stream = io.StringIO()
        configure(stream=stream)
        yield stream
        EVIDENCE.add("log", stream.getvalue().encode())
        logging.getLogger().handlers[:] = handlers

    def lines(self, stream: io.StringIO) -> list[dict[str, Any]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    def test_a_line(self, stream: io.StringIO) -> None:
        LOGGER.info("%s happened", "it", extra={"fields": {"namespace": "shop", "many": 2}})
        (line,) = self.lines(stream)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
        assert line == {
            "level": "info",
            "logger": "inference_operator",
            "message": "it happened",
            "namespace": "shop",
            "many": 2,
        }

    def test_libraries_are_heard_from_warning_on(self, stream: io.StringIO) -> None:
        logging.getLogger("kopf.objects").info("an object's whole body")
        logging.getLogger("kopf.objects").warning("a reason to look")
        assert [line["message"] for line in self.lines(stream)] == ["a reason to look"]

    def test_what_a_foreign_exception_quotes_is_left_out(self, stream: io.StringIO) -> None:
        key = EVIDENCE.new_key()
        try:
            try:
                int(key)
            except ValueError as error:
                raise LookupError(key) from error
        except LookupError:
            LOGGER.exception("a fault")
        (line,) = self.lines(stream)
        assert line["exception"]["type"] == "LookupError"
        assert line["exception"]["cause"]["type"] == "ValueError"
        assert any("test_operator_telemetry.py" in frame for frame in line["exception"]["at"])
        assert key not in stream.getvalue()

    def test_an_exception_of_ours_is_told_whole(self, stream: io.StringIO) -> None:
        LOGGER.error("a fault", exc_info=OperatorError("spec.inference: wrong"))
        assert self.lines(stream)[0]["exception"]["message"] == "spec.inference: wrong"

    def test_configured_twice_it_tells_once(self, stream: io.StringIO) -> None:
        configure(stream=stream)
        LOGGER.warning("once")
        assert len(self.lines(stream)) == 1
