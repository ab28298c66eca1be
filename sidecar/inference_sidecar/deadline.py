"""A bound in time for a block of awaits.

Enters: the loop time by which the block is to be done. Leaves: TimeoutError, raised at the block's end, where it was not.
What asyncio.timeout does, for a path that bounds each wait of each request: a third of the cost to enter and leave, and
moving the bound, which a stream does twice with every chunk, is an assignment. Must not be entered twice.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Cancels the task that entered it once `when` is over. `expired`: it has."""

    __slots__ = ("_armed", "_cancelling", "_loop", "_task", "_timer", "expired", "when")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float | None = None) -> None:
        """`when` is the loop's time; None: no bound, for now. To ask for the running loop is a call to the kernel on
        Python 3.11, so it is given."""
        self.when = when
        self._loop = loop
        self.expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0

    def move(self, when: float | None) -> None:
        """Another bound from now on. A later one costs nothing: the timer looks again when it fires."""
        self.when = when
        if when is None or self.expired:
            return
        if self._timer is not None:
            if self._armed <= when:
                return
            self._timer.cancel()
        self._arm(when)

    def __enter__(self) -> Deadline:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        if self.when is not None:
            self._arm(self.when)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Somebody else's cancellation goes before ours, as in asyncio.timeout.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _arm(self, when: float) -> None:
        self._armed = when
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        if self.when is None:
            return
        if self.when > self._armed and self._loop.time() < self.when:
            self._arm(self.when)
            return
        self.expired = True
        self._task.cancel()
