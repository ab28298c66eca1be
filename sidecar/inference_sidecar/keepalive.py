"""Waiting in company: whoever waits on the other side is told, from time to time, that nothing is lost.

Enters: what is awaited, an interval, a word. Leaves: its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def kept_alive(
    work: Coroutine[Any, Any, T],
    interval: float,
    tell: Callable[[], Awaitable[None]],
    lost: Callable[[T], None] | None = None,
) -> T:
    """Await `work`; call `tell` whenever another `interval` (seconds) has passed without its result. Where this wait is
    cancelled, or `tell` fails, so is `work`; a result that came nevertheless is given to `lost`."""
    pending = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({pending}, timeout=interval))[0]:
            await tell()
    except BaseException:
        pending.cancel()
        await asyncio.wait({pending})
        if not pending.cancelled() and pending.exception() is None and lost is not None:
            lost(pending.result())
        raise
    return pending.result()
