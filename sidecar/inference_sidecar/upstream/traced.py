"""A transport whose every request is an attempt with a span of its own, made by OpenTelemetry's instrumentation.

Enters: an `httpx.Request` that may carry its request's `trace`. Leaves: the very answer of the transport inside. The
instrumentation is shown a stand-in without headers, body or query, and gives its traceparent to that: whatever
variables it reads, it cannot tell a key, and nothing goes up but where the configuration says so.

`request.extensions`: `trace`, the spans of the app's request; `propagate`, whether the upstream is told of them;
`shown`, the path as it may be told.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from ..telemetry.spans import Trace, Tracing


_NOTHING: Final = httpx.ByteStream(b"")


class TracedTransport(httpx.AsyncBaseTransport):
    """`inner` with spans; where a request has no trace, or one that is not kept, `inner` alone."""

    def __init__(self, inner: httpx.AsyncBaseTransport, tracing: Tracing) -> None:
        self._inner = inner
        self._observed: httpx.AsyncBaseTransport = tracing.observe(_Shown(inner))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As `inner` does."""
        trace: Trace | None = request.extensions.get("trace")
        if trace is None:
            return await self._inner.handle_async_request(request)
        if not trace.recording:
            _tell_upstream(request, trace)
            return await self._inner.handle_async_request(request)
        url = request.url
        stand_in = httpx.Request(
            request.method,
            _shown_url(url.scheme, url.host, url.port, request.extensions.get("shown", b"/")),
            stream=_NOTHING,
            extensions={"request": request, "trace": trace},
        )
        with trace.attempt():
            shown = await self._observed.handle_async_request(stand_in)
        answer: httpx.Response = shown.extensions["answer"]
        return answer


class _Shown(httpx.AsyncBaseTransport):
    """What the instrumentation wraps: takes the stand-in, sends what it stands for, gives a stand-in back."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        real: httpx.Request = request.extensions["request"]
        trace: Trace = request.extensions["trace"]
        trace.attempt_began()
        _tell_upstream(real, trace)
        try:
            answer = await self._inner.handle_async_request(real)
        except asyncio.CancelledError:
            trace.attempt_cancelled()
            raise
        version = answer.extensions.get("http_version", b"HTTP/1.1")
        return httpx.Response(
            answer.status_code, stream=_NOTHING, extensions={"answer": answer, "http_version": version}
        )


def _tell_upstream(request: httpx.Request, trace: Trace) -> None:
    if not request.extensions.get("propagate"):
        return
    lines = [line for line in request.headers.raw if line[0] not in (b"traceparent", b"tracestate")]
    request.headers = httpx.Headers([*lines, *trace.upward()])


@lru_cache(maxsize=64)
def _shown_url(scheme: str, host: str, port: int | None, path: bytes) -> httpx.URL:
    """Paths are few, and httpx takes its time over a URL."""
    return httpx.URL(scheme=scheme, host=host, port=port, raw_path=path)
