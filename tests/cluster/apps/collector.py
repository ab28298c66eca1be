"""A receiver of OTLP over HTTP that writes down what it got.

Enters: requests of protobuf on port 4318, at the paths of traces and metrics. Leaves: under /told?after=N what came
since entry N, a JSON line each (number, path, headers, told: the request as OpenTelemetry's own JSON has it, but for
identities in base64). What it cannot read it refuses. Knows nothing of a sidecar.
"""

from __future__ import annotations

import gzip
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Ledger:
    """What came, in the order of its arrival."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def enter(self, **entry: Any) -> None:
        with self._lock:
            self._entries.append({"number": len(self._entries) + 1, **entry})

    def after(self, number: int) -> str:
        return "".join(json.dumps(entry) + "\n" for entry in self._entries[number:])


LEDGER = Ledger()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        after = int(parse_qs(parts.query).get("after", ["0"])[0])
        self._answer(200, LEDGER.after(after).encode(), "application/x-ndjson")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        kind = KINDS.get(self.path)
        if kind is None or self.headers.get("content-type") != "application/x-protobuf":
            self._answer(404 if kind is None else 415)
            return
        try:
            told = MessageToDict(kind.FromString(body))
        except DecodeError:
            self._answer(400)
            return
        headers = {name.lower(): text for name, text in self.headers.items()}
        LEDGER.enter(path=self.path, headers=headers, told=told)
        self._answer(200, media="application/x-protobuf")

    def _answer(self, status: int, body: bytes = b"", media: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", media)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """The ledger says it all."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("0.0.0.0", 4318), Handler).serve_forever()
