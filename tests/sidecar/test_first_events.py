"""The first events of a stream, which go down before they are read where their bytes alone allow it.

Covers: which events are known unread, and that none of them is what only reading would tell; that a first event goes
before it is read, and counts as if it had been read first; first events that must not go as they came.
Left out: what reading tells (test_meter), all other events (test_streams).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import answers
from harness.process import Sidecar
from harness.upstream import ScriptedUpstream
from inference_sidecar.meter import Mark, Meter, tells_nothing
from inference_sidecar.records import Endpoint, Event
from inference_sidecar.relay import Stream

CHAT, COMPLETIONS, RESPONSES = Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES
FIRST = (
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'
)


def event(data: bytes | None) -> Event:
    return Event(b": a comment\n\n" if data is None else b"data: " + data + b"\n\n", "", data)


@pytest.mark.parametrize(
    ("endpoint", "data", "known"),
    [
        (CHAT, b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}', True),
        (COMPLETIONS, b'{"choices":[{"text":"usage, error"}]}', True),
        (CHAT, b'{"choices":[],"usage":null}', True),
        (CHAT, b'{"choices":[],"usage": null}', False),
        (CHAT, b'{"usage":null,"choices":[],"usage":{"total_tokens":1}}', False),
        (CHAT, b'{"choices":[],"usa\\u0067e":{"total_tokens":1}}', False),
        (CHAT, b'{"err\\u006fr":{"message":"m"}}', False),
        (CHAT, b'{"error":{"message":"m"}}', False),
        (CHAT, b"[DONE]", False),
        (CHAT, None, False),
        (RESPONSES, b'{"type":"response.failed"}', False),
        (Endpoint.OTHER, b"{}", False),
    ],
)
def test_what_is_known_unread(endpoint: Endpoint, data: bytes | None, known: bool) -> None:
    assert tells_nothing(endpoint, event(data)) is known


@given(
    st.dictionaries(
        st.sampled_from(["usage", "error", "choices", "model", '"usage":null']),
        st.none()
        | st.just({"total_tokens": 1})
        | st.just({"message": "m"})
        | st.text('usage\\":nl', max_size=20),
    ),
    st.booleans(),
    st.booleans(),
)
def test_what_is_known_unread_is_nothing_that_reading_would_tell(
    value: dict[str, Any], compact: bool, escaped: bool
) -> None:
    data = json.dumps(value, separators=(",", ":") if compact else None).encode()
    if escaped:
        data = data.replace(b"usage", b"u\\u0073age").replace(b"error", b"\\u0065rror")
    for endpoint in Endpoint:
        if tells_nothing(endpoint, event(data)):
            assert Meter(endpoint, started=0.0).event(event(data), 1.0) in (Mark(), Mark(token=True))


@pytest.mark.parametrize("room", [True, False])
def test_a_first_event_goes_down_before_it_is_read(room: bool) -> None:
    meter = Meter(CHAT, started=0.0)
    sent: list[tuple[bytes, float | None]] = []

    def send_now(piece: bytes) -> bool:
        if room:
            sent.append((piece, meter.first_chunk))
        return room

    async def send(piece: bytes) -> None:
        sent.append((piece, None))

    stream = Stream(
        meter, send, send_now, CHAT, hide_usage=True, stats=True, mask=lambda text: text, debugged=False
    )
    assert stream.begin(FIRST + FIRST + FIRST[:9]) == room
    if not room:
        asyncio.run(stream.catch_up())
    assert sent == [(FIRST + FIRST, None)]
    assert meter.first_chunk == meter.first_token is not None
    assert meter.model == "m"
    assert meter.stats(meter.first_chunk).chunks_sent == 2


@pytest.mark.parametrize(
    ("first", "seen"),
    [
        (answers.usage_event(), b""),
        (answers.usage_event().replace(b'"usage"', b'"usa\\u0067e"'), b""),
        (answers.event({"error": "bad key KEY"}), answers.event({"error": "bad key ***"})),
        (b": a comment\n\n", b": a comment\n\n"),
        (b"data: [1]\n\n", b"data: [1]\n\n"),
    ],
)
def test_a_first_event_that_must_be_read(
    sidecar: Sidecar, upstream: ScriptedUpstream, first: bytes, seen: bytes
) -> None:
    rest = b"".join(answers.chat_events())
    first = first.replace(b"KEY", sidecar.key.encode())
    scenario = upstream.plan(answers.sse([first, *answers.chat_events()]))
    assert sidecar.chat(scenario, stream=True).body == seen + rest
