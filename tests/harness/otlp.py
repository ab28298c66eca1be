"""A collector of our own: takes OTLP over HTTP on a real socket, and does what a broken one does.

Enters: OTLP requests. Leaves: every span and metric in them, decoded with OpenTelemetry's own protocol definitions,
beside the requests as they came. Every byte is evidence: no key may be in it. `mode` says how it answers from now on.
Must not know the sidecar.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto

from harness.evidence import EVIDENCE

Mode = Literal["good", "slow", "hang", "busy", "redirect", "garbage", "endless", "reset", "refuse_key"]
"""good: 200. slow: 200 after `delay`. hang: never an answer. busy: 503. redirect: 302 to itself. garbage: no HTTP.
endless: a body without end. reset: RST after the request. refuse_key: 401."""


@dataclass
class Span:
    """One span. `kind` and `status` are the protocol's words in lower case: server, client; unset, ok, error."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    status: str
    description: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    scope: str
    resource: dict[str, Any]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The attributes of each event of a name."""
        return [attributes for event, _, attributes in self.events if event == name]


@dataclass
class Received:
    """One request, whether it was answered or not."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


class OtlpSink:
    """Start with `with`. `port` 0 is any free one; a port can be given so that one begins where another was."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.mode: Mode = "good"
        self.delay = 0.0
        self.received: list[Received] = []
        self.spans: list[Span] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.changed = threading.Condition()
        self.ended = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.sink = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="otlp", daemon=True
        )

    def __enter__(self) -> OtlpSink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}"

    def take(self, received: Received) -> None:
        """Note a request, and decode it where it is one of OTLP's."""
        EVIDENCE.add(f"OTLP {received.path}", received.body)
        spans, metrics = _decoded(received)
        with self.changed:
            self.received.append(received)
            self.spans += spans
            self.metrics += metrics
            self.changed.notify_all()

    def until(self, true: Callable[[], Any], what: str, timeout: float = 10) -> None:
        """Waits until what was received makes `true` true."""
        with self.changed:
            assert self.changed.wait_for(true, timeout), (
                f"not within {timeout} s: {what}; {len(self.spans)} spans in {len(self.received)} requests: "
                f"{[(span.kind, span.name, span.status) for span in self.spans[-12:]]}"
            )

    def trace(self, trace_id: str, count: int | None = None, timeout: float = 10) -> list[Span]:
        """The spans of one trace, by their start; with `count`, waited for."""

        def found() -> list[Span]:
            return [span for span in self.spans if span.trace_id == trace_id]

        if count is not None:
            self.until(lambda: len(found()) >= count, f"{count} spans of a trace", timeout)
        with self.changed:
            spans = sorted(found(), key=lambda span: (span.start_ns, -span.end_ns))
        assert count is None or len(spans) == count, [(span.kind, span.name) for span in spans]
        return spans


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    sink: OtlpSink

    def handle_error(self, *_: Any) -> None:
        """A peer that leaves is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Tests speak for themselves."""

    def do_POST(self) -> None:
        sink = self.server.sink
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        coding = self.headers.get("content-encoding", "")
        if coding == "gzip":
            body = gzip.decompress(body)
        elif coding == "deflate":
            body = zlib.decompress(body)
        sink.take(Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        getattr(self, f"_{sink.mode}")(sink)

    def _reply(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("content-length", "0"), *headers):
            self.send_header(name, value)
        self.end_headers()

    def _good(self, _: OtlpSink) -> None:
        self._reply(200, ("content-type", "application/x-protobuf"))

    def _slow(self, sink: OtlpSink) -> None:
        sink.ended.wait(sink.delay)
        self._reply(200)

    def _hang(self, sink: OtlpSink) -> None:
        sink.ended.wait(60)
        self.close_connection = True

    def _busy(self, _: OtlpSink) -> None:
        self._reply(503)

    def _refuse_key(self, _: OtlpSink) -> None:
        self._reply(401)

    def _redirect(self, sink: OtlpSink) -> None:
        self._reply(302, ("location", f"{sink.url}/elsewhere"))

    def _garbage(self, _: OtlpSink) -> None:
        self.wfile.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        self.close_connection = True

    def _endless(self, sink: OtlpSink) -> None:
        self.send_response(200)
        self.end_headers()
        while not sink.ended.wait(0.001):
            self.wfile.write(b"x" * 65536)

    def _reset(self, _: OtlpSink) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _decoded(received: Received) -> tuple[list[Span], list[ExportMetricsServiceRequest]]:
    if received.path == "/v1/traces":
        request = ExportTraceServiceRequest.FromString(received.body)
        return [
            _span(span, scope.scope.name, resource)
            for one in request.resource_spans
            for resource in [attributes_of(one.resource.attributes)]
            for scope in one.scope_spans
            for span in scope.spans
        ], []
    if received.path == "/v1/metrics":
        return [], [ExportMetricsServiceRequest.FromString(received.body)]
    return [], []


def _span(span: SpanProto, scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=SpanProto.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        status=("unset", "ok", "error")[span.status.code],
        description=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes_of(span.attributes),
        events=[(event.name, event.time_unix_nano, attributes_of(event.attributes)) for event in span.events],
        scope=scope,
        resource=resource,
    )


def attributes_of(pairs: Any) -> dict[str, Any]:
    """OTLP's pairs as Python has them."""
    found: dict[str, Any] = {}
    pair: KeyValue
    for pair in pairs:
        assert pair.key not in found, f"{pair.key} twice"
        found[pair.key] = _value(pair.value)
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)
