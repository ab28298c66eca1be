"""Fixtures of tests that look at traces: a collector of the module's own, and a sidecar that exports to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.otlp import OtlpSink
from harness.process import Sidecar, Start
from harness.traces import EXPORT


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as running:
        yield running


@pytest.fixture(scope="module")
def environ(sink: OtlpSink) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, **EXPORT}


@pytest.fixture(scope="module")
def traced(environ: dict[str, str], start: Start) -> Sidecar:
    return start(environ=environ)
