"""What a sidecar tells of itself: /health, the connectivity check, the admin port.

Covers: every field that the requirement names; the check (when, what it sends, what counts as reachable, degraded,
that it is not counted as a request); /metrics beside /health; readiness without an upstream.
Left out: the figures themselves (test_ledger, test_faults, test_streams), metrics (test_metrics_*), draining
(test_drain).
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import closing

import pytest

from harness import answers
from harness.metrics import scrape
from harness.process import Sidecar, Start, flat
from harness.upstream import HANG, ScriptedUpstream


def test_every_promised_field(sidecar: Sidecar) -> None:
    sidecar.chat()
    sidecar.chat(stream=True)
    health = sidecar.health()
    assert health["status"] == "ok"
    promised = {
        "requests": {"total", "streaming", "active"},
        "errors": {"total", "by_type"},
        "tokens": {"prompt", "completion", "total"},
        "streams": {"started", "completed", "failed", "cancelled"},
        "upstream": {"reachable", "checked_at", "latency_ms"},
    }
    for name, fields in promised.items():
        assert fields <= set(health[name]), name
    assert {"latency_ms", "time_to_first_token_ms", "tokens_per_second", "version"} <= set(health)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", health["version"])


def test_without_checks_nothing_is_known(sidecar: Sidecar) -> None:
    upstream = sidecar.health()["upstream"]
    assert (upstream["reachable"], upstream["checked_at"]) == (None, None)


def until(sidecar: Sidecar, reachable: bool) -> dict[str, object]:
    deadline = time.monotonic() + 5
    while (health := sidecar.health())["upstream"]["reachable"] is not reachable:
        assert time.monotonic() < deadline, health["upstream"]
        time.sleep(0.02)
    return health


def test_the_check(spawn: Start) -> None:
    """Any HTTP answer counts; silence and refusal don't; it asks for the list of models and nothing else."""
    with ScriptedUpstream(answers.typical) as other:
        settings = {"health_check_interval_secs": 0.2, "http": {"connect_timeout_secs": 0.5}}
        sidecar = spawn({"inference": settings}, base_url=f"{other.url}/v1")
        health = until(sidecar, reachable=True)
        assert health["status"] == "ok"
        assert isinstance(flat(health)["upstream.latency_ms"], float)
        other.until(lambda: len(other.exchanges) >= 3, "regular checks")
        assert {(each.method, each.target) for each in other.exchanges} == {("GET", "/v1/models")}
        assert {each.header("authorization") for each in other.exchanges} == {f"Bearer {sidecar.key}"}
        assert flat(sidecar.health())["requests.total"] == 0
        other.on_accept = [HANG]
        health = until(sidecar, reachable=False)
        assert health["status"] == "degraded"
        assert sidecar.admin("/readyz").status == 200
        other.on_accept = [answers.error(500, "no", "server_error", None), HANG]
        assert until(sidecar, reachable=True)["status"] == "ok"


def test_a_sidecar_without_its_upstream_is_ready(start: Start) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        settings = {"inference": {"health_check_interval_secs": 0.2}}
        sidecar = start(settings, base_url=f"http://127.0.0.1:{port}/v1")
        assert until(sidecar, reachable=False)["status"] == "degraded"
        assert sidecar.admin("/livez").status == sidecar.admin("/readyz").status == 200


def test_metrics_tell_the_same(sidecar: Sidecar) -> None:
    with sidecar.figures(3):
        sidecar.chat()
        sidecar.chat(stream=True)
        sidecar.chat(temperature=9)
    health, answer, metrics = flat(sidecar.health()), sidecar.admin("/metrics"), scrape(sidecar)
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert {
        "requests.total": metrics.sum("inference_sidecar_requests_total"),
        "requests.active": metrics.sum("inference_sidecar_active_requests"),
        "requests.retries": metrics.sum("inference_sidecar_retries_total"),
        "streams.completed": metrics.sum("inference_sidecar_streams_total", outcome="completed"),
        "streams.chunks": metrics.sum("inference_sidecar_stream_chunks_total"),
        "tokens.prompt": metrics.sum("gen_ai_client_token_usage_sum", gen_ai_token_type="input"),
        "tokens.completion": metrics.sum("gen_ai_client_token_usage_sum", gen_ai_token_type="output"),
        "stream_duration_ms.count": metrics.sum("inference_sidecar_stream_duration_seconds_count"),
    }.items() <= health.items()
    for end in ("completed", "failed", "refused", "cancelled"):
        count = metrics.sum("inference_sidecar_requests_total", outcome=end)
        assert count == health[f"requests.{end}"], end
    for name, count in health.items():
        if name.startswith("errors.by_type."):
            kind = name.removeprefix("errors.by_type.")
            assert metrics.sum("inference_sidecar_requests_total", error_type=kind) == count, kind


def test_status(sidecar: Sidecar) -> None:
    status = sidecar.admin("/status").json
    assert {"digest", "revision", "generation", "loaded_at", "refused", "schema_version"} <= set(status)
    assert status["refused"] is None
    assert status["revision"] == status["digest"], "without a revision file it is the digest"


@pytest.mark.parametrize("target", ["/v1/models", "/health", "/", "/status/../v1/models", "/docs"])
def test_the_admin_port_has_nothing_else(sidecar: Sidecar, upstream: ScriptedUpstream, target: str) -> None:
    seen = len(upstream.exchanges)
    assert sidecar.admin(target).status == 404
    assert len(upstream.exchanges) == seen
