"""A transport whose every request is an attempt with a span of its own.

Enters: an `httpx.Request` that may carry its request's `trace`. Leaves: the very answer of the transport inside. The
trace is told method, URL without query, status and version, and no header: it cannot tell a key.

`request.extensions`: `trace`, the spans of the app's request; `propagate`, whether the upstream is told of them;
`shown`, the path as it may be told.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from ..telemetry.spans import Trace, Tracing


class TracedTransport(httpx.AsyncBaseTransport):
    """`inner` with spans; where a request has no trace, or one that is not kept, `inner` alone."""

    def __init__(self, inner: httpx.AsyncBaseTransport, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As `inner` does."""
        trace: Trace | None = request.extensions.get("trace")
        if trace is None:
            return await self._inner.handle_async_request(request)
        if not trace.recording:
            _tell_upstream(request, trace)
            return await self._inner.handle_async_request(request)
        url = request.url
        shown = _shown(url.scheme, url.host, url.port, request.extensions.get("shown", b"/"))
        trace.attempt_began(self._tracing.about(request.method, *shown))
        _tell_upstream(request, trace)
        try:
            answer = await self._inner.handle_async_request(request)
        except asyncio.CancelledError:
            trace.attempt_cancelled()
            raise
        except Exception as error:
            trace.attempt_failed(error)
            raise
        version = answer.extensions.get("http_version", b"HTTP/1.1").decode("ascii", "ignore")
        trace.attempt_ended(answer.status_code, version.replace("HTTP/", ""))
        return answer


def _tell_upstream(request: httpx.Request, trace: Trace) -> None:
    if not request.extensions.get("propagate"):
        return
    lines = [line for line in request.headers.raw if line[0] not in (b"traceparent", b"tracestate")]
    request.headers = httpx.Headers([*lines, *trace.upward()])


@lru_cache(maxsize=64)
def _shown(scheme: str, host: str, port: int | None, path: bytes) -> tuple[str, str, int | None]:
    """Paths are few, and httpx takes its time over a URL."""
    url = httpx.URL(scheme=scheme, host=host, port=port, raw_path=path)
    return str(url), url.host, url.port
