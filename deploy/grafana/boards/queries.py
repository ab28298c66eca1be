"""PromQL for dashboards and alerts, from the names that the code itself uses.

Enters: metrics and labels. Leaves: expressions. Pure. They read scraped series and those sent by OTLP alike, since both
have the same labels, and they are no less true where nothing happened: a ratio is 0 where there were requests and no
errors, and has no value where there was no request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inference_operator.telemetry import names as operator_names
from inference_sidecar.telemetry import names
from inference_sidecar.telemetry.names import Metric, label

NAMESPACE: Final = label("k8s.namespace.name")
WORKLOAD: Final = label("k8s.workload.name")
KIND: Final = label("k8s.workload.kind")
POD: Final = label("k8s.pod.name")
VERSION: Final = label("service.version")
MODEL: Final = label(names.REQUEST_MODEL)
OUTCOME: Final = label(names.OUTCOME)
ERROR: Final = label(names.ERROR_TYPE)
TOKENS: Final = label(names.TOKEN_TYPE)
STATE: Final = label(names.STATE)
OPERATION: Final = label(names.OPERATION)

RECONCILES: Final = operator_names.RECONCILES.prometheus
RECONCILE_DURATION: Final = operator_names.RECONCILE_DURATION.prometheus
PODS: Final = operator_names.PODS.prometheus
ADMISSIONS: Final = operator_names.ADMISSIONS.prometheus
ADMISSION_DURATION: Final = operator_names.ADMISSION_DURATION.prometheus
CERTIFICATE_EXPIRY: Final = operator_names.CERTIFICATE_EXPIRY.prometheus
CONFIG_NAMESPACE: Final = operator_names.CONFIG_NAMESPACE
CONFIG: Final = operator_names.CONFIG
REASON: Final = operator_names.REASON
CERTIFICATE: Final = operator_names.CERTIFICATE

ENDED: Final = f'{OUTCOME}=~"completed|failed"'
"""Requests and streams that tell how the service does: a refusal is the app's mistake, a cancellation its will."""
FAILED: Final = f'{OUTCOME}="failed"'
COMPLETED: Final = f'{OUTCOME}="completed"'

STEP: Final = "$__rate_interval"
RANGE: Final = "$__range"


@dataclass(frozen=True)
class Scope:
    """Which series a dashboard shows: matchers of every metric, and those of metrics that know the model."""

    everywhere: tuple[str, ...] = ()
    of_models: tuple[str, ...] = ()

    def select(self, metric: Metric, *matchers: str, suffix: str = "") -> str:
        """The metric's series: `name{...}`. `suffix`: that of a histogram's part."""
        of_models = self.of_models if names.REQUEST_MODEL in metric.attributes else ()
        inner = ",".join((*self.everywhere, *of_models, *matchers))
        return f"{metric.prometheus}{suffix}" + (f"{{{inner}}}" if inner else "")

    def rate(self, metric: Metric, *matchers: str, by: str = "", suffix: str = "", over: str = STEP) -> str:
        """Per second, summed up."""
        return f"{total(by)}(rate({self.select(metric, *matchers, suffix=suffix)}[{over}]))"

    def increase(
        self, metric: Metric, *matchers: str, by: str = "", suffix: str = "", over: str = RANGE
    ) -> str:
        """How many within the time, summed up."""
        return f"{total(by)}(increase({self.select(metric, *matchers, suffix=suffix)}[{over}]))"

    def share(
        self, metric: Metric, part: str, whole: str, by: str = "", over: str = STEP, counted: str = "rate"
    ) -> str:
        """What part of the whole, 0 to 1: 0 where the part has no series yet, no value where the whole is 0."""

        def counts(matcher: str) -> str:
            return f"{total(by)}({counted}({self.select(metric, matcher)}[{over}]))"

        return f"({counts(part)} or 0 * {counts(whole)}) / ({counts(whole)} > 0)"

    def quantile(
        self, fraction: float, metric: Metric, *matchers: str, by: str = "", over: str = STEP
    ) -> str:
        """The quantile of a histogram. Of nothing it would be NaN, which is no value to show."""
        labels = f"{by}, le" if by else "le"
        selected = self.select(metric, *matchers, suffix="_bucket")
        return quantile(fraction, f"sum by ({labels}) (rate({selected}[{over}]))")

    def mean(self, metric: Metric, by: str = "", over: str = STEP) -> str:
        """The mean of a histogram; no value where there was none."""
        sums, counts = (self.rate(metric, by=by, suffix=suffix, over=over) for suffix in ("_sum", "_count"))
        return f"{sums} / ({counts} > 0)"

    def cost(self, by: str = "", over: str = RANGE) -> str:
        """In the currency of the prices: each token type at its model's price for a million."""
        return f"{total(by)}({self._priced('increase', over)}) / 1e6"

    def cost_per_hour(self, by: str = "") -> str:
        """The same at the pace of now."""
        return f"{total(by)}({self._priced('rate', STEP)}) * 3600 / 1e6"

    def _priced(self, counted: str, over: str) -> str:
        # Four sets of series without a label in common: `or` unites them, however many of them there are.
        return " or ".join(
            f"{counted}({self.select(names.TOKEN_USAGE, kind, which, suffix='_sum')}[{over}]) * ${price}"
            for which, prices in (
                (f'{MODEL}!~"$special_models"', ("input_price", "output_price")),
                (f'{MODEL}=~"$special_models"', ("special_input_price", "special_output_price")),
            )
            for kind, price in zip((f'{TOKENS}="input"', f'{TOKENS}="output"'), prices, strict=True)
        )


def quantile(fraction: float, buckets: str) -> str:
    return f"histogram_quantile({fraction}, {buckets}) >= 0"


def total(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def zero_without(expression: str, label: str = "") -> str:
    """A sum, or 0 where nothing was counted at all; `label`: by which it is summed up, `none` for that 0."""
    zero = f'label_replace(vector(0), "{label}", "none", "", "")' if label else "vector(0)"
    return f"{expression} or on() {zero}"
