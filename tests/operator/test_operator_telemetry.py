"""What operator and injector tell of themselves: the exposition, read back by its grammar, and log lines.

Left out: which calls are made when (test_webhook, test_rotate, the reconciler's own tests).
"""

from __future__ import annotations

import datetime
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from harness.evidence import EVIDENCE
from inference_operator.errors import OperatorError
from inference_operator.telemetry import LOGGER, Metrics, configure

SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$')


def samples(text: str) -> dict[str, float]:
    """Samples by name and labels. Every family is introduced by HELP and TYPE, once."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    introduced: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in introduced
            introduced.append(name)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == introduced[-1]
        else:
            matched = SAMPLE.match(line)
            assert matched, line
            assert re.sub(r"_(bucket|sum|count)$", "", matched[1]) in (introduced[-1], matched[1])
            assert matched[1].startswith(introduced[-1])
            key = f"{matched[1].removeprefix('inference_operator_')}{{{matched[2] or ''}}}"
            assert key not in found
            found[key] = float(matched[3])
    return found


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
    assert found['pods{namespace="shop",config="team",state="current"}'] == 4
    assert found['pods{namespace="shop",config="team",state="stale"}'] == 0
    metrics.forget("shop/team")
    metrics.forget("shop/team")
    assert [key for key in samples(metrics.text()) if key.startswith("pods{")] == [
        'pods{namespace="other",config="team",state="current"}'
    ]


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
    assert len([key for key in samples(metrics.text()) if key.startswith("certificate")]) == 2


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
