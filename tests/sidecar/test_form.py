"""Chunks that are known by their form, without being read as JSON.

Covered: that a meter which knows forms finds, event by event and in all of its figures, what one finds that reads every
chunk; the chunks that must not be taken for another. Left out: what reading finds, which test_meter has.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar import meter
from inference_sidecar.form import form_of, has_form
from inference_sidecar.meter import Mark, Meter
from inference_sidecar.records import Endpoint, Event
from inference_sidecar.relay import Stream

TEXT = st.text(max_size=8) | st.sampled_from(
    ["", "a", '"', "\\", "\n", "é", "\ud800", '","finish_reason":"stop', '"usage":{"total_tokens":5}', "null"]
)


def chunk(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "id": "chatcmpl-1",
        "model": "gpt-4",
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
        "usage": None,
    }
    return whole | changes


def choice(content: object, **changes: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": content}, "finish_reason": None} | changes


CHOICES = st.one_of(
    st.builds(choice, TEXT),
    st.builds(choice, TEXT, finish_reason=st.sampled_from(["stop", "", "length"])),
    st.builds(choice, TEXT, index=st.integers(0, 2)),
    st.builds(choice, TEXT, delta=st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT})),
    st.builds(choice, TEXT, delta=st.just({})),
)
ALIKE = st.builds(chunk, choices=TEXT.map(lambda text: [choice(text)]))
PADDED = st.builds(
    chunk, choices=TEXT.map(lambda text: [choice(text)]), obfuscation=st.text('ab\\"', max_size=3)
)
OTHERS = st.builds(
    chunk,
    choices=st.lists(CHOICES, max_size=2),
    usage=st.sampled_from([None, {"total_tokens": 3}]),
    note=TEXT,
)
STREAMS = st.lists(ALIKE | OTHERS, max_size=12) | st.lists(PADDED | OTHERS, max_size=12)
DAMAGE = st.sampled_from([b"", b"\n", b"\\", b'"', b"}", b"\xff", b"null", b"\x00"])


def encoded(found: dict[str, Any], *, escaped: bool) -> bytes:
    return json.dumps(found, ensure_ascii=escaped, separators=(",", ":")).encode("utf-8", "replace")


def told(reader: Meter) -> list[object]:
    return [
        reader.usage, reader.model, reader.id, reader.first_chunk, reader.first_token, reader.errored,
        reader.complete, reader.finish_reasons,
    ]  # fmt: skip


@given(STREAMS, st.booleans(), st.data())
def test_it_finds_what_reading_finds(
    chunks: list[dict[str, Any]], escaped: bool, data: st.DataObject
) -> None:
    knowing, reading = Meter(Endpoint.CHAT, 0.0), Meter(Endpoint.CHAT, 0.0)
    reading._forms_left = 0
    for number, one in enumerate(chunks):
        raw = encoded(one, escaped=escaped)
        if data.draw(st.booleans()):
            # Damage at any place, as no encoder would do it.
            at = data.draw(st.integers(0, len(raw)))
            raw = raw[:at] + data.draw(DAMAGE) + raw[at + data.draw(st.integers(0, 2)) :]
        event = Event(raw, "", raw)
        assert knowing.event(event, float(number)) == reading.event(event, float(number)), raw
        assert told(knowing) == told(reading)


TIMES = re.compile(rb'("(?:duration|avg_chunk_interval)_ms":)\d+')
DONE = b"data: [DONE]\n\n"
LONG = st.builds(
    lambda one, times: [one | {"id": "c" * 300}] * times, ALIKE | PADDED | OTHERS, st.integers(1, 12)
)


class Down:
    """A stream's way down that takes everything, and its meter."""

    def __init__(self, *, stats: bool, forms: bool) -> None:
        self.bytes = b""
        self.meter = Meter(Endpoint.CHAT, 0.0)
        if not forms:
            self.meter._forms_left = 0
        self._stream = Stream(
            self.meter, self._send, self._send_now, Endpoint.CHAT, hide_usage=not stats, stats=stats,
            mask=lambda text: text.replace(b"c", b"*"), debugged=False,
        )  # fmt: skip

    def _send_now(self, piece: bytes) -> bool:
        self.bytes += piece
        return True

    async def _send(self, piece: bytes) -> None:
        self._send_now(piece)

    def take(self, pieces: list[bytes]) -> list[object]:
        """What of `pieces` went down, and what the meter knows then."""
        assert self._stream.begin(pieces[0])
        for piece in pieces[1:]:
            self._stream.take_now(piece)
        return [
            TIMES.sub(rb"\1", self.bytes), self._stream.finished, self._stream.torn, self.meter.stats(0.0).chunks_sent,
            self.meter.first_chunk is None, self.meter.first_token is None, *told(self.meter)[:3], *told(self.meter)[5:],
        ]  # fmt: skip


@given(st.lists(LONG, min_size=1, max_size=6), st.booleans(), st.booleans(), st.data())
def test_what_is_not_taken_apart_goes_down_as_what_is(
    runs: list[list[dict[str, Any]]], escaped: bool, stats: bool, data: st.DataObject
) -> None:
    """A stream in long pieces, cut and damaged anywhere, beside the same event by event and read."""
    events = [b"data: %b\n\n" % encoded(one, escaped=escaped) for run in runs for one in run]
    whole = b"".join([*events, DONE])
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(whole)))
        damage = data.draw(
            DAMAGE | st.sampled_from([b"\r", b"\n\n", b"\ndata: x", b"event: a\n", b"data: [DONE]\n\n"])
        )
        whole = whole[:at] + damage + whole[at + data.draw(st.integers(0, 2)) :]
    cuts = sorted(data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=3)))
    pieces = [whole[begin:end] for begin, end in pairwise([0, *cuts, len(whole)]) if begin < end]
    small = [whole[at : at + 100] for at in range(0, len(whole), 100)]
    assert Down(stats=stats, forms=True).take(pieces) == Down(stats=stats, forms=False).take(small)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_stream_stats_are_told_however_the_end_was_cut(size: int) -> None:
    usage = encoded({"id": "a", "model": "gpt-4", "choices": [], "usage": {"total_tokens": 3}}, escaped=False)
    whole = b"data: %b\n\n" % usage + DONE
    down = Down(stats=True, forms=True)
    down.take([whole[at : at + size] for at in range(0, len(whole), size)])
    assert down.bytes.count(b'"stream_stats":{') == 1


def test_events_in_a_row_are_known_together() -> None:
    def event(content: str) -> bytes:
        return b"data: %b\n\n" % encoded(chunk(choices=[choice(content)]), escaped=False)

    reader = Meter(Endpoint.CHAT, 0.0)
    first, row = event("Hi"), b"".join(event(f" word{number}") for number in range(98))
    assert reader.alike(first + row, len(first)) == (0, len(first))  # nothing is known yet
    reader.event(Event(first, "", first[6:-2]), 1.0)
    for after in (b"", DONE, event(""), event("\n"), event("a")[:-1], b"data: ", b": a\n\n", event("a")[6:]):
        assert reader.alike(first + row + after, len(first)) == (98, len(first + row)), after


def test_no_row_has_a_line_end_within() -> None:
    """Where it had come, the other line would be one of the event's and none of its data."""
    reader = Meter(Endpoint.CHAT, 0.0)
    data = KNOWN.replace(b'"model"', b'\n"model"')
    assert (
        reader.event(Event(b"", "", data), 1.0) == reader.event(Event(b"", "", data), 1.0) == Mark(token=True)
    )
    assert reader.alike(b"data: %b\n\n" % data, 0) == (0, 0)


def test_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred chunks of output few are read."""
    read: list[str] = []
    scan = meter._scan

    def counting(text: str, start: int) -> tuple[Any, int]:
        read.append(text)
        return scan(text, start)

    monkeypatch.setattr(meter, "_scan", counting)
    reader = Meter(Endpoint.CHAT, 0.0)
    for number in range(100):
        raw = encoded(
            chunk(choices=[choice(f" word{number}")], obfuscation="x" * (number % 7)), escaped=False
        )
        assert reader.event(Event(raw, "", raw), 1.0) == Mark(token=True)
    assert len(read) == 1


KNOWN = encoded(chunk(choices=[choice("Hi")]), escaped=False)


@pytest.mark.parametrize(
    "other",
    [
        KNOWN.replace(b"Hi", b""),
        KNOWN.replace(b"Hi", b"H\\n"),
        KNOWN.replace(b"Hi", b"H\ni"),
        KNOWN.replace(b"null}]", b'"stop"}]'),
        KNOWN.replace(b'"usage":null', b'"usage":{"total_tokens":1}'),
        KNOWN.replace(b'"index":0', b'"index":1'),
        KNOWN.replace(b"}]", b"},{}]"),
        KNOWN + b" ",
        KNOWN[:-1],
        b"",
    ],
)
def test_what_has_another_form(other: bytes) -> None:
    form = form_of(KNOWN, json.loads(KNOWN))
    assert form is not None
    assert has_form(KNOWN.replace(b"Hi", b"any other text"), form)
    assert not has_form(other, form)


@pytest.mark.parametrize(
    "found",
    [
        chunk(choices=[]),
        chunk(choices=[choice("Hi"), choice("Hi", index=1)]),
        chunk(choices=[choice("Hi", finish_reason="stop")]),
        chunk(choices=[choice(None)]),
        chunk(choices=[choice('say "Hi"')]),
        chunk(choices=[choice("Hi")], echo={"content": "Hi"}),
    ],
)
def test_what_has_no_form(found: dict[str, Any]) -> None:
    assert form_of(encoded(found, escaped=False), found) is None
