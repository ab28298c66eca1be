"""The end of a process: SIGTERM drains, a second signal ends it, and the exit code says which.

Covers: an idle sidecar; a stream under way; new requests while draining; readiness; the drain's bound; SIGINT; a
second signal; a port that is taken; a config that is wrong at the start.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness import answers
from harness.client import Client
from harness.evidence import EVIDENCE
from harness.process import Sidecar, Start, chat_body, clean_environment
from harness.upstream import HANG, SCENARIO, Gate, ScriptedUpstream

EVENTS = answers.chat_events()


def open_stream(sidecar: Sidecar, scenario: str) -> Client:
    client = sidecar.connect()
    client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
    assert client.head().status == 200
    client.until(EVENTS[0])
    return client


def gated(upstream: ScriptedUpstream) -> tuple[Gate, str]:
    gate = upstream.gate()
    rest = answers.chunk(b"".join(EVENTS[1:]))
    return gate, upstream.plan([answers.sse_head(), answers.chunk(EVENTS[0]), gate, rest, answers.END])


def draining(sidecar: Sidecar) -> None:
    sidecar.line(lambda line: line.get("message") == "draining", "draining")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_sidecar_ends_at_once(spawn: Start, number: signal.Signals) -> None:
    sidecar = spawn({"server": {"drain_quiet_secs": 0.2}})
    with sidecar.connect():  # an idle connection holds nobody up
        began = time.monotonic()
        sidecar.process.send_signal(number)
        assert sidecar.wait() == 0
        assert 0.15 < time.monotonic() - began < 3


def test_a_stream_ends_whole_and_new_requests_are_served(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn({"server": {"drain_quiet_secs": 0.2}})
    gate, scenario = gated(upstream)
    with open_stream(sidecar, scenario) as client:
        sidecar.terminate()
        draining(sidecar)
        assert sidecar.admin("/readyz").status == 503
        assert sidecar.admin("/livez").status == 200
        assert sidecar.chat().status == 200
        assert sidecar.chat(stream=True).body.endswith(answers.DONE)
        gate.open()
        assert client.until(answers.DONE) == b"".join(EVENTS[1:])
        assert client.piece() is None
    began = time.monotonic()
    assert sidecar.wait() == 0
    assert time.monotonic() - began < 3
    assert not sidecar.faults()


def test_past_the_bound_a_stream_is_told(spawn: Start, upstream: ScriptedUpstream) -> None:
    """Never a silent close: an error event, and plain requests get an HTTP error."""
    sidecar = spawn({"server": {"drain_timeout_secs": 0.5}})
    _, scenario = gated(upstream)
    hanging = upstream.plan([HANG])
    with open_stream(sidecar, scenario) as client, sidecar.connect() as plain:
        plain.request("POST", "/v1/chat/completions", chat_body(), {SCENARIO: hanging})
        upstream.until(lambda: upstream.of(hanging), "the plain request")
        sidecar.terminate()
        told = client.until(b'"error"')
        assert b"[DONE]" not in told
        assert client.piece() is None
        answer = plain.answer()
        assert answer.status == 503
        assert answer.error["code"]
    assert sidecar.wait() == 0
    assert not sidecar.faults()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it(spawn: Start, upstream: ScriptedUpstream, second: signal.Signals) -> None:
    sidecar = spawn()
    _, scenario = gated(upstream)
    with open_stream(sidecar, scenario):
        sidecar.terminate()
        draining(sidecar)
        began = time.monotonic()
        sidecar.process.send_signal(second)
        assert sidecar.wait() == 128 + second
        assert time.monotonic() - began < 2


def test_quiet_starts_again_with_each_request(spawn: Start) -> None:
    sidecar = spawn({"server": {"drain_quiet_secs": 0.6}})
    sidecar.terminate()
    draining(sidecar)
    began = time.monotonic()
    for _ in range(4):
        time.sleep(0.3)  # shorter than the quiet time
        assert sidecar.chat().status == 200
    assert sidecar.wait() == 0
    assert time.monotonic() - began > 1.7


def run_once(*arguments: str, environ: dict[str, str] | None = None, cwd: Path) -> Any:
    """One run that is expected to end by itself; its output is searched for keys."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "inference_sidecar", *arguments],
        env={**clean_environment(), **(environ or {})},
        cwd=cwd,
        capture_output=True,
        timeout=20,
        check=False,
    )
    EVIDENCE.add("a run's output", done.stdout + done.stderr)
    return done


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        environ = {"INFERENCE_INFERENCE_PROVIDER": "echo"}
        done = run_once("run", "--port", port, "--admin-port", "0", environ=environ, cwd=tmp_path)
    assert done.returncode not in (0, 2)
    text = (done.stdout + done.stderr).decode()
    assert port in text
    assert "Traceback" not in text


def test_a_wrong_config_stops_the_start(tmp_path: Path) -> None:
    key = EVIDENCE.new_key()
    config = tmp_path / "c.yaml"
    config.write_text(f"inference:\n  api_key: {key}\n  http:\n    timeout_sec: 5\n    max_retries: many\n")
    for command in ("run", "check"):
        done = run_once(command, "-c", str(config), cwd=tmp_path)
        assert done.returncode == 2
        lines = done.stderr.decode().splitlines()
        assert any("inference.http.timeout_sec" in line and "timeout_secs" in line for line in lines)
        assert any("inference.http.max_retries" in line for line in lines)
        assert "Traceback" not in done.stderr.decode()


def test_check_masks_the_key(tmp_path: Path) -> None:
    key = EVIDENCE.new_key()
    done = run_once("check", environ={"INFERENCE_INFERENCE_API_KEY": key}, cwd=tmp_path)
    assert done.returncode == 0
    assert b"inference.api_key" in done.stdout
