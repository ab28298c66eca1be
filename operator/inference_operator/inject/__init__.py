"""A pod at admission → the pod with its sidecar, or a refusal that says what to do, or why it is left alone.

Enters: the pod as the API server sends it, the InferenceConfigs of its namespace, the chart-wide defaults.
Leaves: `Injected`, `Refused` or `Skipped`. What enters is never changed. Injecting what was injected changes
nothing, whoever else has been at the pod in between. No key goes into a pod: its spec is for everyone to read.
Must not look anything up.
"""

from __future__ import annotations

from .admit import admit, inject
from .choose import choose, unwanted
from .outcome import Injected, Refused, Skipped
from .patch import json_patch
from .shape import shape

__all__ = [
    "Injected",
    "Refused",
    "Skipped",
    "admit",
    "choose",
    "inject",
    "json_patch",
    "shape",
    "unwanted",
]
