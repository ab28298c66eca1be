"""What can become of a pod at admission. All of it is expected, so all of it is a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Injected:
    """The pod with its sidecar, and warnings for whoever creates it, each one line."""

    pod: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The pod asked for a sidecar and can't have it. `reason` is CamelCase; `message` says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """The pod is admitted as it is. `reason` is CamelCase, `message` says why."""

    reason: str
    message: str
