"""What a task waits for again and again (`waiter`), on asyncio and on uvloop, beside asyncio.Future.

Covered: woken at once and at the next turn, in which context, cancelled before and after, bounded in time, woken where nobody
waits. Left out: what sidecars do with it, which tests of connections show.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from inference_sidecar.waiter import Waiter

Wake = Callable[[Waiter], None]
Scenario = Callable[[asyncio.AbstractEventLoop], Awaitable[None]]
Run = Callable[[Scenario], None]

WORD = contextvars.ContextVar("WORD", default="none")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runs(scenario: Scenario) -> None:
        async def main() -> None:
            await scenario(asyncio.get_running_loop())

        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory, debug=True) as runner:
            runner.run(main())

    return runs


class Waiting:
    """A task that waits, and what it saw."""

    def __init__(self, loop: asyncio.AbstractEventLoop, times: int = 1) -> None:
        self.waiter = Waiter(loop)
        self.seen: list[str] = []
        self.task = loop.create_task(self._wait(times))

    async def _wait(self, times: int) -> None:
        WORD.set("the task's")
        for _ in range(times):
            try:
                await self.waiter
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise
            assert asyncio.current_task() is self.task
            self.seen.append(WORD.get())


def from_the_loop(loop: asyncio.AbstractEventLoop, does: Callable[[], None]) -> asyncio.Future[None]:
    """Have the loop itself call it; the future has what it raised."""
    done = loop.create_future()

    def call() -> None:
        try:
            does()
        except BaseException as error:  # noqa: BLE001  told to the test
            done.set_exception(error)
        else:
            done.set_result(None)

    loop.call_soon(call)
    return done


def test_woken_at_once_it_has_gone_on_when_that_returns(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        one = Waiting(loop, times=3)
        await asyncio.sleep(0)

        def wakes() -> None:
            for number in (1, 2, 3):
                one.waiter.wake_now()
                assert one.seen == ["the task's"] * number

        await from_the_loop(loop, wakes)
        await one.task

    run(scenario)


def test_woken_it_goes_on_at_the_next_turn(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        one = Waiting(loop)
        await asyncio.sleep(0)
        one.waiter.wake()
        one.waiter.wake()
        assert not one.seen
        await one.task
        assert one.seen == ["the task's"]

    run(scenario)


@pytest.mark.parametrize("wake", [Waiter.wake, Waiter.wake_now])
def test_to_wake_where_nobody_waits_is_not_kept(run: Run, wake: Wake) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        one = Waiting(loop)
        wake(one.waiter)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not one.seen
        wakes = from_the_loop(loop, lambda: wake(one.waiter))
        await one.task
        await wakes
        wake(one.waiter)

    run(scenario)


@pytest.mark.parametrize("wake", [None, Waiter.wake, Waiter.wake_now])
def test_cancelled_where_it_waits(run: Run, wake: Wake | None) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        one = Waiting(loop)
        await asyncio.sleep(0)
        assert one.task.cancel()
        if wake is not None:
            wake(one.waiter)  # too late
        with pytest.raises(asyncio.CancelledError):
            await one.task
        assert one.seen == ["cancelled"]

    run(scenario)


def test_cancelled_on_its_way(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        one = Waiting(loop)
        await asyncio.sleep(0)
        one.waiter.wake()
        assert one.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one.task
        assert one.seen == ["cancelled"]

    run(scenario)


def test_cancelled_before_it_waits(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)

        async def waits() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await waiter

        with pytest.raises(asyncio.CancelledError):
            await loop.create_task(waits())

    run(scenario)


def test_it_can_be_waited_for_again_after_a_cancellation(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await waiter
        loop.call_later(0.01, waiter.wake_now)
        await waiter
        loop.call_later(0.01, waiter.wake)
        await waiter

    run(scenario)


def test_what_the_task_raises_is_the_tasks(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)

        async def raises() -> None:
            await waiter
            raise LookupError("its own")

        task = loop.create_task(raises())
        await asyncio.sleep(0)
        await from_the_loop(loop, waiter.wake_now)
        with pytest.raises(LookupError, match="its own"):
            await task

    run(scenario)
