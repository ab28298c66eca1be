"""The door: takes a request in, calls the rooms in order, and tells what came of it.

Enters: ASGI. Leaves: an answer, one `Outcome` in the figures and one line in the log, whatever happened.
Bounds how many requests are open, judges Host and Origin, hears when the app leaves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from .. import respond
from ..records import Outcome, Reason, Refusal
from ..runtime import unknown_url
from ..telemetry import LOGGER, Figures, ids_of, log_outcomes
from ..upstream import Upstream
from .body import Receive
from .door import Door, Verdict, is_loopback
from .exchange import Exchange
from .line import EXTENSION, Line

if TYPE_CHECKING:
    from ..telemetry.spans import Trace, Tracing

__all__ = ["EXTENSION", "Accept", "Door", "Front", "Line", "Verdict", "is_loopback"]

BOOKS_SECS: Final = 0.005
"""How long a request that has ended may wait to be told of: the next one's first byte goes before, and several are told
of at less than the cost of each alone. Whoever reads the figures has them told first."""
MOST_BOOKS: Final = 64
"""So many wait at most: to tell of them takes about a millisecond of three turns."""

_IDS: Final = 16 + 40
"""Bytes of a request's ids: its own, and those of its spans."""
_POOL: Final = 64 * _IDS

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Live(Protocol):
    """What changes while requests come."""

    upstream: Upstream


class Front:
    """An app in front of another: what may spend tokens goes to its endpoint at once, for each layer on the way costs every
    request, and the door answers for all that goes wrong behind it. The rest goes to the other."""

    def __init__(self, accept: Accept, other: App, *, beside: str) -> None:
        """`beside` is the path that is the other's."""
        self._accept = accept
        self._other = other
        self._beside = beside

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] != self._beside:
            return self._accept.serve(scope, receive, send)
        return self._other(scope, receive, send)


class Accept:
    """The ASGI endpoint of everything that may spend tokens."""

    def __init__(
        self,
        live: Live,
        door: Door,
        figures: Figures,
        max_concurrent: int,
        tracing: Tracing | None = None,
    ) -> None:
        """`live` has the newest upstream; a request keeps the one that it began with. `tracing` None: no spans."""
        self._live = live
        self._door = door
        self._figures = figures
        self._max = max_concurrent
        self._tracing = tracing
        self._open: dict[Exchange, asyncio.Task[Any]] = {}
        self._ended: list[tuple[Exchange, Trace | None]] = []
        self._books: asyncio.TimerHandle | None = None
        self._telling: Iterator[None] | None = None
        self._pool = b""  # bytes at random, of which so many are used up
        self._taken = 0
        self.last_seen = 0.0
        figures.before_reading = self.settle

    @property
    def open(self) -> int:
        """Requests that are being served."""
        return len(self._open)

    def cut(self) -> None:
        """The process ends now: tell every open request so."""
        for exchange, task in list(self._open.items()):
            exchange.cut = True
            task.cancel()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = scope["headers"]
        verdict = self._door.judge(headers)
        upstream = self._live.upstream
        is_api = upstream.runtime.target.serves(scope["raw_path"]) and not _is_preflight(scope)
        ids = self._ids()
        trace = self._tracing.begin(headers, ids[16:]) if self._tracing is not None and is_api else None
        request_id = "req_" + ids[:16].hex()
        line: Line = scope["extensions"][EXTENSION]
        exchange = Exchange(
            scope,
            receive,
            send,
            upstream,
            self._figures,
            line=line,
            origin=verdict.origin,
            request_id=request_id,
            trace=trace,
        )
        if not is_api:
            # Neither of the API nor to be counted as such.
            reply = respond.refusal(verdict.refused) if verdict.refused else _aside(scope)
            return await exchange.aside(reply)
        self._figures.arrived()
        loop = line.loop
        task = line.task
        assert task is not None
        refused = verdict.refused
        if refused is None and len(self._open) >= self._max:
            message = (
                f"{self._max} requests are open already (server.max_concurrent_requests). Try again shortly."
            )
            refused = Refusal(Reason.TOO_MANY_REQUESTS, message)
        self._open[exchange] = task
        line.watch(task.cancel)
        cancelled = broken = False
        try:
            try:
                await exchange.serve(refused)
            except asyncio.CancelledError:
                cancelled = True
            except Exception:  # noqa: BLE001  the process's edge: a bug in one request must not be silent or end others
                broken = True
                LOGGER.exception(
                    "internal error", extra={"fields": {"request_id": request_id, **ids_of(trace)}}
                )
            if cancelled:
                if not await exchange.interrupted():
                    raise asyncio.CancelledError
                task.uncancel()
            elif broken:
                await exchange.broken()
        finally:
            line.watch(None)
            del self._open[exchange]
            exchange.ends()
            self.last_seen = loop.time()
            self._ended.append((exchange, trace))
            if self._books is None:
                self._books = loop.call_later(BOOKS_SECS, self._begin_telling, loop)
            elif len(self._ended) == MOST_BOOKS:
                loop.call_soon(self._begin_telling, loop)  # after what this turn sends
        return None

    def _ids(self) -> bytes:
        """Bytes of a request's ids. They need not be hard to guess, and the system's own randomness is a call to the
        kernel."""
        at = self._taken
        if at == len(self._pool):
            self._pool = random.randbytes(_POOL)  # noqa: S311  see above
            at = 0
        self._taken = at + _IDS
        return self._pool[at : at + _IDS]

    def settle(self) -> None:
        """Tell figures, log and traces of the requests that have ended since this was last done."""
        telling, self._telling = self._telling, None
        if telling is not None:
            for _ in telling:
                pass
        for _ in self._tell():
            pass

    def _begin_telling(self, loop: asyncio.AbstractEventLoop) -> None:
        """As `settle`, in several turns of the loop."""
        if self._telling is not None:
            self.settle()
            return
        self._telling = self._tell()
        loop.call_soon(self._go_on_telling, loop)  # a timer's own turn still runs what it puts there

    def _go_on_telling(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._telling is None:
            return  # `settle` was quicker
        if next(self._telling, True):
            self._telling = None
        else:
            loop.call_soon(self._go_on_telling, loop)

    def _tell(self) -> Iterator[None]:
        """Step by step, one after the other of all the requests in each, so that its code stays in the processor's caches
        meanwhile."""
        if self._books is not None:
            self._books.cancel()
            self._books = None
        ended, self._ended = self._ended, []
        told: list[tuple[Exchange, Trace | None, Outcome]] = []
        for exchange, trace in ended:
            try:
                told.append((exchange, trace, exchange.outcome()))
            except Exception:  # noqa: BLE001  an edge: what one request cannot tell must not cost the others' word
                _untold(exchange)
        for exchange, _, outcome in told:
            try:
                self._figures.record(outcome)
            except Exception:  # noqa: BLE001  see above
                _untold(exchange)
        yield
        for exchange, trace, outcome in told:
            if trace is not None:
                try:
                    trace.end(outcome, exchange.ended, exchange.said())
                except Exception:  # noqa: BLE001  see above
                    _untold(exchange)
        yield
        log_outcomes([(outcome, ids_of(trace)) for _, trace, outcome in told])


def _untold(exchange: Exchange) -> None:
    fields = {"request_id": exchange.course.request_id}
    LOGGER.exception("a request could not be told of", extra={"fields": fields})


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if it may send a request."""
    if scope["method"] != "OPTIONS":
        return False
    return {b"origin", b"access-control-request-method"} <= {name for name, _ in scope["headers"]}


def _aside(scope: Scope) -> respond.Reply:
    if _is_preflight(scope):
        return respond.preflight(dict(scope["headers"]).get(b"access-control-request-headers", b""))
    return respond.refusal(unknown_url(scope["method"], scope["raw_path"]))
