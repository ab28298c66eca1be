"""What a turn of the loop has to send, sent together at its end.

Enters: what sends something. Leaves: nothing but that it is called. To send wakes who waits for it, on another core as a
rule, and to wake a core that has nothing to do is dear; sent one after the other, a dozen pieces wake it once, and find
the kernel's code in the processor's caches. So a whole request, an answer, or a piece of one waits for those of the others that
are under way in the same turn, but where there is no other, and never for more than `MOST`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MOST: Final = 16
"""So many may wait. That bounds how long the first of them does."""


Send = Callable[[], None]
"""Sends what is to be sent, if it still is. Raises nothing."""


class Outbox:
    """One loop's. `open`: requests that are being served, as their server counts them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open = 0
        self._waiting: list[Send] = []

    @property
    def alone(self) -> bool:
        """Whether nobody else may want to send in this turn: then nothing need wait here, and who asks before `add` is spared
        making what would be called at once."""
        return self.open <= 1

    def add(self, send: Send) -> None:
        """Have it sent within this turn: now where nobody else is."""
        if self.alone:
            send()
            return
        self._waiting.append(send)
        if len(self._waiting) == 1:
            self.loop.call_soon(self._go)
        elif len(self._waiting) >= MOST:
            self._go()

    def _go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            send()


_OUTBOXES: Final[list[Outbox]] = []
"""The one that was asked for last: a process has one loop, a process that tests has one at a time."""


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """A loop's outbox."""
    for outbox in _OUTBOXES:
        if outbox.loop is loop:
            return outbox
    outbox = Outbox(loop)
    _OUTBOXES[:] = [outbox]
    return outbox
