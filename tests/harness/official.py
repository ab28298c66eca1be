"""The judge of what the sidecar encodes by itself: the same told by OpenTelemetry's own classes, encoded by its encoder.

Enters: an `Outcome` with the ids and times of its spans, or `Figures`. Leaves: protocol buffers that the sidecar's bytes
must be equal to, the order of attributes aside. It is the plain way, with a dict for each span, and shares nothing with
the sidecar but the names of attributes, and the limits on what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from inference_config import __version__
from inference_sidecar.records import End, Outcome
from inference_sidecar.telemetry import Figures, names
from inference_sidecar.telemetry import span_names as told
from inference_sidecar.telemetry.instruments import Family, Point

CUMULATIVE = AggregationTemporality.CUMULATIVE


def clean(value: Any) -> Any:
    """Without halves of surrogate pairs, at which the official encoder fails."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return tuple(clean(one) for one in value) if isinstance(value, tuple | list) else value


def sorted_attributes(message: Any) -> Any:
    """The message itself, every list of attributes in it in order of names."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        many = list(value) if not hasattr(value, "ListFields") else [value]
        for one in many:
            sorted_attributes(one)
        if field.message_type.name == "KeyValue":
            ordered = sorted(many, key=lambda pair: pair.key)
            del value[:]
            value.extend(ordered)
    return message


@dataclass
class Ids:
    """What a request's spans have beside what they tell."""

    trace: int
    span: int
    parent: int | None = None
    remote: bool = False
    state: str = ""


def span_of(
    ids: Ids, name: str, kind: SpanKind, began: int, ended: int, attributes: dict[str, Any],
    events: tuple[tuple[str, int, dict[str, Any]], ...] = (), status: Status | None = None,
) -> ReadableSpan:  # fmt: skip
    """One span, as exporters read it."""
    state = TraceState.from_header([ids.state])
    flags = TraceFlags(TraceFlags.SAMPLED)
    parent = None if ids.parent is None else SpanContext(ids.trace, ids.parent, ids.remote, flags, state)
    whole = [
        Event(event, {key: clean(value) for key, value in about.items()}, at) for event, at, about in events
    ]
    if status is not None and status.description:
        status = Status(status.status_code, clean(status.description))
    return ReadableSpan(
        clean(name), SpanContext(ids.trace, ids.span, False, flags, state), parent, Resource({"k": "v"}),
        {key: clean(value) for key, value in attributes.items()}, whole, (), kind, None,
        status or Status(StatusCode.UNSET), began, ended, InstrumentationScope("inference_sidecar", "1"),
    )  # fmt: skip


def encoded(*spans: ReadableSpan) -> Any:
    """An ExportTraceServiceRequest, attributes in order of names."""
    return sorted_attributes(encode_spans(spans))


def server_of(outcome: Outcome, ids: Ids, began: int, ended: int, agent: str | None) -> ReadableSpan:
    """The SERVER span."""
    route = told.route(outcome.endpoint, outcome.path)
    attributes = {
        "http.request.method": told.method(outcome.method),
        "http.route": route,
        "url.path": outcome.path,
        "url.scheme": "http",
        "inference_sidecar.request.id": outcome.request_id,
        "inference_sidecar.outcome": outcome.end.value,
        **({"http.response.status_code": outcome.status} if outcome.status else {}),
        **({"user_agent.original": agent} if agent is not None else {}),
        **error_of(outcome),
    }
    failed = outcome.end is not End.COMPLETED and not 400 <= outcome.status <= 499
    method = told.method(outcome.method).replace("_OTHER", "HTTP")
    return span_of(
        ids, f"{method} {route}", SpanKind.SERVER, began, ended, attributes, (),
        status_of(outcome) if failed else None,
    )  # fmt: skip


def call_of(
    outcome: Outcome, ids: Ids, began: int, ended: int, monotonic: float, content: dict[str, str]
) -> ReadableSpan:
    """The CLIENT span of the call. `monotonic` is the clock's word at the end."""
    model = None if outcome.model is None else outcome.model[:256]
    attributes: dict[str, Any] = {
        "inference_sidecar.attempts": outcome.attempts,
        "inference_sidecar.outcome": outcome.end.value,
        "inference_sidecar.upstream.request_id": outcome.upstream_request_id,
        **error_of(outcome),
    }
    if outcome.server_address is not None and outcome.server_port is not None:
        attributes |= {"server.address": outcome.server_address, "server.port": outcome.server_port}
    if names.infers(outcome.endpoint, outcome.method, outcome.operation):
        attributes |= genai_of(outcome, model) | content
    else:
        attributes["inference_sidecar.operation"] = outcome.operation
    name = outcome.operation if model is None else f"{outcome.operation} {model}"
    return span_of(
        ids, name, SpanKind.CLIENT, began, ended,
        {key: value for key, value in attributes.items() if value is not None},
        events_of(outcome, ended, monotonic), None if outcome.end is End.COMPLETED else status_of(outcome),
    )  # fmt: skip


def genai_of(outcome: Outcome, model: str | None) -> dict[str, Any]:
    """What is told where a model works; None where there is nothing to tell."""
    parameters = {}
    for name, value in (outcome.parameters or {}).items():
        if (known := told.parameter(name, value)) is not None:
            parameters[told.PARAMETERS[name]] = known
    usage = outcome.usage
    tokens = {} if usage is None else {
        "gen_ai.usage.input_tokens": usage.prompt_tokens if usage.prompt_reported else None,
        "gen_ai.usage.output_tokens": usage.completion_tokens if usage.completion_reported else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }  # fmt: skip
    return {
        "gen_ai.operation.name": outcome.operation,
        "gen_ai.provider.name": outcome.provider,
        "gen_ai.request.model": model,
        "gen_ai.request.stream": outcome.streaming,
        "gen_ai.request.choice.count": outcome.choices if outcome.choices != 1 else None,
        "openai.api.type": told.API_TYPES.get(outcome.endpoint),
        "gen_ai.response.model": outcome.response_model,
        "gen_ai.response.id": outcome.response_id,
        "openai.response.system_fingerprint": outcome.fingerprint,
        "openai.response.service_tier": outcome.service_tier,
        "gen_ai.response.finish_reasons": outcome.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": outcome.first_chunk_s,
        **parameters,
        **tokens,
    }


def events_of(outcome: Outcome, ended: int, monotonic: float) -> tuple[tuple[str, int, dict[str, Any]], ...]:
    """What happened on the way."""
    events: list[tuple[str, int, dict[str, Any]]] = []
    for retry in outcome.retries:
        about = {
            "inference_sidecar.retry.attempt": retry.attempt,
            "inference_sidecar.retry.wait_s": retry.wait_s,
            "inference_sidecar.retry.reason": retry.why,
        }
        events.append(("inference_sidecar.retry", ended - int((monotonic - retry.at) * 1e9), about))
    if outcome.first_chunk_s is not None:
        since = outcome.duration_s - outcome.first_chunk_s
        events.append(("inference_sidecar.first_chunk", ended - int(since * 1e9), {}))
    if outcome.stream is not None:
        end = {
            "inference_sidecar.outcome": outcome.end.value,
            "inference_sidecar.stream.chunks": outcome.stream.chunks_sent,
        }
        events.append(("inference_sidecar.end", ended, end))
    return tuple(events)


def error_of(outcome: Outcome) -> dict[str, str]:
    """error.type, where there is one."""
    kind = "cancelled" if outcome.end is End.CANCELLED else outcome.error
    return {} if kind is None else {"error.type": kind}


def status_of(outcome: Outcome) -> Status:
    """An error, in words where they are the sidecar's own."""
    theirs = (outcome.error or "").startswith(("upstream_http_", "upstream_error_event"))
    ours = outcome.end is End.FAILED and not theirs
    return Status(StatusCode.ERROR, outcome.error_message if ours else None)


def metrics_of(figures: Figures, resource: dict[str, str], now: int) -> Any:
    """An ExportMetricsServiceRequest, attributes in order of names."""
    families = [family for family in figures.families(__version__) if family.series]
    metrics = [_metric(family, figures.metrics.started_unix_nano, now) for family in families]
    scope = ScopeMetrics(InstrumentationScope("inference_sidecar", __version__), metrics, "")
    return sorted_attributes(encode_metrics(MetricsData([ResourceMetrics(Resource(resource), [scope], "")])))


def _metric(family: Family, started: int, now: int) -> Metric:
    metric = family.metric
    points: list[Any] = []
    for values, value in family.series.items():
        about = {name: one for name, one in zip(metric.attributes, values, strict=True) if one is not None}
        if not isinstance(value, Point):
            points.append(NumberDataPoint(about, started, now, value))
            continue
        exemplars = [
            Exemplar({}, one.value, one.unix_nano, int(one.trace[1], 16), int(one.trace[0], 16))
            for one in value.exemplars.values()
        ]
        points.append(
            HistogramDataPoint(
                about, started, now, value.count, value.total, list(value.counts), metric.bounds, value.least,
                value.most, exemplars,
            )
        )  # fmt: skip
    data: Any = Gauge(points)
    if metric.kind is names.Kind.HISTOGRAM:
        data = Histogram(points, CUMULATIVE)
    elif metric.kind is names.Kind.COUNTER:
        data = Sum(points, CUMULATIVE, is_monotonic=True)
    return Metric(metric.name, metric.description, metric.unit, data)
