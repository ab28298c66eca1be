"""The status by table: which findings give which conditions, what a message tells to do, when a time moves, which
events a change is worth.

Left out: where findings come from (test_rollout, test_render).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inference_operator.crd import CONDITION_TYPES, Condition, ConditionType, Metadata, PodCounts, Status
from inference_operator.status import MAX_MESSAGE, Fault, Findings, Told, events, tell

ABOUT = Metadata(name="team", namespace="shop", generation=3)
T0, T1 = "2026-05-01T00:00:00Z", "2026-05-01T00:01:00Z"

GOOD = Findings(
    digest="sha256:d", revision="r1", secret_resource_versions={"openai": "7"},
    counts=PodCounts(matched=2, injected=2, current=2),
)  # fmt: skip
MISSING = Fault("SecretNotFound", "Secret openai does not exist.")
INVALID = Fault("InvalidConfig", "spec.inference.baseUrl: found x; valid: y")


def counts(**each: int) -> PodCounts:
    return PodCounts(**{"matched": 3, "injected": 3, **each})


def condition(found: Findings, kind: ConditionType) -> Condition:
    told = tell(ABOUT, Status(), found, T0).condition(kind)
    assert told is not None
    return told


TABLE: list[tuple[str, Findings, dict[str, tuple[str, str]]]] = [
    (
        "all is well",
        GOOD,
        {
            "Ready": ("True", "Ready"), "SecretsResolved": ("True", "Resolved"), "Rendered": ("True", "Rendered"),
            "RolledOut": ("True", "AllCurrent"), "RestartRequired": ("False", "UpToDate"),
            "Conflict": ("False", "NoConflict"),
        },
    ),
    ("no pods yet", replace(GOOD, counts=PodCounts()), {"Ready": ("True", "Ready"), "RolledOut": ("True", "NoPods")}),
    ("no key needed", replace(GOOD, needs_key=False), {"SecretsResolved": ("True", "NoneNeeded"), "Ready": ("True", "Ready")}),
    (
        "no Secret",
        replace(GOOD, secrets=MISSING),
        {
            "SecretsResolved": ("False", "SecretNotFound"), "Rendered": ("False", "SecretsUnresolved"),
            "Ready": ("False", "SecretNotFound"), "RolledOut": ("True", "AllCurrent"),
        },
    ),
    (
        "a config that is refused",
        replace(GOOD, rendering=INVALID),
        {"SecretsResolved": ("True", "Resolved"), "Rendered": ("False", "InvalidConfig"), "Ready": ("False", "InvalidConfig")},
    ),
    (
        "both",
        replace(GOOD, secrets=MISSING, rendering=INVALID),
        {"Rendered": ("False", "InvalidConfig"), "Ready": ("False", "SecretNotFound")},
    ),
    (
        "on its way",
        replace(GOOD, counts=counts(current=1, stale=2), stale=("web-1", "web-2")),
        {"RolledOut": ("False", "Progressing"), "Ready": ("True", "Ready")},
    ),
    ("pods that start", replace(GOOD, counts=counts(current=1)), {"RolledOut": ("False", "Progressing"), "Ready": ("True", "Ready")}),
    (
        "a pod that cannot be asked",
        replace(GOOD, counts=counts(current=2, unreachable=1), silent=(("web-1", "timed out"),)),
        {"RolledOut": ("Unknown", "Unreachable"), "Ready": ("True", "Ready")},
    ),
    (
        "a pod without its sidecar",
        replace(GOOD, counts=PodCounts(matched=3, injected=2, current=2), bare=("web-9",)),
        {"RolledOut": ("False", "NotInjected"), "Ready": ("True", "Ready")},
    ),
    (
        "pods that refuse",
        replace(GOOD, counts=counts(current=1, refused=1, stale=1), refusals=(("web-1", "no CA file"),), stale=("web-2",)),
        {"RolledOut": ("False", "Refused"), "Ready": ("False", "Refused")},
    ),
    (
        "a cold change",
        replace(GOOD, restarts=(("deployment/web", ("web-1",)),)),
        {"RestartRequired": ("True", "SidecarChanged"), "Ready": ("True", "Ready"), "RolledOut": ("True", "AllCurrent")},
    ),
    (
        "two for one pod",
        replace(GOOD, conflicts=(("web-1", "older"),)),
        {"Conflict": ("True", "OlderSelectsSamePods"), "Ready": ("True", "Ready")},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_conditions(found: Findings, expected: dict[str, tuple[str, str]]) -> None:
    told = tell(ABOUT, Status(), found, T0)
    assert tuple(one.type for one in told.conditions) == CONDITION_TYPES
    by_type: dict[str, Any] = {one.type: (one.status, one.reason) for one in told.conditions}
    assert {kind: by_type[kind] for kind in expected} == expected
    assert all(one.message and one.observed_generation == 3 for one in told.conditions)


def test_the_rest_of_the_status() -> None:
    told = tell(ABOUT, Status(), GOOD, T0)
    assert (told.observed_generation, told.config_digest, told.revision) == (3, "sha256:d", "r1")
    assert told.secret_resource_versions == {"openai": "7"}
    assert told.pods == GOOD.counts


class TestMessages:
    def test_what_running_pods_do_meanwhile(self) -> None:
        assert (
            "go on with what was rendered last" in condition(replace(GOOD, secrets=MISSING), "Ready").message
        )
        nothing = replace(GOOD, secrets=MISSING, standing=False)
        assert "pods wait until this is mended" in condition(nothing, "Ready").message
        assert MISSING.message in condition(nothing, "Ready").message

    def test_a_restart_comes_with_its_commands(self) -> None:
        found = replace(
            GOOD,
            restarts=(("deployment/web", ("web-1", "web-2")), ("pod/alone", ("alone",)), ("job/x", ("x-1",))),
        )
        message = condition(found, "RestartRequired").message
        assert "kubectl rollout restart deployment/web -n shop" in message
        assert "kubectl delete pod/alone -n shop" in message
        assert "alone, web-1, web-2, x-1" in message

    def test_many_names_are_counted(self) -> None:
        names = tuple(f"web-{number}" for number in range(9))
        message = condition(replace(GOOD, counts=counts(stale=9), stale=names), "RolledOut").message
        assert "web-0, web-1, web-2, web-3, web-4 and 4 more" in message

    def test_the_first_refusal_is_told(self) -> None:
        found = replace(
            GOOD, counts=counts(refused=2), refusals=(("web-1", "no CA file"), ("web-2", "other"))
        )
        assert (
            condition(found, "RolledOut").message
            == "0 of 3 pods current; 2 refused the config. web-1: no CA file"
        )

    def test_a_conflict_names_the_other_and_the_way_out(self) -> None:
        message = condition(
            replace(GOOD, conflicts=(("web-1", "older"), ("web-2", "older"))), "Conflict"
        ).message
        assert message.startswith("older is older and selects web-1, web-2")
        assert "disjoint" in message

    def test_they_are_bounded(self) -> None:
        found = replace(GOOD, rendering=Fault("InvalidConfig", "x" * 9999))
        assert len(condition(found, "Rendered").message) == MAX_MESSAGE


class TestTransitions:
    def test_a_time_moves_only_when_a_status_flips(self) -> None:
        first = tell(ABOUT, Status(), GOOD, T0)
        broken = tell(ABOUT, first, replace(GOOD, secrets=MISSING), T1)
        times = {one.type: one.last_transition_time for one in broken.conditions}
        assert times == {
            "Ready": T1, "SecretsResolved": T1, "Rendered": T1, "RolledOut": T0, "RestartRequired": T0, "Conflict": T0,
        }  # fmt: skip

    def test_another_reason_is_no_flip(self) -> None:
        first = tell(ABOUT, Status(), replace(GOOD, secrets=MISSING), T0)
        other = tell(ABOUT, first, replace(GOOD, secrets=Fault("KeyEmpty", "Secret openai is empty.")), T1)
        ready = other.condition("Ready")
        assert ready is not None
        assert (ready.reason, ready.last_transition_time) == ("KeyEmpty", T0)

    def test_nothing_new_is_nothing_to_write(self) -> None:
        first = tell(ABOUT, Status(), GOOD, T0)
        assert tell(ABOUT, first, GOOD, T1) == first

    def test_a_new_generation_is_told_without_a_flip(self) -> None:
        first = tell(ABOUT, Status(), GOOD, T0)
        later = tell(ABOUT.model_copy(update={"generation": 4}), first, GOOD, T1)
        assert {one.observed_generation for one in later.conditions} == {4}
        assert {one.last_transition_time for one in later.conditions} == {T0}


class TestEvents:
    FIRST = tell(ABOUT, Status(), GOOD, T0)

    def after(self, found: Findings, before: Status = FIRST) -> list[tuple[str, str]]:
        return [(told.kind, told.reason) for told in events(before, tell(ABOUT, before, found, T1))]

    def test_a_good_start_is_one_event(self) -> None:
        assert self.after(GOOD, Status()) == [("Normal", "Ready")]

    def test_a_bad_start_says_why_once(self) -> None:
        assert self.after(replace(GOOD, secrets=MISSING), Status()) == [("Warning", "SecretNotFound")]

    def test_nothing_new_is_no_event(self) -> None:
        assert self.after(GOOD) == []
        counted = replace(GOOD, counts=PodCounts(matched=5, injected=5, current=5))
        assert self.after(counted) == []

    def test_another_reason_is_one(self) -> None:
        broken = tell(ABOUT, self.FIRST, replace(GOOD, secrets=MISSING), T0)
        assert self.after(replace(GOOD, secrets=Fault("KeyEmpty", "x")), broken) == [("Warning", "KeyEmpty")]

    def test_healing_is_told(self) -> None:
        broken = tell(ABOUT, self.FIRST, replace(GOOD, secrets=MISSING), T0)
        assert self.after(GOOD, broken) == [
            ("Normal", "Ready"),
            ("Normal", "Resolved"),
            ("Normal", "Rendered"),
        ]

    def test_a_rollout_is_no_alarm_and_a_refusal_is(self) -> None:
        on_its_way = replace(GOOD, counts=counts(current=1, stale=2), stale=("web-1",))
        assert self.after(on_its_way) == [("Normal", "Progressing")]
        refused = replace(GOOD, counts=counts(current=1, refused=2), refusals=(("web-1", "no"),))
        assert self.after(refused) == [("Warning", "Refused")]

    def test_what_needs_people_is_told(self) -> None:
        found = replace(GOOD, restarts=(("deployment/web", ("web-1",)),), conflicts=(("web-1", "older"),))
        assert self.after(found) == [("Warning", "SidecarChanged"), ("Warning", "OlderSelectsSamePods")]

    def test_an_event_has_the_condition_s_words(self) -> None:
        (told,) = events(Status(), tell(ABOUT, Status(), replace(GOOD, secrets=MISSING), T0))
        assert isinstance(told, Told)
        assert MISSING.message in told.message
