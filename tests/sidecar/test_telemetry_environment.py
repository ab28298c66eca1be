"""The standard OTEL_* variables: what each does, its default, and how a value that cannot be used is told.

Covers: every variable of docs/telemetry.md; which signals are exported; general and per-signal forms; values that are
empty; errors with the variable's name, what was found and what is valid, and never a header's value.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inference_config.load import ConfigError
from inference_sidecar.telemetry import span_names
from inference_sidecar.telemetry.environment import Batch, described, public_url, read
from inference_sidecar.validate import TOLD

ROOT = Path(__file__).parents[2]
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
TRACES = "http://collector:4318/v1/traces"
METRICS = "http://collector:4318/v1/metrics"

EXPORTED: dict[str, tuple[dict[str, str], str | None, str | None, bool]] = {
    # variables → where traces and metrics go, and whether /metrics is served
    "nothing": ({}, None, None, True),
    "empty": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_TRACES_EXPORTER": " "}, None, None, True),
    "endpoint": (ENDPOINT, TRACES, METRICS, True),
    "slash": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}, TRACES, METRICS, True),
    "path": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/otlp?k=v"},
        "https://c/otlp/v1/traces?k=v",
        "https://c/otlp/v1/metrics?k=v",
        True,
    ),
    "traces alone": ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/as/is"}, "http://t:1/as/is", None, True),
    "metrics alone": ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1/"}, None, "http://m:1/", True),
    "one of its own": (
        {**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x"},
        "http://t:1/x",
        METRICS,
        True,
    ),
    "asked for": (
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"},
        "http://localhost:4318/v1/traces",
        "http://localhost:4318/v1/metrics",
        False,
    ),
    "no traces": ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None, METRICS, True),
    "no metrics": ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"}, TRACES, None, False),
    "scraped": ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "prometheus"}, TRACES, None, True),
    "both ways": ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "OTLP, prometheus"}, TRACES, METRICS, True),
    "otlp only": ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "otlp"}, TRACES, METRICS, False),
    "disabled": ({**ENDPOINT, "OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "nonsense"}, None, None, False),
    "not disabled": ({**ENDPOINT, "OTEL_SDK_DISABLED": "no"}, TRACES, METRICS, True),
}  # fmt: skip


@pytest.mark.parametrize("name", list(EXPORTED))
def test_what_is_exported(name: str) -> None:
    environ, traces, metrics, served = EXPORTED[name]
    settings = read(environ)
    assert (settings.traces and settings.traces.endpoint) == traces
    assert (settings.metrics and settings.metrics.endpoint) == metrics
    assert (settings.metrics_off is None) == served


def test_defaults() -> None:
    settings = read(ENDPOINT)
    assert settings.traces is not None
    assert (settings.traces.timeout_s, settings.traces.compression, settings.traces.headers) == (
        3.0,
        "none",
        {},
    )
    assert (settings.sampler, settings.traceparent, settings.content) == (
        "parentbased_always_on",
        True,
        False,
    )
    assert settings.batch == Batch(2048, 512, 5000)
    assert settings.interval_s == 60.0
    assert settings.resource["service.name"] == "inference-sidecar"
    assert settings.resource["service.instance.id"] != read(ENDPOINT).resource["service.instance.id"]


def test_every_variable(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("")
    environ = {
        **ENDPOINT,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "500",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "9000",
        "OTEL_METRIC_EXPORT_TIMEOUT": "7000",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_HEADERS": "A-b=c%2Cd, e=f=g,",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(pem),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(pem),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(pem),
        "OTEL_TRACES_SAMPLER": "TraceIdRatio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_PROPAGATORS": "baggage",
        "OTEL_BSP_MAX_QUEUE_SIZE": "10",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5",
        "OTEL_BSP_SCHEDULE_DELAY": "7",
        "OTEL_METRIC_EXPORT_INTERVAL": "1500",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b%20c, service.instance.id=mine ,service.name=x",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative",
        "OTEL_PYTHON_HTTPX_EXCLUDED_URLS": "/files, health$,",
        "HTTP_PROXY": "http://user:secret@proxy:3128",
    }
    settings = read(environ)
    assert settings.traces is not None
    assert settings.metrics is not None
    assert (settings.traces.timeout_s, settings.metrics.timeout_s) == (0.5, 7.0)
    assert (settings.traces.compression, settings.metrics.compression) == ("gzip", "none")
    assert settings.traces.headers == {"a-b": "c,d", "e": "f=g"}
    assert settings.traces.certificate == settings.traces.client_key == str(pem)
    assert (settings.sampler, settings.ratio, settings.traceparent) == ("traceidratio", 0.25, False)
    assert settings.batch == Batch(10, 5, 7)
    assert (settings.interval_s, settings.content) == (1.5, True)
    assert {name: settings.resource[name] for name in ("a", "service.instance.id", "service.name")} == {
        "a": "b c",
        "service.instance.id": "mine",
        "service.name": "x",
    }
    assert read({**environ, "OTEL_SERVICE_NAME": "y"}).resource["service.name"] == "y"
    assert settings.excluded == "/files|health$"
    assert settings.traces.proxy is not None
    assert settings.traces.proxy.url == "http://proxy:3128"
    direct = read({**environ, "NO_PROXY": "10.0.0.0/8,collector"})
    assert direct.traces is not None
    assert direct.traces.proxy is None
    assert "c,d" not in repr(settings)
    assert "secret" not in repr(settings)


WRONG: dict[str, tuple[dict[str, str], str, str]] = {
    # variables → the one that is wrong, and a word of what was found
    "grpc": ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL", '"grpc"'),
    "json": ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    "port": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT", "port 4317"),
    "port of one": (
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "port 4317",
    ),
    "no scheme": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    "no host": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
    "no port": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:x"}, "OTEL_EXPORTER_OTLP_ENDPOINT", "cannot be read"),
    "bracket": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "OTEL_EXPORTER_OTLP_ENDPOINT", "cannot be read"),
    "exporter": ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", '"zipkin"'),
    "prometheus traces": ({"OTEL_TRACES_EXPORTER": "prometheus"}, "OTEL_TRACES_EXPORTER", '"prometheus"'),
    "none and more": ({"OTEL_METRICS_EXPORTER": "none,otlp"}, "OTEL_METRICS_EXPORTER", "none,otlp"),
    "sampler": ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER", "jaeger_remote"),
    "ratio": (
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10%"}, "OTEL_TRACES_SAMPLER_ARG", "10%",
    ),
    "ratio of nan": (
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"}, "OTEL_TRACES_SAMPLER_ARG", "nan",
    ),
    "propagator": ({"OTEL_PROPAGATORS": "tracecontext,b3"}, "OTEL_PROPAGATORS", "b3"),
    "seconds": ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}, "OTEL_EXPORTER_OTLP_TIMEOUT", '"10"'),
    "fraction": ({"OTEL_METRIC_EXPORT_INTERVAL": "1.5"}, "OTEL_METRIC_EXPORT_INTERVAL", "1.5"),
    "queue": ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "OTEL_BSP_MAX_QUEUE_SIZE", '"0"'),
    "batch": (
        {"OTEL_BSP_MAX_QUEUE_SIZE": "5", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "6"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "6",
    ),
    "compression": ({"OTEL_EXPORTER_OTLP_COMPRESSION": "br"}, "OTEL_EXPORTER_OTLP_COMPRESSION", '"br"'),
    "certificate": (
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/x.pem"}, "OTEL_EXPORTER_OTLP_CERTIFICATE", "no such file",
    ),
    "attributes": ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,c"}, "OTEL_RESOURCE_ATTRIBUTES", '"c"'),
    "content": (
        {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "event_only"},
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "event_only",
    ),
    "temporality": (
        {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"},
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta",
    ),
    "excluded": ({"OTEL_PYTHON_HTTPX_EXCLUDED_URLS": "a,(b"}, "OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "a,(b"),
    "excluded anywhere": ({"OTEL_PYTHON_EXCLUDED_URLS": "*"}, "OTEL_PYTHON_EXCLUDED_URLS", "*"),
    "proxy": ({"http_proxy": "socks5://user:secret@proxy:1"}, "http_proxy", "SOCKS"),
    "header without a value": ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b,secret"}, "OTEL_EXPORTER_OTLP_HEADERS", "entry 2"),
    "header name": ({"OTEL_EXPORTER_OTLP_HEADERS": "a b=secret"}, "OTEL_EXPORTER_OTLP_HEADERS", "entry 1"),
    "header value": ({"OTEL_EXPORTER_OTLP_HEADERS": "a=secret%0d%0ab:c"}, "OTEL_EXPORTER_OTLP_HEADERS", "value 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_what_cannot_be_used_is_told(name: str) -> None:
    environ, variable, found = WRONG[name]
    with pytest.raises(ConfigError) as error:
        read({**ENDPOINT, **environ})
    lines = [str(problem) for problem in error.value.problems if problem.path == variable]
    assert lines, error.value
    assert found in lines[0]
    assert re.search(r"valid: \S", lines[0])
    assert "secret" not in str(error.value)


def test_all_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        read(
            {
                **ENDPOINT,
                "OTEL_TRACES_SAMPLER": "x",
                "OTEL_BSP_SCHEDULE_DELAY": "x",
                "OTEL_METRICS_EXPORTER": "x",
            }
        )
    assert len(error.value.problems) == 3


def test_what_has_no_effect_stops_nothing() -> None:
    """An app's own variables may reach the sidecar, and a sidecar that exports nothing has no use for them."""
    environ = {"OTEL_TRACES_SAMPLER": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_PROPAGATORS": "b3"}
    assert read(environ).traces is None
    assert read({**environ, **ENDPOINT, "OTEL_SDK_DISABLED": "true"}).traces is None


def test_what_check_prints_holds_no_credential() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:secret@collector/x?token=secret",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
    }
    lines = dict(described(read(environ)))
    assert "secret" not in str(lines)
    assert "authorization=********" in lines["telemetry: traces"]
    assert public_url("http://u:p@[::1]:4318/a?b#c") == "http://[::1]:4318/a"


def test_every_variable_is_in_the_docs() -> None:
    """The table of docs/telemetry.md against the variables that the code names."""
    source = (ROOT / "sidecar/inference_sidecar/telemetry/environment.py").read_text()
    docs = (ROOT / "docs/telemetry.md").read_text()
    for name in set(re.findall(r'"(OTEL_[A-Z_]+)"', source)):
        assert f"`{name}`" in docs, name


def test_the_parameters_told_are_those_kept() -> None:
    assert set(span_names.PARAMETERS) == TOLD
