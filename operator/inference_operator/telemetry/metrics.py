"""Figures of one process, as Prometheus text (exposition format 0.0.4).

Enters: what happened. Leaves: text. One loop writes and reads, so there are no locks. Names are public; times are
in seconds. A process that does not use a metric does not show it.
"""

from __future__ import annotations

import datetime
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX: Final = "inference_operator"
_RECONCILE_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ADMISSION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


class Metrics:
    """Everything that is counted in one process, from its start on."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._reconciles: Counter[str] = Counter()
        self._reconcile_secs = _Histogram(_RECONCILE_BOUNDS)
        self._pods: dict[str, dict[str, int]] = {}
        self._admissions: Counter[tuple[str, str]] = Counter()
        self._admission_secs = _Histogram(_ADMISSION_BOUNDS)
        self._expires: dict[str, float] = {}

    def reconciled(self, outcome: str, seconds: float) -> None:
        """One reconcile has ended. `outcome`: one of a few words."""
        self._reconciles[outcome] += 1
        self._reconcile_secs.add(seconds)

    def pods(self, key: str, counts: Mapping[str, int]) -> None:
        """The pods of the InferenceConfig `key` (`namespace/name`) by state, in place of what was told before."""
        self._pods[key] = dict(counts)

    def forget(self, key: str) -> None:
        """The InferenceConfig `key` is gone, and its figures with it."""
        self._pods.pop(key, None)

    def admitted(self, outcome: str, reason: str, seconds: float) -> None:
        """One pod was answered. `reason`: CamelCase, empty where it got what it asked for."""
        self._admissions[outcome, reason] += 1
        self._admission_secs.add(seconds)

    def certificate_expires(self, at: datetime.datetime, of: str = "leaf") -> None:
        """When the certificate that is kept (operator) or served (injector) ends. `of`: leaf or authority."""
        self._expires[of] = at.timestamp()

    def text(self) -> str:
        """All of it, with HELP and TYPE, a newline at the end."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        build: Sample = ("", (("version", self._version),), 1)
        yield from _family("build_info", "gauge", "Version of the operator.", [build])
        yield from _family(
            "reconciles_total", "counter", "Reconciles of an InferenceConfig, by outcome.",
            [("", (("outcome", outcome),), count) for outcome, count in sorted(self._reconciles.items())],
        )  # fmt: skip
        yield from _family(
            "reconcile_duration_seconds", "histogram", "Duration of reconciles.",
            self._reconcile_secs.samples(),
        )  # fmt: skip
        yield from _family(
            "pods", "gauge", "Pods of an InferenceConfig, by state.",
            [
                ("", (*_named(key), ("state", state)), count)
                for key, counts in sorted(self._pods.items())
                for state, count in counts.items()
            ],
        )  # fmt: skip
        yield from _family(
            "admissions_total", "counter", "Pods at admission, by what became of them and why.",
            [
                ("", (("outcome", outcome), ("reason", reason)), count)
                for (outcome, reason), count in sorted(self._admissions.items())
            ],
        )  # fmt: skip
        yield from _family(
            "admission_duration_seconds", "histogram", "Duration of admissions.",
            self._admission_secs.samples(),
        )  # fmt: skip
        yield from _family(
            "certificate_expiry_timestamp_seconds", "gauge", "When the webhook's certificate ends, in Unix time.",
            [("", (("certificate", of),), at) for of, at in sorted(self._expires.items())],
        )  # fmt: skip


class _Histogram:
    """Values counted by upper bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def samples(self) -> Iterator[Sample]:
        """None before the first value."""
        if not any(self._counts):
            return
        below = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            below += count
            yield "_bucket", (("le", str(bound)),), below
        yield "_sum", (), self._total
        yield "_count", (), below


def _named(key: str) -> Labels:
    namespace, _, name = key.partition("/")
    return (("namespace", namespace), ("config", name))


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    head = [f"# HELP {_PREFIX}_{name} {text}", f"# TYPE {_PREFIX}_{name} {kind}"]
    for suffix, labels, value in samples:
        yield from head
        head = []
        inner = ",".join(f'{label}="{_escaped(given)}"' for label, given in labels)
        yield f"{_PREFIX}_{name}{suffix}{f'{{{inner}}}' if inner else ''} {value:.16g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
