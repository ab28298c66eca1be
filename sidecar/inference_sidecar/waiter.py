"""What one task waits for, again and again, and from which it goes on in the very call that ends the waiting.

Enters: a task, by `await`. Leaves: the same task, at once or at the loop's next turn. What asyncio.Future does, which is made
anew for each wait, and by way of the loop's queue: after a pause that is a good part of what it takes to answer. To asyncio's
tasks a Waiter is a future like any other: what they ask of one is here. Must be awaited by one task at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, cast


class Waiter:
    """One loop's, for one task at a time. To be woken where nobody waits does nothing, and is not kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False  # as asyncio knows a future that is awaited
        self._cancelled = False
        self._goes_on: Callable[[Waiter], object] | None = None
        self._context: Context | None = None

    def wake(self) -> None:
        """Whoever waits goes on at the loop's next turn."""
        goes_on, self._goes_on = self._goes_on, None
        if goes_on is not None:
            self._loop.call_soon(goes_on, self, context=self._context)

    def wake_now(self) -> None:
        """Whoever waits goes on, and this returns where it waits again. For what the loop itself calls: no task may be
        running."""
        goes_on, self._goes_on = self._goes_on, None
        if goes_on is not None:
            context = self._context
            assert context is not None
            context.run(goes_on, self)

    # What a task asks of what it awaits

    def __await__(self) -> Generator[Any, Any, None]:
        self._asyncio_future_blocking = True
        self._cancelled = False
        # The end of a tuple is no exception, as a generator's is.
        return cast("Generator[Any, Any, None]", iter((self,)))

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """See asyncio.Future."""
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """See asyncio.Future."""
        self._goes_on = callback
        self._context = context

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002
        """See asyncio.Future. False: whoever waited is on its way already."""
        if self._goes_on is None:
            return False
        self._cancelled = True
        self.wake()
        return True

    def result(self) -> None:
        """See asyncio.Future."""
        if self._cancelled:
            raise asyncio.CancelledError
