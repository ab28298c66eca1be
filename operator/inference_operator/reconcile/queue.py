"""What is to be reconciled, and when: one entry a key, never two at work on one key.

Enters: keys with a delay. Leaves: keys that are due. Pure but for the loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

GATHER_SECS: Final = 0.05
"""Events that come together are one piece of work."""
FIRST_RETRY_SECS: Final = 0.5
LAST_RETRY_SECS: Final = 60.0


class Queue(Generic[Key]):
    """Keys by the time at which they are due. An earlier time wins over a later one."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._at_work: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due) + len(self._at_work)

    def add(self, key: Key, delay: float = GATHER_SECS) -> None:
        """Have `key` reconciled in `delay` seconds at the latest."""
        due = asyncio.get_running_loop().time() + delay
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._changed.set()

    async def next(self) -> Key:
        """Wait for a key that is due. `done` or `failed` must follow."""
        while True:
            now = asyncio.get_running_loop().time()
            free = [(due, key) for key, due in self._due.items() if key not in self._at_work]
            due, key = min(free, key=lambda one: one[0], default=(None, None))
            if due is not None and key is not None and due <= now:
                del self._due[key]
                self._at_work.add(key)
                return key
            self._changed.clear()
            try:
                async with asyncio.timeout(None if due is None else due - now):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: Key, again: float | None = None) -> None:
        """`key` was reconciled; `again`: seconds until it should be once more."""
        self._failures.pop(key, None)
        self._free(key)
        if again is not None:
            self.add(key, again)

    def failed(self, key: Key) -> float:
        """`key` could not be reconciled: try again after a wait that doubles. Returns the wait in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait: float = min(FIRST_RETRY_SECS * 2 ** min(failures - 1, 10), LAST_RETRY_SECS)
        self._free(key)
        self.add(key, wait)
        return wait

    def _free(self, key: Key) -> None:
        self._at_work.discard(key)
        self._changed.set()
