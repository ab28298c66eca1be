"""What /metrics says of the moment, and of what is no request: open requests, connections upstream, reloads.

Covers: gauges while streams are held open, against the upstream's own list of connections; an upstream that was
replaced under a stream; configurations that were taken, refused, and never left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from harness import answers
from harness.metrics import scrape
from harness.process import Sidecar, Start, chat_body
from harness.upstream import SCENARIO, ScriptedUpstream

ROLE = answers.delta({"role": "assistant", "content": ""})
STOP = answers.delta({}, "stop")


def gauge(sidecar: Sidecar, name: str, value: float, **labels: str) -> None:
    """Waits until a gauge says so: what it tells of ends a moment after its request."""
    deadline = time.monotonic() + 5
    while (now := scrape(sidecar).sum(name, **labels)) != value:
        assert time.monotonic() < deadline, f"{name}{labels} is {now}, not {value}"
        time.sleep(0.01)


def test_gauges(start: Start, upstream: ScriptedUpstream) -> None:
    sidecar = start({"inference": {"http": {"max_idle_connections": 3}}})
    connections = "inference_sidecar_upstream_connections"
    gate = upstream.gate()
    scenario = upstream.plan(
        [answers.sse_head(), answers.chunk(ROLE), gate, answers.chunk(STOP), answers.END]
    )
    with sidecar.connect() as first, sidecar.connect() as second:
        for client in (first, second):
            client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
            client.head()
        gauge(sidecar, "inference_sidecar_active_requests", 2)
        gauge(sidecar, connections, 2, state="active")
        gauge(sidecar, connections, 0, state="idle")
        gate.open()
        for client in (first, second):
            while client.piece() is not None:
                pass
    gauge(sidecar, "inference_sidecar_active_requests", 0)
    gauge(sidecar, connections, 0, state="active")
    idle = scrape(sidecar).sum(connections, state="idle")
    ours = {exchange.connection.number for exchange in upstream.of(scenario)}
    open_now = [one for one in upstream.connections if one.number in ours and one.closed_at is None]
    assert idle == len(open_now)


def becomes(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_reloads_and_what_is_left_of_an_old_upstream(spawn: Start, upstream: ScriptedUpstream) -> None:
    sidecar = spawn()
    reloads, connections = "inference_sidecar_config_reloads_total", "inference_sidecar_upstream_connections"

    def counts() -> tuple[float, float]:
        now = scrape(sidecar)
        return now.sum(reloads, outcome="applied"), now.sum(reloads, outcome="refused")

    assert counts() == (0, 0)
    assert (reloads, frozenset({("outcome", "applied")})) in scrape(sidecar).samples, "a rate needs the zero"
    good = json.loads(sidecar.config.read_text())
    gate = upstream.gate()
    scenario = upstream.plan(
        [answers.sse_head(), answers.chunk(ROLE), gate, answers.chunk(STOP), answers.END]
    )
    with sidecar.connect() as client:
        client.request("POST", "/v1/chat/completions", chat_body(stream=True), {SCENARIO: scenario})
        client.head()
        good["inference"]["http"]["connect_timeout_secs"] = 3.5
        sidecar.config.write_text(json.dumps(good))
        becomes(lambda: counts() == (1, 0))
        gauge(sidecar, connections, 1, state="active")
        gate.open()
        while client.piece() is not None:
            pass
    gauge(sidecar, connections, 0)
    sidecar.config.write_text("{")
    becomes(lambda: counts() == (1, 1))
    sidecar.config.write_text(json.dumps(good))
    becomes(lambda: sidecar.admin("/status").json["refused"] is None)
    assert counts() == (1, 1), "the good one was never left"
