"""What each query of the dashboards has to answer, from the ledger.

Enters: a scene. Leaves: for each query a check of its samples. A query without an entry here is a mistake. What the
ledger can know is checked against it; times and the like have bounds that the load's own pauses set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from inference_operator.telemetry import names as operator_names
from inference_sidecar.telemetry import names
from telemetry import operating
from telemetry.boards import PRICES, Target
from telemetry.load import PLACES, Entry
from telemetry.scene import Scene

Samples = list[tuple[dict[str, str], float]]
Check = Callable[[Samples], None]

NAMESPACE, WORKLOAD, POD = "k8s_namespace_name", "k8s_workload_name", "k8s_pod_name"
MODEL, OUTCOME, ERROR, TOKENS = "gen_ai_request_model", "outcome", "error_type", "gen_ai_token_type"
FIELDS = {
    NAMESPACE: "namespace", WORKLOAD: "workload", POD: "pod", MODEL: "model", OUTCOME: "outcome", ERROR: "error",
    "gen_ai_operation_name": "operation",
}  # fmt: skip

Counts = Mapping[tuple[str, ...], float]


def failed(entry: Entry) -> bool:
    return entry.outcome == "failed"


def judged(entry: Entry) -> bool:
    return entry.outcome in ("completed", "failed")


def went_up(entry: Entry) -> bool:
    return entry.outcome != "refused"


def tokens(entry: Entry) -> float:
    return sum(count or 0 for count in entry.tokens)


def cost(entry: Entry) -> float:
    special = entry.model.startswith("gpt-4")
    prices = ("special_input_price", "special_output_price") if special else ("input_price", "output_price")
    spent = ((count or 0) * float(PRICES[price]) for count, price in zip(entry.tokens, prices, strict=True))
    return sum(spent) / 1e6


class Expected:
    """The checks of one scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._window = scene.window
        self._ledger = scene.ledger
        self._checks = self._table()

    def check(self, target: Target) -> Check:
        """Raises KeyError for a query that nobody has thought of."""
        board, title, letter = target.key
        kind = "at a glance" if target.instant and target.panel["type"] == "stat" else "over time"
        for key in ((board, title, letter), (title, letter), (kind, title), title):
            if key in self._checks:
                return self._checks[key]
        raise KeyError(f"{target.key}: nothing is expected of it")

    def grown(
        self, by: tuple[str, ...], of: Callable[[Entry], float] = lambda entry: 1, per: float = 0
    ) -> Check:
        """Rises by what the ledger counts. `per`: seconds of a rate's unit, 0 for an increase."""
        return self.rises(by, self._ledger.count(*(FIELDS[label] for label in by), of=of), per)

    def rises(self, by: tuple[str, ...], wanted: Counts, per: float = 0) -> Check:
        factor = self._window / per if per else 1

        def check(samples: Samples) -> None:
            found = {tuple(labels.get(name, "") for name in by): value * factor for labels, value in samples}
            moved = {key: value for key, value in found.items() if value > 1e-12}
            assert set(moved) == set(wanted), (sorted(moved), sorted(wanted))
            for key, count in wanted.items():
                assert count * 0.9999 <= moved[key] <= count * self._scene.slack, (key, count, moved[key])

        return check

    def share(
        self, by: tuple[str, ...], part: Callable[[Entry], bool], whole: Callable[[Entry], bool]
    ) -> Check:
        fields = tuple(FIELDS[label] for label in by)
        wholes = self._ledger.count(*fields, of=whole)
        parts = self._ledger.count(*fields, of=lambda entry: whole(entry) and part(entry))
        wanted = {key: parts.get(key, 0) / count for key, count in wholes.items()}

        def check(samples: Samples) -> None:
            found = {tuple(labels.get(name, "") for name in by): value for labels, value in samples}
            assert set(found) == set(wanted)
            for key, value in wanted.items():
                # Series of one process are sampled at the same moments, of several nearly.
                assert math.isclose(found[key], value, rel_tol=0.02), (key, found[key], value)

        return check

    @staticmethod
    def equal(by: tuple[str, ...], wanted: Mapping[tuple[str, ...], float], tolerance: float = 0) -> Check:
        def check(samples: Samples) -> None:
            found = {tuple(labels.get(name, "") for name in by): value for labels, value in samples}
            assert set(found) == set(wanted), (sorted(found), sorted(wanted))
            for key, value in wanted.items():
                assert math.isclose(found[key], value, rel_tol=tolerance, abs_tol=1e-9), (key, found[key])

        return check

    @staticmethod
    def within(least: float, most: float, series: int = 1) -> Check:
        """Each of so many series is between the two."""

        def check(samples: Samples) -> None:
            assert len(samples) == series, samples
            for labels, value in samples:
                assert least <= value <= most, (labels, value)

        return check

    def _table(self) -> dict[object, Check]:
        checks: dict[object, Check] = {}
        checks |= self._of_requests()
        checks |= self._of_times()
        checks |= self._of_tokens()
        checks |= self._of_sidecars()
        checks |= self._of_the_operator()
        return checks

    def _of_requests(self) -> dict[object, Check]:
        streams = self._ledger_of_streams
        return {
            ("at a glance", "Requests"): self.grown(()),
            ("at a glance", "Error rate"): self.share((), failed, judged),
            ("at a glance", "Refused"): self.grown((), lambda entry: entry.outcome == "refused"),
            ("at a glance", "Streams completed"): self.share((), lambda entry: not failed(entry), streams),
            "Requests by outcome": self.grown((OUTCOME,), per=1),
            "Requests by namespace": self.grown((NAMESPACE,), per=1),
            "Requests by model": self.grown((MODEL,), per=1),
            "Requests by operation": self.grown(("gen_ai_operation_name",), per=1),
            ("over time", "Error rate"): self.share((), failed, judged),
            "Error rate by namespace": self.share((NAMESPACE,), failed, judged),
            "Errors by type": self.grown(
                (ERROR,), lambda entry: entry.outcome in ("failed", "refused"), per=1
            ),
            ("platform", "Retries", "A"): self.grown((MODEL,), lambda entry: entry.retries, per=1),
            ("workload", "Retries", "A"): self.grown((), lambda entry: entry.retries, per=1),
            ("over time", "Streams completed"): self.share(
                (NAMESPACE,), lambda entry: not failed(entry), streams
            ),
            "Streams by outcome": self.grown((OUTCOME,), lambda entry: entry.stream, per=1),
            "Chunks": self.grown((), lambda entry: entry.chunks, per=1),
            ("Workloads", "A"): self.grown((NAMESPACE, WORKLOAD)),
            ("Workloads", "B"): self.share((NAMESPACE, WORKLOAD), failed, judged),
        }

    @staticmethod
    def _ledger_of_streams(entry: Entry) -> bool:
        return entry.stream and judged(entry)

    def _of_times(self) -> dict[object, Check]:
        # One stream in four says nothing for 0.3 s; the others' pauses are a hundredth.
        slow, quick = (0.25, 5.0), (0.0, 2.0)
        models = len(self._ledger.count("model", of=went_up))
        return {
            ("at a glance", "Time to first token, p95"): self.within(*slow),
            ("at a glance", "Duration, p95"): self.within(*slow),
            ("at a glance", "Tokens a second of a stream"): self.within(1, 1000),
            **{
                (title, letter): self.within(*(quick if letter == "A" else slow))
                for title in ("Time to first token", "Time to first chunk")
                for letter in "ABC"
            },
            ("Duration", "A"): self.within(*quick),
            ("Duration", "B"): self.within(0.05, 5.0),
            ("Duration", "C"): self.within(*slow),
            **{
                (title, letter): self.within(0.0, 1.0)
                for title in ("Time per output token", "Gaps between chunks")
                for letter in "ABC"
            },
            "Duration by model, p95": self.within(0.0, 5.0, models),
            "Time to first token by model, p95": self.within(*slow),
            ("Tokens per second of a stream", "A"): self.within(1, 1000),
            ("Tokens per second of a stream", "B"): self.within(1, 1000),
            "Duration of streams": self.within(0.0, 5.0, 3),
            "Spread of the duration": self._spread(),
            ("Workloads", "C"): self.within(*slow, 2),
        }

    def _spread(self) -> Check:
        every = {("+Inf",): self._ledger.total(went_up)}
        rises = self.rises(("le",), every, per=1)

        def check(samples: Samples) -> None:
            assert len(samples) == len(names.OPERATION_DURATION.bounds) + 1
            rises([sample for sample in samples if sample[0]["le"] == "+Inf"])

        return check

    def _of_tokens(self) -> dict[object, Check]:
        places = {"input": 0, "output": 1}
        by_type = {
            (kind,): self._ledger.total(lambda entry, at=at: entry.tokens[at] or 0)  # type: ignore[misc]
            for kind, at in places.items()
        }
        requests = {
            (kind,): self._ledger.total(lambda entry, at=at: entry.tokens[at] is not None)  # type: ignore[misc]
            for kind, at in places.items()
        }
        mean = {kind: by_type[kind] / requests[kind] for kind in by_type}
        by_model = (NAMESPACE, MODEL)
        return {
            ("at a glance", "Tokens"): self.grown((), tokens),
            ("at a glance", "Cost"): self.grown((), cost),
            ("over time", "Tokens"): self.rises((TOKENS,), by_type, per=1),
            "Tokens by namespace": self.grown((NAMESPACE,), tokens, per=1),
            "Tokens by model": self.grown((MODEL,), tokens, per=1),
            "Tokens per request": self.equal((TOKENS,), mean, 0.02),
            "Cost an hour by namespace": self.grown((NAMESPACE,), cost, per=3600),
            "Cost an hour by model": self.grown((MODEL,), cost, per=3600),
            ("Cost by namespace and model", "A"): self.grown(by_model, cost),
            ("Cost by namespace and model", "B"): self.grown(by_model, lambda entry: entry.tokens[0] or 0),
            ("Cost by namespace and model", "C"): self.grown(by_model, lambda entry: entry.tokens[1] or 0),
            ("Workloads", "D"): self.grown((NAMESPACE, WORKLOAD), tokens),
        }

    def _of_sidecars(self) -> dict[object, Check]:
        reloads = {("applied",): self._scene.reloads, ("refused",): self._scene.reloads}
        namespaces = {(namespace,): 0.0 for namespace, _, _ in PLACES}
        return {
            ("at a glance", "Sidecars"): self.equal((), {(): len(PLACES)}),
            ("at a glance", "Pods"): self.equal((), {(): len(PLACES)}),
            ("platform", "Open requests", "A"): self.equal((NAMESPACE,), namespaces),
            ("workload", "Open requests", "A"): self.equal((POD,), {(pod,): 0 for _, _, pod in PLACES}),
            "Connections to upstreams": self.within(0, 100, 2),
            "Connections to the upstream": self.within(0, 100, 2),
            "Configurations found by sidecars": self.rises((OUTCOME,), reloads, per=60),
            "Configurations found": self.rises((OUTCOME,), reloads, per=60),
            "Versions": self.within(len(PLACES), len(PLACES)),
        }

    def _of_the_operator(self) -> dict[object, Check]:
        rounds = self._scene.rounds
        states = {state: 0.0 for counts in operating.PODS.values() for state in counts}
        for counts in operating.PODS.values():
            for state, count in counts.items():
                states[state] += count
        config = (operator_names.CONFIG_NAMESPACE, operator_names.CONFIG)
        rollout = {
            ("Rollout of each InferenceConfig", letter): self.equal(
                config, {tuple(key.split("/")): counts[state] for key, counts in operating.PODS.items()}
            )
            for letter, state in zip(
                "ABCDE", ("stale", "refused", "unreachable", "current", "injected"), strict=True
            )
        }
        admissions = {key: count * rounds for key, count in operating.ADMISSIONS.items()}
        reconciles = {(outcome,): count * rounds for outcome, count in operating.RECONCILES.items()}
        ends = {
            ("leaf",): operating.LEAF_DAYS * 86400,
            ("authority",): operating.AUTHORITY_DAYS * 86400,
        }
        return {
            "Pods by state": self.equal(("state",), {(state,): count for state, count in states.items()}),
            **rollout,
            "Reconciles": self.rises((OUTCOME,), reconciles, per=60),
            ("Duration of reconciles", "A"): self.within(0.01, 0.025),
            ("Duration of reconciles", "B"): self.within(0.01, 0.025),
            "Admissions": self.rises((OUTCOME, "reason"), admissions, per=60),
            ("Duration of admissions", "A"): self.within(0.005, 0.01),
            ("Duration of admissions", "B"): self.within(0.005, 0.01),
            "Certificates end in": self.equal(("certificate",), ends, 0.001),
        }
