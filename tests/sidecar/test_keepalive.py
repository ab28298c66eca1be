"""Waiting in company (`keepalive.kept_alive`): who is told, what is returned, and what becomes of work that nobody waits for.

Left out: what goes down to the app meanwhile, which test_streams has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from inference_sidecar.keepalive import kept_alive


def counting(told: list[None]) -> Callable[[], Awaitable[None]]:
    async def tell() -> None:
        told.append(None)

    return tell


async def result_of(future: asyncio.Future[str]) -> str:
    return await future


async def test_it_tells_until_there_is_a_result() -> None:
    told: list[None] = []
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(kept_alive(result_of(future), 0.001, counting(told)))
    async with asyncio.timeout(10):
        while len(told) < 3:
            await asyncio.sleep(0.001)
    future.set_result("done")
    assert await waiting == "done"


async def test_work_that_is_quick_is_told_nothing() -> None:
    told: list[None] = []
    assert await kept_alive(asyncio.sleep(0, "done"), 60, counting(told)) == "done"
    assert not told


async def test_a_failure_is_the_waits_own() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("why"))
    with pytest.raises(ValueError, match="why"):
        await kept_alive(result_of(future), 60, counting([]))


async def test_a_cancelled_wait_cancels_the_work() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    lost: list[str] = []
    waiting = asyncio.ensure_future(kept_alive(result_of(future), 60, counting([]), lost.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert future.cancelled()
    assert not lost


async def test_a_result_that_came_with_the_cancellation_is_not_forgotten() -> None:
    """It may be an answer that holds a connection."""
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    lost: list[str] = []
    waiting = asyncio.ensure_future(kept_alive(result_of(future), 60, counting([]), lost.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    future.set_result("an answer")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert lost == ["an answer"]


async def test_who_cannot_be_told_is_not_waited_for() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def gone() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await kept_alive(result_of(future), 0.001, gone)
    assert future.cancelled()
