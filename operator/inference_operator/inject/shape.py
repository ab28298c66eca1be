"""The part of a sidecar that no live reload changes, as one short value to compare."""

from __future__ import annotations

import hashlib
import json

from ..crd import BUILTIN, Sidecar

LAYOUT = 1
"""Counted up when the injector itself builds the container differently, so that older pods are told apart."""


def effective(own: Sidecar, defaults: Sidecar) -> Sidecar:
    """What a config says, then the chart, then this version's own."""
    return own.over(defaults.over(BUILTIN))


def shape(own: Sidecar, defaults: Sidecar) -> str:
    """Equal for two pods of one config that were injected alike. Made of the config alone, not of a pod."""
    told = [LAYOUT, effective(own, defaults).model_dump(mode="json", exclude_none=True)]
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
