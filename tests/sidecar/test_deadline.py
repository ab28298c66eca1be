"""A bound in time for a block of awaits, on asyncio and on uvloop, beside asyncio.timeout.

Covered: in time, too late, moved both ways, taken away, cancelled by others before and after, nested, used up before it
begins. Left out: how exact a loop's clock is.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from inference_sidecar.deadline import Deadline

LONG, SHORT = 30.0, 0.02


@pytest.fixture(params=["asyncio", "uvloop"])
def run(
    request: pytest.FixtureRequest,
) -> Callable[[Callable[[asyncio.AbstractEventLoop], Awaitable[None]]], None]:
    def runs(scenario: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]) -> None:
        async def main() -> None:
            await scenario(asyncio.get_running_loop())

        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return runs


Run = Callable[[Callable[[asyncio.AbstractEventLoop], Awaitable[None]]], None]


def test_in_time(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        with Deadline(loop, loop.time() + LONG) as deadline:
            await asyncio.sleep(0)
        assert not deadline.expired

    run(scenario)


@pytest.mark.parametrize("secs", [SHORT, 0.0, -1.0])
def test_too_late(run: Run, secs: float) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        deadline = Deadline(loop, loop.time() + secs)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(LONG)
        assert deadline.expired
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(scenario)


def test_moved_nearer(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        deadline = Deadline(loop, loop.time() + LONG)
        with pytest.raises(TimeoutError), deadline:  # noqa: PT012  the block is what is tested
            deadline.move(loop.time() + SHORT)
            await asyncio.sleep(LONG)

    run(scenario)


def test_moved_away_again_and_again(run: Run) -> None:
    """Longer than any one bound, and never late by one; then late."""

    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        deadline = Deadline(loop, loop.time() + 10 * SHORT)
        began = loop.time()
        with pytest.raises(TimeoutError), deadline:  # noqa: PT012
            while loop.time() - began < 20 * SHORT:
                deadline.move(loop.time() + 10 * SHORT)
                await asyncio.sleep(SHORT)
            await asyncio.sleep(LONG)
        assert loop.time() - began >= 29 * SHORT

    run(scenario)


def test_none_is_no_bound_and_one_may_follow(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        deadline = Deadline(loop, loop.time() + SHORT)
        with pytest.raises(TimeoutError), deadline:  # noqa: PT012
            deadline.move(None)
            await asyncio.sleep(3 * SHORT)
            assert not deadline.expired
            deadline.move(loop.time() + SHORT)
            await asyncio.sleep(LONG)
        assert deadline.expired

    run(scenario)


def test_an_error_of_the_block_is_its_own(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        deadline = Deadline(loop, loop.time() + LONG)
        with pytest.raises(KeyError), deadline:
            raise KeyError
        assert not deadline.expired

    run(scenario)


@pytest.mark.parametrize("late", [False, True], ids=["before its time", "at its time as well"])
def test_a_cancellation_by_others_stays_one(run: Run, late: bool) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        began = asyncio.Event()

        async def block() -> None:
            deadline = Deadline(loop, loop.time() + LONG)
            with deadline:
                began.set()
                try:
                    await asyncio.sleep(LONG)
                finally:
                    if late:
                        deadline.late()

        task = loop.create_task(block())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(scenario)


def test_the_outer_one_goes_through_the_inner(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        outer, inner = Deadline(loop, loop.time() + SHORT), Deadline(loop, loop.time() + LONG)
        with pytest.raises(TimeoutError), outer, inner:
            await asyncio.sleep(LONG)
        assert (outer.expired, inner.expired) == (True, False)

    run(scenario)


def test_each_of_many_on_one_timer_has_its_own_time(run: Run) -> None:
    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        began = loop.time()

        async def bounded(secs: float, moved: float | None) -> float:
            deadline = Deadline(loop, began + secs)
            try:
                with deadline:
                    if moved is not None:
                        deadline.move(began + moved)
                    await asyncio.sleep(0.4)
            except TimeoutError:
                pass
            assert deadline.expired == ((secs if moved is None else moved) < 0.4)
            return loop.time() - began

        asked = [(number / 100, None) for number in range(30, 0, -1)]
        asked += [(LONG, 0.15), (0.05, LONG), (0.05, 0.25), (LONG, None)]
        took = await asyncio.gather(*(bounded(secs, moved) for secs, moved in asked))
        for (secs, moved), end in zip(asked, took, strict=True):
            due = min(secs if moved is None else moved, 0.4)
            assert due - 0.002 <= end < due + 1

    run(scenario)


def test_one_whose_owner_ends_in_the_same_moment_as_another(run: Run) -> None:
    """Late ones leave, and their leaving must not cost those behind them their time."""

    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        at = loop.time() + SHORT

        async def bounded(which: float) -> bool:
            deadline = Deadline(loop, which)
            with contextlib.suppress(TimeoutError), deadline:
                await asyncio.sleep(10 * SHORT)
            return deadline.expired

        late = await asyncio.gather(
            *(bounded(at) for _ in range(50)), bounded(at + 2 * SHORT), bounded(at + LONG)
        )
        assert late == [True] * 51 + [False]

    run(scenario)


def test_loops_that_take_turns() -> None:
    """Two loops at once, in threads: each has its own timer."""

    def runs(results: list[bool]) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            for _ in range(10):
                deadline = Deadline(loop, loop.time() + SHORT)
                with contextlib.suppress(TimeoutError), deadline:
                    await asyncio.sleep(LONG)
                results.append(deadline.expired)

        asyncio.run(main())

    results: list[bool] = []
    threads = [threading.Thread(target=runs, args=(results,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [True] * 30
