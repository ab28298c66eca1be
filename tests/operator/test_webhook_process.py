"""`inference-operator webhook` as a process: start, wait for a certificate, readiness, drain, end; options.

The API server is a double that answers reads. Left out: what is answered to a review (test_webhook).
"""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.evidence import EVIDENCE
from harness.pods import config_object, pod_object
from harness.process import clean_environment
from harness.webhook import HOSTS, ApiServer, Webhook, kubeconfig, now, review
from inference_operator import certs
from inference_operator.__main__ import command

SECRET = "/api/v1/namespaces/system/secrets/certificates"
CONFIGS = "/apis/inferencesidecar.dev/v1alpha1/namespaces/shop/inferenceconfigs"


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Process:
    """One `webhook`. `line` waits for what it says."""

    def __init__(self, folder: Path, api: ApiServer, *options: str) -> None:
        self.port, self.health_port = free_ports(2)
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig(api.port)))
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [
                sys.executable, "-W", "error", "-m", "inference_operator", "webhook", "--host", "127.0.0.1",
                "--port", str(self.port), "--health-port", str(self.health_port), *options,
            ],
            env={**clean_environment(), "KUBECONFIG": str(file), "POD_NAMESPACE": "system"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        seen = EVIDENCE.channel("output of the webhook")
        for raw in self.process.stdout:
            seen.extend(raw)
            with self._news:
                if raw.startswith(b"{"):
                    self.lines.append(json.loads(raw))
                else:
                    self.other.append(raw.decode())
                self._news.notify_all()
        with self._news:
            self.lines.append({"message": "(end)"})
            self._news.notify_all()

    def line(self, message: str) -> dict[str, Any]:
        def find() -> list[dict[str, Any]]:
            return [one for one in self.lines if one["message"].startswith((message, "(end)"))]

        with self._news:
            self._news.wait_for(find, 30)
            found = find()
        assert found, (self.lines, self.other)
        assert found[0]["message"] != "(end)" or message == "(end)", (self.lines, self.other)
        return found[0]

    def health(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.health_port}{path}", trust_env=False)

    def client(self, authority: certs.Pair) -> httpx.Client:
        trust = ssl.create_default_context(cadata=authority.certificate.decode())
        return httpx.Client(base_url=f"https://127.0.0.1:{self.port}", verify=trust, trust_env=False)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(30)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def begin(tmp_path: Path, api: ApiServer) -> Iterator[Any]:
    running: list[Process] = []

    def start(*options: str) -> Process:
        running.append(Process(tmp_path, api, *options))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.wait()


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/inject", json=review(pod_object()), extensions={"sni_hostname": HOSTS[0]})


def secret_of(authority: certs.Pair) -> dict[str, Any]:
    leaf = certs.issue_leaf(authority, HOSTS, now())
    files = {"tls.crt": leaf.certificate, "tls.key": leaf.key}
    return {"data": {name: base64.b64encode(content).decode() for name, content in files.items()}}


def test_the_life_of_an_injector(api: ApiServer, begin: Any) -> None:
    """It waits for its certificate, injects what the API server has, and goes on for a while after SIGTERM."""
    authority = certs.issue_authority(now())
    webhook = begin("--certificates-secret", "certificates", "--drain-secs", "0.6")
    assert "does not exist yet" in webhook.line("no newer certificate")["message"]
    assert webhook.health("/livez").status_code == 200
    assert (webhook.health("/readyz").status_code, webhook.health("/readyz").text) == (
        503,
        "no certificate yet\n",
    )
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", webhook.port), 10):
        pass

    api.objects[SECRET] = secret_of(authority)
    api.objects[CONFIGS] = {"items": [config_object()]}
    webhook.line("listening")
    assert webhook.health("/readyz").status_code == 200
    with webhook.client(authority) as client:
        answer = ask(client)
        assert answer.json()["response"]["patch"]
        assert "connection" not in answer.headers
        assert webhook.line("admission")["workload"] == "deployment/web"
        assert CONFIGS in api.asked

        webhook.process.send_signal(signal.SIGTERM)
        webhook.line("draining")
        assert (webhook.health("/readyz").status_code, webhook.health("/readyz").text) == (503, "draining\n")
        answer = ask(client)
        assert answer.json()["response"]["patch"]
        assert answer.headers["connection"] == "close"
        assert webhook.health("/livez").status_code == 200
    assert webhook.wait() == 0
    assert [line["message"] for line in webhook.lines][-2:] == ["stopped", "(end)"]
    assert webhook.other == []


def test_files_in_place_of_the_secret_and_an_api_server_that_is_gone(
    api: ApiServer, begin: Any, tmp_path: Path
) -> None:
    authority = certs.issue_authority(now())
    leaf = certs.issue_leaf(authority, HOSTS, now())
    (tmp_path / "own.crt").write_bytes(leaf.certificate)
    (tmp_path / "own.key").write_bytes(leaf.key)
    (tmp_path / "defaults.yaml").write_text("image: registry.example/sidecar:9\n")
    webhook = begin(
        "--tls-cert", str(tmp_path / "own.crt"), "--tls-key", str(tmp_path / "own.key"),
        "--defaults", str(tmp_path / "defaults.yaml"), "--drain-secs", "0",
    )  # fmt: skip
    webhook.line("listening")
    with webhook.client(authority) as client:
        status = ask(client).json()["response"]["status"]
        assert (status["code"], "details" in status) == (503, False)  # no such path: no such definition
        api.objects[CONFIGS] = {"items": [config_object()]}
        patch = base64.b64decode(ask(client).json()["response"]["patch"]).decode()
        assert "registry.example/sidecar:9" in patch
        api.dead = True
        status = ask(client).json()["response"]["status"]
        assert (status["code"], status["details"]) == (503, {"retryAfterSeconds": 1})
        assert "Try again." in status["message"]
    assert webhook.end() == 0
    assert api.asked == [CONFIGS, CONFIGS]


def test_told_to_stop_before_there_is_a_certificate(begin: Any) -> None:
    webhook = begin("--certificates-secret", "certificates", "--drain-secs", "60")
    webhook.line("no newer certificate")
    assert webhook.end() == 0


def test_a_second_signal_ends_it_at_once(api: ApiServer, begin: Any) -> None:
    api.objects[SECRET] = secret_of(certs.issue_authority(now()))
    webhook = begin("--certificates-secret", "certificates", "--drain-secs", "60")
    webhook.line("listening")
    webhook.process.send_signal(signal.SIGTERM)
    webhook.line("draining")
    webhook.process.send_signal(signal.SIGTERM)
    assert webhook.wait() == 128 + signal.SIGTERM


def test_a_review_at_work_is_answered_before_the_end() -> None:
    """The drain is over, and still somebody waits for an answer."""
    with Webhook([config_object()]) as webhook:
        webhook.gate.clear()
        answers: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: answers.append(webhook.ask(pod_object())))
        asking.start()
        webhook.until(lambda: bool(webhook.reads))
        webhook.stop()
        webhook.until(lambda: webhook.door.draining)
        webhook.gate.set()
        asking.join(10)
        assert webhook.ended() == 0
    assert answers[0]["allowed"]


def test_a_lookout_that_breaks_ends_the_process() -> None:
    """A certificate that nobody renews any more is a fault that a restart may heal."""
    with Webhook([config_object()], poll_secs=0.01) as webhook:

        async def broken() -> None:
            raise LookupError

        webhook.served.look = broken
        assert webhook.ended() == 1
    assert webhook.lines("the webhook stopped by a fault")[0]["exception"]["type"] == "LookupError"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--certificates-secret", "c"],
        ["--certificates-secret", "c", "--own-namespace", "n", "--tls-cert", "f"],
        ["--tls-cert", "f"],
    ],
)
def test_options_that_do_not_go_together(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["webhook", *options]) == 2
    assert "--certificates-secret with --own-namespace" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ["--certificates-secret", "c", "--own-namespace", "n", "--host", "127.0.0.1"]
        assert command(["webhook", *options, "--port", port, "--health-port", port]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err
