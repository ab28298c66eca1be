"""Pods of one config, asked and nudged: what they said is remembered for as long as it is worth something.

Enters: the pods, the revision that they should have. Leaves: answers for `rollout.judge`, patched annotations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .. import manifests, rollout
from ..cluster import PODS, Cluster, ClusterError
from ..rollout import Answer, Nudge, Pod, Silence
from ..sidecars import Address, Sidecars, Unheard

CURRENT_SECS: Final = 60.0
"""A pod that is current is asked again after this long: nothing but the operator makes it another."""
NUDGES_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class _Heard:
    answer: Answer | Silence
    at: float


class Observer:
    """What is known of injected pods, by their uid."""

    def __init__(self, cluster: Cluster, sidecars: Sidecars) -> None:
        self._cluster = cluster
        self._sidecars = sidecars
        self._heard: dict[str, _Heard] = {}
        self._nudged: dict[str, tuple[str, int, float]] = {}

    def forget_but(self, uids: set[str]) -> None:
        """Pods that are not among `uids` are gone."""
        self._heard = {uid: heard for uid, heard in self._heard.items() if uid in uids}
        self._nudged = {uid: nudged for uid, nudged in self._nudged.items() if uid in uids}

    async def answers(
        self, pods: Sequence[Pod], revision: str, *, just_written: bool
    ) -> dict[str, Answer | Silence]:
        """What each of `pods` said. `just_written`: kubelet cannot have brought `revision` to anybody yet, so
        nobody is asked in vain who has answered before."""
        now = asyncio.get_running_loop().time()
        asked = {
            pod.uid: Address(pod.ip, pod.admin_port)
            for pod in pods
            if pod.can_be_asked and not self._is_known(pod.uid, revision, now, just_written=just_written)
        }
        for uid, said in (await self._sidecars.ask(asked)).items():
            answer = Silence(said.reason) if isinstance(said, Unheard) else rollout.answer_of(said)
            self._heard[uid] = _Heard(answer, now)
        return {pod.uid: self._heard[pod.uid].answer for pod in pods if pod.uid in self._heard}

    def as_nudged(self, pods: Iterable[Pod]) -> list[Pod]:
        """`pods` with the nudges that their watch has not told of yet."""
        return [self._as_nudged(pod) for pod in pods]

    def _as_nudged(self, pod: Pod) -> Pod:
        last = self._nudged.get(pod.uid)
        return pod if last is None or last[:2] == pod.nudged else replace(pod, nudged=last[:2])

    async def nudge(self, nudges: Sequence[Nudge], revision: str) -> float | None:
        """Patch those that are due. Returns seconds until the next one is, None where none is to come."""
        now = asyncio.get_running_loop().time()
        waits: list[float] = []
        due: list[Nudge] = []
        for nudge in nudges:
            last = self._nudged.get(nudge.pod.uid)
            since = now - last[2] if last is not None and last[0] == revision else float("inf")
            wait = rollout.nudge_delay(nudge.number) - since
            if wait > 0:
                waits.append(wait)
            else:
                due.append(nudge)
        places = asyncio.Semaphore(NUDGES_AT_ONCE)
        await asyncio.gather(*(self._patch(nudge, revision, places) for nudge in due))
        waits += [rollout.nudge_delay(nudge.number + 1) for nudge in due]
        return min(waits, default=None)

    async def _patch(self, nudge: Nudge, revision: str, places: asyncio.Semaphore) -> None:
        pod = nudge.pod
        async with places:
            try:
                await self._cluster.patch(
                    PODS, pod.namespace, pod.name, manifests.nudge(nudge.value), subresource="status"
                )
            except ClusterError as error:
                if error.status != 422:  # a pod that is just going
                    raise
        self._nudged[pod.uid] = (revision, nudge.number, asyncio.get_running_loop().time())

    def _is_known(self, uid: str, revision: str, now: float, *, just_written: bool) -> bool:
        heard = self._heard.get(uid)
        if heard is None or isinstance(heard.answer, Silence):
            return False
        if just_written:
            return True
        is_current = heard.answer.revision == revision and heard.answer.refused is None
        return is_current and now - heard.at < CURRENT_SECS
