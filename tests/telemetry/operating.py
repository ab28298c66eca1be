"""The operator's own metrics in a process of their own, told as a real one tells them: by OTLP and at /metrics.

    python -m telemetry.operating      prints its port; POST / has it note one round of `ROUND`; ends with stdin

The metrics are the operator's, and what notes them is a cluster's work, which tests/cluster has. Must not make up a
name: all of them come from `inference_operator.telemetry`.
"""

from __future__ import annotations

import datetime
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inference_config import __version__
from inference_operator.telemetry import Metrics, names

PODS = {
    "shop/openai": {"matched": 6, "injected": 5, "current": 3, "stale": 1, "refused": 1, "unreachable": 0},
    "search/vllm": {"matched": 2, "injected": 2, "current": 1, "stale": 0, "refused": 0, "unreachable": 1},
}
RECONCILES = {"done": 3, "failed": 1}
ADMISSIONS = {("injected", ""): 4, ("skipped", "OptedOut"): 2, ("refused", "PortTaken"): 1}
LEAF_DAYS, AUTHORITY_DAYS = 60, 300


def note(metrics: Metrics) -> None:
    """One round."""
    for outcome, count in RECONCILES.items():
        for _ in range(count):
            metrics.reconciled(outcome, 0.02)
    for (outcome, reason), count in ADMISSIONS.items():
        for _ in range(count):
            metrics.admitted(outcome, reason, 0.008)


def main() -> None:
    with Metrics.told(__version__, names.OPERATOR) as metrics:
        now = datetime.datetime.now(datetime.UTC)
        metrics.certificate_expires(now + datetime.timedelta(days=LEAF_DAYS))
        metrics.certificate_expires(now + datetime.timedelta(days=AUTHORITY_DAYS), "authority")
        for key, counts in PODS.items():
            metrics.pods(key, counts)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(metrics.text().encode())

            def do_POST(self) -> None:
                note(metrics)
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
