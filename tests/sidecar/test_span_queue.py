"""The queue of spans between the loop and the export's thread.

Covers: batches by size and by time, one request's spans together; a queue that is full, with a sender that hangs;
nothing lost and nothing twice while both sides work; the end; a batch that cannot be sent.
Left out: what is sent (test_sender), a whole process (test_export).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from inference_sidecar.telemetry.environment import Batch
from inference_sidecar.telemetry.export import SpanQueue

LATE = 3_600_000
PATIENCE_S = 10.0


class Sink:
    """Takes batches; while it is shut each one waits in it."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.open = threading.Event()
        self.open.set()
        self.holding = threading.Event()
        self.changed = threading.Condition()

    def send(self, spans: list[bytes]) -> None:
        self.holding.set()
        assert self.open.wait(PATIENCE_S)
        with self.changed:
            self.batches.append(spans)
            self.changed.notify_all()

    def until(self, true: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(true, PATIENCE_S), self.batches

    @property
    def spans(self) -> list[bytes]:
        return [span for batch in self.batches for span in batch]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@contextmanager
def queue_of(sink: Sink, queue: int = 100, size: int = 6, delay_ms: int = LATE) -> Iterator[SpanQueue]:
    made = SpanQueue(Batch(queue, size, delay_ms), sink.send)
    try:
        yield made
    finally:
        sink.open.set()
        made.shutdown()


def put(queue: SpanQueue, *numbers: int, count: int = 3) -> None:
    for number in numbers:
        queue.put(count, b"%d" % number)


def test_a_full_batch_goes_at_once(sink: Sink) -> None:
    with queue_of(sink) as queue:
        put(queue, 0, 1, 2)
        sink.until(lambda: bool(sink.batches))
        assert sink.batches == [[b"0", b"1"]]
    assert sink.batches == [[b"0", b"1"], [b"2"]]


def test_less_than_a_batch_goes_when_its_time_is_up(sink: Sink) -> None:
    with queue_of(sink, delay_ms=50) as queue:
        began = time.monotonic()
        put(queue, 0)
        sink.until(lambda: bool(sink.batches))
        assert time.monotonic() - began < PATIENCE_S / 2
        assert sink.batches == [[b"0"]]


def test_a_batch_is_no_larger_than_its_size_and_parts_no_request(sink: Sink) -> None:
    with queue_of(sink, size=7) as queue:
        sink.open.clear()
        put(queue, 0, 1, 2)
        assert sink.holding.wait(PATIENCE_S)
        queue.put(9, b"more than a batch")
        put(queue, 3)
    assert sink.batches == [[b"0", b"1"], [b"2"], [b"more than a batch"], [b"3"]]


def test_a_full_queue_drops_its_oldest_and_says_so_once(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    with queue_of(sink, queue=12, size=6) as queue:
        sink.open.clear()
        put(queue, 0, 1)
        assert sink.holding.wait(PATIENCE_S)
        with caplog.at_level(logging.WARNING):
            put(queue, *range(2, 20))
    assert sink.spans == [b"0", b"1", b"16", b"17", b"18", b"19"]
    assert [record.getMessage() for record in caplog.records] == [
        "spans dropped: the queue of OTEL_BSP_MAX_QUEUE_SIZE is full"
    ]


def test_a_request_with_more_spans_than_the_queue_has_room_for_is_not_lost(sink: Sink) -> None:
    with queue_of(sink, queue=2, size=2) as queue:
        sink.open.clear()
        queue.put(2, b"first")
        assert sink.holding.wait(PATIENCE_S)
        queue.put(3, b"second")
        queue.put(3, b"third")
    assert sink.spans == [b"first", b"third"]


def test_putting_never_waits(sink: Sink) -> None:
    """A sender that hangs costs the loop no more than one that works."""
    with queue_of(sink, queue=50) as queue:
        sink.open.clear()
        put(queue, 0, 1)
        assert sink.holding.wait(PATIENCE_S)
        began = time.thread_time()
        put(queue, *range(20_000))
        assert time.thread_time() - began < 1.0


def test_nothing_is_lost_or_told_twice_while_both_work(sink: Sink) -> None:
    with queue_of(sink, queue=10**9, size=9, delay_ms=1) as queue:
        put(queue, *range(30_000))
    assert sink.spans == [b"%d" % number for number in range(30_000)]
    assert max(len(batch) for batch in sink.batches) == 3


def test_what_is_dropped_and_what_is_sent_is_all_that_there_was(sink: Sink) -> None:
    """Each entry once and in order, whoever takes it; and the queue's count is right at the end."""
    with queue_of(sink, queue=30, size=9, delay_ms=1) as queue:
        put(queue, *range(30_000))
    numbers = [int(span) for span in sink.spans]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 29_999
    assert queue._came - queue._dropped - queue._went == 0
    assert queue._went == 3 * len(numbers)


def test_a_batch_that_cannot_be_sent_is_not_the_last(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    def send(spans: list[bytes]) -> None:
        if spans == [b"0", b"1"]:
            raise ValueError
        sink.send(spans)

    queue = SpanQueue(Batch(100, 6, LATE), send)
    put(queue, 0, 1, 2, 3)
    sink.until(lambda: bool(sink.batches))
    queue.shutdown()
    assert sink.batches == [[b"2", b"3"]]
    assert [record.getMessage() for record in caplog.records] == ["exporting spans failed"]
