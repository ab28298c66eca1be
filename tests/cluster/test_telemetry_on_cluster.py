"""Telemetry from a cluster, by a default of the chart: what operator, injectors and injected sidecars send to a receiver
of OTLP in it.

Tested: traces that go on from the app's, attempts below them, metrics in number, resources (namespace, pod, workload)
against what the API server says of the pods, headers out of a Secret, a Deployment's pods and one that stands alone;
operator and injectors by the same receiver; no key in anything of it. Left out: every span and metric of every outcome
(tests/sidecar), /metrics (tests/operator, tests/sidecar).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest

from cluster import objects
from cluster.release import Release
from cluster.stage import Stage, sidecar, until
from harness.evidence import EVIDENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REPLICAS = 2
CALLS = 4
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SOON = "1000"
"""A second."""
KEY, TOKEN = EVIDENCE.new_key(), EVIDENCE.new_key()

Json = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What one pod or process told, and with which headers. `spans` and `metrics` as OTLP's JSON has them."""

    resource: dict[str, str]
    headers: dict[str, str]
    spans: tuple[Json, ...]
    metrics: tuple[Json, ...]


class Collector:
    """The receiver's ledger, read through the API server."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._path = f"/api/v1/namespaces/{stage.namespace}/pods/collector:4318/proxy/told?after="
        self._lines: list[Json] = []

    def told(self, service: str) -> list[Told]:
        """Everything that processes of that `service.name` have told so far, in the order of its arrival."""
        raw = self._stage.cluster.kubectl("get", "--raw", f"{self._path}{len(self._lines)}")
        self._lines += [json.loads(line) for line in raw.splitlines()]
        found = []
        for line in self._lines:
            for kind, below, items in (("resourceSpans", "scopeSpans", "spans"), ("resourceMetrics", "scopeMetrics", "metrics")):  # fmt: skip
                for one in line["told"].get(kind, []):
                    resource = attributes(one["resource"])
                    things = tuple(thing for scope in one[below] for thing in scope[items])
                    spans, metrics = (things, ()) if items == "spans" else ((), things)
                    if resource["service.name"] == service:
                        found.append(Told(resource, line["headers"], spans, metrics))
        return found

    def spans(self, pod: str) -> list[Json]:
        return [span for told in self.of_pod("inference-sidecar", pod) for span in told.spans]

    def points(self, service: str, metric: str, pod: str) -> list[Json]:
        """The data points of a metric as the pod told it last."""
        found: list[Json] = []
        for told in self.of_pod(service, pod):
            for one in told.metrics:
                if one["name"] == metric:
                    (data,) = (one[kind] for kind in ("sum", "gauge", "histogram") if kind in one)
                    found = data["dataPoints"]
        return found

    def of_pod(self, service: str, pod: str) -> list[Told]:
        return [told for told in self.told(service) if told.resource["k8s.pod.name"] == pod]

    def text(self) -> str:
        """All that was told, without the headers: those are to hold a secret."""
        return json.dumps([line["told"] for line in self._lines])


@pytest.fixture
def collector(release: Release, stage: Stage) -> Collector:
    """A release whose values send all telemetry to the receiver. Upgraded into it, so that injectors have to follow."""
    release.install()
    stage.apply(*objects.collector(stage.image), *objects.upstream(stage.image))
    for name in ("collector", "upstream"):
        stage.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    url = f"http://collector.{stage.namespace}:4318"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_METRIC_EXPORT_INTERVAL": SOON}
    values = [f"sidecar.telemetry.endpoint={url}"]
    values += [
        "sidecar.telemetry.headersSecretRef.name=otlp",
        "sidecar.telemetry.headersSecretRef.key=headers",
    ]
    values += ["sidecar.telemetry.resourceAttributes.team=platform"]
    for component in ("operator", "injector"):
        for number, (name, value) in enumerate(variables.items()):
            values += [f"{component}.env[{number}].name={name}", f"{component}.env[{number}].value={value}"]
    release.upgrade(texts=values)
    return Collector(stage)


def test_telemetry_arrives_and_says_whose_it_is(release: Release, stage: Stage, collector: Collector) -> None:
    pods = the_pods_are_made(stage)
    the_operator_tells(release, stage, collector)
    the_injectors_tell(release, collector, len(pods))
    for pod in pods:
        calls_are_made(stage, pod)
    for pod in pods:
        its_traces_go_on_from_the_apps(stage, collector, pod)
        its_metrics_count_the_calls(collector, pod)
        it_says_whose_it_is(collector, pod, stage.namespace)
    no_key_is_in_it(release, stage, collector, pods)


def the_pods_are_made(stage: Stage) -> list[Json]:
    """A Deployment's, and one that stands alone. The chart says where telemetry goes, the config how often."""
    often = [
        {"name": "OTEL_METRIC_EXPORT_INTERVAL", "value": SOON},
        {"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "200"},
    ]
    inference = {"apiKeySecretRef": {"name": "openai", "key": "api-key"}, "baseUrl": "http://upstream/v1", "defaultModel": "gpt-4o"}  # fmt: skip
    stage.apply(
        objects.secret(KEY),
        objects.secret_of("otlp", "headers", f"authorization=Bearer {TOKEN}"),
        objects.config(inference=inference, selector={}, sidecar={"env": often}),
    )
    stage.kubectl("wait", "--for=condition=Ready", "inferenceconfig/openai", "--timeout=30s")
    labels = {"app": "web", **objects.OPTED_IN}
    waits = objects.template(stage.image, "sleep", "600", labels=labels)
    stage.apply(
        objects.workload("Deployment", "web", waits, replicas=REPLICAS),
        objects.pod("alone", stage.image, "sleep", "600", labels={"app": "alone", **objects.OPTED_IN}),
    )
    stage.until_rolled_out()
    stage.kubectl("wait", "--for=condition=Ready", "pod/alone", "--timeout=60s")
    return [*stage.pods(), *stage.pods("alone")]


def calls_are_made(stage: Stage, pod: Json) -> None:
    """From within the app's container, as children of a span of the app's."""
    command = f"TRACEPARENT=00-{TRACE}-{SPAN}-01 CALLS={CALLS} PAUSE=0 python app.py"
    told = stage.kubectl("exec", pod["metadata"]["name"], "--container=app", "--", "sh", "-c", command)
    assert [json.loads(line)["ok"] for line in told.splitlines()] == [True] * CALLS


def its_traces_go_on_from_the_apps(stage: Stage, collector: Collector, pod: Json) -> None:
    name = pod["metadata"]["name"]
    until(
        f"the spans of {CALLS} calls of {name}",
        lambda: len([one for one in collector.spans(name) if one["kind"] == "SPAN_KIND_SERVER"]) >= CALLS,
    )
    spans = collector.spans(name)
    by_id = {identity(span["spanId"]): span for span in spans}
    servers = [span for span in spans if span["kind"] == "SPAN_KIND_SERVER"]
    assert len(servers) == CALLS
    for server in servers:
        assert (identity(server["traceId"]), identity(server["parentSpanId"])) == (TRACE, SPAN)
        assert server["name"] == "POST /v1/chat/completions"
    chats = [span for span in spans if span["name"] == "chat gpt-4o"]
    assert len(chats) == CALLS
    for chat in chats:
        assert chat["kind"] == "SPAN_KIND_CLIENT"
        assert by_id[identity(chat["parentSpanId"])] in servers
        told = attributes(chat)
        assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "gpt-4o")
        assert told["gen_ai.usage.output_tokens"] == "3"
    attempts = [span for span in spans if by_id.get(identity(span.get("parentSpanId", ""))) in chats]
    assert len(attempts) == CALLS
    address = pod["status"]["podIP"]
    assert len([entry for entry in stage.ledger() if entry["pod"] == address]) == CALLS


def its_metrics_count_the_calls(collector: Collector, pod: Json) -> None:
    name = pod["metadata"]["name"]

    def counted() -> bool:
        points = collector.points("inference-sidecar", "gen_ai.client.operation.duration", name)
        return sum(int(point["count"]) for point in points) == CALLS

    until(f"the duration of {CALLS} calls of {name}", counted)
    for point in collector.points("inference-sidecar", "gen_ai.client.operation.duration", name):
        told = attributes(point)
        assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "gpt-4o")
        assert told["server.address"] == "upstream"
    tokens = collector.points("inference-sidecar", "gen_ai.client.token.usage", name)
    used = {attributes(point)["gen_ai.token.type"]: point["sum"] for point in tokens}
    assert used["output"] == 3 * CALLS


def it_says_whose_it_is(collector: Collector, pod: Json, namespace: str) -> None:
    metadata = pod["metadata"]
    alone = metadata["labels"]["app"] == "alone"
    told = collector.of_pod("inference-sidecar", metadata["name"])
    assert any(one.spans for one in told)
    assert any(one.metrics for one in told)
    for one in told:
        assert one.resource.items() >= {
            "k8s.namespace.name": namespace, "k8s.pod.name": metadata["name"], "k8s.pod.uid": metadata["uid"],
            "k8s.node.name": pod["spec"]["nodeName"], "k8s.container.name": "inference-sidecar",
            "k8s.workload.kind": "pod" if alone else "deployment", "k8s.workload.name": "alone" if alone else "web",
            "service.name": "inference-sidecar", "service.namespace": namespace, "team": "platform",
            "service.instance.id": f"{namespace}.{metadata['name']}.inference-sidecar",
        }.items()  # fmt: skip
        assert one.resource.get("k8s.deployment.name") == (None if alone else "web")
        assert one.headers["authorization"] == f"Bearer {TOKEN}"


def the_operator_tells(release: Release, stage: Stage, collector: Collector) -> None:
    (pod,) = of_component(release, "operator")
    config = {"config_namespace": stage.namespace, "config": "openai", "state": "current"}

    def current() -> int:
        points = collector.points("inference-operator", "inference_operator.pods", pod)
        return sum(int(value(point)) for point in points if attributes(point) == config)

    until("the operator tells of all pods", lambda: current() == REPLICAS + 1)
    until(
        "and that it reconciled",
        lambda: collector.points("inference-operator", "inference_operator.reconciles", pod),
    )
    its_own(collector, "inference-operator", release, pod, "operator", release.name)


def the_injectors_tell(release: Release, collector: Collector, pods: int) -> None:
    injectors = of_component(release, "injector")

    def injected() -> float:
        points = [
            point
            for pod in injectors
            for point in collector.points("inference-injector", "inference_operator.admissions", pod)
        ]
        return sum(value(point) for point in points if attributes(point)["outcome"] == "injected")

    until("the injectors tell of all pods", lambda: injected() >= pods)
    for pod in injectors:
        its_own(collector, "inference-injector", release, pod, "injector", f"{release.name}-injector")


def its_own(
    collector: Collector, service: str, release: Release, pod: str, component: str, workload: str
) -> None:
    """What a process of the release says of itself."""
    told = until(f"{pod} has told something", lambda: collector.of_pod(service, pod))
    for one in told:
        assert one.resource.items() >= {
            "k8s.namespace.name": release.namespace, "k8s.workload.kind": "deployment", "k8s.workload.name": workload,
            "service.instance.id": f"{release.namespace}.{pod}.{component}",
        }.items()  # fmt: skip


def no_key_is_in_it(release: Release, stage: Stage, collector: Collector, pods: list[Json]) -> None:
    """Neither in what was told nor, of the headers, in a pod's spec; the canaries are looked for after the test."""
    EVIDENCE.add("telemetry from the cluster", collector.text().encode())
    EVIDENCE.add("pods of the cluster", json.dumps(pods).encode())
    EVIDENCE.add("logs of operator and injectors", release.logs().encode())
    for pod in pods:
        made = sidecar(pod)
        assert made is not None
        (headers,) = [one for one in made["env"] if one["name"] == "OTEL_EXPORTER_OTLP_HEADERS"]
        assert headers["valueFrom"] == {"secretKeyRef": {"name": "otlp", "key": "headers", "optional": True}}
        log = stage.log(pod["metadata"]["name"], "inference-sidecar")
        EVIDENCE.add("log of a sidecar in the cluster", log.encode())
    assert {entry["key"] for entry in stage.ledger()} == {KEY}


def of_component(release: Release, component: str) -> list[str]:
    """Names of the release's pods that are not about to go."""
    labels = f"--selector=app.kubernetes.io/component={component}"
    found = release.cluster.get("pods", labels, f"--namespace={release.namespace}")["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def attributes(told: Json) -> dict[str, str]:
    """Of a resource, a span or a point; every value as a text."""
    return {one["key"]: str(next(iter(one["value"].values()), "")) for one in told.get("attributes", [])}


def value(point: Json) -> float:
    return float(point.get("asInt", point.get("asDouble", 0)))


def identity(text: str) -> str:
    """As traceparent has it."""
    return base64.b64decode(text).hex()
