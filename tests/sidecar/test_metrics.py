"""Metrics without a socket: how they add up, and that text and OTLP say the same.

Covers: histograms and counters against a naive computation; the bound on series; the text for a parser that is not
ours, for promtool where there is one, with every character a label can hold; OTLP against the text;
exemplars; names against what the conventions and Prometheus make of them; that the SDK is not imported for nothing.
Left out: OTLP, message by message (test_otlp_encoding); what a request adds (test_metrics_requests, test_faults,
test_ledger); models (test_metrics_models).
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from bisect import bisect_left
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import AggregationTemporality

from harness.metrics import Scrape, parse
from inference_sidecar.records import End, Endpoint, Gaps, Outcome, StreamStats, Usage
from inference_sidecar.telemetry import Figures, names
from inference_sidecar.telemetry.instruments import MAX_SERIES, Counter, Histogram
from inference_sidecar.telemetry.otlp_metrics import request_of, taken
from inference_sidecar.telemetry.prometheus import bound, exposition

NOW = 2_000_000_000_000_000_000
TRACE = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
HISTOGRAM = names.STREAM_DURATION
BOUNDS = HISTOGRAM.bounds
KEYS = st.sampled_from([("chat", "openai", name, "completed") for name in ("a", "b", None)])
VALUES = st.one_of(st.floats(0, 1e4), st.sampled_from(BOUNDS))


def naive(values: list[float]) -> list[int]:
    edges = [-math.inf, *BOUNDS, math.inf]
    return [sum(low < value <= high for value in values) for low, high in pairwise(edges)]


@given(st.lists(st.tuples(KEYS, VALUES), max_size=50), st.lists(st.tuples(KEYS, VALUES), max_size=20))
def test_a_histogram_is_a_plain_count(single: list[Any], merged: list[Any]) -> None:
    histogram = Histogram(HISTOGRAM)
    for key, value in single:
        histogram.add(key, value)
    for key, value in merged:
        counts = [0] * (len(BOUNDS) + 1)
        counts[bisect_left(BOUNDS, value)] += 2
        histogram.merge(key, Gaps(tuple(counts), 2 * value, value, value))
    together = [*single, *merged, *merged]
    assert set(histogram.series) == {key for key, _ in together}
    for key, point in histogram.series.items():
        values = [value for other, value in together if other == key]
        assert point.counts == naive(values)
        assert point.count == len(values)
        assert point.total == pytest.approx(sum(values))
        assert (point.least, point.most) == (min(values), max(values))


def test_each_bucket_keeps_its_newest_exemplar() -> None:
    histogram = Histogram(HISTOGRAM)
    key = ("chat", "openai", "m", "completed")
    other = (TRACE[0], "0000000000000001")
    histogram.add(key, 0.5, TRACE)
    histogram.add(key, 0.6, other)
    histogram.add(key, 3.0, TRACE)
    histogram.add(key, 3.1)
    counts = [0] * (len(BOUNDS) + 1)
    histogram.merge(key, Gaps(tuple(counts), 0.0, 0.001, 100.0), TRACE)
    exemplars = histogram.series[key].exemplars.values()
    assert [(one.value, one.trace) for one in exemplars] == [(0.6, other), (3.0, TRACE), (100.0, TRACE)]


@given(st.lists(st.tuples(KEYS, st.integers(0, 9)), max_size=50))
def test_a_counter_is_a_plain_sum(added: list[Any]) -> None:
    counter = Counter(names.STREAMS)
    for key, amount in added:
        counter.add(key, amount)
    assert counter.series == {key: sum(n for other, n in added if other == key) for key, _ in added}


def test_series_are_bounded_and_nothing_is_lost() -> None:
    """Whatever makes new combinations, one metric has no more of them, and the sum stays right."""
    counter, histogram = Counter(names.REQUESTS), Histogram(names.OPERATION_DURATION)
    for number in range(3 * MAX_SERIES):
        counter.add(("chat", "openai", f"m{number}", "failed", f"e{number}"))
        histogram.add(("chat", "openai", f"m{number}", None, "h", 443, None), 1.0)
    assert len(counter.series) == len(histogram.series) == MAX_SERIES + 1
    assert sum(counter.series.values()) == 3 * MAX_SERIES
    assert counter.series["chat", "openai", "_OTHER", "failed", "_OTHER"] == 2 * MAX_SERIES
    assert histogram.series["chat", "openai", "_OTHER", None, "h", 443, None].count == 2 * MAX_SERIES
    counter.add(("chat", "openai", "m7", "failed", "e7"))
    assert counter.series["chat", "openai", "m7", "failed", "e7"] == 2


OUTCOMES = st.builds(
    partial(Outcome, parameters=None),
    request_id=st.just("req_1"),
    endpoint=st.sampled_from(list(Endpoint)),
    method=st.sampled_from(["POST", "GET"]),
    path=st.just("/v1/chat/completions"),
    status=st.sampled_from([0, 200, 400, 500]),
    end=st.sampled_from(list(End)),
    duration_s=st.floats(0, 1e3),
    error=st.sampled_from(["upstream_timeout", "upstream_http_500", None]),
    streamed=st.booleans(),
    model=st.one_of(st.none(), st.text(max_size=8)),
    response_model=st.one_of(st.none(), st.text(max_size=8)),
    attempts=st.integers(0, 4),
    first_byte_s=st.one_of(st.none(), st.just(0.0)),
    first_chunk_s=st.one_of(st.none(), st.floats(0, 1e2)),
    first_token_s=st.one_of(st.none(), st.floats(0, 1e2)),
    usage=st.one_of(st.none(), st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6))),
    stream=st.just(StreamStats(1.0, 5, 1.0, (), Gaps((1, 3) + (0,) * 16, 0.1, 0.001, 0.02))),
    trace=st.sampled_from([None, TRACE]),
    operation=st.sampled_from(["chat", "embeddings", "images.generations", "files"]),
    provider=st.sampled_from(["openai", "echo"]),
    server_address=st.sampled_from([None, "api.openai.com"]),
    server_port=st.sampled_from([None, 443]),
    model_configured=st.booleans(),
)


def recorded(outcomes: list[Outcome]) -> Figures:
    figures = Figures(lambda: {"applied": 2, "refused": 0}, lambda: {"active": 1, "idle": 3})
    figures.requests_active = len(outcomes)
    for outcome in outcomes:
        figures.record(outcome)
    return figures


def sent(figures: Figures, resource: dict[str, str]) -> ExportMetricsServiceRequest:
    """What goes out by OTLP, decoded."""
    return ExportMetricsServiceRequest.FromString(request_of(taken(figures, NOW), resource))


def as_prometheus(data: Any) -> Scrape:
    """The encoded request as Prometheus' receiver translates it, kept to the rules that apply here."""
    found = Scrape()
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    of_metric = {metric.name: metric for metric in names.METRICS}
    for metric in scope.metrics:
        name = of_metric[metric.name].prometheus
        points = getattr(metric, metric.WhichOneof("data")).data_points
        for point in points:
            labels = {
                names.label(pair.key): str(getattr(pair.value, pair.value.WhichOneof("value")))
                for pair in point.attributes
            }
            labels = {name: value for name, value in labels.items() if value}
            if metric.WhichOneof("data") != "histogram":
                found.samples[name, frozenset(labels.items())] = point.as_int
                continue
            below = 0
            for upper, count in zip([*point.explicit_bounds, math.inf], point.bucket_counts, strict=True):
                below += count
                le = "+Inf" if upper == math.inf else bound(upper)
                found.samples[f"{name}_bucket", frozenset({**labels, "le": le}.items())] = below
            found.samples[f"{name}_sum", frozenset(labels.items())] = point.sum
            found.samples[f"{name}_count", frozenset(labels.items())] = point.count
    return found


@given(st.lists(OUTCOMES, max_size=12))
def test_text_and_otlp_say_the_same(outcomes: list[Outcome]) -> None:
    figures = recorded(outcomes)
    text = exposition(figures, "1.2.3", {})
    by_otlp = as_prometheus(sent(figures, {}))
    by_text = parse(text).samples
    version = ("inference_sidecar_build_info", frozenset({("version", "1.2.3")}))
    assert by_text.pop(version) == 1
    (other,) = [key for key in by_otlp.samples if key[0] == version[0]]
    del by_otlp.samples[other]
    assert by_otlp.samples == by_text


def test_what_was_taken_stays_as_it_was() -> None:
    """It is encoded while the loop goes on, and adds to the very same series."""
    figures = recorded([outcome_of_a_stream()])
    before = taken(figures, NOW)
    whole = request_of(before, {})
    figures.record(outcome_of_a_stream(duration_s=1.0, trace=(TRACE[1] * 2, TRACE[0][:16])))
    assert request_of(before, {}) == whole
    assert request_of(taken(figures, NOW), {}) != whole


def test_otlp_points() -> None:
    figures = recorded([outcome_of_a_stream()])
    (resource,) = sent(figures, {"k": "v"}).resource_metrics
    assert [(pair.key, pair.value.string_value) for pair in resource.resource.attributes] == [("k", "v")]
    (scope,) = resource.scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    assert scope.scope.name == "inference_sidecar"
    for metric in names.METRICS:
        if metric is names.RETRIES:
            assert metric.name not in metrics, "nothing was tried again"
            continue
        told = metrics[metric.name]
        assert (told.unit, told.description) == (metric.unit, metric.description)
        kind = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}[metric.kind]
        assert told.WhichOneof("data") == kind
        for point in getattr(told, kind).data_points:
            assert point.time_unix_nano == NOW
            if kind != "gauge":
                assert point.start_time_unix_nano == figures.metrics.started_unix_nano
        if kind == "histogram":
            assert told.histogram.aggregation_temporality == AggregationTemporality.CUMULATIVE
        if kind == "sum":
            assert told.sum.is_monotonic
            assert told.sum.aggregation_temporality == AggregationTemporality.CUMULATIVE
    (point,) = metrics[names.OPERATION_DURATION.name].histogram.data_points
    (exemplar,) = point.exemplars
    assert (exemplar.trace_id.hex(), exemplar.span_id.hex(), exemplar.as_double) == (*TRACE, 2.0)
    assert (point.min, point.max) == (2.0, 2.0)
    port = {pair.key: pair.value for pair in point.attributes}[names.SERVER_PORT]
    assert port.int_value == 443, "a port is a number"


def outcome_of_a_stream(**fields: Any) -> Outcome:
    told: dict[str, Any] = {"duration_s": 2.0, "trace": TRACE} | fields
    return Outcome(
        "req_1", Endpoint.CHAT, "POST", "/v1/chat/completions", 200, End.COMPLETED, streaming=True, streamed=True,
        model="gpt-4", response_model="gpt-4-0613", attempts=1, first_byte_s=0.5, first_chunk_s=0.5, first_token_s=1.0,
        usage=Usage(10, 51, 61), stream=StreamStats(2000.0, 3, 1.0, (0.5, 1.0), Gaps((0,) * 18, 1.5, 0.5, 1.0)),
        operation="chat", server_address="api.openai.com", server_port=443, **told,
    )  # fmt: skip


def test_values_of_one_stream() -> None:
    metrics = parse(exposition(recorded([outcome_of_a_stream()]), "1", {}))
    own = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4",
    }
    of_server = {"server_address": "api.openai.com", "server_port": "443"}
    gen_ai = {**own, "gen_ai_response_model": "gpt-4-0613", **of_server}
    assert metrics.series("gen_ai_client_operation_duration_seconds_sum") == [(gen_ai, 2.0)]
    assert metrics.series("gen_ai_server_request_duration_seconds_sum") == [(gen_ai, 2.0)]
    assert metrics.series("gen_ai_client_operation_time_to_first_chunk_seconds_sum") == [(gen_ai, 0.5)]
    assert metrics.series("gen_ai_server_time_to_first_token_seconds_sum") == [(gen_ai, 1.0)]
    assert metrics.series("gen_ai_server_time_per_output_token_seconds_sum") == [(gen_ai, 1.0 / 50)]
    assert metrics.series("gen_ai_client_operation_time_per_output_chunk_seconds_sum") == [(gen_ai, 1.5)]
    assert metrics.series("inference_sidecar_stream_tokens_per_second_sum") == [(own, 50.0)]
    done = {**own, "outcome": "completed"}
    assert metrics.series("inference_sidecar_stream_duration_seconds_sum") == [(done, 1.5)]
    assert metrics.series("inference_sidecar_requests_total") == [(done, 1)]


NASTY = 'a"b\\c\nd{e}f=g,h \u00e9\u4e2d\U0001f600\r\t\x00'


def test_labels_hold_any_text() -> None:
    outcome = Outcome(
        "r", Endpoint.CHAT, "POST", "/", 200, End.COMPLETED, 1.0, model=NASTY, response_model="\ud800x", attempts=1
    )  # fmt: skip
    text = exposition(recorded([outcome]), "1", {})
    metrics = parse(text.encode().decode())
    assert metrics.values("gen_ai_request_model") == {NASTY}
    assert metrics.values("gen_ai_response_model") == {"?x"}
    by_otlp = as_prometheus(sent(recorded([outcome]), {}))
    assert by_otlp.values("gen_ai_request_model") == {NASTY}
    assert by_otlp.values("gen_ai_response_model") == {"?x"}


def test_whose_series_they_are() -> None:
    attributes = {
        "service.name": "shop",
        "k8s.pod.name": "shop-1",
        "k8s.namespace.name": "",
        "host.name": 'h"1',
        "a.b": "1",
        "a_b": "2",
        "1st": "x",
    }
    metrics = parse(exposition(recorded([outcome_of_a_stream()]), "1", attributes))
    ((info, one),) = metrics.series("target_info")
    assert one == 1
    assert info == {
        "service_name": "shop",
        "k8s_pod_name": "shop-1",
        "k8s_namespace_name": "",
        "host_name": 'h"1',
        "a_b": "1;2",
        "key_1st": "x",
    }
    for name, labels in metrics.samples:
        if name != "target_info":
            of = dict(labels)
            assert (of["service_name"], of["k8s_pod_name"]) == ("shop", "shop-1"), name
            assert not {"k8s_namespace_name", "host_name", "a_b"} & set(of)


def test_every_metric_is_there_with_its_type_and_words() -> None:
    outcome = outcome_of_a_stream()
    figures = recorded(
        [outcome, Outcome("r", Endpoint.CHAT, "POST", "/", 200, End.COMPLETED, 1.0, attempts=2)]
    )
    text = exposition(figures, "1", {})
    kinds = parse(text).kinds
    assert kinds == {metric.prometheus: str(metric.kind) for metric in names.METRICS}
    for metric in names.METRICS:
        assert f"# HELP {metric.prometheus} {metric.description}\n" in text


def test_every_attribute_is_described() -> None:
    used = {name for metric in names.METRICS for name in metric.attributes}
    assert used == set(names.ATTRIBUTES)


def test_bounds_are_written_as_prometheus_writes_them() -> None:
    """strconv.FormatFloat(bound, 'f', -1, 64), which its OTLP receiver uses."""
    assert [bound(value) for value in (0.001, 0.01, 1.0, 10.0, 81.92, 1000.0, 67108864.0)] == [
        "0.001", "0.01", "1", "10", "81.92", "1000", "67108864",
    ]  # fmt: skip
    for metric in names.METRICS:
        for upper in metric.bounds:
            assert float(bound(upper)) == upper
            assert set(bound(upper)) <= set("0123456789.")


def test_bounds_of_the_conventions_are_there() -> None:
    """As v1.41 has them; what is beyond is ours."""
    doubling = [round(0.01 * 2**n, 2) for n in range(14)]
    assert list(names.OPERATION_DURATION.bounds[:14]) == doubling
    assert list(names.TOKEN_USAGE.bounds) == [4**n for n in range(14)]
    assert names.TIME_TO_FIRST_TOKEN.bounds[:16] == (
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    )  # fmt: skip
    for metric in names.METRICS:
        assert list(metric.bounds) == sorted(set(metric.bounds))


@pytest.mark.parametrize(
    ("endpoint", "path", "expected"),
    [
        (Endpoint.CHAT, "/v1/chat/completions", "chat"),
        (Endpoint.CHAT, "/v1/%63hat/completions", "chat"),
        (Endpoint.COMPLETIONS, "/v1/completions", "text_completion"),
        (Endpoint.EMBEDDINGS, "/openai/deployments/d/embeddings", "embeddings"),
        (Endpoint.RESPONSES, "/v1/responses", "responses"),
        (Endpoint.OTHER, "/v1/responses/resp_1/cancel", "responses"),
        (Endpoint.OTHER, "/v1/chat/completions", "chat"),
        (Endpoint.MODELS, "/v1/models", "models"),
        (Endpoint.OTHER, "/v1/models/m", "models"),
        (Endpoint.OTHER, "/v1/audio/speech", "audio.speech"),
        (Endpoint.OTHER, "/v1//audio/%73peech", "audio.speech"),
        (Endpoint.OTHER, "/openai/deployments/a%2Fb/images/generations", "images.generations"),
        (Endpoint.OTHER, "/openai/v1/images/edits", "images.edits"),
        (Endpoint.OTHER, "/openai/files/f", "files"),
        (Endpoint.OTHER, "/v1/fine_tuning/jobs/1/events", "fine_tuning"),
        (Endpoint.OTHER, "/v1/audio/made-up", "_OTHER"),
        (Endpoint.OTHER, "/v1/made-up", "_OTHER"),
        (Endpoint.OTHER, "/v1", "_OTHER"),
        (Endpoint.OTHER, "/v1files", "_OTHER"),
    ],
)
def test_operations(endpoint: Endpoint, path: str, expected: str) -> None:
    assert names.operation(endpoint, path) == expected
    assert expected in names.OPERATIONS


@given(st.sampled_from(list(Endpoint)), st.text())
def test_operations_are_a_closed_set(endpoint: Endpoint, path: str) -> None:
    assert names.operation(endpoint, path) in names.OPERATIONS
    assert names.operation(endpoint, f"/v1/{path}") in names.OPERATIONS


def test_where_a_model_works() -> None:
    assert names.infers(Endpoint.CHAT, "POST", "chat")
    assert names.infers(Endpoint.OTHER, "POST", "audio.speech")
    assert not names.infers(Endpoint.OTHER, "GET", "videos")
    assert not names.infers(Endpoint.OTHER, "POST", "responses"), "a cancellation, say"
    assert not names.infers(Endpoint.OTHER, "POST", "files")
    assert not names.infers(Endpoint.MODELS, "GET", "models")


def test_providers() -> None:
    assert names.provider("openai", azure=False) == "openai"
    assert names.provider("openai", azure=True) == "azure.ai.openai", "recognised by its URL"
    assert names.provider("azure", azure=True) == "azure.ai.openai"
    assert names.provider("echo", azure=False) == "echo"


def test_nothing_configured_imports_no_sdk() -> None:
    program = (
        "import inference_sidecar.telemetry.prometheus, inference_sidecar.telemetry.metrics, sys;"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def promtool() -> str | None:
    """The real one: built for the cluster tests, or the machine's."""
    built = sorted(Path(__file__).parents[2].glob(".cache/cluster/bin/prometheus-*/promtool"))
    return str(built[-1]) if built else shutil.which("promtool")


@pytest.mark.skipif(promtool() is None, reason="no promtool")
def test_promtool_finds_the_text_good() -> None:
    """Its parser is Prometheus' own, and it judges names and types, too."""
    text = exposition(recorded([outcome_of_a_stream()]), "1", {"service.name": NASTY.replace("\x00", "")})
    ran = subprocess.run(
        [promtool() or "", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
