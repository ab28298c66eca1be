"""The queue of what is to be reconciled: gathering, order, one worker a key, waits after failures.

Times are a loop's own, which jumps from one thing due to the next: nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from inference_operator.reconcile.queue import FIRST_RETRY_SECS, GATHER_SECS, LAST_RETRY_SECS, Queue

Result = TypeVar("Result")


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time goes on only by what is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._plain_select = self._selector.select
        self._selector.select = self._select

    def time(self) -> float:
        return self._now

    def _select(self, timeout: float | None = None) -> Any:
        found = self._plain_select(0)
        if not found:
            assert timeout is not None, "nothing will ever happen"
            self._now += timeout
        return found


def run(story: Coroutine[Any, Any, Result]) -> Result:
    loop = JumpingLoop()
    try:
        return loop.run_until_complete(story)
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_events_that_come_together_are_one_piece_of_work() -> None:
    async def story() -> None:
        queue: Queue[str] = Queue()
        began = now()
        for _ in range(5):
            queue.add("a")
        assert await queue.next() == "a"
        assert now() - began == pytest.approx(GATHER_SECS)
        queue.done("a")
        assert len(queue) == 0

    run(story())


def test_an_earlier_time_wins_over_a_later_one_in_both_orders() -> None:
    async def story() -> None:
        queue: Queue[str] = Queue()
        began = now()
        queue.add("a", 30)
        queue.add("a", 1)
        queue.add("a", 60)
        queue.add("b", 2)
        assert [await queue.next(), await queue.next()] == ["a", "b"]
        assert now() - began == pytest.approx(2)
        assert len(queue) == 2, "both are at work"

    run(story())


def test_a_waiting_worker_is_told_of_something_earlier() -> None:
    async def story() -> None:
        queue: Queue[str] = Queue()
        began = now()
        queue.add("late", 100)
        waiting = asyncio.ensure_future(queue.next())
        await asyncio.sleep(1)
        queue.add("soon", 1)
        assert await waiting == "soon"
        assert now() - began == pytest.approx(2)

    run(story())


def test_one_key_is_never_at_work_twice_and_news_meanwhile_is_not_lost() -> None:
    async def story() -> None:
        queue: Queue[str] = Queue()
        queue.add("a", 0)
        assert await queue.next() == "a"
        queue.add("a", 0)
        queue.add("b", 0)
        assert await queue.next() == "b", "a is at work"
        waiting = asyncio.ensure_future(queue.next())
        await asyncio.sleep(5)
        assert not waiting.done()
        queue.done("a")
        assert await waiting == "a"

    run(story())


def test_a_look_that_was_asked_for_comes_at_its_time() -> None:
    async def story() -> None:
        queue: Queue[str] = Queue()
        queue.add("a", 0)
        await queue.next()
        began = now()
        queue.done("a", again=7)
        assert await queue.next() == "a"
        assert now() - began == pytest.approx(7)

    run(story())


def test_waits_after_failures_double_to_a_bound_and_begin_anew_after_a_success() -> None:
    async def story() -> None:
        queue: Queue[str] = Queue()
        queue.add("a", 0)
        waits = []
        for _ in range(12):
            await queue.next()
            began = now()
            waits.append(queue.failed("a"))
            await queue.next()
            assert now() - began == pytest.approx(waits[-1])
            queue.add("a", 0)
            queue._free("a")
        assert waits[:3] == [FIRST_RETRY_SECS, FIRST_RETRY_SECS * 2, FIRST_RETRY_SECS * 4]
        assert waits[-1] == LAST_RETRY_SECS
        await queue.next()
        queue.done("a")
        queue.add("a", 0)
        await queue.next()
        assert queue.failed("a") == FIRST_RETRY_SECS

    run(story())


def test_news_goes_before_the_wait_after_a_failure() -> None:
    """Somebody may just have mended it."""

    async def story() -> None:
        queue: Queue[str] = Queue()
        queue.add("a", 0)
        await queue.next()
        for _ in range(8):
            queue.failed("a")
        began = now()
        queue.add("a")
        await queue.next()
        assert now() - began == pytest.approx(GATHER_SECS)

    run(story())


def test_many_workers_share_the_work_without_losing_any() -> None:
    async def story() -> None:
        queue: Queue[int] = Queue()
        for number in range(100):
            queue.add(number, 0)
        done: list[int] = []

        async def work() -> None:
            while True:
                key = await queue.next()
                await asyncio.sleep(0.01)
                done.append(key)
                queue.done(key)

        workers = [asyncio.ensure_future(work()) for _ in range(4)]
        while len(queue):
            await asyncio.sleep(0.01)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert sorted(done) == list(range(100))

    run(story())
