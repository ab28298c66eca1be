"""One review → its answer: reads the namespace's InferenceConfigs, lets `inject` decide, tells log and metrics.

Enters: a `Review`. Leaves: an answer in any case. Keeps nothing between reviews, and does nothing but read: a dry
run needs no care. The log names the pod and never shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

from .. import crd, inject, naming
from ..cluster import ClusterError
from ..errors import InvalidObject
from ..telemetry import LOGGER, Metrics
from .review import Answer, Review, allowed, refused

READ_SECS: Final = 3.0
"""For reading the configs: the API server waits 5 s for the whole of an admission."""
RETRY_SECS: Final = 1

ReadConfigs = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]
"""A namespace → its InferenceConfigs as the API server has them. Raises ClusterError."""


@dataclass(frozen=True, slots=True)
class _Decision:
    outcome: str
    answer: Answer
    reason: str = ""
    told: Mapping[str, Any] | None = None


class Injector:
    """Answers reviews, any number at once."""

    def __init__(self, read: ReadConfigs, defaults: Callable[[], crd.Sidecar], metrics: Metrics) -> None:
        self._read = read
        self._defaults = defaults
        self._metrics = metrics

    async def answer(self, review: Review) -> Answer:
        """The answer, whatever happens."""
        began = monotonic()
        fields: dict[str, Any] = {"uid": review.uid, "namespace": review.namespace}
        try:
            fields |= _who(review)
            decision = await self._decide(review)
        except Exception:  # noqa: BLE001  the edge: whoever made the pod learns where to look, others are served on
            LOGGER.exception("an admission failed by a fault of the injector's own")
            message = f"the injector failed on this pod by a fault of its own; its log has it under uid {review.uid}."
            answer = refused(review.uid, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", message)
            decision = _Decision("broken", answer, "InternalError")
        seconds = monotonic() - began
        self._metrics.admitted(decision.outcome, decision.reason, seconds)
        fields |= {"outcome": decision.outcome, "reason": decision.reason or None, **(decision.told or {})}
        fields["duration_ms"] = round(seconds * 1000, 2)
        LOGGER.info(
            "admission", extra={"fields": {name: of for name, of in fields.items() if of is not None}}
        )
        return decision.answer

    async def _decide(self, review: Review) -> _Decision:
        if review.pod is None:
            return _skipped(review, inject.Skipped("NotACreation", "only pods that are created are changed"))
        # The label of the namespace is the webhook configuration's to look at: no others are sent here.
        skipped = inject.unwanted(review.pod, namespace_opted_in=True)
        if skipped is not None:
            return _skipped(review, skipped)
        try:
            async with asyncio.timeout(READ_SECS):
                found = await self._read(review.namespace)
        except ClusterError as error:
            return _unread(review, str(error), error.status)
        except TimeoutError:
            return _unread(review, f"no answer within {READ_SECS:g} s")
        configs, unreadable = _parsed(found)
        if (named := _named(review.pod)) in unreadable:
            return _refused(review, inject.Refused("UnreadableConfig", _why(named, unreadable[named])))
        outcome = inject.admit(
            review.pod, review.namespace, configs, self._defaults(), namespace_opted_in=True
        )
        match outcome:
            case inject.Skipped():
                return _skipped(review, outcome)
            case inject.Refused():
                return _refused(review, outcome, sorted(unreadable))
        patch = inject.json_patch(review.pod, outcome.pod)
        told = {
            "config": outcome.pod["metadata"]["annotations"][naming.INJECTED_ANNOTATION],
            "changes": len(patch),
            "warnings": len(outcome.warnings),
        }
        return _Decision("injected", allowed(review.uid, patch, outcome.warnings), told=told)


def _parsed(found: Sequence[Mapping[str, Any]]) -> tuple[list[crd.InferenceConfig], dict[str, str]]:
    """The configs, and of those that this version cannot read the name and why."""
    configs: list[crd.InferenceConfig] = []
    unreadable: dict[str, str] = {}
    for obj in found:
        try:
            configs.append(crd.parse(obj))
        except InvalidObject as error:
            unreadable[str(obj.get("metadata", {}).get("name", ""))] = str(error)
    return configs, unreadable


def _named(pod: Mapping[str, Any]) -> str:
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(naming.CONFIG_ANNOTATION, ""))


def _why(name: str, problems: str) -> str:
    return f"the InferenceConfig {name} cannot be read by this version of the injector. Change it: {problems}"


def _skipped(review: Review, skipped: inject.Skipped) -> _Decision:
    return _Decision("skipped", allowed(review.uid), skipped.reason, {"why": skipped.message})


def _refused(review: Review, refusal: inject.Refused, unreadable: Sequence[str] = ()) -> _Decision:
    message = refusal.message
    if unreadable and refusal.reason == "NoConfig":
        message += (
            f" Left out, because this version of the injector cannot read them: {', '.join(unreadable)}."
        )
    answer = refused(review.uid, HTTPStatus.FORBIDDEN, refusal.reason, message)
    return _Decision("refused", answer, refusal.reason, {"why": message})


def _unread(review: Review, why: str, status: int = 0) -> _Decision:
    """The configs could not be read. Only time heals an API server, only people a role or a missing definition."""
    message = f"the injector could not read the InferenceConfigs of namespace {review.namespace}: {why}."
    retry_secs = None
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            message += " Its role lacks that right: see to the chart's scope, then try again."
        case HTTPStatus.NOT_FOUND:
            message += f" Create the CustomResourceDefinition of {naming.KIND}, then try again."
        case _:
            message += " Try again."
            retry_secs = RETRY_SECS
    code = HTTPStatus.SERVICE_UNAVAILABLE
    answer = refused(review.uid, code, "ServiceUnavailable", message, retry_secs)
    return _Decision("failed", answer, "ConfigsUnread", {"why": message})


def _who(review: Review) -> dict[str, Any]:
    """How the log calls the pod."""
    if review.pod is None:
        return {}
    metadata = review.pod.get("metadata") or {}
    return {
        "pod": metadata.get("name") or metadata.get("generateName"),
        "workload": str(naming.workload_of(review.pod)),
        "dry_run": review.dry_run or None,
    }
