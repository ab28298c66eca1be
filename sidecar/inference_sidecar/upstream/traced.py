"""A transport whose every request is an attempt with a span of its own, made by OpenTelemetry's instrumentation.

Enters: an `httpx.Request` that may carry its request's `trace`. Leaves: the very answer of the transport inside. The
instrumentation is shown method and URL without query, and given status and version: whatever variables it reads, it
cannot tell a key. It takes them in the plain values of httpx's older transport interface, which it serves as well, and
which spares each attempt two requests and three URLs.

`request.extensions`: `trace`, the spans of the app's request; `propagate`, whether the upstream is told of them;
`shown`, the path as it may be told.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import httpx

if TYPE_CHECKING:
    from ..telemetry.spans import Trace, Tracing

_NOTHING: Final = httpx.ByteStream(b"")


class TracedTransport(httpx.AsyncBaseTransport):
    """`inner` with spans; where a request has no trace, or one that is not kept, `inner` alone."""

    def __init__(self, inner: httpx.AsyncBaseTransport, tracing: Tracing) -> None:
        self._inner = inner
        self._observed = tracing.observe(_Shown(inner))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As `inner` does."""
        trace: Trace | None = request.extensions.get("trace")
        if trace is None:
            return await self._inner.handle_async_request(request)
        if not trace.recording:
            _tell_upstream(request, trace)
            return await self._inner.handle_async_request(request)
        url = request.url
        shown = _shown_url(url.scheme, url.host, url.port, request.extensions.get("shown", b"/"))
        with trace.attempt():
            _, _, _, extensions = await self._observed.handle_async_request(
                request.method.encode(), shown, extensions={"request": request, "trace": trace}
            )
        answer: httpx.Response = extensions["answer"]
        return answer


class _Shown:
    """What the instrumentation wraps: sends the request that came beside what is shown."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(
        self, method: bytes, url: httpx.URL, *, extensions: dict[str, Any], headers: object = None
    ) -> tuple[int, list[tuple[bytes, bytes]], httpx.ByteStream, dict[str, Any]]:
        """`headers` are the instrumentation's own, which it would have sent: they go nowhere."""
        del method, url, headers
        request: httpx.Request = extensions["request"]
        trace: Trace = extensions["trace"]
        trace.attempt_began()
        _tell_upstream(request, trace)
        try:
            answer = await self._inner.handle_async_request(request)
        except asyncio.CancelledError:
            trace.attempt_cancelled()
            raise
        version = answer.extensions.get("http_version", b"HTTP/1.1")
        return answer.status_code, [], _NOTHING, {"answer": answer, "http_version": version}


def _tell_upstream(request: httpx.Request, trace: Trace) -> None:
    if not request.extensions.get("propagate"):
        return
    lines = [line for line in request.headers.raw if line[0] not in (b"traceparent", b"tracestate")]
    request.headers = httpx.Headers([*lines, *trace.upward()])


@lru_cache(maxsize=64)
def _shown_url(scheme: str, host: str, port: int | None, path: bytes) -> httpx.URL:
    """Paths are few, and httpx takes its time over a URL."""
    return httpx.URL(scheme=scheme, host=host, port=port, raw_path=path)
