"""Export by OTLP, and what happens where it cannot: a collector that is down, slow, hanging, broken.

Covers: metrics and spans of one process, with headers, compression, TLS and paths as the variables say; metrics at
their interval and at the end; each way for a collector to fail: no request fails or slows, one line when it begins and
one when it works again, no key of the collector's in any of them, the exit within its bound; a queue that overflows;
a process that exports nothing imports nothing of it; /metrics on and off.
Left out: the numbers of metrics (test_metrics_otlp), the variables one by one (test_telemetry_environment).
"""

from __future__ import annotations

import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import certifi
import pytest
import trustme

from harness import answers
from harness.evidence import EVIDENCE
from harness.otlp import Mode, OtlpSink
from harness.process import Sidecar, Start, clean_environment
from harness.traces import tree
from harness.upstream import ScriptedUpstream

END_SECS = 3.0
MARGIN_SECS = 2.0
"""For a busy machine; an exit without any bound takes 10 s and more."""

OFTEN = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "100"}
BROKEN: list[Mode] = ["hang", "busy", "redirect", "garbage", "reset", "refuse_key"]


def names(sink: OtlpSink) -> set[str]:
    return {
        metric.name
        for request in sink.metrics
        for one in request.resource_metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
    }


def to(sink: OtlpSink, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, **OFTEN, **more}


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as running:
        yield running


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_spans_and_metrics_arrive(sink: OtlpSink, spawn: Start, compression: str) -> None:
    environ = to(
        sink,
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20token,x-tenant=a b",
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        OTEL_SERVICE_NAME="an-app",
    )
    sidecar = spawn(environ=environ)
    with sidecar.requests() as lines:
        sidecar.chat()
    tree(sink, lines[0], 1)
    sink.until(lambda: "gen_ai.client.operation.duration" in names(sink), "a metric of the request")
    for received in sink.received:
        assert received.headers["authorization"] == "Bearer token"
        assert received.headers["x-tenant"] == "a b"
        assert received.headers["content-type"] == "application/x-protobuf"
        assert received.headers.get("content-encoding", "none") == compression
    resource = sink.metrics[-1].resource_metrics[0].resource
    assert {pair.key: pair.value.string_value for pair in resource.attributes}["service.name"] == "an-app"
    assert "export" not in " ".join(line["message"] for line in sidecar.lines)


def test_what_is_left_is_sent_at_the_end(sink: OtlpSink, spawn: Start) -> None:
    """A sidecar that lives shorter than any interval tells all of it."""
    later = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_METRIC_EXPORT_INTERVAL": "60000"}
    sidecar = spawn(environ=to(sink, **later))
    with sidecar.requests(3):
        for _ in range(3):
            sidecar.chat()
    assert not sink.received
    sidecar.terminate()
    assert sidecar.wait() == 0
    assert len(sink.spans) == 9
    assert len(sink.metrics) == 1
    assert "inference_sidecar.requests" in names(sink)


def test_each_signal_its_own_way(sink: OtlpSink, spawn: Start) -> None:
    """Endpoints and headers of one signal go before those of all; its endpoint is taken as it is."""
    with OtlpSink() as other:
        environ = to(
            sink,
            OTEL_EXPORTER_OTLP_HEADERS="x-for=all",
            OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-for=metrics",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{other.url}/v1/metrics",
        )
        sidecar = spawn(environ=environ)
        sidecar.chat()
        sink.until(lambda: len(sink.spans) == 3, "spans")
        other.until(lambda: other.metrics, "metrics")
        assert not sink.metrics
        assert not other.spans
        assert {received.headers["x-for"] for received in sink.received} == {"all"}
        assert {received.headers["x-for"] for received in other.received} == {"metrics"}


def test_tls(spawn: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "collector.pem"
    authority.cert_pem.write_to_path(trusted)
    with OtlpSink(tls=context) as sink:
        # A variable for Python's other clients; it must not go before the one for this export.
        others = {"REQUESTS_CA_BUNDLE": certifi.where()}
        sidecar = spawn(environ=to(sink, OTEL_EXPORTER_OTLP_CERTIFICATE=str(trusted), **others))
        with sidecar.requests() as lines:
            sidecar.chat()
        tree(sink, lines[0], 1)
        doubting = spawn(environ=to(sink))
        doubting.chat()
        line = doubting.line(lambda line: line["message"] == "export fails", "the failure")
        assert line["reason"] == "SSLError"
        # Ended before the collector is: Python leaves a socket unclosed whose peer resets it before its handshake.
        for one in (sidecar, doubting):
            one.terminate()
            assert one.wait() == 0
            assert not one.faults()


@pytest.mark.parametrize("mode", BROKEN)
def test_a_broken_collector_hurts_nobody(
    sink: OtlpSink, spawn: Start, upstream: ScriptedUpstream, mode: Mode
) -> None:
    """Answers, log and exit are as ever; the collector's own key and address stay out of the log."""
    sink.mode = mode
    collector_key = EVIDENCE.new_key()
    environ = to(sink, OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{collector_key}")
    environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{sink.url}/v1/traces?token={collector_key}"
    sidecar = spawn(environ=environ)
    with sidecar.requests(6) as lines:
        for _ in range(3):
            assert sidecar.chat().status == 200
            assert sidecar.chat(stream=True).body.endswith(answers.DONE)
    assert {line["end"] for line in lines} == {"completed"}
    failing = {
        sidecar.line(
            lambda line, signal=signal: line["message"] == "export fails" and line["signal"] == signal,
            f"{signal} that cannot be sent",
        )["endpoint"]
        for signal in ("traces", "metrics")
    }
    assert failing == {f"{sink.url}/v1/traces", f"{sink.url}/v1/metrics"}
    began = time.monotonic()
    sidecar.terminate()
    assert sidecar.wait() == 0
    assert time.monotonic() - began < END_SECS + MARGIN_SECS
    assert len([line for line in sidecar.lines if line["message"] == "export fails"]) == 2
    assert not sidecar.faults()
    assert not [line for line in sidecar.lines if line["logger"] != "inference_sidecar"]


def test_a_collector_that_is_down_and_comes(spawn: Start) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        sidecar = spawn(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **OFTEN})
        sidecar.chat()
        for signal in ("traces", "metrics"):
            line = sidecar.line(
                lambda line, signal=signal: line["message"] == "export fails" and line["signal"] == signal,
                f"the failure of {signal}",
            )
            assert line["reason"] == "ConnectionError"
    with OtlpSink(port) as sink:
        for signal in ("traces", "metrics"):
            sidecar.chat()
            sidecar.line(
                lambda line, signal=signal: (
                    line["message"] == "export works again" and line["signal"] == signal
                ),
                f"{signal} again",
            )
        assert names(sink)
        sidecar.terminate()
        assert sidecar.wait() == 0
    assert len([line for line in sidecar.lines if line["message"].startswith("export")]) == 4


def test_an_answer_without_end_is_not_read_to_it(sink: OtlpSink, spawn: Start) -> None:
    """What a collector says is read up to a bound: it is neither kept nor waited for."""
    sink.mode = "endless"
    sidecar = spawn(environ=to(sink))
    for _ in range(5):
        with sidecar.requests() as lines:
            sidecar.chat()
        tree(sink, lines[0], 1)
    pid = sidecar.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 150 * 1024


@pytest.mark.parametrize("mode", ["hang", "slow"])
def test_the_exit_is_bounded_with_a_full_queue(sink: OtlpSink, spawn: Start, mode: Mode) -> None:
    """The worst: much to send, both signals, a collector that takes it and says nothing."""
    sink.mode, sink.delay = mode, 2.5
    sidecar = spawn(environ=to(sink, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4", OTEL_BSP_MAX_QUEUE_SIZE="64"))
    with sidecar.connect() as client:
        for _ in range(60):
            client.request("GET", "/v1/models")
            assert client.answer("GET").status == 200
    began = time.monotonic()
    sidecar.terminate()
    assert sidecar.wait() == 0
    took = time.monotonic() - began
    print(f"{mode}: the exit took {took:.2f} s")
    assert took < END_SECS + MARGIN_SECS
    assert [line for line in sidecar.lines if line["message"] == "telemetry was left unsent"]
    assert [line for line in sidecar.lines if line["message"].startswith("spans dropped")]


def median_of(sidecar: Sidecar, count: int) -> float:
    times = []
    with sidecar.connect() as client:
        for _ in range(count):
            began = time.perf_counter()
            client.request("POST", "/v1/chat/completions", CHAT)
            assert client.answer().status == 200
            times.append(time.perf_counter() - began)
    return statistics.median(times)


CHAT = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello!"}]}


def test_a_hanging_collector_slows_no_request(sink: OtlpSink, spawn: Start) -> None:
    """Medians of requests with a collector that works and one that hangs, taken in turns: as good as equal."""
    with OtlpSink() as bad:
        bad.mode = "hang"
        well, ill = spawn(environ=to(sink)), spawn(environ=to(bad))
        pairs = [(median_of(well, 60), median_of(ill, 60)) for _ in range(5)]
        ratio = statistics.median(hanging / working for working, hanging in pairs)
        print(f"a request with a hanging collector takes {ratio:.2f} of one with a working one")
        assert ratio < 1.5


def imported(environ: dict[str, str], tmp_path: Path) -> set[str]:
    """Top-level names of what a process imports that has served one chat."""
    script = tmp_path / "sitecustomize.py"
    script.write_text(
        "import atexit, sys, pathlib\n"
        "atexit.register(lambda: pathlib.Path('modules').write_text(' '.join(sys.modules)))\n"
    )
    sidecar = Sidecar(
        None, "", environ={"INFERENCE_INFERENCE_PROVIDER": "echo", "PYTHONPATH": str(tmp_path), **environ}, cwd=tmp_path
    )  # fmt: skip
    assert sidecar.chat().status == 200
    sidecar.terminate()
    assert sidecar.wait() == 0
    return set((tmp_path / "modules").read_text().split())


OFF = [
    {},
    {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
    {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"},
]  # fmt: skip


@pytest.mark.parametrize("environ", OFF, ids=["nothing set", "none", "disabled"])
def test_who_exports_nothing_imports_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    modules = imported(environ, tmp_path)
    assert "inference_sidecar.telemetry.setup" in modules
    heavy = ("opentelemetry", "requests", "urllib3", "google.protobuf")
    assert not [name for name in modules if name.startswith(heavy)]


def test_who_exports_does_import(sink: OtlpSink, tmp_path: Path) -> None:
    """So that the test above can fail; and of it no more than the client, for each package is paid for in each pod."""
    modules = imported(to(sink), tmp_path)
    assert "opentelemetry.exporter.otlp.common.http" in modules
    heavy = ("opentelemetry.sdk.trace", "opentelemetry.proto", "google.protobuf", "requests", "urllib3")
    assert not [name for name in modules if name.startswith(heavy)]


@pytest.mark.parametrize(
    ("environ", "status", "why"),
    [
        ({}, 200, ""),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, 200, ""),
        ({"OTEL_METRICS_EXPORTER": "otlp,prometheus", "OTEL_METRIC_EXPORT_INTERVAL": "60000"}, 200, ""),
        ({"OTEL_METRICS_EXPORTER": "none"}, 404, "OTEL_METRICS_EXPORTER"),
        ({"OTEL_SDK_DISABLED": "true"}, 404, "OTEL_SDK_DISABLED"),
    ],
    ids=["unset", "prometheus", "both", "none", "disabled"],
)
def test_metrics_on_the_admin_port(spawn: Start, environ: dict[str, str], status: int, why: str) -> None:
    answer = spawn(environ=environ).admin("/metrics")
    assert answer.status == status
    assert why.encode() in answer.body
    if status == 404:
        assert answer.body.count(b"\n") == 1


def run_once(*arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "inference_sidecar", *arguments],
        env={**clean_environment(), "INFERENCE_INFERENCE_PROVIDER": "echo", **environ},
        cwd=cwd,
        capture_output=True,
        timeout=20,
        check=False,
    )
    EVIDENCE.add("a run's output", done.stdout + done.stderr)
    return done


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_variable_that_cannot_be_used_stops_the_start(tmp_path: Path, command: str) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization {EVIDENCE.new_key()}",
    }
    done = run_once(command, environ=environ, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    for name, found in zip(environ, ("4317", "grpc", "sometimes", "NAME=VALUE"), strict=True):
        assert any(line.startswith(name) and found in line and "valid:" in line for line in lines), lines
    assert "Traceback" not in done.stderr.decode()


def test_check_shows_what_is_exported_without_keys(tmp_path: Path) -> None:
    key = EVIDENCE.new_key()
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://user:{key}@collector:4318/otlp?token={key}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={key},x-tenant={key}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    done = run_once("check", environ=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert (
        "https://collector:4318/otlp/v1/traces (timeout 3 s, authorization=********, x-tenant=********)"
        in text
    )
    assert "parentbased_traceidratio 0.1" in text
    assert "served on the admin port" in text
