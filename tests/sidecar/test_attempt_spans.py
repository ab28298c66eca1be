"""The span of an attempt against the one that OpenTelemetry's instrumentation of httpx makes of the same request.

Covers: heads of every class, methods known and not, ports given and not, a connection that is refused or breaks off, an
answer that is no HTTP, a certificate that nobody trusts; what is not as the instrumentation has it: an app that left
makes an error, an error has no stack, and there is no query.
Left out: attempts of whole requests (test_traces), encoding (test_otlp_encoding).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from direct.peers import Peer, Server, Signal
from direct.transport import EVERY_WAY, Run, always, transport
from harness import official
from harness.otlp import attributes_of
from inference_sidecar.errors import UpstreamError
from inference_sidecar.records import End, Endpoint, Outcome
from inference_sidecar.telemetry.otlp_spans import Envelope
from inference_sidecar.telemetry.spans import Trace, Tracing
from inference_sidecar.telemetry.trace_context import sampler_of
from inference_sidecar.upstream.traced import answered, shown, unanswered

# Read where the instrumentation is first used in a process: the stable names.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"

from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

pytestmark = EVERY_WAY

SILENT = NoOpMeterProvider()
OUTCOME = Outcome("req_1", Endpoint.CHAT, "POST", "/v1/chat/completions", 200, End.COMPLETED, 1.0)


class Ours:
    """The sidecar's transport, and the spans that come out of it."""

    def __init__(self, inner: httpx.AsyncBaseTransport, excluded: str = "") -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.tracing = Tracing(
            sampler=sampler_of("always_on", 1.0),
            finish=lambda count, spans: self.entries.append((count, spans)),
            traceparent=True,
            content=False,
            excluded=excluded,
        )
        self.inner = inner

    def begin(self) -> Trace:
        trace = self.tracing.begin([], random.randbytes(40))
        trace.goes_up()
        return trace

    async def send(self, trace: Trace, method: str, url: str) -> None:
        request = httpx.Request(method, url)
        trace.attempt_began(request.method, *shown(request.url)(request.url.raw_path.partition(b"?")[0]))
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException as error:
            unanswered(trace, error)
            raise
        answered(trace, response.status_code, response.extensions.get("http_version", b"HTTP/1.1"))
        await response.aclose()

    def spans(self) -> list[Any]:
        """Of the request that ended last; the attempts come first."""
        count, entry = self.entries[-1]
        (resource,) = ExportTraceServiceRequest.FromString(Envelope({}, "1").around([entry])).resource_spans
        spans = list(resource.scope_spans[0].spans)
        assert len(spans) == count
        return spans


async def officially(inner: httpx.AsyncBaseTransport, method: str, url: str) -> Any:
    """The instrumentation's span of one request, encoded."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False, meter_provider=SILENT)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    way = AsyncOpenTelemetryTransport(inner, tracer_provider=provider, meter_provider=SILENT)
    with suppress(UpstreamError):
        await (await way.handle_async_request(httpx.Request(method, url))).aclose()
    (span,) = official.encode_spans(kept.get_finished_spans()).resource_spans[0].scope_spans[0].spans
    return span


def told(span: Any) -> dict[str, Any]:
    """Whatever a span says that is not its own alone."""
    events = []
    for event in span.events:
        about = attributes_of(event.attributes)
        about.pop("exception.stacktrace", None)
        events.append((event.name, about))
    return {
        "name": span.name,
        "kind": span.kind,
        "status": (span.status.code, span.status.message),
        "attributes": attributes_of(span.attributes),
        "events": events,
    }


async def compare(inner: httpx.AsyncBaseTransport, method: str, url: str) -> dict[str, Any]:
    """What both say of the same request; they must say the same."""
    ours = Ours(inner)
    trace = ours.begin()
    with suppress(UpstreamError):
        await ours.send(trace, method, url)
    trace.end(OUTCOME, time.monotonic())
    attempt, call, _ = ours.spans()
    found = told(attempt)
    assert found == told(await officially(inner, method, url))
    assert attempt.parent_span_id == call.span_id
    assert call.start_time_unix_nano <= attempt.start_time_unix_nano <= attempt.end_time_unix_nano
    assert attempt.end_time_unix_nano <= call.end_time_unix_nano
    return found


@pytest.mark.parametrize("status", [200, 204, 304, 307, 400, 404, 429, 500, 503, 599])
def test_heads(run: Run, status: int) -> None:
    head = b"HTTP/1.1 %d Word\r\nContent-Length: 0\r\n\r\n" % status

    async def scenario() -> None:
        with Server(always(head)) as server:
            async with transport() as inner:
                found = await compare(inner, "POST", server.url("/v1/chat/completions"))
        assert found["attributes"]["http.response.status_code"] == status
        assert found["attributes"]["server.port"] == server.port
        assert found["attributes"].get("error.type") == (str(status) if status >= 400 else None)

    run(scenario)


@pytest.mark.parametrize("method", ["GET", "DELETE", "get", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/v1/a%20b", "/v1/%C3%A9", "/v1/a{b}|c"])
def test_methods_and_paths(run: Run, method: str, path: str) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as inner:
                await compare(inner, method, server.url(path))

    run(scenario)


class Answers(httpx.AsyncBaseTransport):
    """An upstream that cannot be reached in a test: it has the scheme's own port."""

    def __init__(self, version: bytes | None) -> None:
        self._version = version

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = {} if self._version is None else {"http_version": self._version}
        return httpx.Response(200, extensions=extensions)


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2", None])
@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1/x", "http://[::1]/v1/x", "https://h:443/", "http://h:443/"]
)
def test_ports_and_versions(run: Run, url: str, version: bytes | None) -> None:
    async def scenario() -> None:
        await compare(Answers(version), "POST", url)

    run(scenario)


def test_a_connection_that_is_refused(run: Run) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]

        async def scenario() -> None:
            async with transport() as inner:
                found = await compare(inner, "POST", f"http://127.0.0.1:{port}/v1/x")
            assert found["attributes"]["error.type"] == "UpstreamConnectError"

        run(scenario)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (lambda peer: peer.head() and peer.close(), "UpstreamDisconnected"),
        (lambda peer: peer.head() and peer.reset(), "UpstreamDisconnected"),
        (lambda peer: peer.head() and peer.send(b"no HTTP at all\r\n\r\n"), "UpstreamProtocolError"),
    ],
    ids=["close", "reset", "garbage"],
)
def test_no_head(run: Run, part: Callable[[Peer], None], kind: str) -> None:
    async def scenario() -> None:
        with Server(part) as server:
            async with transport() as inner:
                found = await compare(inner, "POST", server.url())
        assert found["attributes"]["error.type"] == kind
        assert found["events"][0][0] == "exception"

    run(scenario)


def test_no_trust(run: Run) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def scenario() -> None:
        with Server(lambda peer: None, tls=context) as server:
            async with transport(ssl_context=ssl.create_default_context()) as inner:
                found = await compare(inner, "POST", server.url(host="localhost"))
        assert found["attributes"]["error.type"] == "UpstreamTLSError"

    run(scenario)


def test_a_query_is_not_told(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as inner:
                ours = Ours(inner)
                trace = ours.begin()
                await ours.send(trace, "GET", server.url("/v1/x?secret=1"))
                trace.end(OUTCOME, time.monotonic())
        assert told(ours.spans()[0])["attributes"]["url.full"] == server.url("/v1/x")

    run(scenario)


def test_an_attempt_that_is_cancelled(run: Run) -> None:
    """The instrumentation says nothing of it; the sidecar says that nobody waited any more."""

    async def scenario() -> None:
        came = Signal()

        def part(peer: Peer) -> None:
            peer.head()
            came.set()
            peer.gone()

        with Server(part) as server:
            async with transport() as inner:
                ours = Ours(inner)
                trace = ours.begin()
                sending = asyncio.ensure_future(ours.send(trace, "POST", server.url()))
                await came.seen()
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
                trace.end(OUTCOME, time.monotonic())
        found = told(ours.spans()[0])
        assert found["status"] == (2, "")
        assert found["attributes"]["error.type"] == "cancelled"
        assert "http.response.status_code" not in found["attributes"]

    run(scenario)


def test_attempts_one_after_the_other(run: Run) -> None:
    """Each with its own id, below the call; one that nobody ended before the request did is ended with it."""

    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as inner:
                ours = Ours(inner)
                trace = ours.begin()
                for _ in range(3):
                    await ours.send(trace, "POST", server.url())
                trace.attempt_began("POST", "http://h/", "h", None)
                trace.end(OUTCOME, time.monotonic())
        *attempts, call, server_span = ours.spans()
        resent = [told(span)["attributes"].get("http.request.resend_count", 0) for span in attempts]
        assert resent == [0, 1, 2, 3]
        assert {span.parent_span_id for span in attempts} == {call.span_id}
        assert len({span.span_id for span in (*attempts, call, server_span)}) == 6
        assert {span.trace_id for span in attempts} == {server_span.trace_id}
        assert told(attempts[-1])["attributes"]["error.type"] == "cancelled"
        assert attempts[-1].end_time_unix_nano <= call.end_time_unix_nano

    run(scenario)


def test_urls_that_are_excluded(run: Run) -> None:
    async def scenario() -> None:
        with Server(always()) as server:
            async with transport() as inner:
                ours = Ours(inner, excluded="files|never")
                trace = ours.begin()
                await ours.send(trace, "GET", server.url("/v1/files/a"))
                await ours.send(trace, "GET", server.url("/v1/x"))
                trace.end(OUTCOME, time.monotonic())
        attempt, _, _ = ours.spans()
        assert attributes_of(attempt.attributes)["url.full"].endswith("/v1/x")
        assert attributes_of(attempt.attributes)["http.request.resend_count"] == 1

    run(scenario)
