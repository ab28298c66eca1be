"""What one request's spans must be like, whatever became of it.

Enters: a collector, a request's log line, the upstream's ledger. Leaves: a `Tree` whose number, kinds, parents and
times have been checked. Must not know the sidecar: it is known by what it exports.
"""

from __future__ import annotations

import http.client
import json
import zlib
from dataclasses import dataclass
from typing import Any

from harness.otlp import OtlpSink, Span
from harness.process import Sidecar
from harness.upstream import SCENARIO

OWN = "inference_sidecar"
EXPORT = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "600000"}


@dataclass
class Tree:
    """One request: exactly one server span, the call where something was to go up, one span for each attempt."""

    server: Span
    call: Span | None
    attempts: list[Span]

    @property
    def model_call(self) -> Span:
        """The call, which must be there."""
        assert self.call is not None
        return self.call


def tree(
    sink: OtlpSink, line: dict[str, Any], attempts: int, *, called: bool = True, parent: str = ""
) -> Tree:
    """The spans of the request that a log line is about, waited for; `parent`: the app's own span."""
    spans = sink.trace(line["trace_id"], 1 + called + attempts)
    (server,) = [span for span in spans if span.kind == "server"]
    assert (server.scope, server.parent_id) == (OWN, parent)
    assert server.attributes["inference_sidecar.request.id"] == line["request_id"]
    assert {span.scope for span in spans} == {OWN}
    calls = [span for span in spans if span.kind == "client" and "url.full" not in span.attributes]
    assert len(calls) == called
    tries = [span for span in spans if "url.full" in span.attributes]
    assert len(tries) == attempts
    assert len({span.span_id for span in spans}) == len(spans)
    call = calls[0] if calls else None
    inner = server if call is None else call
    assert line["span_id"] == inner.span_id
    for span in ([call] if call else []) + tries:
        outer = server if span is call else inner
        assert span.kind == "client"
        assert span.parent_id == outer.span_id
        assert outer.start_ns <= span.start_ns <= span.end_ns <= outer.end_ns
        for _, at, _ in span.events:
            assert span.start_ns <= at <= span.end_ns
    assert server.attributes["inference_sidecar.outcome"] == line["end"]
    assert server.attributes.get("http.response.status_code", 0) == line["status"]
    for number, span in enumerate(tries):
        assert span.attributes.get("http.request.resend_count", 0) == number
        assert not any(name.startswith(("gen_ai.", "openai.")) for name in span.attributes)
    assert not any(name.startswith(("gen_ai.", "openai.")) for name in server.attributes)
    return Tree(server, call, tries)


def unwatched(
    sidecar: Sidecar, scenario: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> None:
    """One chat whose answer rightly has the key in it: bytes of a good answer go down as they came."""
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=10)
    lines = {"content-type": "application/json", SCENARIO: scenario, **(headers or {})}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), lines)
    assert sidecar.key.encode() in _inflated(connection.getresponse().read())
    connection.close()


def _inflated(body: bytes) -> bytes:
    return zlib.decompress(body, 31) if body.startswith(b"\x1f\x8b") else body
