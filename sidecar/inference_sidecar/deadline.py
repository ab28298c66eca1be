"""A bound in time for a block of awaits, and the one timer of a loop for all such bounds.

Enters: the loop time by which something is to be done. Leaves: TimeoutError, raised at the block's end, where it was not.
What asyncio.timeout does, for a path that bounds each wait of each request: to enter, to leave and to move the bound,
which a stream does twice with every chunk, is an assignment each, since nearly all of it is done in time. Must not be
entered twice.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any, Final, Protocol

_EARLY: Final = 0.001
"""Seconds that a timer of uvloop's, which counts whole milliseconds, may be early."""


class Bound(Protocol):
    """What has to be done by `when`, the loop's time; None: no bound, for now."""

    when: float | None

    def late(self) -> None:
        """The time is over: it is discarded, or `when` is another then."""


class Alarm:
    """Tells those of one loop's bounds that are over. Its timer is for the earliest, as of when it was last looked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._bounds: set[Bound] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf

    def add(self, bound: Bound, when: float | None) -> None:
        """From now on it is looked after. `when` is its own."""
        self._bounds.add(bound)
        if when is not None:
            self.nearer(when)

    def discard(self, bound: Bound) -> None:
        """From now on it is not."""
        self._bounds.discard(bound)

    def nearer(self, when: float) -> None:
        """To be called where a bound becomes `when`, unless it was one that is no later."""
        if when >= self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = when
        self._timer = self.loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        self._armed = math.inf
        over = self.loop.time() + _EARLY
        for bound in list(self._bounds):
            when = bound.when
            if when is not None and when <= over:
                bound.late()
        left = [bound.when for bound in self._bounds if bound.when is not None]
        if left:
            self.nearer(min(left))


_ALARMS: Final[list[Alarm]] = []
"""The one that was asked for last: a process has one loop, a process that tests has one at a time."""


def alarm_of(loop: asyncio.AbstractEventLoop) -> Alarm:
    """A loop's alarm. Where several loops take turns, one may have several, which does no harm."""
    for alarm in _ALARMS:
        if alarm.loop is loop:
            return alarm
    alarm = Alarm(loop)
    _ALARMS[:] = [alarm]
    return alarm


class Deadline:
    """Cancels the task that entered it once `when` is over. `expired`: it has."""

    __slots__ = ("_alarm", "_cancelling", "_task", "expired", "when")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        when: float | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        """`when` is the loop's time; None: no bound, for now. `task`: the one that is going to enter, where that is known.
        To ask for the running loop is a call to the kernel on Python 3.11, for the current task Python's own code: so both are
        given."""
        self.when = when
        self.expired = False
        self._task = task
        self._alarm = alarm_of(loop)

    def move(self, when: float | None) -> None:
        """Another bound from now on."""
        self.when = when
        if when is not None and not self.expired:
            self._alarm.nearer(when)

    def __enter__(self) -> Deadline:
        task = self._task
        if task is None:
            task = self._task = asyncio.current_task(self._alarm.loop)
        assert task is not None, "only a task can be bounded"
        self._cancelling = task.cancelling()
        self._alarm.add(self, self.when)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._alarm.discard(self)
        # Somebody else's cancellation goes before ours, as in asyncio.timeout.
        task = self._task
        if (
            self.expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def late(self) -> None:
        """See `Bound`."""
        self._alarm.discard(self)
        self.expired = True
        if self._task is not None:
            self._task.cancel()
