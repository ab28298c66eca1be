"""Spans of one request: SERVER at the app's edge, CLIENT for the call, and below it one for each attempt.

Enters: the app's headers, what becomes of each attempt, and at the end the `Outcome`. Leaves: spans, encoded, to
whoever sends them. A request has its ids from its beginning, and what happens on the way is in its `Outcome`: so all
of its spans are made once, whole, in `end`. They cannot be left open, and a request that is not sampled makes none.
Imported only where traces are exported. Must not wait for anything, nor keep a span current in any context.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import getrandbits
from time import monotonic, time_ns
from typing import Final

from ..records import Headers, Outcome, Said
from .logs import LOGGER
from .otlp_spans import (
    Attempted,
    Fault,
    about_attempt,
    attempt_span,
    call_span,
    of_parent,
    of_trace,
    own_ids,
    server_span,
)
from .trace_context import Parent, Sampler, parent_of

_MAX_HEADER: Final = 512
_NO_SPAN: Final = b""
"""What is known of an attempt that is to have no span."""


class Tracing:
    """What every request's spans have in common. `content`: messages are told."""

    def __init__(
        self,
        *,
        sampler: Sampler,
        finish: Callable[[int, bytes], None],
        traceparent: bool,
        content: bool,
        excluded: str = "",
    ) -> None:
        """`finish` takes the spans of a request that has ended, and their number; it never blocks. `traceparent`:
        the app's is taken. `excluded`: a pattern; attempts at URLs in which it is found have no span."""
        self.content = content
        self.finish = finish
        self._sampler = sampler
        self._traceparent = traceparent
        self._excluded = re.compile(excluded).search if excluded else None
        self._about = _NO_SPAN
        self._method = ""
        self._url: str | None = None

    def begin(self, headers: Headers, ids: bytes) -> Trace:
        """A request came. Header names are in lower case. `ids`: 40 bytes at random, of which the trace and
        up to three spans get theirs."""
        parents: list[bytes] = []
        states: list[bytes] = []
        agent = None
        for name, value in headers:
            if name == b"user-agent":
                agent = value if agent is None else agent
            elif name == b"traceparent":
                parents.append(value)
            elif name == b"tracestate":
                states.append(value)
        parent = None
        if parents and self._traceparent and len(parents) == 1:
            parent = parent_of(parents[0], states)
        trace_id = ids[24:] if parent is None else parent.trace_id
        return Trace(self, trace_id, ids, parent, agent, kept=self._sampler.keeps(trace_id, parent))

    def about(self, method: str, url: str, host: str, port: int | None) -> bytes:
        """What is the same in every such attempt's span. The last is kept: most are such."""
        if url is not self._url or method != self._method:
            excluded = self._excluded is not None and self._excluded(url)
            self._about = _NO_SPAN if excluded else about_attempt(method, url, host, port)
            self._method, self._url = method, url
        return self._about


class Trace:
    """One request's spans. `recording`: they are kept, and `end` has not been called; where not, nothing is worked
    out for them.

    An attempt begins with `attempt_began` and ends with one of `attempt_ended`, `attempt_failed` and
    `attempt_cancelled`; there is one at a time. Where nothing is recorded they are not to be called.
    """

    __slots__ = (
        "_about",
        "_agent",
        "_attempt",
        "_attempt_began",
        "_attempts",
        "_began",
        "_call",
        "_call_began",
        "_ids",
        "_kept",
        "_parent",
        "_trace_id",
        "_tracing",
        "recording",
    )  # fmt: skip

    def __init__(
        self, tracing: Tracing, trace_id: bytes, ids: bytes, parent: Parent | None, agent: bytes | None,
        *, kept: bool,
    ) -> None:  # fmt: skip
        """`ids` has, one after the other, those of the request's span, of the call's, and of the first attempt's."""
        self.recording = self._kept = kept
        self._tracing = tracing
        self._trace_id = trace_id
        self._ids = ids
        self._parent = parent
        self._agent = agent
        self._began = time_ns()
        self._call_began = 0
        self._call = ids[:8]
        self._attempt = b""
        self._attempt_began = 0
        self._about = _NO_SPAN
        self._attempts: list[Attempted] = []

    @property
    def ids(self) -> tuple[str, str]:
        """Ids of the trace and of the innermost span that lasts as long as the request, in hex."""
        return self._trace_id.hex(), self._call.hex()

    @property
    def kept(self) -> tuple[str, str] | None:
        """The ids where the trace is sampled, else None."""
        return self.ids if self._kept else None

    @property
    def content(self) -> bool:
        """Whether messages are wanted."""
        return self.recording and self._tracing.content

    def goes_up(self) -> None:
        """The request may go up: the call begins."""
        if self.recording and not self._call_began:
            self._call = self._ids[8:16]
            self._call_began = time_ns()

    def attempt_began(self, method: str, url: str, host: str, port: int | None) -> None:
        """`url` is without query and password."""
        about = self._tracing.about(method, url, host, port)
        first = not self._attempts
        self._attempt = self._ids[16:24] if first else getrandbits(64).to_bytes(8)
        self._about = about
        self._attempt_began = time_ns()

    def attempt_ended(self, status: int, version: str) -> None:
        """An answer's head is here. `version` is HTTP's, as in `1.1`."""
        self._attempt_over(time_ns(), status, version)

    def attempt_failed(self, error: Exception) -> None:
        """There will be no head."""
        kind = type(error)
        self._attempt_over(time_ns(), fault=Fault(kind.__module__, kind.__qualname__, str(error)))

    def attempt_cancelled(self) -> None:
        """The app left, or the time was up, before there was a head."""
        self._attempt_over(time_ns())

    def _attempt_over(self, at: int, status: int = 0, version: str = "", fault: Fault | None = None) -> None:
        self._attempts.append(
            Attempted(self._attempt, self._about, self._attempt_began, at, status, version, fault)
        )
        self._attempt = b""

    def upward(self) -> Headers:
        """traceparent and tracestate for the upstream: the attempt's where there is one, else the request's own."""
        told = self._attempt if self._attempt and self._about else self._call
        sampled = b"01" if self._kept else b"00"
        parent = b"00-%b-%b-%b" % (self._trace_id.hex().encode(), told.hex().encode(), sampled)
        lines = [(b"traceparent", parent)]
        if self._parent is not None and self._parent.state:
            lines.append((b"tracestate", self._parent.state.encode("latin-1")))
        return lines

    def end(self, outcome: Outcome, ended: float, said: Said | None = None) -> None:
        """The request has ended, at `ended` by the monotonic clock: its spans are made. `said` is None where content is not
        wanted."""
        if not self.recording:
            return
        self.recording = False
        at = time_ns() - int((monotonic() - ended) * 1e9)
        if self._attempt:
            self._attempt_over(at)
        try:
            spans = self._spans(outcome, at, said)
            self._tracing.finish(len(spans), b"".join(spans))
        except Exception:  # noqa: BLE001  the edge of telemetry: what it cannot tell must not hurt a request
            LOGGER.exception(
                "a trace could not be told", extra={"fields": {"request_id": outcome.request_id}}
            )

    def _spans(self, outcome: Outcome, ended: int, said: Said | None) -> list[bytes]:
        parent = self._parent
        trace = of_trace(self._trace_id, "" if parent is None else parent.state)
        spans = []
        own = self._ids[:8]
        above = of_parent(self._call)
        for resent, attempted in enumerate(self._attempts):
            if attempted.about:
                spans.append(attempt_span(attempted, trace, above, resent))
        if self._call_began:
            spans.append(
                call_span(
                    outcome, own_ids(trace, self._call), of_parent(own), self._call_began, ended, said,
                )
            )  # fmt: skip
        agent = None if self._agent is None else self._agent[:_MAX_HEADER].decode("latin-1")
        above = of_parent(None) if parent is None else of_parent(parent.span_id, remote=True)
        spans.append(server_span(outcome, own_ids(trace, own), above, self._began, ended, agent))
        return spans
