"""What was found → the status that people read: conditions with a reason, a message and a time.

Enters: `Findings` of one reconcile, the status before, the time. Leaves: the status now, and the events that the
change from one to the other is worth. lastTransitionTime moves only when a condition's status flips. Must not
hold a Secret's data, and must not find anything out by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from .crd import CONDITION_TYPES, Condition, ConditionType, Metadata, PodCounts, Status, Truth

EventType = Literal["Normal", "Warning"]
MAX_MESSAGE: Final = 1024
NAMED: Final = 5
"""How many names a message has before it counts the rest."""

_GOOD: Final[Mapping[ConditionType, Truth]] = {"RestartRequired": "False", "Conflict": "False"}
"""The status that is good, where it is not True."""
_CONSEQUENCE: Final = "SecretsUnresolved"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that people can mend. `reason` is CamelCase; `message` says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What one reconcile found.

    `secrets` and `rendering`: what is wrong with them, None for nothing; `needs_key` is false where the provider
    has none. `standing`: a rendered Secret stands, of now or from before. `digest` and `revision` are those of
    what stands, None where that is not known. The rest is `rollout.Rollout`'s, by value: pairs of names and
    reasons, and for `restarts` pairs of a workload (`deployment/web`) and its pods' names.
    """

    secrets: Fault | None = None
    rendering: Fault | None = None
    needs_key: bool = True
    standing: bool = True
    digest: str | None = None
    revision: str | None = None
    secret_resource_versions: Mapping[str, str] = field(default_factory=dict)
    counts: PodCounts = field(default_factory=PodCounts)
    stale: Sequence[str] = ()
    refusals: Sequence[tuple[str, str]] = ()
    silent: Sequence[tuple[str, str]] = ()
    bare: Sequence[str] = ()
    restarts: Sequence[tuple[str, Sequence[str]]] = ()
    conflicts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """An event that is worth having."""

    kind: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    status: Truth
    reason: str
    message: str


def tell(metadata: Metadata, before: Status, found: Findings, now: str) -> Status:
    """The status of a config; equal to the one before if nothing has changed. `now`: RFC 3339, in seconds, UTC."""
    verdicts = _verdicts(metadata.namespace, found)
    generation = metadata.generation
    conditions = tuple(
        _condition(kind, verdicts[kind], before.condition(kind), generation, now) for kind in CONDITION_TYPES
    )
    return Status(
        observed_generation=generation,
        config_digest=found.digest,
        revision=found.revision,
        secret_resource_versions=dict(sorted(found.secret_resource_versions.items())),
        pods=found.counts,
        conditions=conditions,
    )


def events(before: Status, after: Status) -> tuple[Told, ...]:
    """One for each condition that flipped, or is bad for another reason than before. What is good from the
    start is worth none, but for Ready; and what two conditions say is said once."""
    told: dict[str, Told] = {}
    for now in after.conditions:
        was = before.condition(now.type)
        good = now.status == _GOOD.get(now.type, "True")
        changed = was is None or was.status != now.status or (was.reason != now.reason and not good)
        first_good = was is None and good and now.type != "Ready"
        if changed and not first_good and now.reason != _CONSEQUENCE:
            kind: EventType = "Normal" if good or now.reason == "Progressing" else "Warning"
            told.setdefault(now.reason, Told(kind, now.reason, now.message))
    return tuple(told.values())


def _condition(
    kind: ConditionType, verdict: _Verdict, before: Condition | None, generation: int, now: str
) -> Condition:
    flipped = before is None or before.status != verdict.status
    return Condition(
        type=kind,
        status=verdict.status,
        reason=verdict.reason,
        message=_bounded(verdict.message),
        last_transition_time=now if before is None or flipped else before.last_transition_time,
        observed_generation=generation,
    )


def _verdicts(namespace: str, found: Findings) -> dict[ConditionType, _Verdict]:
    secrets = _secrets(found)
    rendered = _rendered(found)
    rolled_out = _rolled_out(found)
    return {
        "Ready": _ready(found, secrets, rendered, rolled_out),
        "SecretsResolved": secrets,
        "Rendered": rendered,
        "RolledOut": rolled_out,
        "RestartRequired": _restart(namespace, found),
        "Conflict": _conflict(found),
    }


def _secrets(found: Findings) -> _Verdict:
    if found.secrets is not None:
        return _Verdict("False", found.secrets.reason, found.secrets.message)
    if not found.needs_key:
        return _Verdict("True", "NoneNeeded", "The provider needs no key.")
    return _Verdict("True", "Resolved", "The key was read.")


def _rendered(found: Findings) -> _Verdict:
    if found.rendering is not None:
        return _Verdict("False", found.rendering.reason, found.rendering.message + _last_good(found))
    if found.secrets is not None:
        return _Verdict("False", _CONSEQUENCE, f"There is no key to render.{_last_good(found)}")
    return _Verdict("True", "Rendered", "The sidecars' Secret is up to date.")


def _last_good(found: Findings) -> str:
    if found.standing:
        return " Pods, new ones too, go on with what was rendered last."
    return " Nothing was rendered before: pods wait until this is mended."


def _rolled_out(found: Findings) -> _Verdict:
    counts = found.counts
    current = f"{counts.current} of {_pods(counts.injected)} current"
    if found.refusals:
        pod, reason = found.refusals[0]
        return _Verdict(
            "False", "Refused", f"{current}; {counts.refused} refused the config. {pod}: {reason}"
        )
    if found.stale:
        return _Verdict("False", "Progressing", f"{current}; waiting for {_names(found.stale)}.")
    if found.bare:
        return _Verdict(
            "False",
            "NotInjected",
            f"{current}; without a sidecar: {_names(found.bare)}. Restart them, so that they pass the injector.",
        )
    if found.silent:
        pod, reason = found.silent[0]
        return _Verdict(
            "Unknown", "Unreachable", f"{current}; {counts.unreachable} give no answer. {pod}: {reason}."
        )
    if counts.current < counts.injected:
        return _Verdict("False", "Progressing", f"{current}; the others are starting.")
    if not counts.matched:
        return _Verdict("True", "NoPods", "No pod asks for this config.")
    return _Verdict("True", "AllCurrent", f"{current}.")


def _ready(found: Findings, secrets: _Verdict, rendered: _Verdict, rolled_out: _Verdict) -> _Verdict:
    """Whether pods can be made and get what this object says. A rollout under way takes nothing from that."""
    for verdict in (secrets, rendered):
        if verdict.status != "True":
            more = _last_good(found) if verdict is secrets else ""
            return _Verdict("False", verdict.reason, verdict.message + more)
    if found.refusals:
        return _Verdict("False", rolled_out.reason, rolled_out.message)
    return _Verdict("True", "Ready", "Rendered; pods are injected with it.")


def _restart(namespace: str, found: Findings) -> _Verdict:
    if not found.restarts:
        return _Verdict("False", "UpToDate", "No pod needs a restart.")
    workloads = [workload for workload, _ in found.restarts]
    pods = sorted(pod for _, names in found.restarts for pod in names)
    commands = "; ".join(_command(workload, namespace) for workload in workloads[:NAMED])
    more = f"; and {len(workloads) - NAMED} more workloads" if len(workloads) > NAMED else ""
    return _Verdict(
        "True",
        "SidecarChanged",
        f"spec.sidecar, or the chart's default, has changed since {_names(pods)} started. They serve on, and take it "
        f"when they are made anew: {commands}{more}.",
    )


def _command(workload: str, namespace: str) -> str:
    kind = workload.partition("/")[0]
    if kind in ("deployment", "statefulset", "daemonset"):
        return f"kubectl rollout restart {workload} -n {namespace}"
    return f"kubectl delete {workload} -n {namespace}" if kind == "pod" else f"make {workload} again"


def _conflict(found: Findings) -> _Verdict:
    if not found.conflicts:
        return _Verdict("False", "NoConflict", "No older config selects the same pods.")
    winners = sorted({winner for _, winner in found.conflicts})
    pods = _names([pod for pod, _ in found.conflicts])
    return _Verdict(
        "True",
        "OlderSelectsSamePods",
        f"{_names(winners)} is older and selects {pods} too, so it is the one in force there. Make the selectors "
        "disjoint, or name a config by annotation on the pod template.",
    )


def _pods(number: int) -> str:
    return "1 pod" if number == 1 else f"{number} pods"


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _bounded(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
