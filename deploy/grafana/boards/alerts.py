"""The alert rules: what is asked, from where on it is trouble, and what to do then.

Enters: the names of metrics, thresholds. Leaves: rules as Prometheus and the Prometheus operator take them. In the
chart's copy a threshold stands as `@name@`, for its values to fill in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from boards import queries as q
from inference_sidecar.telemetry import names

GROUP: Final = "inference-sidecar"
PLACE: Final = re.compile(r"@(\w+)@")
OWNERS: Final = f"{q.NAMESPACE}, {q.WORKLOAD}"
WINDOW: Final = "5m"
SCOPE: Final = q.Scope()

FIRST_TOKENS: Final = SCOPE.rate(
    names.TIME_TO_FIRST_TOKEN, by=f"{q.NAMESPACE}, {q.MODEL}, le", suffix="_bucket", over=WINDOW
)

WORKLOAD: Final = f"{{{{ $labels.{q.NAMESPACE} }}}}/{{{{ $labels.{q.WORKLOAD} }}}}"
CONFIG: Final = f"InferenceConfig {{{{ $labels.{q.CONFIG_NAMESPACE} }}}}/{{{{ $labels.{q.CONFIG} }}}}"


@dataclass(frozen=True)
class Alert:
    """One rule. `expr` is true while there is trouble; `lasting`: how long it has to be before anyone is told."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str
    description: str

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.description},
        }


def enough(metric: names.Metric, by: str, suffix: str = "", matcher: str = q.ENDED) -> str:
    """Little traffic says nothing: one failure of two requests is no outage."""
    matchers = (matcher,) if matcher else ()
    return f"{SCOPE.increase(metric, *matchers, by=by, suffix=suffix, over=WINDOW)} >= @minimumRequests@"


def error_rate(name: str, threshold: str, lasting: str, severity: str) -> Alert:
    share = SCOPE.share(names.REQUESTS, q.FAILED, q.ENDED, by=OWNERS, over=WINDOW)
    return Alert(
        name,
        f"{share} > @{threshold}@ and on ({OWNERS}) {enough(names.REQUESTS, OWNERS)}",
        lasting,
        severity,
        f"{WORKLOAD}: {{{{ $value | humanizePercentage }}}} of requests fail.",
        "Of the requests that completed or failed within five minutes, more than @"
        f"{threshold}@ (as a fraction) failed. Look at `Errors by type` of the dashboard Inference Sidecar / Workload:"
        " upstream_http_401 or 403: the key is wrong or spent; upstream_http_429: the limits of the account are reached;"
        " upstream_http_5xx, upstream_timeout, upstream_connect_error: the provider or the way to it, see its status page"
        " and the pods' egress rules. The sidecar's log has a line for each request.",
    )


def pods(name: str, state: str, lasting: str, severity: str, summary: str, description: str) -> Alert:
    by = f"{q.CONFIG_NAMESPACE}, {q.CONFIG}"
    expr = f'max by ({by}) ({q.PODS}{{{q.STATE}="{state}"}}) > @pods@'
    return Alert(name, expr, lasting, severity, f"{CONFIG}: {{{{ $value }}}} {summary}", description)


def certificate(name: str, threshold: str, severity: str) -> Alert:
    return Alert(
        name,
        f"(min by ({q.CERTIFICATE}) ({q.CERTIFICATE_EXPIRY}) - time()) / 86400 < @{threshold}@",
        "15m",
        severity,
        "The webhook's {{ $labels.certificate }} ends in {{ $value | humanize }} days.",
        "It is renewed when two thirds of its life are over, so something has kept it from that. When it ends, the API"
        " server trusts the injector no more, and pods that ask for a sidecar are not made. Look at the operator's log and at"
        " its rights on the Secret of the certificates; with certificates of your own or of cert-manager, look at who"
        " issues them.",
    )


ALERTS: Final = (
    Alert(
        "InferenceStreamCompletionLow",
        f"{SCOPE.share(names.STREAMS, q.COMPLETED, q.ENDED, by=OWNERS, over=WINDOW)} < @streamCompletion@"
        f" and on ({OWNERS}) {enough(names.STREAMS, OWNERS)}",
        "10m",
        "warning",
        f"{WORKLOAD}: only {{{{ $value | humanizePercentage }}}} of streams complete.",
        "The others were cut by the upstream, by a proxy on the way or by a deadline, after the first bytes had gone"
        " down, where no retry is possible. Streams that the app left are not counted. Look at `Streams by outcome` and"
        " `Errors by type`: upstream_idle_timeout or upstream_stream_timeout: raise"
        " `http.stream_idle_timeout_secs` or the stream's deadline where the model thinks longer; upstream_disconnected:"
        " look for a proxy or a gateway that ends idle connections.",
    ),
    Alert(
        "InferenceTimeToFirstTokenHigh",
        f"histogram_quantile(0.95, {FIRST_TOKENS})"
        f" > @timeToFirstTokenSeconds@ and on ({q.NAMESPACE}, {q.MODEL})"
        f" {enough(names.TIME_TO_FIRST_TOKEN, f'{q.NAMESPACE}, {q.MODEL}', '_count', '')}",
        "10m",
        "warning",
        f"{{{{ $labels.{q.NAMESPACE} }}}}, {{{{ $labels.{q.MODEL} }}}}: p95 of the time to first token is {{{{ $value | humanizeDuration }}}}.",
        "More than @timeToFirstTokenSeconds@ s pass for one stream in twenty before it says anything. A reasoning model may"
        " well take that long: raise the threshold for it. Else look at `Duration by model`: one model alone is the"
        " provider's load; all of them is the way there, or retries (`Retries`), which count as waiting.",
    ),
    error_rate("InferenceErrorRateHigh", "errorRate", "10m", "warning"),
    error_rate("InferenceErrorRateCritical", "errorRateCritical", "5m", "critical"),
    pods(
        "InferencePodsStale", "stale", "15m", "warning",
        "pods still run with an older configuration.",
        "A changed configuration reaches a pod within seconds. `kubectl describe infc` names the pods and says what they"
        " wait for: a setting that takes new pods (restart the workload), or a kubelet that does not update the volume"
        " (look at the node).",
    ),
    pods(
        "InferencePodsRefused", "refused", "5m", "warning",
        "pods have refused the newest configuration.",
        "They go on with the last good one. `kubectl describe infc` has the reason that they gave; most often a reference to"
        " a Secret's key with nothing useful in it, or a sidecar older than the setting.",
    ),
    pods(
        "InferencePodsUnreachable", "unreachable", "15m", "warning",
        "pods do not answer the operator.",
        "Whether they run with the newest configuration is unknown. Look whether the pods are well, and whether a"
        " NetworkPolicy lets the operator reach their admin port (3001 unless an annotation says otherwise).",
    ),
    certificate("InferenceCertificateExpiresSoon", "certificateDays", "warning"),
    certificate("InferenceCertificateExpiresNow", "certificateDaysCritical", "critical"),
)  # fmt: skip


def rules() -> dict[str, Any]:
    """The file of rules, thresholds as `@name@`."""
    return {"groups": [{"name": GROUP, "rules": [alert.rule() for alert in ALERTS]}]}


def filled(text: str, thresholds: Mapping[str, float]) -> str:
    """`text` with each `@name@` replaced by its threshold. Raises KeyError for a name that has none."""
    return PLACE.sub(lambda found: f"{thresholds[found[1]]:g}", text)
