"""The figures as Prometheus text (exposition format 0.0.4), for /metrics on the admin port.

Enters: `Figures`, and the attributes of the resource that they are of. Leaves: text. A series has the same name and
the same labels as the one that Prometheus makes of the same metric when it comes by OTLP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from . import names
from .figures import Figures
from .instruments import Family, Point, Values

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_LABEL_ESCAPES: Final = _HELP_ESCAPES | {ord('"'): r"\""}


def exposition(figures: Figures, version: str, resource_attributes: Mapping[str, str]) -> str:
    """All metrics, each with HELP and TYPE, a newline at the end.

    Every series has the resource's attributes of `names.PROMOTED` as labels; `target_info` has all of them.
    """
    promoted = _pairs(
        (name, resource_attributes[name]) for name in names.PROMOTED if resource_attributes.get(name)
    )
    lines: list[str] = []
    for family in figures.families(version):
        if family.series:
            lines.extend(_family(family, promoted))
    if resource_attributes:
        lines += ["# HELP target_info Attributes of the resource.", "# TYPE target_info gauge"]
        lines.append(f"target_info{_braced(_pairs(sorted(resource_attributes.items())))} 1")
    return "\n".join(lines) + "\n"


def bound(value: float) -> str:
    """A bucket's bound as Prometheus' OTLP receiver writes it in `le`: the shortest decimal, no exponent, no `.0`.

    From text Prometheus 3 makes its own canonical form (`10.0`, `6.7108864e+07`), whatever stood there.
    """
    return repr(value).removesuffix(".0")


def _family(family: Family, promoted: str) -> Iterator[str]:
    metric = family.metric
    name = metric.prometheus
    yield f"# HELP {name} {metric.description.translate(_HELP_ESCAPES)}"
    yield f"# TYPE {name} {metric.kind}"
    for values, value in family.series.items():
        labels = _joined(promoted, _pairs(_present(metric, values)))
        if isinstance(value, Point):
            yield from _histogram(name, metric.bounds, labels, value)
        else:
            yield f"{name}{_braced(labels)} {value}"


def _histogram(name: str, bounds: tuple[float, ...], labels: str, point: Point) -> Iterator[str]:
    below = 0
    for upper, count in zip((*map(bound, bounds), "+Inf"), point.counts, strict=True):
        below += count
        of_bucket = _joined(labels, f'le="{upper}"')
        yield f"{name}_bucket{{{of_bucket}}} {below}"
    yield f"{name}_sum{_braced(labels)} {point.total!r}"
    yield f"{name}_count{_braced(labels)} {below}"


def _present(metric: names.Metric, values: Values) -> Iterator[tuple[str, str]]:
    for name, value in zip(metric.attributes, values, strict=True):
        if value is not None:
            yield name, str(value)


def _pairs(attributes: Iterable[tuple[str, str]]) -> str:
    """Labels without braces. Attributes whose names become one label share it, as Prometheus does it."""
    labels: dict[str, str] = {}
    for attribute, value in attributes:
        name = names.label(attribute)
        if name[:1].isdigit():
            name = f"key_{name}"
        if name:
            labels[name] = f"{labels[name]};{value}" if name in labels else value
    return ",".join(f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in labels.items())


def _joined(*labels: str) -> str:
    return ",".join(filter(None, labels))


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
