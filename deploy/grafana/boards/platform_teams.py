"""The dashboard for those who run the platform: all namespaces, what they get and what it costs.

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
    grid,
    series,
    source,
    traces,
    typed,
)  # fmt: skip
from boards.workload import UID as WORKLOAD_UID
from inference_sidecar.telemetry import names

UID: Final = "inference-sidecar-platform"
SCOPE: Final = q.Scope(('job=~"$job"', f'{q.NAMESPACE}=~"$namespace"'), (f'{q.MODEL}=~"$model"',))
OPERATOR: Final = f'{{{q.CONFIG_NAMESPACE}=~"$namespace"}}'

IN_SCOPE: Final = (
    'resource.k8s.namespace.name =~ "${namespace:regex}" && span.gen_ai.request.model =~ "${model:regex}"'
)
FAILED_TRACES: Final = f"{{ span.gen_ai.provider.name != nil && status = error && {IN_SCOPE} }}"
SLOW_TRACES: Final = f"{{ span.gen_ai.provider.name != nil && duration > 10s && {IN_SCOPE} }}"

VARIABLES: Final = (
    source("datasource", "Prometheus", "prometheus"),
    source("tempo", "Traces", "tempo"),
    choice("job", "Job", "The way in: a scrape job, or the service's name where series come by OTLP. Where one Prometheus has both, choose one, or all is counted twice.", f"label_values({names.BUILD_INFO.prometheus}, job)"),
    choice("namespace", "Namespace", "Namespaces of the apps.", f'label_values({names.BUILD_INFO.prometheus}{{job=~"$job"}}, {q.NAMESPACE})'),
    choice("model", "Model", "Models as the apps asked for them.", f'label_values({names.REQUESTS.prometheus}{{job=~"$job",{q.NAMESPACE}=~"$namespace"}}, {q.MODEL})'),
    typed("input_price", "Input price", "Of a million input tokens, for all models but the special ones. Yours: the default is an example.", "0.15"),
    typed("output_price", "Output price", "Of a million output tokens, for all models but the special ones.", "0.60"),
    typed("special_models", "Special models", "Regular expression of the models that have prices of their own.", "gpt-4.*|o[0-9].*"),
    typed("special_input_price", "Their input price", "Of a million input tokens, for the special models.", "2.50"),
    typed("special_output_price", "Their output price", "Of a million output tokens, for the special models.", "10"),
)  # fmt: skip

ERROR_STEPS = ((None, GREEN), (0.01, YELLOW), (0.05, RED))
COMPLETION_STEPS = ((None, RED), (0.95, YELLOW), (0.99, GREEN))
FIRST_TOKEN_STEPS = ((None, GREEN), (5.0, YELLOW), (10.0, RED))
FAILED_LINK = explore("Traces of what failed", FAILED_TRACES)
SLOW_LINK = explore("Traces that took more than 10 s", SLOW_TRACES)


def overview() -> Row:
    return Row("At a glance, over the time shown", ((4, (
        figure("Requests", "Requests that ended, by whatever end.", "short", Query(SCOPE.increase(names.REQUESTS), "requests"), decimals=0),
        figure("Error rate", "Failed, of completed and failed. Refused requests (the app's mistake) and cancelled ones (the app left) are not counted. 0 means requests without errors; without requests there is no rate.", "percentunit", Query(SCOPE.share(names.REQUESTS, q.FAILED, q.ENDED, over=q.RANGE, counted="increase"), "failed"), steps=ERROR_STEPS, decimals=2, links=[FAILED_LINK]),
        figure("Streams completed", "Completed, of completed and failed streams. A stream that the app left is not counted here, while completion_rate in /health counts it as not completed.", "percentunit", Query(SCOPE.share(names.STREAMS, q.COMPLETED, q.ENDED, over=q.RANGE, counted="increase"), "completed"), steps=COMPLETION_STEPS, empty="No streams", decimals=2, links=[FAILED_LINK]),
        figure("Time to first token, p95", "From a request's arrival to the first output of its stream.", "s", Query(SCOPE.quantile(0.95, names.TIME_TO_FIRST_TOKEN, over=q.RANGE), "p95"), steps=FIRST_TOKEN_STEPS, empty="No streams", links=[SLOW_LINK]),
        figure("Duration, p95", "From a request's arrival to the last byte of its answer.", "s", Query(SCOPE.quantile(0.95, names.OPERATION_DURATION, over=q.RANGE), "p95"), links=[SLOW_LINK]),
        figure("Tokens", "Input and output tokens as upstreams reported them; never an estimate.", "short", Query(SCOPE.increase(names.TOKEN_USAGE, suffix="_sum"), "tokens"), empty="No usage"),
        figure("Cost", "Tokens at the prices above. Discounts, such as for cached input, are not in it.", "currencyUSD", Query(SCOPE.cost(), "cost"), empty="No usage", decimals=2),
        figure("Sidecars", "Processes that report now.", "short", Query(f"count({SCOPE.select(names.BUILD_INFO)})", "sidecars"), steps=((None, BLUE),), empty="None", decimals=0),
    )),))  # fmt: skip


def traffic() -> Row:
    return Row("Traffic and errors", (
        (8, (
            series("Requests by outcome", "Requests per second by how they ended. Refused: the sidecar answered itself and nothing went up. Cancelled: the app left.", "reqps", Query(SCOPE.rate(names.REQUESTS, by=q.OUTCOME), f"{{{{{q.OUTCOME}}}}}"), stacked=True, links=[FAILED_LINK]),
            series("Requests by namespace", "Requests per second of each namespace.", "reqps", Query(SCOPE.rate(names.REQUESTS, by=q.NAMESPACE), f"{{{{{q.NAMESPACE}}}}}"), stacked=True),
            series("Requests by model", "Requests per second of each model, as the apps asked for it.", "reqps", Query(SCOPE.rate(names.REQUESTS, by=q.MODEL), f"{{{{{q.MODEL}}}}}"), stacked=True),
        )),
        (8, (
            series("Error rate by namespace", "Failed, of completed and failed requests.", "percentunit", Query(SCOPE.share(names.REQUESTS, q.FAILED, q.ENDED, by=q.NAMESPACE), f"{{{{{q.NAMESPACE}}}}}"), steps=ERROR_STEPS, links=[FAILED_LINK]),
            series("Errors by type", "Failed and refused requests per second by what went wrong; docs/health.md explains each type. 0 where all went well.", "reqps", Query(q.zero_without(SCOPE.rate(names.REQUESTS, f'{q.OUTCOME}=~"failed|refused"', by=q.ERROR), q.ERROR), f"{{{{{q.ERROR}}}}}"), stacked=True, links=[FAILED_LINK]),
            series("Retries", "Attempts after a request's first, per second. The app sees none of them; the upstream's limits do.", "ops", Query(q.zero_without(SCOPE.rate(names.RETRIES, by=q.MODEL), q.MODEL), f"{{{{{q.MODEL}}}}}"), stacked=True),
            series("Open requests", "Requests that are open, by namespace.", "short", Query(f"sum by ({q.NAMESPACE}) ({SCOPE.select(names.ACTIVE_REQUESTS)})", f"{{{{{q.NAMESPACE}}}}}"), stacked=True, decimals=0),
        )),
    ))  # fmt: skip


def latency() -> Row:
    def quantiles(metric: names.Metric) -> list[Query]:
        return [
            Query(SCOPE.quantile(at, metric), f"p{at * 100:g}", exemplars=True) for at in (0.5, 0.95, 0.99)
        ]

    return Row("Latency", (
        (8, (
            series("Duration", "From a request's arrival to the last byte of its answer. Points are single requests: each leads to its trace.", "s", *quantiles(names.OPERATION_DURATION), links=[SLOW_LINK]),
            series("Time to first token", "From a request's arrival to the first output of its stream.", "s", *quantiles(names.TIME_TO_FIRST_TOKEN), steps=FIRST_TOKEN_STEPS, links=[SLOW_LINK]),
            series("Time per output token", "Time after a stream's first token, divided by the tokens after it.", "s", *quantiles(names.TIME_PER_OUTPUT_TOKEN), links=[SLOW_LINK]),
        )),
        (8, (
            series("Duration by model, p95", "The same by model: reasoning models take longer than others.", "s", Query(SCOPE.quantile(0.95, names.OPERATION_DURATION, by=q.MODEL), f"{{{{{q.MODEL}}}}}", exemplars=True), links=[SLOW_LINK]),
            series("Time to first token by model, p95", "The same by model: one that is slow alone is slow at the provider.", "s", Query(SCOPE.quantile(0.95, names.TIME_TO_FIRST_TOKEN, by=q.MODEL), f"{{{{{q.MODEL}}}}}", exemplars=True), links=[SLOW_LINK]),
            series("Tokens per second of a stream", "Output tokens per second after the first, as one reader of a stream sees them: the median, and the slowest twentieth.", "short", Query(SCOPE.quantile(0.5, names.TOKENS_PER_SECOND), "p50"), Query(SCOPE.quantile(0.05, names.TOKENS_PER_SECOND), "p5"), links=[SLOW_LINK]),
        )),
    ))  # fmt: skip


def streams() -> Row:
    return Row("Streams", ((8, (
        series("Streams completed", "Completed, of completed and failed streams, by namespace. A failed one was cut by the upstream or by a deadline, and the app was told so.", "percentunit", Query(SCOPE.share(names.STREAMS, q.COMPLETED, q.ENDED, by=q.NAMESPACE), f"{{{{{q.NAMESPACE}}}}}"), most=1, steps=COMPLETION_STEPS, links=[FAILED_LINK]),
        series("Streams by outcome", "Streams per second by how they ended.", "ops", Query(SCOPE.rate(names.STREAMS, by=q.OUTCOME), f"{{{{{q.OUTCOME}}}}}"), stacked=True, links=[FAILED_LINK]),
        series("Duration of streams", "From a stream's first byte to its end, by how it ended: mean.", "s", Query(SCOPE.mean(names.STREAM_DURATION, by=q.OUTCOME), f"{{{{{q.OUTCOME}}}}}"), links=[SLOW_LINK]),
    )),))  # fmt: skip


def tokens() -> Row:
    sums = names.TOKEN_USAGE
    by_workload = f"{q.NAMESPACE}, {q.WORKLOAD}"
    link = dashboard.DashboardLink("This workload").url(
        f"/d/{WORKLOAD_UID}?${{datasource:queryparam}}&${{tempo:queryparam}}&${{job:queryparam}}"
        f"&var-namespace=${{__data.fields.Namespace}}&var-workload=${{__data.fields.Workload}}&${{__url_time_range}}"
    )
    return Row("Tokens and cost", (
        (8, (
            series("Tokens", "Tokens per second as upstreams reported them.", "short", Query(SCOPE.rate(sums, by=q.TOKENS, suffix="_sum"), f"{{{{{q.TOKENS}}}}}"), stacked=True),
            series("Tokens by namespace", "Input and output tokens per second of each namespace.", "short", Query(SCOPE.rate(sums, by=q.NAMESPACE, suffix="_sum"), f"{{{{{q.NAMESPACE}}}}}"), stacked=True),
            series("Tokens by model", "Input and output tokens per second of each model.", "short", Query(SCOPE.rate(sums, by=q.MODEL, suffix="_sum"), f"{{{{{q.MODEL}}}}}"), stacked=True),
        )),
        (8, (
            series("Cost an hour by namespace", "What an hour at the present pace costs, at the prices above.", "currencyUSD", Query(SCOPE.cost_per_hour(by=q.NAMESPACE), f"{{{{{q.NAMESPACE}}}}}"), stacked=True),
            series("Cost an hour by model", "What an hour costs, by model.", "currencyUSD", Query(SCOPE.cost_per_hour(by=q.MODEL), f"{{{{{q.MODEL}}}}}"), stacked=True),
        )),
        (10, (
            grid("Cost by namespace and model", "Over the time shown, at the prices above.", {
                "Cost": (Query(SCOPE.cost(by=f"{q.NAMESPACE}, {q.MODEL}"), ""), "currencyUSD"),
                "Input tokens": (Query(SCOPE.increase(sums, f'{q.TOKENS}="input"', by=f"{q.NAMESPACE}, {q.MODEL}", suffix="_sum"), ""), "short"),
                "Output tokens": (Query(SCOPE.increase(sums, f'{q.TOKENS}="output"', by=f"{q.NAMESPACE}, {q.MODEL}", suffix="_sum"), ""), "short"),
            }, {q.NAMESPACE: "Namespace", q.MODEL: "Model"}, {}),
            grid("Workloads", "Over the time shown. A workload's name leads to its own dashboard.", {
                "Requests": (Query(SCOPE.increase(names.REQUESTS, by=by_workload), ""), "short"),
                "Error rate": (Query(SCOPE.share(names.REQUESTS, q.FAILED, q.ENDED, by=by_workload, over=q.RANGE, counted="increase"), ""), "percentunit"),
                "First token, p95": (Query(SCOPE.quantile(0.95, names.TIME_TO_FIRST_TOKEN, by=by_workload, over=q.RANGE), ""), "s"),
                "Tokens": (Query(SCOPE.increase(sums, by=by_workload, suffix="_sum"), ""), "short"),
            }, {q.NAMESPACE: "Namespace", q.WORKLOAD: "Workload"}, {"Workload": link}),
        )),
    ))  # fmt: skip


def rollout() -> Row:
    state = f"max by ({q.CONFIG_NAMESPACE}, {q.CONFIG})"

    def pods(word: str) -> str:
        return f'{q.PODS}{{{q.CONFIG_NAMESPACE}=~"$namespace",{q.STATE}="{word}"}}'

    return Row("Configuration and rollout", (
        (8, (
            series("Pods by state", "Pods of all InferenceConfigs. Matched: the selector takes them; injected: they have the sidecar; current: it runs with the newest configuration; stale: not yet; refused: it did not take it; unreachable: it does not answer. States overlap: an injected pod is matched, too.", "short", Query(f"sum by ({q.STATE}) (max by ({q.CONFIG_NAMESPACE}, {q.CONFIG}, {q.STATE}) ({q.PODS}{OPERATOR}))", f"{{{{{q.STATE}}}}}"), decimals=0),
            grid("Rollout of each InferenceConfig", "Pods of each configuration now. All is well where current equals injected.", {
                "Stale": (Query(f"{state} ({pods('stale')})", ""), "short"),
                "Refused": (Query(f"{state} ({pods('refused')})", ""), "short"),
                "Unreachable": (Query(f"{state} ({pods('unreachable')})", ""), "short"),
                "Current": (Query(f"{state} ({pods('current')})", ""), "short"),
                "Injected": (Query(f"{state} ({pods('injected')})", ""), "short"),
            }, {q.CONFIG_NAMESPACE: "Namespace", q.CONFIG: "InferenceConfig"}, {}),
            series("Configurations found by sidecars", "Per minute: applied, or refused while the last good one goes on serving.", "cpm", Query(q.zero_without(f"60 * {SCOPE.rate(names.CONFIG_RELOADS, by=q.OUTCOME)}", q.OUTCOME), f"{{{{{q.OUTCOME}}}}}")),
        )),
        (8, (
            series("Connections to upstreams", "Open connections of all sidecars, active or idle.", "short", Query(f"sum by ({q.STATE}) ({SCOPE.select(names.UPSTREAM_CONNECTIONS)})", f"{{{{{q.STATE}}}}}"), stacked=True, decimals=0),
            series("Versions", "Sidecars by version: an upgrade takes new pods.", "short", Query(f"count by (version) ({SCOPE.select(names.BUILD_INFO)})", "{{version}}"), stacked=True, decimals=0),
        )),
    ))  # fmt: skip


def operator() -> Row:
    return Row("Operator and injector", (
        (7, (
            series("Reconciles", "Per minute, by outcome.", "cpm", Query(f"60 * sum by ({q.OUTCOME}) (rate({q.RECONCILES}[{q.STEP}]))", f"{{{{{q.OUTCOME}}}}}"), stacked=True),
            series("Duration of reconciles", "From the start of a reconcile to its end: median and p95.", "s", *(Query(q.quantile(at, f"sum by (le) (rate({q.RECONCILE_DURATION}_bucket[{q.STEP}]))"), f"p{at * 100:g}") for at in (0.5, 0.95))),
            series("Admissions", "Pods at admission per minute, by what became of them, and why where they did not get a sidecar.", "cpm", Query(f"60 * sum by ({q.OUTCOME}, {q.REASON}) (rate({q.ADMISSIONS}[{q.STEP}]))", f"{{{{{q.OUTCOME}}}}} {{{{{q.REASON}}}}}"), stacked=True),
            series("Duration of admissions", "Median and p95. The API server waits for it whenever a pod is made.", "s", *(Query(q.quantile(at, f"sum by (le) (rate({q.ADMISSION_DURATION}_bucket[{q.STEP}]))"), f"p{at * 100:g}") for at in (0.5, 0.95))),
            figure("Certificates end in", "Leaf and authority of the webhook. Renewed when two thirds of their life are over; without them no pod gets a sidecar.", "s", Query(f"min by ({q.CERTIFICATE}) ({q.CERTIFICATE_EXPIRY}) - time()", f"{{{{{q.CERTIFICATE}}}}}", ), steps=((None, RED), (3 * 86400.0, YELLOW), (14 * 86400.0, GREEN)), empty="No data"),
        )),
    ))  # fmt: skip


def trouble() -> Row:
    return Row("Traces", ((9, (
        traces("Requests that failed", "The newest traces with an error, from any sidecar. Needs traces by OTLP.", FAILED_TRACES),
        traces("Slow requests", "The newest traces of more than 10 s.", SLOW_TRACES),
    )),))  # fmt: skip


def made() -> str:
    """The dashboard's JSON."""
    return laid_out(
        UID,
        "Inference Sidecar / Platform",
        "All sidecars of a cluster: traffic, errors, latency, tokens and their cost, rollout of configurations. Serves series that were scraped and those sent by OTLP.",
        VARIABLES,
        [
            dashboard.DashboardLink("A single workload")
            .type(models.DashboardLinkType.LINK)
            .url(f"/d/{WORKLOAD_UID}")
            .include_vars(True)
            .keep_time(True)
        ],
        [overview(), traffic(), latency(), streams(), tokens(), rollout(), operator(), trouble()],
    )
