"""Chunks that are known by their form, without being read as JSON.

Covered: that a meter which knows forms finds, event by event and in all of its figures, what one finds that reads every
chunk; the chunks that must not be taken for another. Left out: what reading finds, which test_meter has.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar import meter
from inference_sidecar.form import form_of, has_form
from inference_sidecar.meter import Mark, Meter
from inference_sidecar.records import Endpoint, Event

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
