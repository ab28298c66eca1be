"""Observed pods → where the rollout of one config stands.

Enters: pods as the API server has them, and what each answered when it was asked for /status. Leaves: counts,
the pods to nudge, what needs a restart, what is wrong first. An answer comes from a pod, so it is mistrusted:
bounded, and of the types that are meant, or it counts as none. Must not ask anybody, nor read a clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inference_config.names import ADMIN_PORT
from inference_config.problems import one_line

from . import naming
from .crd import InferenceConfig, PodCounts, selected

MAX_ANSWER_BYTES: Final = 64 * 1024
"""A longer answer is not read to its end."""
MAX_REVISION: Final = 256
MAX_REASON: Final = 500
MAX_WAITING: Final = 32
NUDGES: Final = 8
"""A pod that is stale is nudged this often for one revision; kubelet comes by itself every minute or so."""

_TROUBLE: Final = frozenset(
    (
        *("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    )
)


@dataclass(frozen=True, slots=True)
class Pod:
    """What counts of a pod; small enough to be kept for every pod of a cluster.

    `config` and `shape` are the injector's stamps, "" where there are none. `chosen` is the config that the pod
    names. `injected`: it has the sidecar's container. `started`: that container has passed its startup probe.
    `trouble`: why it can't, in kubelet's word. `nudged`: revision and number of the last nudge.
    """

    namespace: str
    name: str
    uid: str
    ip: str
    labels: Mapping[str, str] = field(repr=False)
    asks: bool
    chosen: str
    config: str
    shape: str
    injected: bool
    started: bool
    trouble: str
    over: bool
    admin_port: int
    nudged: tuple[str, int]
    workload: naming.Workload

    @property
    def can_be_asked(self) -> bool:
        """Whether there is somebody to answer."""
        return self.injected and self.started and bool(self.ip) and not self.over


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sidecar's /status said. `refused`: why it did not take what it was given last, `refused_revision`
    what that was (None where it could not tell)."""

    revision: str
    refused: str | None = None
    refused_revision: str | None = None
    waiting_for_restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """A pod was asked, or could not be asked, and there is no answer. `reason` is public."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nudge:
    """A pod whose annotation is to be patched, with the value; `number` counts from 0 within one revision."""

    pod: Pod
    number: int
    value: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where things stand. Lists are in the order of pods' names.

    `silent` and `refusals` pair a pod's name with a reason. `bare` are pods without the sidecar they ask for.
    `outdated` are pods that only a restart brings up to date. `conflicts` pair a pod with the config that has it.
    """

    counts: PodCounts
    nudges: tuple[Nudge, ...] = ()
    stale: tuple[str, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()
    silent: tuple[tuple[str, str], ...] = ()
    bare: tuple[str, ...] = ()
    outdated: tuple[Pod, ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()

    def restarts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The outdated pods' names, by what made them, such as `deployment/web`."""
        found: dict[str, list[str]] = {}
        for pod in self.outdated:
            found.setdefault(str(pod.workload), []).append(pod.name)
        return tuple((workload, tuple(names)) for workload, names in sorted(found.items()))


def pod_of(obj: Mapping[str, Any], *, namespace_opted_in: bool = False) -> Pod:
    """What counts of a Pod object. Every part of it may be absent."""
    metadata, status = obj.get("metadata") or {}, obj.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    asks = labels.get(naming.INJECT_LABEL)
    container = _named((obj.get("spec") or {}).get("initContainers"))
    told = _named(status.get("initContainerStatuses"))
    waiting = ((told.get("state") or {}).get("waiting") or {}).get("reason", "")
    config = annotations.get(naming.INJECTED_ANNOTATION, "")
    return Pod(
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        ip=status.get("podIP", ""),
        labels=labels,
        asks=asks == "true" or (asks is None and namespace_opted_in),
        chosen=annotations.get(naming.CONFIG_ANNOTATION, ""),
        config=config,
        shape=annotations.get(naming.SHAPE_ANNOTATION, ""),
        injected=bool(config) and bool(container),
        started=told.get("started") is True,
        trouble=waiting if waiting in _TROUBLE else "",
        over=status.get("phase") in ("Succeeded", "Failed") or "deletionTimestamp" in metadata,
        admin_port=_admin_port(container),
        nudged=_nudged(annotations.get(naming.NUDGE_ANNOTATION, "")),
        workload=naming.workload_of(obj),
    )


def answer_of(body: bytes) -> Answer | Silence:
    """What the body of a pod's answer says. `body`: at most `MAX_ANSWER_BYTES` and one."""
    try:
        if len(body) > MAX_ANSWER_BYTES:
            return Silence("its /status is too large")
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Silence("its /status is no JSON")
    if not isinstance(said, dict) or not isinstance(said.get("revision"), str):
        return Silence("its /status says no revision")
    refused = said.get("refused")
    waiting = said.get("waiting_for_restart")
    settings = [one for one in waiting if isinstance(one, str)] if isinstance(waiting, list) else []
    of = refused.get("revision") if isinstance(refused, dict) else None
    return Answer(
        revision=said["revision"][:MAX_REVISION],
        refused=one_line(str(refused.get("reason"))[:MAX_REASON]) if isinstance(refused, dict) else None,
        refused_revision=of[:MAX_REVISION] if isinstance(of, str) else None,
        waiting_for_restart=tuple(one_line(one[:100]) for one in settings[:MAX_WAITING]),
    )


def judge(
    config: InferenceConfig,
    configs: Sequence[InferenceConfig],
    pods: Iterable[Pod],
    answers: Mapping[str, Answer | Silence],
    *,
    revision: str,
    shape: str,
) -> Rollout:
    """Where `config` stands. `configs` and `pods`: all of its namespace. `answers`: by the pod's uid; a pod that
    can be asked and has none counts as silent. `revision` and `shape`: what a pod should have; "" is a revision
    that no pod can have, and that nobody is nudged for."""
    told = _Tally(revision)
    conflicts = []
    # Who wins is asked of few: a namespace may have hundreds of configs and thousands of pods.
    concerned = (pod for pod in pods if not pod.over and _concerns(config, pod))
    for pod in sorted(concerned, key=lambda pod: pod.name):
        wins = None if pod.chosen else next(iter(selected(pod.labels, configs)), None)
        if pod.asks and wins is not None and wins.name != config.name and _selects(config, pod):
            conflicts.append((pod.name, wins.name))
        if _is_of(pod, config, wins):
            told.count(pod, answers.get(pod.uid), shape)
    return told.rollout(tuple(conflicts))


def nudge_delay(number: int) -> float:
    """Seconds from the nudge before to nudge `number` of a pod that is still stale. The first comes at once; it
    can outrun kubelet's own watch, so the next comes soon."""
    return 0.0 if number == 0 else min(2.0 ** (number - 2), 30.0)


def _concerns(config: InferenceConfig, pod: Pod) -> bool:
    return config.name in (pod.config, pod.chosen) or (not pod.chosen and _selects(config, pod))


def _is_of(pod: Pod, config: InferenceConfig, wins: InferenceConfig | None) -> bool:
    if pod.injected:
        return pod.config == config.name
    if not pod.asks:
        return False
    return pod.chosen == config.name if pod.chosen else wins is not None and wins.name == config.name


def _selects(config: InferenceConfig, pod: Pod) -> bool:
    return config.spec.selector is not None and config.spec.selector.matches(pod.labels)


class _Tally:
    """Pods of one config, counted one after the other."""

    def __init__(self, revision: str) -> None:
        self._revision = revision
        self._matched = self._injected = self._current = 0
        self._nudges: list[Nudge] = []
        self._stale: list[str] = []
        self._refusals: list[tuple[str, str]] = []
        self._silent: list[tuple[str, str]] = []
        self._bare: list[str] = []
        self._outdated: list[Pod] = []

    def count(self, pod: Pod, answer: Answer | Silence | None, shape: str) -> None:
        """Count `pod`, which belongs to the config."""
        self._matched += 1
        if not pod.injected:
            self._bare.append(pod.name)
            return
        self._injected += 1
        waits = isinstance(answer, Answer) and bool(answer.waiting_for_restart)
        if pod.shape != shape or waits:
            self._outdated.append(pod)
        if pod.trouble:
            self._silent.append((pod.name, f"its sidecar is in {pod.trouble}"))
        elif pod.can_be_asked:
            self._judge(pod, answer or Silence("it was not asked"))

    def _judge(self, pod: Pod, answer: Answer | Silence) -> None:
        if isinstance(answer, Silence):
            self._silent.append((pod.name, answer.reason))
            self._nudge(pod, limit=1)
        elif answer.refused is not None and answer.refused_revision == self._revision:
            # Also where it has loaded that revision: a file beside it, such as a CA bundle, came later.
            self._refusals.append((pod.name, answer.refused))
        elif answer.revision == self._revision:
            self._current += 1
        elif answer.refused is not None and answer.refused_revision is None:
            self._refusals.append((pod.name, answer.refused))
        else:
            self._stale.append(pod.name)
            self._nudge(pod, limit=NUDGES)

    def _nudge(self, pod: Pod, *, limit: int) -> None:
        if not self._revision:
            return
        revision, last = pod.nudged
        number = last + 1 if revision == self._revision else 0
        if number < limit:
            self._nudges.append(Nudge(pod, number, f"{self._revision}.{number}"))

    def rollout(self, conflicts: tuple[tuple[str, str], ...]) -> Rollout:
        """The sum."""
        counts = PodCounts(
            matched=self._matched,
            injected=self._injected,
            current=self._current,
            stale=len(self._stale),
            refused=len(self._refusals),
            unreachable=len(self._silent),
        )
        return Rollout(
            counts, tuple(self._nudges), tuple(self._stale), tuple(self._refusals), tuple(self._silent),
            tuple(self._bare), tuple(self._outdated), conflicts,
        )  # fmt: skip


def _named(containers: Sequence[Mapping[str, Any]] | None) -> Mapping[str, Any]:
    """The sidecar's entry, empty where there is none."""
    return next((one for one in containers or [] if one.get("name") == naming.CONTAINER), {})


def _admin_port(container: Mapping[str, Any]) -> int:
    for port in container.get("ports") or []:
        if port.get("name") == naming.ADMIN_PORT_NAME:
            return int(port["containerPort"])
    return ADMIN_PORT


def _nudged(value: str) -> tuple[str, int]:
    revision, _, number = value.rpartition(".")
    return (revision, int(number)) if revision and number.isdigit() and len(number) < 6 else ("", -1)
