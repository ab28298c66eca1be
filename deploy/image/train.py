#!/usr/bin/env python3
"""What a sidecar does all day, for the profile that its machine code is arranged by: `compile` runs this.

Enters: the compiled packages, on PYTHONPATH. Leaves: the profile of two sidecars that were started and have stopped: one
with the embedded upstream, and before it one that forwards to it and exports to a sink. What they answer is checked:
a profile of faults would be worse than none. Standard library only: it runs where an image is built.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PLAIN, STREAMS, CLIENTS = 2400, 96, 8
"""Requests, in all, and how many at once. Few streams, for each has chunks: as many as requests, about."""
START_SECS = 60.0

CHAT = "/v1/chat/completions"
SAID = "Say something about a fox that is quick and brown, and of dogs. " * 2


class Sink(http.server.BaseHTTPRequestHandler):
    """Takes what is exported."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


started: list[subprocess.Popen[bytes]] = []


def sidecar(**variables: str) -> int:
    """Start one, with nothing of the builder's own settings (a proxy, say). Returns its port once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, admin = one.getsockname()[1], other.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "inference_sidecar",
        "run",
        "--port",
        str(port),
        "--admin-port",
        str(admin),
    ]
    kept = {
        name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ
    }
    process = subprocess.Popen(words, env=kept | variables, stderr=subprocess.DEVNULL)
    started.append(process)
    until = time.monotonic() + START_SECS
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return port
    raise SystemExit(f"no sidecar after {START_SECS:g} s, or it ended: {process.poll()}")


def ask(connection: http.client.HTTPConnection, status: int, **body: Any) -> bytes:
    """One chat, and its answer."""
    whole = {"model": "gpt-4", "messages": [{"role": "user", "content": SAID}]} | body
    connection.request("POST", CHAT, json.dumps(whole), {"content-type": "application/json"})
    answer = connection.getresponse()
    found = answer.read()
    if answer.status != status:
        raise SystemExit(f"{answer.status} in place of {status}: {found[:500]!r}")
    return found


def client(port: int) -> None:
    """One app: mostly plain requests, then streams, and some that are refused on either side."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(PLAIN // CLIENTS):
        ask(connection, 200)
    for number in range(STREAMS // CLIENTS):
        events = ask(connection, 200, stream=True, temperature=0.5)
        if not events.endswith(b"data: [DONE]\n\n"):
            raise SystemExit(f"a stream ended with {events[-200:]!r}")
        ask(connection, 400, temperature="warm" if number % 2 else None, messages=[])
    ask(connection, 200, messages=[{"role": "user", "content": "x" * 1000}] * 300)
    connection.close()


def main() -> None:
    """Run both, load them, stop them."""
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    behind = sidecar(OTEL_SDK_DISABLED="true", INFERENCE_INFERENCE_PROVIDER="echo")
    before = sidecar(
        INFERENCE_INFERENCE_PROVIDER="openai",
        INFERENCE_INFERENCE_API_KEY="unused",
        INFERENCE_INFERENCE_BASE_URL=f"http://127.0.0.1:{behind}/v1",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{sink.server_port}",
        OTEL_METRIC_EXPORT_INTERVAL="500",
    )
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, before) for _ in range(CLIENTS)]:
            done.result()
    for process in reversed(started):
        process.terminate()
        if process.wait() != 0:
            raise SystemExit(f"a sidecar ended with {process.returncode}")


try:
    main()
finally:
    for one in started:
        one.kill()
