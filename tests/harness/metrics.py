"""What /metrics says, read by Prometheus' own parser.

Enters: a sidecar, or text. Leaves: samples that can be added up and compared. A text that no Prometheus would take
whole (a series given twice, a histogram that does not add up) is an AssertionError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from harness.process import Sidecar

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Scrape:
    """Samples by name and labels."""

    samples: dict[Key, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """The type of each family, by the name that stands in the text."""

    def sum(self, name: str, **labels: str | None) -> float:
        """Of all series with these labels; None stands for a label that is not there. 0 where there is none."""
        return sum(value for _, value in self.series(name, **labels))

    def series(self, name: str, **labels: str | None) -> list[tuple[dict[str, str], float]]:
        """Every series of that name with these labels."""
        found = [(dict(of), value) for (called, of), value in self.samples.items() if called == name]
        return [
            (of, value)
            for of, value in found
            if value and all(of.get(label) == wanted for label, wanted in labels.items())
        ]

    def values(self, label: str) -> set[str]:
        """Every value that a label has anywhere."""
        return {value for _, labels in self.samples for name, value in labels if name == label}


def parse(text: str) -> Scrape:
    """A whole text of exposition format 0.0.4."""
    assert text.endswith("\n")
    found = Scrape()
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name not in found.kinds, f"{name} is there twice"
        assert family.documentation, name
        found.kinds[name] = family.type
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found.samples, f"{key} is there twice"
            found.samples[key] = sample.value
        if family.type == "histogram":
            _adds_up(family.name, found)
    return found


def _adds_up(name: str, found: Scrape) -> None:
    """Buckets only rise, and the last holds what was counted."""
    buckets: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for (called, labels), count in found.samples.items():
        if called == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(rest, []).append((bound, count))
    for labels, pairs in buckets.items():
        bounds, counts = zip(*pairs, strict=True)
        assert list(bounds) == sorted(bounds), name
        assert list(counts) == sorted(counts), name
        assert bounds[-1] == math.inf
        assert counts[-1] == found.samples[f"{name}_count", labels], name
        assert (f"{name}_sum", labels) in found.samples, name


def scrape(sidecar: Sidecar) -> Scrape:
    """What a sidecar's /metrics says now, but for whose figures they are, which every series says."""
    found = parse(sidecar.admin("/metrics").body.decode())
    who = {"service_name", "service_version"}
    found.samples = {
        (name, frozenset(label for label in labels if label[0] not in who)): value
        for (name, labels), value in found.samples.items()
    }
    return found


@contextmanager
def measured(sidecar: Sidecar, requests: int = 1) -> Iterator[Scrape]:
    """How the metrics differ after the requests made inside, once all of them are accounted for."""
    delta = Scrape()
    with sidecar.figures(requests):
        before = scrape(sidecar)
        yield delta
    after = scrape(sidecar)
    delta.kinds = after.kinds
    delta.samples = {key: value - before.samples.get(key, 0) for key, value in after.samples.items()}
