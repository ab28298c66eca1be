"""Operator and injector by OTLP, to a receiver on a real socket that decodes what comes.

Tested: the same numbers as /metrics under the names that Prometheus makes of them; who tells; headers, which no log
line shows; a receiver that is down, refuses, hangs or trickles, and the time that this costs; what the environment may
ask for; an injector as a process, to its last export. Left out: /metrics itself (test_operator_telemetry).
"""

from __future__ import annotations

import base64
import datetime
import gzip
import io
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from harness.evidence import EVIDENCE
from harness.exposition import samples
from harness.process import clean_environment
from harness.webhook import HOSTS, ApiServer, kubeconfig, now
from inference_operator import certs
from inference_operator.__main__ import command
from inference_operator.telemetry import INJECTOR, Metrics, UnusableTelemetry, configure
from inference_operator.telemetry.metrics import CLOSE_SECS, NOT_SCRAPED
from inference_operator.telemetry.setting import Export, export_of

BOTH = Export(scraped=True, otlp=True)
OFTEN = replace(BOTH, interval_ms=50)


class Receiver:
    """Takes metrics on /v1/metrics. `status` is what it answers; `gate`, while closed, holds answers back."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self._news = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                EVIDENCE.add("OTLP of the operator", body)
                with outer._news:
                    outer.headers.append({name.lower(): text for name, text in self.headers.items()})
                    outer.requests.append(ExportMetricsServiceRequest.FromString(body))
                    outer._news.notify_all()
                outer.gate.wait()
                assert self.path == "/v1/metrics"
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Not on the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds, looked at whenever something has come."""
        with self._news:
            assert self._news.wait_for(condition, 20)

    @property
    def resource(self) -> dict[str, str]:
        (told,) = self.requests[-1].resource_metrics
        return {one.key: one.value.string_value for one in told.resource.attributes}

    def samples(self) -> dict[str, float]:
        """The last request's, named and written as Prometheus does by default (UnderscoreEscapingWithSuffixes)."""
        found: dict[str, float] = {}
        if not self.requests:
            return found
        (told,) = self.requests[-1].resource_metrics
        for metric in (metric for scope in told.scope_metrics for metric in scope.metrics):
            kind = metric.WhichOneof("data")
            name = re.sub("[^a-zA-Z0-9]", "_", metric.name).removeprefix("inference_operator_")
            unit = "" if metric.unit.startswith("{") else {"s": "_seconds", "": ""}[metric.unit]
            total = "_total" if kind == "sum" and metric.sum.is_monotonic else ""
            assert kind != "sum" or metric.sum.aggregation_temporality == 2  # cumulative
            for point in getattr(metric, kind).data_points:
                labels = sorted((one.key, one.value.string_value) for one in point.attributes)
                inner = ",".join(f'{key}="{value}"' for key, value in labels)
                if kind == "histogram":
                    count = 0
                    for bound, many in zip(
                        [*point.explicit_bounds, "+Inf"], point.bucket_counts, strict=True
                    ):
                        count += many
                        found[f'{name}{unit}_bucket{{le="{bound}"}}'] = count
                    found |= {f"{name}{unit}_sum{{}}": point.sum, f"{name}{unit}_count{{}}": point.count}
                else:
                    value = getattr(point, point.WhichOneof("value"))
                    found[f"{name}{unit}{total}{{{inner}}}"] = value
        return found


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """One that the environment names. Nothing is sent by itself before a minute is over."""
    with Receiver() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    handlers = logging.getLogger().handlers[:]
    stream = io.StringIO()
    configure(stream=stream)
    yield stream
    EVIDENCE.add("log of the operator", stream.getvalue().encode())
    logging.getLogger().handlers[:] = handlers


class TestNumbers:
    def test_are_those_of_the_page(self, receiver: Receiver) -> None:
        metrics = Metrics("1.2.3", export=BOTH)
        for outcome, seconds in [("done", 0.02), ("done", 0.3), ("failed", 90.0)]:
            metrics.reconciled(outcome, seconds)
        metrics.admitted("injected", "", 0.005)
        metrics.admitted("refused", "NoConfig", 7.5)
        metrics.pods("shop/team", {"current": 3, "stale": 0})
        metrics.pods("other/team", {"current": 1, "stale": 2})
        metrics.certificate_expires(datetime.datetime(2027, 3, 4, 5, 6, 7, tzinfo=datetime.UTC))
        page = samples(metrics.text())
        metrics.close()
        assert receiver.samples() == page
        assert len(page) == 1 + 2 + 14 + 4 + 2 + 13 + 1

    def test_of_a_config_that_is_gone_are_gone(self, receiver: Receiver) -> None:
        metrics = Metrics("1", export=OFTEN)
        metrics.pods("shop/team", {"current": 3})
        receiver.until(lambda: any("pods" in name for name in receiver.samples()))
        metrics.forget("shop/team")
        receiver.until(lambda: not any("pods" in name for name in receiver.samples()))
        metrics.close()
        assert set(receiver.samples()) == {'build_info{version="1"}'}


class TestResource:
    def test_is_the_process(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=injector-1,k8s.namespace.name=a%2Cb")
        Metrics("1.2.3", INJECTOR, BOTH).close()
        assert receiver.resource.items() >= {
            "service.name": "inference-injector", "service.version": "1.2.3", "k8s.pod.name": "injector-1",
            "k8s.namespace.name": "a,b", "telemetry.sdk.language": "python",
        }.items()  # fmt: skip

    def test_the_environment_goes_first(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,service.name=other")
        Metrics("1.2.3", INJECTOR, BOTH).close()
        assert receiver.resource.items() >= {"service.name": "mine", "service.version": "9"}.items()


class TestHeaders:
    def test_are_sent_and_not_told(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
    ) -> None:
        key = EVIDENCE.new_key()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer {key},x-scope=shop")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        receiver.status = 401
        Metrics("1", export=BOTH).close()
        assert receiver.headers[0].items() >= {
            "authorization": f"Bearer {key}", "x-scope": "shop", "content-encoding": "gzip",
            "content-type": "application/x-protobuf",
        }.items()  # fmt: skip
        assert "HTTP 401" in log.getvalue()

    @pytest.mark.parametrize("form", ["Bearer {}", "x-key={}\x01b"])
    def test_that_cannot_be_sent_are_not_told(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, log: io.StringIO, form: str
    ) -> None:
        """The library's own lines would quote them: `log` and what it catches are searched for the key."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", form.format(EVIDENCE.new_key()))
        Metrics("1", export=BOTH).close()
        assert "is name=value" in log.getvalue() or "takes no metrics" in log.getvalue()


class TestTrouble:
    def test_is_told_once_and_so_is_its_end(self, receiver: Receiver, log: io.StringIO) -> None:
        receiver.status = 403
        metrics = Metrics("1", export=OFTEN)
        receiver.until(lambda: len(receiver.requests) >= 4)
        receiver.status = 200
        receiver.until(lambda: len(receiver.requests) >= 8)
        metrics.close()
        lines = [yaml.safe_load(line) for line in log.getvalue().splitlines()]
        assert [(line["level"], line["message"], line.get("reason")) for line in lines] == [
            ("warning", "the OTLP receiver takes no metrics", "HTTP 403"),
            ("info", "the OTLP receiver takes metrics again", None),
        ]

    def test_of_a_receiver_that_hangs_waits_for_nobody(self, receiver: Receiver) -> None:
        receiver.gate.clear()
        metrics = Metrics("1", export=OFTEN)
        receiver.until(lambda: bool(receiver.requests))
        began = time.monotonic()
        for _ in range(100):
            metrics.admitted("injected", "", 0.01)
        assert samples(metrics.text())["admission_duration_seconds_count{}"] == 100
        assert time.monotonic() - began < 1
        began = time.monotonic()
        metrics.close()
        assert time.monotonic() - began < CLOSE_SECS + 0.5

    def test_of_a_receiver_that_is_down(self, monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        metrics = Metrics("1", export=BOTH)
        began = time.monotonic()
        metrics.close()
        assert time.monotonic() - began < CLOSE_SECS + 0.5
        assert '"reason":"ConnectionError"' in log.getvalue()

    def test_of_a_receiver_that_trickles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A byte now and then resets every timeout of a socket."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            over = threading.Event()

            def trickle() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                    while not over.wait(0.2):
                        connection.sendall(b"x")

            thread = threading.Thread(target=trickle)
            thread.start()
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
            metrics = Metrics("1", export=BOTH)
            began = time.monotonic()
            metrics.close()
            assert time.monotonic() - began < CLOSE_SECS + 0.5
            over.set()
            thread.join(10)


class TestSetting:
    @pytest.mark.parametrize(
        ("environ", "export"),
        [
            ({}, Export()),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, Export()),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, BOTH),
            ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://c/m", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, BOTH),
            ({"OTEL_METRICS_EXPORTER": "otlp"}, Export(scraped=False, otlp=True)),
            ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "1000", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "100"},
             Export(scraped=False, otlp=True, interval_ms=1000, timeout_ms=100)),
            ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, Export()),
            ({"OTEL_METRICS_EXPORTER": " Prometheus , otlp"}, BOTH),
            ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, Export()),
            ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, Export(scraped=False)),
            ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Export(scraped=False)),
        ],
    )  # fmt: skip
    def test_what_is_asked_for(self, environ: dict[str, str], export: Export) -> None:
        assert export_of(environ) == export

    @pytest.mark.parametrize(
        ("environ", "told"),
        [
            ({"OTEL_METRICS_EXPORTER": "console"}, "OTEL_METRICS_EXPORTER: found console"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "port 4317 of a collector speaks gRPC"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4318"}, "found no URL of http or https"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:x"}, "OTEL_EXPORTER_OTLP_ENDPOINT: no valid URL"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "found grpc; valid: http/protobuf"),
            ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL: found 0; valid: milliseconds"),
            ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TIMEOUT": "10"}, "OTEL_EXPORTER_OTLP_TIMEOUT: found 10; valid: milliseconds"),
            ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"),
        ],
    )  # fmt: skip
    def test_what_is_not_spoken(self, environ: dict[str, str], told: str) -> None:
        with pytest.raises(UnusableTelemetry, match=re.escape(told)):
            export_of(environ)

    @pytest.mark.parametrize("process", ["run", "webhook"])
    def test_stops_the_start(
        self, process: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4317")
        options = ["--tls-cert", "c", "--tls-key", "k"] if process == "webhook" else []
        assert command([process, *options]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("OTEL_EXPORTER_OTLP_ENDPOINT: port 4317")
        assert "secret" not in told.err + told.out

    def test_without_prometheus_there_is_a_page_that_says_so(self) -> None:
        metrics = Metrics("1", export=Export(scraped=False))
        metrics.admitted("injected", "", 0.1)
        assert metrics.text() == NOT_SCRAPED
        metrics.close()


class TestProcess:
    @pytest.mark.parametrize("hangs", [False, True])
    def test_tells_its_last_at_the_end(self, receiver: Receiver, tmp_path: Path, hangs: bool) -> None:
        leaf = certs.issue_leaf(certs.issue_authority(now()), HOSTS, now())
        files = {"tls.crt": leaf.certificate, "tls.key": leaf.key}
        if hangs:
            receiver.gate.clear()
        with ApiServer() as api, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            api.objects["/api/v1/namespaces/system/secrets/certificates"] = {
                "data": {name: base64.b64encode(content).decode() for name, content in files.items()}
            }
            (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(api.port)))
            process = self.started(port, tmp_path / "kubeconfig", receiver)
            while not _ready(port):
                assert process.poll() is None
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=30)
        EVIDENCE.add("output of the injector", told)
        assert process.returncode == 0, told
        assert time.monotonic() - began < CLOSE_SECS + 2
        assert len(receiver.requests) == 1
        assert receiver.resource["service.name"] == "inference-injector"
        ends = certs.expiry(leaf.certificate).timestamp()
        assert receiver.samples()['certificate_expiry_timestamp_seconds{certificate="leaf"}'] == ends

    def started(self, port: int, config: Path, receiver: Receiver) -> subprocess.Popen[bytes]:
        options = ["--host", "127.0.0.1", "--port", "0", "--health-port", str(port), "--drain-secs", "0"]
        own: dict[str, Any] = {"KUBECONFIG": str(config), "POD_NAMESPACE": "system"}
        return subprocess.Popen(
            [
                sys.executable, "-W", "error", "-m", "inference_operator", "webhook", *options,
                "--certificates-secret", "certificates",
            ],
            env={**clean_environment(), **own, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def _ready(port: int) -> bool:
    time.sleep(0.05)  # a process that starts tells of itself by its port alone
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
