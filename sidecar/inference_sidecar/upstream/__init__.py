"""From a request that may go up to an answer whose first byte is here: attempts, deadlines, retries.

Enters: a `Call`. Leaves: an `Answer` (status, headers, an open byte stream), or an `UpstreamError`.
Must not read the app's connection, nor decide what goes down: it only ever speaks upstream. The only
room, with `app`, that knows httpx. Nothing of an answer has gone down while a call is in here, which is
what makes a retry possible at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import httpx

from ..deadline import Deadline
from ..errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout
from ..records import Endpoint, Headers, Refusal, Retry
from ..runtime import Located, Runtime
from ..telemetry import debug
from . import retry
from .answer import Answer, following
from .parts import Opened, blank_request
from .request import Lines, Ready
from .traced import Shown, answered, shown, unanswered
from .wire import Wire, wire_for

if TYPE_CHECKING:
    from ..telemetry.spans import Trace
    from .body import Body

__all__ = ["Answer", "Call", "Upstream", "Wire", "wire_for"]

_TICK_SECS = 0.001
"""What a timer of uvloop's, which counts whole milliseconds, may be early: a wait that was asked for is kept."""

_OF_TRACES = frozenset({b"traceparent", b"tracestate"})


class Call:
    """One request for the upstream.

    `body` is whole bytes, a stream that can be read once, or None. `without_usage` is the body without the
    sidecar's own wish for usage, None where there was none. `trace` is given spans, where there is one. `headers` are complete but for Host, the key and
    the configured ones. `meanwhile` is called where the upstream has a request, or is about to have it.
    """

    __slots__ = ("body", "endpoint", "headers", "meanwhile", "method", "target", "trace", "without_usage")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        endpoint: Endpoint,
        body: bytes | AsyncIterator[bytes] | None,
        without_usage: bytes | None = None,
        trace: Trace | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.endpoint = endpoint
        self.body = body
        self.without_usage = without_usage
        self.trace = trace
        self.meanwhile = meanwhile


class Attempts:
    """How far a call has come; readable also after it was cancelled or failed."""

    __slots__ = ("count", "exhausted", "retries")

    def __init__(self) -> None:
        self.count = 0
        self.exhausted = False
        self.retries: list[Retry] = []


class Upstream:
    """The upstream of one generation of the configuration, on a wire that may outlive it."""

    def __init__(self, runtime: Runtime, wire: Wire) -> None:
        self.runtime = runtime
        self.wire = wire
        target = runtime.target
        # To build one takes longer than all that a request does with it.
        self._url = httpx.URL(scheme=target.scheme, host=target.host, port=target.port, path="/")
        self._shown = shown(self._url)
        self._target = b""  # the last attempt's, and how it is told of: most have the same
        self._told: Shown = ("", "", None)
        self._asked: tuple[str, bytes, bytes, str | None] = ("", b"", b"", None)
        self._located: Located | Refusal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        auth = runtime.auth_header()
        self._own: Headers = [
            (b"host", target.host_header),
            *runtime.fixed_headers,
            *([auth] if auth else []),
        ]
        self._own_names = frozenset(name for name, _ in self._own)
        self._own_traced = [line for line in self._own if line[0] not in _OF_TRACES]
        self._barred_traced = self._own_names | _OF_TRACES
        self._given: Headers | None = None  # the last call's, and what goes up with them: most have the same
        self._traced = False
        self._lines: Lines = ()

    def locate(self, method: str, raw_path: bytes, query: bytes, model: str | None) -> Located | Refusal:
        """As `Target` does. The last one is kept: most requests have the same place."""
        asked = (method, raw_path, query, model)
        located = self._located
        if located is None or asked != self._asked:
            located = self.runtime.target.locate(method, raw_path, query, model)
            self._located, self._asked = located, asked
        return located

    def send(
        self, call: Call, attempts: Attempts, task: asyncio.Task[Any] | None = None
    ) -> Coroutine[Any, Any, Answer]:
        """Send a call until an answer has begun or nothing more can be done. `task`: the one that awaits this, where that is
        known.

        Raises UpstreamError. Cancelling it closes the connection at once.
        """
        secs = self.runtime.values.timeout_secs
        loop = self._loop = self._loop or asyncio.get_running_loop()
        clock = Deadline(loop, loop.time() + secs, task)
        if call.body is not None and not isinstance(call.body, bytes):
            # An upload may take longer than its answer: the clock starts again with each piece.
            call = _with_body(call, _WithProgress(call.body, lambda: clock.move(loop.time() + secs)))
        return self._attempts(call, attempts, clock)

    async def reachable(self, timeout_secs: float) -> tuple[bool, str | None]:
        """Whether the list of models can be asked for: any HTTP answer will do. Spends no tokens."""
        located = self.runtime.target.locate("GET", b"/v1/models", b"", None)
        target = getattr(located, "target", b"/")
        call = Call("GET", target, [(b"accept", b"application/json")], Endpoint.MODELS, None)
        loop, wire = asyncio.get_running_loop(), self.wire
        try:
            with Deadline(loop, loop.time() + timeout_secs):
                try:
                    response = await wire.open(self._request(call, call.body, []))
                except BaseException:
                    wire.ended()
                    raise
                await wire.close(response)
        except TimeoutError:
            return False, f"no answer within {timeout_secs:g} s"
        except UpstreamError as error:
            return False, str(error)
        return True, None

    async def _attempts(self, call: Call, attempts: Attempts, clock: Deadline) -> Answer:
        dropped = call.without_usage is not None and self.wire.refuses_usage
        outcome: Answer | UpstreamError
        try:
            with clock:
                while True:
                    attempts.count += 1
                    try:
                        outcome = await self._attempt(call, call.without_usage if dropped else call.body)
                    except UpstreamError as error:
                        outcome = error
                    else:
                        outcome.attempts = attempts.count
                        outcome.deadline = clock.when or 0.0
                        outcome.usage_dropped = dropped
                        if outcome.status < 400:
                            return outcome
                        if (
                            call.without_usage is not None
                            and not dropped
                            and retry.refuses_usage(outcome.status, outcome.first)
                        ):
                            # No try of the app's: it never asked for what was refused.
                            self.wire.refuses_usage = dropped = True
                            attempts.count -= 1
                            continue
                    wait = self._again(call, attempts, outcome, clock)
                    if wait is None:
                        break
                    await asyncio.sleep(wait + _TICK_SECS)
        except TimeoutError:
            if not clock.expired:
                raise
            secs = self.runtime.values.timeout_secs
            raise UpstreamTimeout(
                f"No answer from {self.runtime.target.origin} within {secs:g} s (http.timeout_secs)."
            ) from None
        if isinstance(outcome, UpstreamError):
            raise outcome
        return outcome

    def _again(
        self, call: Call, attempts: Attempts, failure: Answer | UpstreamError, clock: Deadline
    ) -> float | None:
        """Seconds to wait for the next try; None: there is to be none."""
        values = self.runtime.values
        may_repeat = retry.repeatable(call.endpoint, call.method)
        last = attempts.count > values.max_retries
        seen: dict[bytes, bytes] = {}
        if isinstance(failure, UpstreamError):
            again = retry.after_error(failure, may_repeat=may_repeat) and _is_unread(call.body, failure)
            attempts.exhausted = again and last and attempts.count > 1
        else:
            seen = dict(failure.headers)
            again = isinstance(call.body, bytes | None) and retry.after_status(
                failure.status, seen, failure.first, may_repeat=may_repeat
            )
            failure.exhausted = attempts.exhausted = again and last and attempts.count > 1
        if not again or last:
            return None
        wait = retry.wait_secs(attempts.count, values.retry_backoff_ms, seen, time.time())
        if asyncio.get_running_loop().time() + wait >= (clock.when or 0.0):
            return None
        attempts.retries.append(Retry(time.monotonic(), attempts.count, wait, _why(failure)))
        debug("retry", attempt=attempts.count, wait_ms=round(wait * 1000), why=_why(failure))
        return wait

    async def _attempt(self, call: Call, body: bytes | AsyncIterator[bytes] | None) -> Answer:
        """One try: the head, and the body's first piece. An error's body is read whole."""
        wire, trace = self.wire, call.trace
        recording = trace if trace is not None and trace.recording else None
        request = self._request(call, body, [] if trace is None else self._begins(call, trace))
        try:
            response = await wire.open(request)
        except BaseException as error:
            wire.ended()
            if recording is not None:
                unanswered(recording, error)
            raise
        answer: Answer | None = None
        try:
            body_down: Body | None = None
            more: Callable[[], Awaitable[bytes | None]] | None = None
            first: bytes | None = b""
            if isinstance(response, Opened):
                body_down = response.body
                head = body_down.answer
                status, version = head.status, head.version
                lines = response.headers.raw if body_down.changed else head.headers
                first = body_down.here()
            else:
                status, version = response.status_code, response.extensions.get("http_version", b"HTTP/1.1")
                lines = response.headers.raw
                more = _pieces(aiter(response.stream))  # type: ignore[arg-type]  # an async transport's
            if recording is not None:
                answered(recording, status, version)
            if not 200 <= status <= 599:
                raise UpstreamProtocolError(f"The upstream answered with the status {status}.")
            headers = [(name.lower(), value) for name, value in lines]
            while first == b"":
                first = await following(body_down, more)
            answer = Answer(status, headers, first or b"", body_down, more, wire, response)
            if status >= 400:
                await answer.read()
            if answer.whole and not answer.close_now():
                await answer.aclose()
        except BaseException:
            if answer is None or not answer.closed:
                wire.drop(response)
            raise
        return answer

    def _begins(self, call: Call, trace: Trace) -> Headers:
        """Tell the trace of an attempt; returns what the upstream is told of the trace."""
        if trace.recording:
            if call.target != self._target:
                self._target = call.target
                self._told = self._shown(self.runtime.mask(call.target.partition(b"?")[0]))
            url, host, port = self._told
            trace.attempt_began(call.method, url, host, port)
        return trace.upward() if self.runtime.values.propagate_traceparent else []

    def _request(
        self, call: Call, body: bytes | AsyncIterator[bytes] | None, lines: Headers
    ) -> httpx.Request:
        """`lines`: what the upstream is told of the trace; others of that kind, be they configured, are left out then."""
        if call.headers != self._given or bool(lines) != self._traced:
            self._given, self._traced = call.headers, bool(lines)
            barred, own = (self._barred_traced, self._own_traced) if lines else (self._own_names, self._own)
            self._lines = tuple(own + [line for line in call.headers if line[0] not in barred])
        request = blank_request()
        request.ready = Ready(
            call.method,
            self._url,
            call.target,
            self._lines,
            lines,
            b"" if body is None else body,
            length=len(body) if isinstance(body, bytes) else None,
            fresh=not retry.repeatable(call.endpoint, call.method),
            meanwhile=call.meanwhile,
        )
        return request


def _with_body(call: Call, body: AsyncIterator[bytes]) -> Call:
    return Call(
        call.method,
        call.target,
        call.headers,
        call.endpoint,
        body,
        trace=call.trace,
        meanwhile=call.meanwhile,
    )


class _WithProgress:
    """The same pieces; `touch` is called with each, and at their end."""

    def __init__(self, pieces: AsyncIterator[bytes], touch: Callable[[], None]) -> None:
        self._pieces = pieces
        self._touch = touch

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._touch()
            raise
        self._touch()
        return piece


def _is_unread(body: bytes | AsyncIterator[bytes] | None, error: UpstreamError) -> bool:
    """Whether the body can be given once more: held in memory, or no byte of it was taken."""
    return isinstance(body, bytes | None) or not error.sent


def _pieces(pieces: AsyncIterator[bytes]) -> Callable[[], Awaitable[bytes | None]]:
    return lambda: anext(pieces, None)


def _why(failure: UpstreamError | Answer) -> str:
    return failure.code if isinstance(failure, UpstreamError) else f"upstream_http_{failure.status}"
