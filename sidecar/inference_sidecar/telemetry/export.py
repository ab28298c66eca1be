"""When spans and metrics are sent: from threads of their own, so that nothing here is on a request's path.

Enters: spans of requests that have ended, snapshots of the figures. Leaves: OTLP requests, to a `Sender`. Imported only
where something is exported. Must not hold a request up, whatever becomes of a collector.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from .environment import Batch
from .logs import LOGGER

_TOLD_EVERY_SECS: Final = 20.0


class SpanQueue:
    """Spans on their way. The spans of one request are one entry, and stay together.

    One thread puts in (the loop's), one takes out. Each count below is written by one of them alone, and what a deque
    does to an entry is done at once: so there is no lock for the loop to wait at.
    """

    def __init__(self, batch: Batch, send: Callable[[list[bytes]], None]) -> None:
        """`send` is called on the queue's own thread."""
        self._batch = batch
        self._send = send
        self._entries: deque[tuple[int, bytes]] = deque()
        self._came = 0
        self._dropped = 0
        self._went = 0
        self._told_at = -_TOLD_EVERY_SECS
        self._wake = threading.Event()
        self._ending = False
        self._worker = threading.Thread(target=self._run, name="traces-export", daemon=True)
        self._worker.start()

    def put(self, count: int, spans: bytes) -> None:
        """One request's spans, encoded, and their number. Where there is no room the oldest entries go."""
        batch = self._batch
        waiting = self._came - self._dropped - self._went + count
        if waiting > batch.queue:
            waiting -= self._drop(waiting - batch.queue)
        self._came += count
        self._entries.append((count, spans))
        if waiting >= batch.size and not self._wake.is_set():
            self._wake.set()

    def shutdown(self) -> None:
        """Send what is left, and end. Blocks until that is done."""
        self._ending = True
        self._wake.set()
        self._worker.join()

    def _drop(self, count: int) -> int:
        dropped = 0
        while dropped < count and self._entries:
            try:
                number, _ = self._entries.popleft()
            except IndexError:  # taken just now
                break
            dropped += number
        self._dropped += dropped
        now = time.monotonic()
        if dropped and now - self._told_at >= _TOLD_EVERY_SECS:
            self._told_at = now
            LOGGER.warning("spans dropped: the queue of OTEL_BSP_MAX_QUEUE_SIZE is full")
        return dropped

    def _run(self) -> None:
        while not self._ending:
            full = self._wake.wait(self._batch.delay_ms / 1000)
            self._wake.clear()
            # Where one batch is full the rest may wait for theirs; where time is up, all goes.
            self._send_while(self._batch.size if full else 1)
        self._send_while(1)

    def _send_while(self, least: int) -> None:
        while self._came - self._dropped - self._went >= least and (spans := self._taken()):
            try:
                self._send(spans)
            except Exception:  # noqa: BLE001  the edge of a thread that must outlive one bad batch
                LOGGER.exception("exporting spans failed")

    def _taken(self) -> list[bytes]:
        """The oldest requests' spans, of one request at least, and no more than make a batch."""
        entries = self._entries
        taken: list[bytes] = []
        count = 0
        while entries:
            try:
                number, spans = entry = entries.popleft()
            except IndexError:  # dropped just now
                break
            if taken and count + number > self._batch.size:
                entries.appendleft(entry)
                break
            self._went += number
            taken.append(spans)
            count += number
        return taken


class MetricExport:
    """Takes a snapshot every `interval_s` seconds and at the end, and sends it."""

    def __init__(
        self, interval_s: float, snapshot: Callable[[], bytes | None], send: Callable[[bytes], None]
    ) -> None:
        """Both are called on the export's own thread. A snapshot that is None is not to be had now."""
        self._interval_s = interval_s
        self._snapshot = snapshot
        self._send = send
        self._ending = threading.Event()
        self._worker = threading.Thread(target=self._run, name="metrics-export", daemon=True)
        self._worker.start()

    def shutdown(self) -> None:
        """Export once more, and end. Blocks until that is done."""
        self._ending.set()
        self._worker.join()

    def _run(self) -> None:
        due = time.monotonic() + self._interval_s
        while not self._ending.is_set():
            # An export that took long must not make the next ones late, nor many at once.
            self._ending.wait(max(due - time.monotonic(), 0.0))
            due = max(due + self._interval_s, time.monotonic())
            try:
                request = self._snapshot()
                if request is not None:
                    self._send(request)
            except Exception:  # noqa: BLE001  the edge of a thread that must outlive one bad snapshot
                LOGGER.exception("exporting metrics failed")


def end_within(seconds: float, *shutdowns: Callable[[], None]) -> bool:
    """Run all at once; whether all were done in time. What was not is left to the end of the process."""
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)
