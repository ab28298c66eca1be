"""Every name that operator and injector tell by metrics, with unit, kind, attributes and bounds.

docs/operator.md has this as a table, dashboards and alerts are written against it. The names of Prometheus come out
alike whether a process is scraped or sends OTLP to a Prometheus that adds suffixes, which is its default. Pure.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

OPERATOR: Final = "inference-operator"
INJECTOR: Final = "inference-injector"
"""`service.name` of the two, where the environment has no other."""
SCOPE: Final = "inference_operator"

OUTCOME: Final = "outcome"
REASON: Final = "reason"
# Not `namespace`: a scraper sets that to the operator's own, and would rename this one.
CONFIG_NAMESPACE: Final = "config_namespace"
CONFIG: Final = "config"
STATE: Final = "state"
CERTIFICATE: Final = "certificate"
VERSION: Final = "version"


class Kind(enum.StrEnum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `unit` is UCUM's word, `bounds` are a histogram's upper bucket bounds in that unit."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus(self) -> str:
        """The name in Prometheus; a histogram's without _bucket, _sum and _count."""
        unit = {"s": "_seconds"}.get(self.unit, "")
        total = "_total" if self.kind is Kind.COUNTER else ""
        return f"{re.sub('[^a-zA-Z0-9]', '_', self.name)}{unit}{total}"


BUILD_INFO: Final = Metric(
    "inference_operator.build_info", Kind.GAUGE, "", "Always 1; the version is its label.", (VERSION,)
)
RECONCILES: Final = Metric(
    "inference_operator.reconciles", Kind.COUNTER, "{reconcile}",
    "Reconciles of an InferenceConfig: done, failed (the API server), or broken (a fault of the operator).",
    (OUTCOME,),
)  # fmt: skip
RECONCILE_DURATION: Final = Metric(
    "inference_operator.reconcile.duration", Kind.HISTOGRAM, "s", "Duration of reconciles.",
    bounds=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)  # fmt: skip
PODS: Final = Metric(
    "inference_operator.pods", Kind.GAUGE, "{pod}",
    "Pods of an InferenceConfig, by state as in status.pods. Gone with the InferenceConfig.",
    (CONFIG_NAMESPACE, CONFIG, STATE),
)  # fmt: skip
ADMISSIONS: Final = Metric(
    "inference_operator.admissions", Kind.COUNTER, "{pod}",
    "Pods at admission: injected, skipped, refused or failed, and why where they were not injected.",
    (OUTCOME, REASON),
)  # fmt: skip
ADMISSION_DURATION: Final = Metric(
    "inference_operator.admission.duration", Kind.HISTOGRAM, "s", "Duration of admissions.",
    bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)  # fmt: skip
CERTIFICATE_EXPIRY: Final = Metric(
    "inference_operator.certificate.expiry_timestamp", Kind.GAUGE, "s",
    "When a certificate of the webhook ends, in Unix time: leaf or authority.", (CERTIFICATE,),
)  # fmt: skip

METRICS: Final = (
    BUILD_INFO, RECONCILES, RECONCILE_DURATION, PODS, ADMISSIONS, ADMISSION_DURATION, CERTIFICATE_EXPIRY,
)  # fmt: skip
