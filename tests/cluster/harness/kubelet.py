"""Kubelet's part for pods that are objects only: who is nudged has the new revision at once.

Enters: what the operator's proxy saw done. Leaves: what pods' admin ports say from then on.
"""

from __future__ import annotations

import json

from cluster.harness.proxy import Call
from harness.admin import Admin
from inference_operator import naming


class Kubelet:
    """`pods`: by name. `nudges`: how often each was nudged."""

    def __init__(self) -> None:
        self.pods: dict[str, Admin] = {}
        self.nudges: dict[str, list[str]] = {}

    def __call__(self, call: Call) -> None:
        """For `Proxy.done`."""
        words = call.path.split("/")
        if call.method != "PATCH" or words[-1] != "status" or words[-3] != "pods":
            return
        value = json.loads(call.body)["metadata"]["annotations"][naming.NUDGE_ANNOTATION]
        revision = value.rpartition(".")[0]
        self.nudges.setdefault(words[-2], []).append(value)
        if words[-2] in self.pods:
            self.pods[words[-2]].revision = revision
