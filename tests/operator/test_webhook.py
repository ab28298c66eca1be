"""The injector over TLS, as the API server calls it: every kind of outcome, and what it says in its log and figures.

Tested: patch, warnings, refusals, pods that are left alone, a second call; configs that cannot be read, at all or in
time; a fault of its own; bodies that are too large, late or no review; many at once. Left out: certificates
(test_webhook_tls), start and end (test_webhook_process), the decisions themselves (test_inject), a real API server.
"""

from __future__ import annotations

import base64
import copy
import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonpatch
import pytest

from harness.evidence import EVIDENCE
from harness.exposition import samples
from harness.pods import config, config_object, pod_object
from harness.webhook import HOSTS, Webhook, review, serving
from inference_operator import crd, inject, naming
from inference_operator.cluster import ClusterError
from inference_operator.webhook import app, injector

SECRET_TEXT = "in-the-pods-own-environment"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving(config_object()) as running:
        yield running


def patched(pod: dict[str, Any], response: dict[str, Any]) -> Any:
    assert response["allowed"], response
    if "patch" not in response:
        return pod
    assert response["patchType"] == "JSONPatch"
    return jsonpatch.apply_patch(copy.deepcopy(pod), json.loads(base64.b64decode(response["patch"])))


def status(response: dict[str, Any]) -> dict[str, Any]:
    assert not response["allowed"]
    assert "patch" not in response
    return dict(response["status"])


class TestOutcomes:
    def test_injected(self, webhook: Webhook) -> None:
        pod = pod_object()
        made = patched(pod, webhook.ask(pod))
        expected = inject.inject(pod, config(), crd.Sidecar())
        assert isinstance(expected, inject.Injected)
        assert made == expected.pod
        assert made["spec"]["initContainers"][0]["name"] == naming.CONTAINER

    def test_a_second_call_changes_nothing(self, webhook: Webhook) -> None:
        pod = pod_object()
        made = patched(pod, webhook.ask(pod))
        again = webhook.ask(made)
        assert again == {"uid": "uid-1", "allowed": True}

    def test_warnings(self, webhook: Webhook) -> None:
        response = webhook.ask(pod_object(app={"envFrom": [{"configMapRef": {"name": "x"}}]}))
        assert response["allowed"]
        assert "envFrom" in " ".join(response["warnings"])

    def test_the_charts_defaults_of_the_moment(self, webhook: Webhook) -> None:
        for image in ("registry.example/one:1", "registry.example/two:2"):
            webhook.defaults = crd.parse_sidecar({"image": image})
            made = patched(pod_object(), webhook.ask(pod_object()))
            assert made["spec"]["initContainers"][0]["image"] == image

    def test_a_dry_run_is_answered_like_any_other(self, webhook: Webhook) -> None:
        assert webhook.ask(pod_object(), dryRun=True) == webhook.ask(pod_object())
        assert [line.get("dry_run") for line in webhook.lines("admission")] == [True, None]

    def test_the_namespace_is_the_requests(self, webhook: Webhook) -> None:
        pod = pod_object()
        pod["metadata"]["namespace"] = "elsewhere"
        webhook.ask(pod, namespace="shop")
        assert webhook.reads == ["shop"]

    def test_a_pod_of_an_opted_in_namespace_needs_no_label(self, webhook: Webhook) -> None:
        pod = pod_object()
        del pod["metadata"]["labels"][naming.INJECT_LABEL]
        assert patched(pod, webhook.ask(pod)) != pod

    @pytest.mark.parametrize("label", ["false", "yes"])
    def test_left_alone_without_a_look_at_the_cluster(self, webhook: Webhook, label: str) -> None:
        webhook.fault = ClusterError("nobody may ask")
        response = webhook.ask(pod_object(labels={naming.INJECT_LABEL: label}))
        assert response == {"uid": "uid-1", "allowed": True}
        assert webhook.reads == []

    @pytest.mark.parametrize("request_", [{"operation": "DELETE"}, {"subResource": "binding"}])
    def test_what_is_no_creation_is_left_alone(self, webhook: Webhook, request_: dict[str, Any]) -> None:
        assert webhook.ask(pod_object(), **request_) == {"uid": "uid-1", "allowed": True}
        assert webhook.reads == []

    def test_refused_without_a_config(self, webhook: Webhook) -> None:
        webhook.configs = []
        told = status(webhook.ask(pod_object()))
        assert (told["code"], told["reason"], told["status"]) == (403, "NoConfig", "Failure")
        assert "Create one whose spec.selector matches" in told["message"]
        assert "details" not in told

    def test_refused_for_what_the_pod_is(self, webhook: Webhook) -> None:
        told = status(webhook.ask(pod_object(hostNetwork=True)))
        assert (told["code"], told["reason"]) == (403, "HostNetwork")
        assert "Remove hostNetwork" in told["message"]


BROKEN = {"metadata": {"name": "broken", "namespace": "shop"}, "spec": {"inference": {"provider": 7}}}


class TestUnreadable:
    def test_one_config_does_not_stop_the_others(self, webhook: Webhook) -> None:
        webhook.configs = [BROKEN, config_object()]
        assert "patch" in webhook.ask(pod_object())

    def test_the_one_that_the_pod_names_is_told_of(self, webhook: Webhook) -> None:
        webhook.configs = [BROKEN, config_object()]
        told = status(webhook.ask(pod_object(annotations={naming.CONFIG_ANNOTATION: "broken"})))
        assert told["reason"] == "UnreadableConfig"
        assert "the InferenceConfig broken cannot be read" in told["message"]
        assert "spec.inference" in told["message"]

    def test_a_pod_that_none_selects_learns_of_it(self, webhook: Webhook) -> None:
        webhook.configs = [BROKEN]
        assert "cannot read them: broken" in status(webhook.ask(pod_object()))["message"]

    @pytest.mark.parametrize(
        ("fault", "said", "again"),
        [
            (ClusterError("the API server cannot be reached: refused"), "refused. Try again.", 1),
            (ClusterError("the API server answered 500: etcd", 500), "etcd. Try again.", 1),
            (ClusterError("the API server answered 403: no", 403), "lacks that right", None),
            (
                ClusterError("the API server answered 404: no", 404),
                "Create the CustomResourceDefinition",
                None,
            ),
        ],
    )
    def test_no_configs_at_all(
        self, webhook: Webhook, fault: ClusterError, said: str, again: int | None
    ) -> None:
        webhook.fault = fault
        told = status(webhook.ask(pod_object()))
        assert (told["code"], told["reason"]) == (503, "ServiceUnavailable")
        assert "could not read the InferenceConfigs of namespace shop" in told["message"]
        assert said in told["message"]
        assert told.get("details", {}).get("retryAfterSeconds") == again
        webhook.fault = None
        assert webhook.ask(pod_object())["allowed"]

    def test_an_api_server_that_takes_its_time(
        self, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(injector, "READ_SECS", 0.05)
        webhook.gate.clear()
        told = status(webhook.ask(pod_object()))
        webhook.gate.set()
        assert told["code"] == 503
        assert "no answer within 0.05 s. Try again." in told["message"]

    def test_a_fault_of_its_own(self, webhook: Webhook) -> None:
        key = EVIDENCE.new_key()
        webhook.fault = LookupError(f"a fault that quotes {key}")
        told = status(webhook.ask(pod_object(), uid="uid-of-a-fault"))
        assert (told["code"], told["reason"]) == (500, "InternalError")
        assert "uid-of-a-fault" in told["message"]
        assert "LookupError" not in told["message"]
        (line,) = webhook.lines("an admission failed")
        assert line["exception"]["type"] == "LookupError"
        assert any("injector.py" in frame for frame in line["exception"]["at"])
        webhook.fault = None
        assert webhook.ask(pod_object())["allowed"]

    @pytest.mark.parametrize("metadata", ["text", ["list"], {"labels": "text"}, {"ownerReferences": [7]}])
    def test_a_pod_out_of_shape(self, webhook: Webhook, metadata: Any) -> None:
        response = webhook.ask({"metadata": metadata, "spec": {}})
        assert response["allowed"] or response["status"]["code"] == 500


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "no JSON"),
            (b"\x00garbage", "no JSON"),
            (json.dumps({**review(pod_object()), "apiVersion": "admission.k8s.io/v1beta1"}).encode(), "no AdmissionReview"),
        ],
    )  # fmt: skip
    def test_no_review(self, webhook: Webhook, body: bytes, said: str) -> None:
        answer = webhook.post(body)
        assert answer.status_code == 400
        assert said in answer.text
        assert webhook.ask(pod_object())["allowed"]

    def test_too_large(self, webhook: Webhook) -> None:
        answer = webhook.post(b" " * (app.MAX_BODY + 1))
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")

    def test_too_large_without_a_length(self, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app, "MAX_BODY", 1000)

        def pieces() -> Iterator[bytes]:
            for _ in range(3):
                yield b" " * 500

        with webhook.client() as client:
            answer = client.post("/inject", content=pieces(), extensions={"sni_hostname": HOSTS[0]})
        assert answer.status_code == 413

    def test_the_largest_that_fits(self, webhook: Webhook) -> None:
        asked = json.dumps(review(pod_object())).encode()
        answer = webhook.post(asked + b" " * (app.MAX_BODY - len(asked)))
        assert answer.json()["response"]["allowed"]

    def test_one_that_never_ends(self, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app, "REVIEW_SECS", 0.1)
        with socket.create_connection(("127.0.0.1", webhook.port), 10) as plain:
            trust = ssl.create_default_context(cadata=webhook.authority.certificate.decode())
            with trust.wrap_socket(plain, server_hostname=HOSTS[0]) as secure:
                secure.sendall(b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
                assert secure.recv(100).startswith(b"HTTP/1.1 503")

    def test_other_methods_and_paths(self, webhook: Webhook) -> None:
        with webhook.client() as client:
            ask = {"extensions": {"sni_hostname": HOSTS[0]}}
            assert client.get("/inject", **ask).status_code == 405
            assert client.post("/", **ask).status_code == 404
            assert client.get("/metrics", **ask).status_code == 404

    def test_without_tls_there_is_no_answer(self, webhook: Webhook) -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{webhook.port}/inject", trust_env=False)
        assert webhook.ask(pod_object())["allowed"]


class TestManyAtOnce:
    def test_each_gets_its_own_answer(self, webhook: Webhook) -> None:
        def ask(number: int) -> dict[str, Any]:
            return webhook.ask(
                pod_object(annotations={"example.com/number": str(number)}), uid=f"uid-{number}"
            )

        with ThreadPoolExecutor(12) as pool:
            responses = list(pool.map(ask, range(60)))
        assert all(response["allowed"] and response["patch"] for response in responses)
        assert [response["uid"] for response in responses] == [f"uid-{number}" for number in range(60)]
        assert len(webhook.reads) == 60

    def test_more_than_there_are_places_for_wait(self, webhook: Webhook) -> None:
        """Those that wait are not read: memory is bounded by the places, and nobody is turned away."""
        webhook.gate.clear()
        with ThreadPoolExecutor(app.AT_ONCE + 4) as pool:
            answers = [pool.submit(webhook.ask, pod_object()) for _ in range(app.AT_ONCE)]
            webhook.until(lambda: len(webhook.reads) == app.AT_ONCE)
            answers += [pool.submit(webhook.ask, pod_object()) for _ in range(4)]
            for _ in range(20):  # as many round trips as would have brought them in
                assert webhook.health("/livez").status_code == 200
            assert len(webhook.reads) == app.AT_ONCE
            webhook.gate.set()
            assert all(answer.result()["allowed"] for answer in answers)
        assert len(webhook.reads) == app.AT_ONCE + 4


class TestWhatItTells:
    def test_one_line_each_and_nothing_of_the_pod(self, webhook: Webhook) -> None:
        env = [{"name": "TOKEN", "value": SECRET_TEXT}, {"name": "OPENAI_BASE_URL", "value": "http://other"}]
        webhook.ask(pod_object(app={"env": env}), uid="first")
        webhook.configs = []
        webhook.ask(pod_object(app={"env": env}), uid="second")
        first, second = webhook.lines("admission")
        assert first.items() >= {
            "uid": "first", "namespace": "shop", "pod": "web-5d8c9-", "workload": "deployment/web",
            "outcome": "injected", "config": "team", "level": "info",
        }.items()  # fmt: skip
        assert first["warnings"] >= 1
        assert second.items() >= {"uid": "second", "outcome": "refused", "reason": "NoConfig"}.items()
        assert SECRET_TEXT not in webhook.log.getvalue()

    def test_figures(self, webhook: Webhook) -> None:
        webhook.ask(pod_object())
        webhook.ask(pod_object(labels={naming.INJECT_LABEL: "false"}))
        webhook.fault = ClusterError("gone")
        webhook.ask(pod_object())
        answer = webhook.health("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = samples(answer.text)
        assert (
            found.items()
            >= {
                'admissions_total{outcome="injected",reason=""}': 1,
                'admissions_total{outcome="skipped",reason="OptedOut"}': 1,
                'admissions_total{outcome="failed",reason="ConfigsUnread"}': 1,
                "admission_duration_seconds_count{}": 3,
            }.items()
        )
        assert 'certificate_expiry_timestamp_seconds{certificate="leaf"}' in found

    def test_health(self, webhook: Webhook) -> None:
        assert webhook.health("/livez").status_code == 200
        assert webhook.health("/readyz").status_code == 200
        assert webhook.health("/inject").status_code == 404
