"""Kubernetes' quantities, as far as it takes to compare them, and the class of service that they give a pod."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?P<suffix>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,3})"
)
_FACTORS: Final[Mapping[str, Decimal]] = {
    **{
        suffix: Decimal(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def amount(quantity: object) -> Decimal | None:
    """What `quantity` (`250m`, `1Gi`, `2`) is in units, None for what is no quantity."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        return None
    suffix = match["suffix"]
    if suffix in _FACTORS:
        return Decimal(match["number"]) * _FACTORS[suffix]
    return Decimal(match["number"]).scaleb(int(suffix[1:]))


def is_guaranteed(spec: Mapping[str, Any], containers: Iterable[Mapping[str, Any]]) -> bool:
    """Whether `containers`, all that the pod has but the sidecar, make it class Guaranteed by themselves.

    Where the pod as a whole has resources, those alone decide, and no container can change the class.
    """
    if spec.get("resources"):
        return False
    found = [_is_equal(container.get("resources") or {}) for container in containers]
    return bool(found) and all(found)


def _is_equal(resources: Mapping[str, Any]) -> bool:
    limits = resources.get("limits") or {}
    requests = {**limits, **(resources.get("requests") or {})}
    return all(
        name in limits and amount(limits[name]) is not None and amount(limits[name]) == amount(requests[name])
        for name in ("cpu", "memory")
    )
