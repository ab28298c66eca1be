"""What an operator takes for the API server: passes everything on, and does to it what a test asks for.

Enters: requests in plain HTTP on loopback; faults, each for the requests that it matches. Leaves: the API server's
answers, or faults; a list of all calls. A caller's token goes on as it is; whoever has none is the cluster's owner.
Runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from cluster.harness.api import Access

PASSED_ON = ("Content-Type", "Accept", "Authorization", "User-Agent")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
WATCHED = re.compile(r"/(namespaces/[^/]+/)?(?P<kind>[a-z]+)$")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """One request. `secret` bodies are kept in memory only, and never printed."""

    method: str
    path: str
    watch: bool
    body: bytes = field(repr=False)

    @property
    def writes(self) -> bool:
        return self.method in WRITES

    @property
    def kind(self) -> str:
        """As figures are told by: the method, and the path without names."""
        named = re.sub(r"/namespaces/[^/]+", "", self.path)
        words = named.split("/")[3 if named.startswith("/api/") else 4 :]
        shown = "/".join(words[index] for index in (0, 2) if index < len(words))
        return f"{'WATCH' if self.watch else self.method} {shown or self.path}"


Matches = Callable[[Call], bool]


def writes(call: Call) -> bool:
    return call.writes


def any_call(call: Call) -> bool:
    return True


@dataclass
class Fault:
    """For the next `times` calls that match: an answer in place of the API server's."""

    matches: Matches
    status: int
    times: int
    body: bytes
    met: int = 0


@dataclass
class Held:
    """The `nth` call that matches is not answered before `let_go`. `after`: it has been done by then; else it is
    never done."""

    matches: Matches
    nth: int
    after: bool
    reached: threading.Event = field(default_factory=threading.Event)
    seen: int = 0
    call: Call | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """`calls`: every call so far. `done`: is told of each that the API server has answered with
    success, on the proxy's thread, before its caller knows. `delay_secs`: before each call is passed on."""

    def __init__(self, access: Access) -> None:
        self.calls: list[Call] = []
        self.done: Callable[[Call], None] | None = None
        self.delay_secs = 0.0
        self.faults: list[Fault] = []
        self._access = access
        self._held: list[Held] = []
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._watches: list[web.Request] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self.url = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._within(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.stall(False)
        for held in self._held:
            self.let_go(held)
        self._within(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def fail(self, matches: Matches, status: int, times: int = 1, body: bytes = b"") -> Fault:
        """Answer the next `times` matching calls with `status`."""
        fault = Fault(matches, status, times, body or b'{"kind":"Status","message":"as the test asked for"}')
        self.faults.append(fault)
        return fault

    def hold(self, matches: Matches, nth: int = 1, *, after: bool = False) -> Held:
        held = Held(matches, nth, after)
        self._held.append(held)
        return held

    def let_go(self, held: Held) -> None:
        """Whoever waits is cut off."""
        self._loop.call_soon_threadsafe(held.gone.set)

    def stall(self, stalled: bool) -> None:
        """Watches stay open and tell nothing, as long as it lasts."""
        self._loop.call_soon_threadsafe(self._flowing.clear if stalled else self._flowing.set)

    def cut_watches(self) -> None:
        """Every watch breaks off, without a word."""
        self._within(self._cut())

    def watched(self) -> Counter[str]:
        """How many watches are open, by path."""
        return Counter(request.path for request in list(self._watches))

    def writes_since(self, mark: int) -> list[Call]:
        return [call for call in self.calls[mark:] if call.writes]

    def counted(self, mark: int = 0) -> Counter[str]:
        return Counter(call.kind for call in self.calls[mark:])

    def _within(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        options: dict[str, Any] = {"limit": 0, "force_close": False}
        self._owner = self._session(aiohttp.TCPConnector(ssl=self._access.owner, **options))
        self._anybody = self._session(aiohttp.TCPConnector(ssl=self._access.anybody, **options))
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @staticmethod
    def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )

    async def _stop(self) -> None:
        await self._cut()
        await self._runner.cleanup()
        await self._owner.close()
        await self._anybody.close()
        await asyncio.sleep(0.05)  # aiohttp's own advice: TLS connections end a moment after their session

    async def _cut(self) -> None:
        for request in list(self._watches):
            if request.transport is not None:
                request.transport.abort()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = Call(request.method, request.path, "watch" in request.query, body)
        self.calls.append(call)
        if self.delay_secs:
            await asyncio.sleep(self.delay_secs)
        for fault in self.faults:
            if fault.met < fault.times and fault.matches(call):
                fault.met += 1
                return web.Response(status=fault.status, body=fault.body, content_type="application/json")
        held = self._holding(call)
        if held is None:
            return await self._pass_on(request, call)
        if held.after:
            async with self._upstream(request, call) as answer:
                await answer.read()
                self._tell(call, answer.status)
        held.call = call
        held.reached.set()
        await held.gone.wait()
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    def _tell(self, call: Call, status: int) -> None:
        if self.done is not None and status < 300:
            self.done(call)

    def _holding(self, call: Call) -> Held | None:
        for held in self._held:
            if held.matches(call):
                held.seen += 1
                if held.seen == held.nth:
                    return held
        return None

    def _upstream(self, request: web.Request, call: Call) -> contextlib.AbstractAsyncContextManager[Any]:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        session = self._anybody if "Authorization" in headers else self._owner
        return session.request(
            call.method,
            self._access.server + request.raw_path,
            data=call.body or None,
            headers={**self._access.headers, **headers},
            skip_auto_headers=["Accept-Encoding", "Content-Type"],
        )

    async def _pass_on(self, request: web.Request, call: Call) -> web.StreamResponse:
        try:
            async with self._upstream(request, call) as answer:
                kind = answer.headers.get("Content-Type", "application/json")
                if not call.watch:
                    content = await answer.read()
                    self._tell(call, answer.status)
                    return web.Response(status=answer.status, body=content, headers={"Content-Type": kind})
                response = web.StreamResponse(status=answer.status, headers={"Content-Type": kind})
                await response.prepare(request)
                self._watches.append(request)
                try:
                    async for piece in answer.content.iter_any():
                        await self._flowing.wait()
                        await response.write(piece)
                finally:
                    self._watches.remove(request)
                return response
        except aiohttp.ClientError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
