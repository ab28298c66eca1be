"""The real way of telemetry, on loopback: collector and Prometheus as deploy/ configures them, and one that scrapes.

    sidecars, operator ──OTLP──▶ collector ──▶ Prometheus "otlp"      (deploy/compose/telemetry/*.yaml)
                  │                  └───────▶ Tempo: here what it was sent is kept
                  └──── /metrics ────────────▶ Prometheus "scrape"

Enters: programs, the files of deploy/, who is to be scraped. Leaves: answers of both. What differs from deploy/ is
addresses, paths and how often, so that a test takes a minute. Must not answer for anything that is not asked.
"""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.boards import ALERTS, REPOSITORY

COMPOSE = REPOSITORY / "deploy" / "compose"
EVERY_SECS = 1
"""How often series come, by either way."""

Find = Callable[[str], Path]


def compose() -> dict[str, Any]:
    """The services of deploy/compose/telemetry.yml."""
    return dict(yaml.safe_load((COMPOSE / "telemetry.yml").read_text())["services"])


def settings(name: str) -> dict[str, Any]:
    """A file that these services mount."""
    return dict(yaml.safe_load((COMPOSE / "telemetry" / name).read_text()))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs until the block ends; then SIGTERM, and it has to end by that."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        yield running
        assert running.poll() is None, f"ended by itself:\n{log.read_text()[-3000:]}"
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def until(true: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Asks again and again; what it was told that was true. The programs offer nothing to wait for."""
    deadline = time.monotonic() + seconds
    while True:
        if told := true():
            return told
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Prometheus:
    """One of them, by its API."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expr: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """The samples of an instant, by labels."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        result = self.ask("query", query=expr, **when)["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def over_time(
        self, expr: str, start: float, end: float, step: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Series between two times."""
        result = self.ask("query_range", query=expr, start=f"{start}", end=f"{end}", step=f"{step}")["result"]
        return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in result]

    def number(self, expr: str) -> float:
        """The only sample, 0 where there is none."""
        found = self.query(expr)
        assert len(found) <= 1, found
        return found[0][1] if found else 0.0


@dataclass
class Tempo:
    """Takes traces as Tempo does, and keeps them: its own program is not to be had here."""

    port: int = 0
    received: list[ExportTraceServiceRequest] = field(default_factory=list)

    def trace_ids(self) -> set[str]:
        return {
            span.trace_id.hex()
            for request in list(self.received)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @contextmanager
    def serving(self) -> Iterator[Tempo]:
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest()
                if self.path == "/v1/traces":
                    request.ParseFromString(body)
                    received.append(request)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


@dataclass
class Stack:
    """`otlp` and `scrape`: the two Prometheus. `endpoint`: where OTLP goes."""

    otlp: Prometheus
    scrape: Prometheus
    tempo: Tempo
    endpoint: str
    _targets: Path

    def both(self) -> tuple[tuple[str, Prometheus], ...]:
        return (("otlp", self.otlp), ("scrape", self.scrape))

    def environment(self, **resource: str) -> dict[str, str]:
        """Of a process that tells by both ways. `resource`: `k8s_pod_name="a"`."""
        attributes = ",".join(f"{name.replace('_', '.')}={value}" for name, value in resource.items())
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_METRICS_EXPORTER": "otlp,prometheus",
            "OTEL_METRIC_EXPORT_INTERVAL": str(EVERY_SECS * 1000),
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_RESOURCE_ATTRIBUTES": attributes,
        }

    def scraped(self, targets: Mapping[str, Sequence[int]]) -> None:
        """Job → admin ports, from now on. Prometheus sees the file change."""
        found = [
            {"targets": [f"127.0.0.1:{port}" for port in ports], "labels": {"job": job}}
            for job, ports in targets.items()
        ]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(found))
        fresh.rename(self._targets)


@contextmanager
def running(find: Find, folder: Path) -> Iterator[Stack]:
    """All of it, until the block ends."""
    with ExitStack() as whole:
        tempo = whole.enter_context(Tempo().serving())
        targets = folder / "targets.json"
        targets.write_text("[]")
        otlp = whole.enter_context(_prometheus(find, folder / "otlp", None))
        scrape = whole.enter_context(_prometheus(find, folder / "scrape", targets))
        endpoint = whole.enter_context(_collector(find, folder / "collector", otlp, tempo))
        yield Stack(otlp, scrape, tempo, endpoint, targets)


@contextmanager
def _prometheus(find: Find, folder: Path, targets: Path | None) -> Iterator[Prometheus]:
    folder.mkdir()
    config = settings("prometheus.yaml")
    config["global"]["evaluation_interval"] = f"{EVERY_SECS}s"
    config["rule_files"] = [str(ALERTS)]
    config["scrape_configs"] = []
    if targets is not None:
        config["global"]["scrape_interval"] = f"{EVERY_SECS}s"
        found = {"files": [str(targets)], "refresh_interval": "1s"}
        config["scrape_configs"] = [{"job_name": "files", "file_sd_configs": [found]}]
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    own = {
        "--config.file": str(file),
        "--storage.tsdb.path": str(folder / "data"),
        "--web.listen-address": f"127.0.0.1:{port}",
    }
    flags = dict(flag.partition("=")[::2] for flag in compose()["prometheus"]["command"]) | own
    command = [f"{name}={value}" if value else name for name, value in flags.items()]
    with process([str(find("prometheus")), *command], folder / "log"):
        server = Prometheus(f"http://127.0.0.1:{port}")
        until(server.ready, "Prometheus is ready")
        yield server


@contextmanager
def _collector(find: Find, folder: Path, prometheus: Prometheus, tempo: Tempo) -> Iterator[str]:
    folder.mkdir()
    http, grpc = free_port(), free_port()
    text = (COMPOSE / "telemetry" / "collector.yaml").read_text()
    for theirs, ours in (
        ("0.0.0.0:4318", f"127.0.0.1:{http}"),
        ("0.0.0.0:4317", f"127.0.0.1:{grpc}"),
        ("http://tempo:4318", f"http://127.0.0.1:{tempo.port}"),
        ("http://prometheus:9090", prometheus.url),
    ):
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    file = folder / "collector.yaml"
    file.write_text(text)
    # Its own figures would want a port that another may have.
    quiet = folder / "quiet.yaml"
    quiet.write_text(yaml.safe_dump({"service": {"telemetry": {"metrics": {"level": "none"}}}}))
    with process(
        [str(find("collector")), f"--config={file}", f"--config={quiet}"], folder / "log"
    ) as running_:

        def listens() -> bool:
            assert running_.poll() is None, (folder / "log").read_text()[-3000:]
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", http)) == 0

        until(listens, "the collector listens")
        yield f"http://127.0.0.1:{http}"
