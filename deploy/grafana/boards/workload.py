"""The dashboard for those who own an app: one workload, down to a pod.

Enters: the names of metrics. Leaves: the dashboard's JSON.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from boards import queries as q
from boards.layout import Row, laid_out
from boards.parts import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Query,
    choice,
    explore,
    figure,
    series,
    source,
    spread,
    traces,
)
from inference_sidecar.telemetry import names

UID: Final = "inference-sidecar-workload"
SCOPE: Final = q.Scope(
    ('job=~"$job"', f'{q.NAMESPACE}=~"$namespace"', f'{q.WORKLOAD}=~"$workload"', f'{q.POD}=~"$pod"'),
    (f'{q.MODEL}=~"$model"',),
)
IN_SCOPE: Final = (
    'resource.k8s.namespace.name =~ "${namespace:regex}" && resource.k8s.workload.name =~ "${workload:regex}"'
    ' && resource.k8s.pod.name =~ "${pod:regex}"'
)
FAILED_TRACES: Final = f"{{ span.gen_ai.provider.name != nil && status = error && {IN_SCOPE} }}"
ALL_TRACES: Final = f"{{ span.gen_ai.provider.name != nil && {IN_SCOPE} }}"
FAILED_LINK = explore("Traces of what failed", FAILED_TRACES)
TRACES_LINK = explore("Traces of this workload", ALL_TRACES)


def _of(*labels: str) -> str:
    return f"{names.BUILD_INFO.prometheus}{{{','.join(labels)}}}"


VARIABLES: Final = (
    source("datasource", "Prometheus", "prometheus"),
    source("tempo", "Traces", "tempo"),
    choice("job", "Job", "The way in: a scrape job, or the service's name where series come by OTLP. Where one Prometheus has both, choose one, or all is counted twice.", f"label_values({names.BUILD_INFO.prometheus}, job)"),
    choice("namespace", "Namespace", "Namespace of the workload.", f"label_values({_of(*SCOPE.everywhere[:1])}, {q.NAMESPACE})"),
    choice("workload", "Workload", "Deployment, StatefulSet, Job or whatever made the pods.", f"label_values({_of(*SCOPE.everywhere[:2])}, {q.WORKLOAD})"),
    choice("pod", "Pod", "Pods of the workload.", f"label_values({_of(*SCOPE.everywhere[:3])}, {q.POD})"),
    choice("model", "Model", "Models as the app asked for them.", f"label_values({names.REQUESTS.prometheus}{{{','.join(SCOPE.everywhere)}}}, {q.MODEL})"),
)  # fmt: skip


def quantiles(metric: names.Metric) -> list[Query]:
    return [Query(SCOPE.quantile(at, metric), f"p{at * 100:g}", exemplars=True) for at in (0.5, 0.95, 0.99)]


def overview() -> Row:
    return Row("At a glance, over the time shown", ((4, (
        figure("Requests", "Requests that ended, by whatever end.", "short", Query(SCOPE.increase(names.REQUESTS), "requests"), decimals=0),
        figure("Error rate", "Failed, of completed and failed. Refused and cancelled requests are not counted.", "percentunit", Query(SCOPE.share(names.REQUESTS, q.FAILED, q.ENDED, over=q.RANGE, counted="increase"), "failed"), steps=((None, GREEN), (0.01, YELLOW), (0.05, RED)), decimals=2, links=[FAILED_LINK]),
        figure("Refused", "Requests that the sidecar answered itself: a mistake of the app, told to it in the answer.", "short", Query(q.zero_without(SCOPE.increase(names.REQUESTS, f'{q.OUTCOME}="refused"')), "refused"), steps=((None, GREEN), (1.0, YELLOW)), decimals=0),
        figure("Streams completed", "Completed, of completed and failed streams. A stream that the app left is not counted.", "percentunit", Query(SCOPE.share(names.STREAMS, q.COMPLETED, q.ENDED, over=q.RANGE, counted="increase"), "completed"), steps=((None, RED), (0.95, YELLOW), (0.99, GREEN)), empty="No streams", decimals=2, links=[FAILED_LINK]),
        figure("Time to first token, p95", "From a request's arrival to the first output of its stream.", "s", Query(SCOPE.quantile(0.95, names.TIME_TO_FIRST_TOKEN, over=q.RANGE), "p95"), steps=((None, GREEN), (5.0, YELLOW), (10.0, RED)), empty="No streams", links=[TRACES_LINK]),
        figure("Tokens a second of a stream", "Output tokens per second after the first: mean of all streams.", "short", Query(SCOPE.mean(names.TOKENS_PER_SECOND, over=q.RANGE), "mean"), empty="No streams", decimals=1),
        figure("Tokens", "Input and output tokens as the upstream reported them.", "short", Query(SCOPE.increase(names.TOKEN_USAGE, suffix="_sum"), "tokens"), empty="No usage"),
        figure("Pods", "Pods whose sidecar reports now.", "short", Query(f"count({SCOPE.select(names.BUILD_INFO)})", "pods"), steps=((None, BLUE),), empty="None", decimals=0),
    )),))  # fmt: skip


def traffic() -> Row:
    return Row("Traffic and errors", (
        (8, (
            series("Requests by outcome", "Requests per second by how they ended. Refused: the sidecar answered itself. Cancelled: the app left.", "reqps", Query(SCOPE.rate(names.REQUESTS, by=q.OUTCOME), f"{{{{{q.OUTCOME}}}}}"), stacked=True, links=[FAILED_LINK]),
            series("Error rate", "Failed, of completed and failed requests.", "percentunit", Query(SCOPE.share(names.REQUESTS, q.FAILED, q.ENDED), "failed"), steps=((None, GREEN), (0.05, RED)), links=[FAILED_LINK]),
            series("Errors by type", "Failed and refused requests per second by what went wrong; docs/health.md explains each type.", "reqps", Query(q.zero_without(SCOPE.rate(names.REQUESTS, f'{q.OUTCOME}=~"failed|refused"', by=q.ERROR), q.ERROR), f"{{{{{q.ERROR}}}}}"), stacked=True, links=[FAILED_LINK]),
        )),
        (8, (
            series("Requests by operation", "Requests per second by the API's operation.", "reqps", Query(SCOPE.rate(names.REQUESTS, by=q.OPERATION), f"{{{{{q.OPERATION}}}}}"), stacked=True),
            series("Retries", "Attempts after a request's first, per second.", "ops", Query(q.zero_without(SCOPE.rate(names.RETRIES)), "retries")),
            series("Open requests", "Requests that are open, by pod.", "short", Query(f"sum by ({q.POD}) ({SCOPE.select(names.ACTIVE_REQUESTS)})", f"{{{{{q.POD}}}}}"), stacked=True, decimals=0),
        )),
    ))  # fmt: skip


def latency() -> Row:
    return Row("Latency", (
        (8, (
            series("Duration", "From a request's arrival to the last byte of its answer. Points are single requests: each leads to its trace.", "s", *quantiles(names.OPERATION_DURATION), links=[TRACES_LINK]),
            series("Time to first token", "From a request's arrival to the first output of its stream.", "s", *quantiles(names.TIME_TO_FIRST_TOKEN), steps=((None, GREEN), (10.0, RED)), links=[TRACES_LINK]),
            series("Time to first chunk", "From a request's arrival to the first chunk of its stream, with output or without: what lies between it and the first token is the model.", "s", *quantiles(names.TIME_TO_FIRST_CHUNK), links=[TRACES_LINK]),
        )),
        (8, (
            spread("Spread of the duration", "Requests by duration: two humps are two kinds of requests.", "s", Query(SCOPE.rate(names.OPERATION_DURATION, by="le", suffix="_bucket"), "{{le}}")),
            series("Time per output token", "Time after a stream's first token, divided by the tokens after it.", "s", *quantiles(names.TIME_PER_OUTPUT_TOKEN), links=[TRACES_LINK]),
            series("Gaps between chunks", "From one chunk of a stream to the next, as the app sees them. A p99 far above the median is a stream that stutters.", "s", *quantiles(names.TIME_PER_OUTPUT_CHUNK), links=[TRACES_LINK]),
        )),
    ))  # fmt: skip


def streams() -> Row:
    return Row("Streams and tokens", (
        (8, (
            series("Streams by outcome", "Streams per second by how they ended.", "ops", Query(SCOPE.rate(names.STREAMS, by=q.OUTCOME), f"{{{{{q.OUTCOME}}}}}"), stacked=True, links=[FAILED_LINK]),
            series("Chunks", "Chunks per second that went down to the app.", "ops", Query(SCOPE.rate(names.STREAM_CHUNKS), "chunks")),
            series("Duration of streams", "From a stream's first byte to its end, by how it ended: p95.", "s", Query(SCOPE.quantile(0.95, names.STREAM_DURATION, by=q.OUTCOME), f"{{{{{q.OUTCOME}}}}}"), links=[TRACES_LINK]),
        )),
        (8, (
            series("Tokens", "Tokens per second as the upstream reported them.", "short", Query(SCOPE.rate(names.TOKEN_USAGE, by=q.TOKENS, suffix="_sum"), f"{{{{{q.TOKENS}}}}}"), stacked=True),
            series("Tokens per request", "Input and output tokens of a request: mean.", "short", Query(SCOPE.mean(names.TOKEN_USAGE, by=q.TOKENS), f"{{{{{q.TOKENS}}}}}")),
            series("Tokens per second of a stream", "Output tokens per second after the first: the median, and the slowest twentieth.", "short", Query(SCOPE.quantile(0.5, names.TOKENS_PER_SECOND), "p50"), Query(SCOPE.quantile(0.05, names.TOKENS_PER_SECOND), "p5")),
        )),
    ))  # fmt: skip


def sidecar() -> Row:
    return Row("Sidecars", ((7, (
        series("Connections to the upstream", "Open connections, active or idle.", "short", Query(f"sum by ({q.STATE}) ({SCOPE.select(names.UPSTREAM_CONNECTIONS)})", f"{{{{{q.STATE}}}}}"), stacked=True, decimals=0),
        series("Configurations found", "Per minute: applied, or refused while the last good one goes on serving.", "cpm", Query(q.zero_without(f"60 * {SCOPE.rate(names.CONFIG_RELOADS, by=q.OUTCOME)}", q.OUTCOME), f"{{{{{q.OUTCOME}}}}}")),
        series("Versions", "Pods by the sidecar's version.", "short", Query(f"count by (version) ({SCOPE.select(names.BUILD_INFO)})", "{{version}}"), stacked=True, decimals=0),
    )),))  # fmt: skip


def trouble() -> Row:
    return Row("Traces", ((9, (
        traces("Requests that failed", "The newest traces with an error. Needs traces by OTLP.", FAILED_TRACES),
        traces("Requests", "The newest traces of this workload, with or without an error.", ALL_TRACES),
    )),))  # fmt: skip


def made() -> str:
    """The dashboard's JSON."""
    return laid_out(
        UID,
        "Inference Sidecar / Workload",
        "The sidecars of one workload: traffic, errors, latency, streams and tokens, by pod and model. Serves series that were scraped and those sent by OTLP.",
        VARIABLES,
        [
            dashboard.DashboardLink("Platform")
            .type(models.DashboardLinkType.LINK)
            .url("/d/inference-sidecar-platform")
            .include_vars(True)
            .keep_time(True)
        ],
        [overview(), traffic(), latency(), streams(), sidecar(), trouble()],
    )
