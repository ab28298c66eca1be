"""The rollout of one config by table: which pods count as what, who is nudged, what needs a restart; and answers of
pods that lie, ramble or say nothing.

Left out: asking the pods (sidecars), the words of the status (test_status).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pods import config, pod_object
from inference_operator import crd, naming
from inference_operator.inject import Injected, inject, shape
from inference_operator.rollout import (
    MAX_ANSWER_BYTES,
    NUDGES,
    Answer,
    Pod,
    Rollout,
    Silence,
    answer_of,
    judge,
    nudge_delay,
    pod_of,
)

NOW, BEFORE = "r-now", "r-before"
TEAM = config()
SHAPE = shape(TEAM.spec.sidecar, crd.Sidecar())


def live(
    name: str = "web-1", *, nudged: str = "", phase: str = "Running", state: dict[str, Any] | None = None,
    of: crd.InferenceConfig = TEAM, **pod: Any,
) -> dict[str, Any]:  # fmt: skip
    """An injected pod as the API server has it. `state`: of its sidecar's container; absent: it has started."""
    found = inject(pod_object(**pod), of, crd.Sidecar())
    assert isinstance(found, Injected)
    made = dict(found.pod)
    annotations = {**made["metadata"]["annotations"], **({naming.NUDGE_ANNOTATION: nudged} if nudged else {})}
    made["metadata"] = {
        **made["metadata"],
        "name": name,
        "namespace": "shop",
        "uid": name,
        "annotations": annotations,
    }
    told = state or {"started": True, "state": {"running": {}}}
    made["status"] = {
        "phase": phase, "podIP": "10.0.0.1", "initContainerStatuses": [{"name": naming.CONTAINER, **told}],
    }  # fmt: skip
    return made


def bare(name: str = "web-1", **pod: Any) -> dict[str, Any]:
    made = pod_object(**pod)
    made["metadata"] = {**made["metadata"], "name": name, "uid": name}
    made["status"] = {"phase": "Running", "podIP": "10.0.0.2"}
    return made


def stand(
    *objects: dict[str, Any], answers: dict[str, Answer | Silence] | None = None, of: crd.InferenceConfig = TEAM,
    configs: Sequence[crd.InferenceConfig] = (TEAM,), revision: str = NOW,
) -> Rollout:  # fmt: skip
    pods = [pod_of(obj) for obj in objects]
    return judge(of, configs, pods, answers or {}, revision=revision, shape=SHAPE)


def counted(rollout: Rollout) -> dict[str, int]:
    return {name: number for name, number in rollout.counts.model_dump().items() if number}


class TestCounts:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (Answer(NOW), "current"),
            (Answer(BEFORE), "stale"),
            (Answer(BEFORE, "no", NOW), "refused"),
            (Answer(BEFORE, "no", None), "refused"),
            (Answer(BEFORE, "no", "one even before"), "stale"),
            (Answer(NOW, "no", "one after"), "current"),
            (Answer(NOW, "a CA file that came later", NOW), "refused"),
            (Answer(NOW, "no", None), "current"),
            (Silence("timed out"), "unreachable"),
            (None, "unreachable"),
        ],
    )
    def test_what_an_answer_makes_of_a_pod(self, answer: Answer | Silence | None, kind: str) -> None:
        found = stand(live(), answers={} if answer is None else {"web-1": answer})
        assert counted(found) == {"matched": 1, "injected": 1, kind: 1}

    @pytest.mark.parametrize(
        "state",
        [
            {"started": False, "state": {"running": {}}},
            {"state": {"waiting": {"reason": "PodInitializing"}}},
            {"state": {"terminated": {}}},
        ],
    )
    def test_one_that_is_starting_is_nothing_yet(self, state: dict[str, Any]) -> None:
        found = stand(live(state=state))
        assert counted(found) == {"matched": 1, "injected": 1}
        assert not found.nudges

    def test_one_that_cannot_start_says_why(self) -> None:
        found = stand(live(state={"started": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}))
        assert found.counts.unreachable == 1
        assert found.silent == (("web-1", "its sidecar is in CrashLoopBackOff"),)

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
    def test_one_that_is_over_is_not_counted(self, phase: str) -> None:
        assert counted(stand(live(phase=phase))) == {}
        leaving = live()
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert counted(stand(leaving)) == {}

    def test_one_that_came_up_without_its_sidecar(self) -> None:
        found = stand(bare(), live("web-2"), answers={"web-2": Answer(NOW)})
        assert counted(found) == {"matched": 2, "injected": 1, "current": 1}
        assert found.bare == ("web-1",)

    def test_one_that_does_not_ask_is_nobody_s(self) -> None:
        for labels in ({naming.INJECT_LABEL: "false"}, {"app": "other"}):
            assert counted(stand(bare(labels=labels))) == {}
        pod = pod_of(bare(labels={naming.INJECT_LABEL: "false"}), namespace_opted_in=True)
        assert not pod.asks

    def test_one_of_a_namespace_that_asks(self) -> None:
        obj = bare()
        del obj["metadata"]["labels"][naming.INJECT_LABEL]
        assert not pod_of(obj).asks
        assert pod_of(obj, namespace_opted_in=True).asks

    def test_pods_are_in_order_of_their_names(self) -> None:
        names = [f"web-{number}" for number in (3, 1, 2)]
        found = stand(*(live(name) for name in names), answers={name: Answer(BEFORE, "no") for name in names})
        assert [name for name, _ in found.refusals] == sorted(names)


class TestNudges:
    @pytest.mark.parametrize(
        ("nudged", "value"),
        [("", f"{NOW}.0"), (f"{BEFORE}.5", f"{NOW}.0"), (f"{NOW}.0", f"{NOW}.1"), ("spoilt", f"{NOW}.0")],
    )
    def test_a_stale_one_again_and_again(self, nudged: str, value: str) -> None:
        (nudge,) = stand(live(nudged=nudged), answers={"web-1": Answer(BEFORE)}).nudges
        assert (nudge.pod.name, nudge.value) == ("web-1", value)

    def test_but_not_for_ever(self) -> None:
        assert stand(live(nudged=f"{NOW}.{NUDGES - 1}"), answers={"web-1": Answer(BEFORE)}).nudges == ()

    def test_a_silent_one_once(self) -> None:
        silence: dict[str, Answer | Silence] = {"web-1": Silence("timed out")}
        assert [one.value for one in stand(live(), answers=silence).nudges] == [f"{NOW}.0"]
        assert stand(live(nudged=f"{NOW}.0"), answers=silence).nudges == ()

    @pytest.mark.parametrize("answer", [Answer(NOW), Answer(BEFORE, "no", NOW)])
    def test_nobody_who_has_seen_it(self, answer: Answer) -> None:
        assert stand(live(), answers={"web-1": answer}).nudges == ()

    def test_nobody_where_nothing_is_rendered(self) -> None:
        assert stand(live(), answers={"web-1": Answer(BEFORE)}, revision="").nudges == ()

    def test_delays_grow_to_a_bound(self) -> None:
        delays = [nudge_delay(number) for number in range(NUDGES + 4)]
        assert delays[0] == 0
        assert delays[1] <= 0.5
        assert delays == sorted(delays)
        assert delays[-1] == 30


class TestRestarts:
    def test_a_pod_of_another_shape(self) -> None:
        before = config(sidecar={"logLevel": "debug"})
        found = stand(
            live("web-1", of=before),
            live("web-2"),
            answers={name: Answer(NOW) for name in ("web-1", "web-2")},
        )
        assert found.restarts() == (("deployment/web", ("web-1",)),)
        assert found.counts.current == 2

    def test_a_pod_that_says_so(self) -> None:
        answer = Answer(NOW, waiting_for_restart=("server.port",))
        assert stand(live(), answers={"web-1": answer}).restarts() == (("deployment/web", ("web-1",)),)

    def test_by_workload(self) -> None:
        before = config(sidecar={"logLevel": "debug"})
        alone = live("alone", of=before)
        del alone["metadata"]["ownerReferences"]
        found = stand(live("web-2", of=before), live("web-1", of=before), alone)
        assert found.restarts() == (("deployment/web", ("web-1", "web-2")), ("pod/alone", ("alone",)))


class TestConflicts:
    OLD, YOUNG = (
        config("old", created="2026-01-01T00:00:00Z"),
        config("young", created="2026-02-01T00:00:00Z"),
    )

    def of(self, which: crd.InferenceConfig, *objects: dict[str, Any]) -> Rollout:
        return stand(*objects, of=which, configs=(self.YOUNG, self.OLD))

    def test_the_younger_is_told(self) -> None:
        pod = live(of=self.OLD)
        assert self.of(self.YOUNG, pod).conflicts == (("web-1", "old"),)
        assert self.of(self.OLD, pod).conflicts == ()
        assert counted(self.of(self.YOUNG, pod)) == {}
        assert self.of(self.OLD, pod).counts.injected == 1

    def test_a_pod_that_names_its_config_is_no_conflict(self) -> None:
        pod = live(of=self.YOUNG, annotations={naming.CONFIG_ANNOTATION: "young"})
        assert self.of(self.YOUNG, pod).conflicts == ()
        assert self.of(self.YOUNG, pod).counts.injected == 1

    def test_a_pod_that_does_not_ask_is_none_either(self) -> None:
        assert self.of(self.YOUNG, bare(labels={naming.INJECT_LABEL: "false"})).conflicts == ()

    def test_a_bare_pod_is_the_older_s(self) -> None:
        assert self.of(self.OLD, bare()).bare == ("web-1",)
        assert self.of(self.YOUNG, bare()).bare == ()


class TestPods:
    def test_what_is_kept_of_one(self) -> None:
        pod = pod_of(live(annotations={naming.ADMIN_PORT_ANNOTATION: "4001"}, nudged=f"{NOW}.3"))
        assert (pod.name, pod.ip, pod.config, pod.shape) == ("web-1", "10.0.0.1", "team", SHAPE)
        assert (pod.admin_port, pod.nudged, str(pod.workload)) == (4001, (NOW, 3), "deployment/web")
        assert pod.injected
        assert pod.can_be_asked

    def test_an_object_with_nothing_in_it(self) -> None:
        pod = pod_of({})
        assert (pod.asks, pod.injected, pod.can_be_asked, pod.over) == (False, False, False, False)

    def test_a_stamp_without_a_container_is_no_sidecar(self) -> None:
        pod = live()
        pod["spec"] = {**pod["spec"], "initContainers": []}
        assert not pod_of(pod).injected

    def test_without_an_address_nobody_can_be_asked(self) -> None:
        pod = live()
        pod["status"]["podIP"] = ""
        assert not pod_of(pod).can_be_asked


class TestAnswers:
    def test_what_a_sidecar_says(self) -> None:
        body = {
            "version": "0.1.0", "schema_version": 1, "digest": "sha256:0", "revision": NOW, "generation": 2,
            "refused": {"revision": "next", "reason": "inference.x: found 1", "at": "2026-01-01T00:00:00Z"},
            "waiting_for_restart": ["server.port"], "draining": False,
        }  # fmt: skip
        assert answer_of(json.dumps(body).encode()) == Answer(
            NOW, "inference.x: found 1", "next", ("server.port",)
        )
        assert answer_of(json.dumps({**body, "refused": None}).encode()) == Answer(
            NOW, None, None, ("server.port",)
        )

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"null",
            b'{"revision": 1}',
            b"\xff",
            b"[" * 50_000,
            b"{" + b" " * MAX_ANSWER_BYTES + b"}",
        ],
        ids=range(8),
    )
    def test_what_is_no_answer(self, body: bytes) -> None:
        found = answer_of(body)
        assert isinstance(found, Silence)
        assert found.reason.startswith("its /status")

    def test_what_goes_too_far_is_cut(self) -> None:
        body = {
            "revision": "r" * 9999, "refused": {"reason": "x\n\x1b[31m" * 200, "revision": 7},
            "waiting_for_restart": ["s" * 999, 1] * 40,
        }  # fmt: skip
        found = answer_of(json.dumps(body).encode())
        assert isinstance(found, Answer)
        assert len(found.revision) == 256
        assert found.refused is not None
        assert found.refused.isprintable()
        assert len(found.refused) < 4000
        assert found.refused_revision is None
        assert len(found.waiting_for_restart) == 32
        assert max(map(len, found.waiting_for_restart)) == 100

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda below: (
                st.lists(below)
                | st.dictionaries(
                    st.sampled_from(["revision", "refused", "reason", "waiting_for_restart"]), below
                )
            ),
        )
    )
    def test_whatever_comes_is_one_or_the_other(self, said: Any) -> None:
        assert isinstance(answer_of(json.dumps(said).encode()), Answer | Silence)


def test_every_pod_is_counted_once() -> None:
    answers: list[Answer | Silence] = [Answer(NOW), Answer(BEFORE), Answer(BEFORE, "no"), Silence("x")]
    objects = [live(f"web-{number}") for number in range(12)]
    found = stand(
        *objects, bare("web-99"), answers={f"web-{number}": answers[number % 4] for number in range(12)}
    )
    assert counted(found) == {
        "matched": 13,
        "injected": 12,
        "current": 3,
        "stale": 3,
        "refused": 3,
        "unreachable": 3,
    }
    assert isinstance(found.nudges[0].pod, Pod)
