"""Pods that are asked for all the time, by several callers, as dry runs: the way of an admission, and no pod.

Enters: a namespace whose pods get a sidecar, for as long as the context lasts. Leaves: what became of each, in order.
A caller has no second try of its own: what one admission meets is seen. Must not judge how many may fail.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from cluster.harness.api import Access, Api, Refused
from cluster.stage import sidecar
from inference_operator.cluster import PODS

CALLERS = 4
PAUSE_SECS = 0.02


@dataclass(frozen=True)
class Admission:
    """One pod. `at`: seconds of a steady clock, when its caller was told. `failure`: "" where it got its sidecar."""

    at: float
    failure: str


class Admissions:
    """`made` grows while the context lasts."""

    def __init__(self, access: Access, namespace: str, pod: dict[str, Any]) -> None:
        self.made: list[Admission] = []
        self._access = access
        self._path = f"{PODS.path(namespace)}?dryRun=All"
        self._pod = pod
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._call, name=f"caller {n}") for n in range(CALLERS)]

    def __enter__(self) -> Admissions:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join(30)

    def failed(self, since: float = 0.0) -> list[Admission]:
        return [one for one in self.made if one.failure and one.at >= since]

    def _call(self) -> None:
        api = Api(self._access)
        try:
            while not self._over.wait(PAUSE_SECS):
                failure = self._one(api)
                self.made.append(Admission(time.monotonic(), failure))
        finally:
            api.close()

    def _one(self, api: Api) -> str:
        try:
            made = api.call("POST", self._path, self._pod)
        except Refused as refused:
            return str(refused)
        return "" if sidecar(made) else "let in without a sidecar"
