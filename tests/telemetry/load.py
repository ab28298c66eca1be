"""A mixed load on several sidecars, and what must be told of it.

Enters: sidecars, a scripted upstream. Leaves: requests that complete, fail, are retried, refused, cut and left; and a
ledger of them, written from what the apps got and what the upstream's own ledger holds, never from what a sidecar says.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import answers
from harness.client import Answer
from harness.evidence import EVIDENCE
from harness.process import Sidecar, chat_body
from harness.upstream import HANG, RESET, SCENARIO, Gate, Pause, Script, ScriptedUpstream

CHAT, OTHER_CHAT, EMBEDDING = "gpt-4", "gpt-3.5-turbo", "text-embedding-3-small"
UNKNOWN = "_OTHER"
"""The label of a model that neither the configuration nor an upstream's answer has named."""

CUT = "upstream_disconnected"


@dataclass(frozen=True)
class Entry:
    """One request. `tokens`: input and output, None where the upstream told none. `chunks`: that reached the app."""

    namespace: str
    workload: str
    pod: str
    operation: str
    model: str
    outcome: str
    error: str | None = None
    retries: int = 0
    tokens: tuple[int | None, int | None] = (None, None)
    stream: bool = False
    chunks: int = 0


@dataclass
class Ledger:
    """All of them. Threads write it."""

    entries: list[Entry] = field(default_factory=list)

    def count(self, *by: str, of: Callable[[Entry], float] = lambda entry: 1) -> dict[tuple[str, ...], float]:
        """Sums by fields; what comes to nothing is left out."""
        sums: Counter[tuple[str, ...]] = Counter()
        for entry in self.entries:
            if value := of(entry):
                sums[tuple(str(getattr(entry, name) or "") for name in by)] += value
        return dict(sums)

    def total(self, of: Callable[[Entry], float] = lambda entry: 1) -> float:
        return sum(of(entry) for entry in self.entries)

    def since(self, mark: int) -> Ledger:
        """What was added after there were `mark` entries."""
        return Ledger(self.entries[mark:])


@dataclass(frozen=True)
class Pod:
    """A sidecar and what it is part of."""

    namespace: str
    workload: str
    name: str
    sidecar: Sidecar


PLACES = (("shop", "web", "web-1"), ("shop", "web", "web-2"), ("search", "api", "api-1"))


class Load:
    """Plays rounds of scenarios; each sees to its own entry."""

    def __init__(self, upstream: ScriptedUpstream, pods: list[Pod]) -> None:
        self.upstream = upstream
        self.pods = pods
        self.ledger = Ledger()
        self._lock = threading.Lock()
        self.scenarios: dict[str, Callable[[Pod], Entry]] = {
            "plain": self._plain, "other model": self._other_model, "stream": self._stream,
            "thinking": self._thinking, "embedding": self._embedding, "response": self._response,
            "retried": self._retried, "fails": self._fails, "limited": self._limited, "cut": self._cut,
            "refused": self._refused, "left": self._left, "made up": self._made_up,
        }  # fmt: skip

    def round(self, *chosen: str) -> None:
        """Each scenario, or those chosen, at each pod; pods side by side."""
        with ThreadPoolExecutor(len(self.pods)) as threads:
            for done in [threads.submit(self._at, pod, chosen or tuple(self.scenarios)) for pod in self.pods]:
                done.result()

    def _at(self, pod: Pod, chosen: tuple[str, ...]) -> None:
        for name in chosen:
            entry = self.scenarios[name](pod)
            with self._lock:
                self.ledger.entries.append(entry)

    @contextmanager
    def held(self, count: int) -> Iterator[None]:
        """`count` streams are open at each pod meanwhile; they complete afterwards."""
        gates: list[Gate] = []
        opened = []
        for pod in self.pods:
            for _ in range(count):
                gate = self.upstream.gate()
                head, *rest = answers.sse(answers.chat_events(usage=True))
                client = pod.sidecar.connect()
                script = [head, rest[0], gate, *rest[1:]]
                headers = {SCENARIO: self.upstream.plan(script)}
                client.request("POST", "/v1/chat/completions", chat_body(model=CHAT, stream=True), headers)
                opened.append((pod, client, client.head()))
                gates.append(gate)
        for gate in gates:
            assert gate.reached.wait(10)
        try:
            yield
        finally:
            for gate in gates:
                gate.open()
            for pod, client, head in opened:
                pieces = []
                while (piece := client.piece()) is not None:
                    pieces.append(piece)
                head.body = b"".join(pieces)
                client.socket.close()
                self.ledger.entries.append(self._streamed(pod, CHAT, head))

    def _plain(self, pod: Pod) -> Entry:
        return self._completed(pod, CHAT, pod.sidecar.chat(model=CHAT), "chat")

    def _other_model(self, pod: Pod) -> Entry:
        return self._completed(pod, OTHER_CHAT, pod.sidecar.chat(model=OTHER_CHAT), "chat")

    def _embedding(self, pod: Pod) -> Entry:
        answer = pod.sidecar.call("POST", "/v1/embeddings", {"model": EMBEDDING, "input": "Hello"})
        return self._completed(pod, EMBEDDING, answer, "embeddings")

    def _response(self, pod: Pod) -> Entry:
        answer = pod.sidecar.call("POST", "/v1/responses", {"model": CHAT, "input": "Hello"})
        return self._completed(pod, CHAT, answer, "responses")

    def _stream(self, pod: Pod) -> Entry:
        events = answers.chat_events([" word"] * 8, usage=True)
        return self._streaming(pod, [*_paced(events, 0.01)])

    def _thinking(self, pod: Pod) -> Entry:
        head, *rest = _paced(answers.chat_events(usage=True), 0.02)
        return self._streaming(pod, [head, Pause(0.3), *rest])

    def _retried(self, pod: Pod) -> Entry:
        scenario = self.upstream.plan([answers.html_502()], [answers.json_answer(answers.completion())])
        answer = pod.sidecar.chat(scenario, model=CHAT)
        return self._completed(pod, CHAT, answer, "chat", retries=self._attempts(scenario) - 1)

    def _fails(self, pod: Pod) -> Entry:
        return self._failed(pod, answers.error(400, "no", "invalid_request_error", None), 400)

    def _limited(self, pod: Pod) -> Entry:
        return self._failed(pod, answers.rate_limited(), 429)

    def _made_up(self, pod: Pod) -> Entry:
        """A name that nobody knows must not become a label."""
        refusal = answers.error(404, "no such model", "invalid_request_error", "model_not_found")
        return self._failed(pod, refusal, 404, asked=f"made-up-{len(self.ledger.entries)}", told=UNKNOWN)

    def _cut(self, pod: Pod) -> Entry:
        head, *rest = answers.sse(answers.chat_events(usage=True))
        scenario = self.upstream.plan([head, *rest[:3], Pause(0.02), RESET])
        answer = pod.sidecar.chat(scenario, model=CHAT, stream=True)
        assert answer.status == 200
        chunks = [data for data in answer.data if "error" not in data]
        assert len(chunks) == 3
        return self._entry(pod, "chat", CHAT, "failed", CUT, stream=True, chunks=len(chunks))

    def _refused(self, pod: Pod) -> Entry:
        """A body that is refused is not read further: it has no model."""
        scenario = self.upstream.plan([answers.json_answer(answers.completion())])
        assert pod.sidecar.chat(scenario, model=CHAT, temperature=3).status == 400
        assert self._attempts(scenario) == 0
        return self._entry(pod, "chat", "", "refused", "invalid_request")

    def _left(self, pod: Pod) -> Entry:
        head, *rest = answers.sse(answers.chat_events(usage=True))
        scenario = self.upstream.plan([head, *rest[:2], HANG])
        with pod.sidecar.connect() as client:
            body = chat_body(model=CHAT, stream=True)
            client.request("POST", "/v1/chat/completions", body, {SCENARIO: scenario})
            client.head()
            client.until(b"Once")
            client.leave()
        self.upstream.closing(self.upstream.only(scenario))
        return self._entry(pod, "chat", CHAT, "cancelled", stream=True, chunks=2)

    def _streaming(self, pod: Pod, script: Script) -> Entry:
        scenario = self.upstream.plan(script)
        return self._streamed(pod, CHAT, pod.sidecar.chat(scenario, model=CHAT, stream=True))

    def _streamed(self, pod: Pod, model: str, answer: Answer) -> Entry:
        assert answer.status == 200
        assert answer.data[-1] == "[DONE]"
        tokens = (answers.USAGE["prompt_tokens"], answers.USAGE["completion_tokens"])
        return self._entry(
            pod, "chat", model, "completed", tokens=tokens, stream=True, chunks=len(answer.data) - 1
        )

    def _completed(self, pod: Pod, model: str, answer: Answer, operation: str, retries: int = 0) -> Entry:
        assert answer.status == 200, answer
        usage = answer.json["usage"]
        told = (
            usage.get("prompt_tokens", usage.get("input_tokens")),
            usage.get("completion_tokens", usage.get("output_tokens")),
        )
        return self._entry(pod, operation, model, "completed", retries=retries, tokens=told)

    def _failed(self, pod: Pod, refusal: bytes, status: int, asked: str = CHAT, told: str = CHAT) -> Entry:
        scenario = self.upstream.plan([refusal])
        assert pod.sidecar.chat(scenario, model=asked).status == status
        retries = self._attempts(scenario) - 1
        return self._entry(pod, "chat", told, "failed", f"upstream_http_{status}", retries=retries)

    def _attempts(self, scenario: str) -> int:
        return len(self.upstream.of(scenario))

    def _entry(
        self, pod: Pod, operation: str, model: str, outcome: str, error: str | None = None, **more: object
    ) -> Entry:
        return Entry(pod.namespace, pod.workload, pod.name, operation, model, outcome, error, **more)  # type: ignore[arg-type]


def _paced(events: list[bytes], gap: float) -> Iterator[bytes | Pause]:
    head, *chunks = answers.sse(events)
    yield head
    for chunk in chunks:
        yield chunk
        yield Pause(gap)


@contextmanager
def pods(
    upstream: ScriptedUpstream, folder: Path, environment: Callable[..., dict[str, str]]
) -> Iterator[list[Pod]]:
    """A sidecar for each of `PLACES`, ended in the end. `environment`: of a resource's attributes."""
    running: list[Pod] = []
    try:
        for namespace, workload, name in PLACES:
            place = folder / name
            place.mkdir(parents=True)
            key = EVIDENCE.new_key()
            configured(place, upstream, key)
            environ = environment(
                k8s_namespace_name=namespace,
                k8s_workload_name=workload,
                k8s_workload_kind="deployment",
                k8s_pod_name=name,
            )
            running.append(
                Pod(namespace, workload, name, Sidecar(place / "config.yaml", key, environ=environ))
            )
        yield running
    finally:
        for pod in running:
            pod.sidecar.terminate()
        codes = [pod.sidecar.wait() for pod in running]
        faults = [fault for pod in running for fault in pod.sidecar.faults()]
    assert codes == [0] * len(running), codes
    assert not faults, faults


def configured(place: Path, upstream: ScriptedUpstream, key: str, **http: object) -> None:
    """Writes a pod's configuration, whole at once. `http`: settings that differ."""
    config = {
        "inference": {
            "api_key": key,
            "base_url": f"{upstream.url}/v1",
            "default_model": CHAT,
            "health_check_interval_secs": 0,
            "http": {"timeout_secs": 10, "retry_backoff_ms": 1, **http},
        },
        "server": {"drain_quiet_secs": 0.05},
    }
    fresh = place / ".config.yaml"
    fresh.write_text(json.dumps(config))
    fresh.rename(place / "config.yaml")
