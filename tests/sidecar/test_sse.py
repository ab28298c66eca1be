"""The decoder of server-sent events.

Covers: fields and framings by table; the laws by property (bytes are conserved and events are the same for
every split, an event is released with its blank line, memory is bounded); events beyond the bound; a line end
that is split; ends with and without a blank line; the time that a stream takes byte by byte.
Not covered: what the data means (test_meter).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference_sidecar.sse import MAX_EVENT_BYTES, Decoder, Event

Content = tuple[str, bytes | None]

# Pieces of which streams are made: every line end, fields in every spelling, things that look like them.
PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"),
    *(b"data: a", b"data:b", b"data:  c", b"data", b"data:", b'data: {"x":1}\n\n', b"data: [DONE]"),
    *(b"event: e", b"event:f", b"id: 7", b"retry: 10", b": comment", b":", b"xdata: y", b" data: z"),
    *(b"\xef\xbb\xbf", b"\xe2\x82", b"\xac", b"\x00", b"x" * 40),
]
streams = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)
cuts = st.lists(st.integers(0, 400), max_size=24)


def split(stream: bytes, at: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in at), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def decode(chunks: Iterable[bytes], bound: int = MAX_EVENT_BYTES) -> list[Event]:
    decoder = Decoder(bound)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.finish()


def told(events: Iterable[Event]) -> list[tuple[bytes, str, bytes | None, bool]]:
    return [(event.raw, event.name, event.data, event.whole) for event in events]


def contents(events: Iterable[Event]) -> list[Content]:
    """What the events say. Blank lines say nothing, and a torn event is one, in however many pieces."""
    told: list[Content] = []
    torn = b""
    for event in events:
        if event.whole and event.raw.strip(b"\r\n"):
            told.append((event.name, event.data))
        elif not event.whole and not torn:
            told.append(("torn", None))
        torn = torn + event.raw if not event.whole else b""
        if torn.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n"):
            torn = b""
    return told


def unfinished(stream: bytes) -> bytes:
    """What follows the last blank line."""
    rest = b""
    for line in stream.splitlines(keepends=True):
        rest = rest + line if line.strip(b"\r\n") else b""
    return rest


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: x\n\n", [("", b"x")]),
        (b"data:x\n\n", [("", b"x")]),
        (b"data:  x \n\n", [("", b" x ")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data\n\n", [("", b"")]),
        (b"data:\ndata:\n\n", [("", b"\n")]),
        (b"event: response.created\ndata: {}\n\n", [("response.created", b"{}")]),
        (b"event: a\nevent:b\ndata: {}\n\n", [("b", b"{}")]),
        (b"event: \xff\ndata: {}\n\n", [("\N{REPLACEMENT CHARACTER}", b"{}")]),
        (b"id: 1\nretry: 5\ndata: x\nfoo: bar\n\n", [("", b"x")]),
        (b": ping\n\n", [("", None)]),
        (b": ping\ndata: x\n\n", [("", b"x")]),
        (b"Data: x\n\n", [("", None)]),
        (b"\xef\xbb\xbfdata: x\n\n", [("", b"x")]),
        (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [("", b"x"), ("", None)]),
        (b"data: x\r\n\r\ndata: y\r\rdata: z\n\n", [("", b"x"), ("", b"y"), ("", b"z")]),
        (b"data: x\r\n\ndata: y\n\r\ndata: z\r\r\n", [("", b"x"), ("", b"y"), ("", b"z")]),
        (b"data: a\r\ndata: b\rdata: c\ndata: d\n\n", [("", b"a\nb\nc\nd")]),
        (b"\n\r\n\n\ndata: x\n\n\n\n", [("", b"x")]),
        (b"data: \x0b\x0c\xc2\x85\xe2\x80\xa8\n\n", [("", b"\x0b\x0c\xc2\x85\xe2\x80\xa8")]),
        (b"data: [DONE]", [("", b"[DONE]")]),
        (b"data: [DONE]\r\n", [("", b"[DONE]")]),
        (b"data: x\n\nda", [("", b"x"), ("", None)]),
        (b"", []),
    ],
)
def test_a_stream_says_the_same_whole_and_byte_by_byte(stream: bytes, expected: list[Content]) -> None:
    whole, bytewise = decode([stream]), decode(split(stream, range(len(stream))))

    assert contents(whole) == contents(bytewise) == expected
    assert b"".join(event.raw for event in whole) == b"".join(event.raw for event in bytewise) == stream


@given(streams, cuts, st.sampled_from([4, 30, MAX_EVENT_BYTES]))
@example(b"data: x\r\n\r\n", [9], 4)
@example(b"data\r\n\r\ndata: x\n\n", [6], 4)
@example(b"\xef\xbb\xbf\n\ndata: x\n\n", [3], 4)
def test_any_split_conserves_every_byte_and_every_event(stream: bytes, at: list[int], bound: int) -> None:
    whole, cut = decode([stream], bound), decode(split(stream, at), bound)

    assert b"".join(event.raw for event in cut) == stream
    assert b"".join(event.raw for event in whole) == stream
    assert contents(cut) == contents(whole)


@given(streams, cuts)
def test_nothing_that_is_complete_is_held_back(stream: bytes, at: list[int]) -> None:
    decoder = Decoder()
    fed = b""
    for chunk in split(stream, at):
        decoder.feed(chunk)
        fed += chunk

        # One byte more where the LF of a split line end waits for what comes next.
        assert decoder.pending - len(unfinished(fed)) in (0, 1)


def test_an_event_is_released_with_the_last_byte_of_its_blank_line() -> None:
    decoder = Decoder()

    assert decoder.feed(b"data: x\n") == []
    assert decoder.pending == 8
    assert told(decoder.feed(b"\ndata: y")) == [(b"data: x\n\n", "", b"x", True)]
    assert decoder.pending == 7


@pytest.mark.parametrize(
    ("chunks", "raw"),
    [([b"data: x\r\n\r"], b"data: x\r\n\r"), ([b"data: x\r\n", b"\r"], b"data: x\r\n\r"), ([b"\r"], b"\r")],
)
def test_the_late_half_of_a_line_end_makes_no_event_and_is_not_lost(chunks: list[bytes], raw: bytes) -> None:
    decoder = Decoder()

    assert [event.raw for chunk in chunks for event in decoder.feed(chunk)] == [raw]
    assert decoder.feed(b"\n") == []
    assert decoder.pending == 1
    assert told(decoder.feed(b"data: y\n\n")) == [(b"\ndata: y\n\n", "", b"y", True)]
    assert told(decoder.feed(b"data: z\r\r")) == [(b"data: z\r\r", "", b"z", True)]
    assert decoder.feed(b"\n") == []
    assert told(decoder.finish()) == [(b"\n", "", None, True)]
    assert decoder.pending == 0


def test_a_blank_line_alone_goes_on_at_once() -> None:
    decoder = Decoder()
    decoder.feed(b"data: x\n\n")

    assert told(decoder.feed(b"\n")) == [(b"\n", "", None, True)]


def test_an_event_beyond_the_bound_flows_in_pieces_and_ends_at_its_blank_line() -> None:
    decoder = Decoder(max_event_bytes=16)

    assert decoder.feed(b"data: 0123456789") == []
    assert not decoder.torn
    assert told(decoder.feed(b"A")) == [(b"data: 0123456789A", "", None, False)]
    assert decoder.torn
    assert told(decoder.feed(b"BC\r")) == [(b"BC\r", "", None, False)]
    assert told(decoder.feed(b"\nid: 1\r\n")) == [(b"\nid: 1\r\n", "", None, False)]
    assert decoder.torn
    assert told(decoder.feed(b"\r")) == [(b"\r", "", None, False)]
    assert not decoder.torn
    assert decoder.feed(b"\n") == []
    assert told(decoder.feed(b"data: x\n\n")) == [(b"\ndata: x\n\n", "", b"x", True)]
    assert decoder.pending == 0


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\n", b"\n\r\n", b"\r\r\n", b"\r\n\r"])
def test_an_event_as_large_as_the_bound_is_whole_and_one_byte_more_is_not(end: bytes) -> None:
    fits, exceeds = b"data: 0123456789" + end, b"data: 0123456789A" + end

    for cut in range(len(exceeds) + 1):
        for before in (b"", b"data: x\n\n"):
            stream = before + fits
            told = decode(split(stream, [len(before), len(before) + cut]), bound=16)
            assert contents(told)[-1] == ("", b"0123456789")
            stream = before + exceeds
            told = decode(split(stream, [len(before), len(before) + cut]), bound=16)
            assert contents(told)[-1] == ("torn", None)


@given(st.lists(st.binary(max_size=50), max_size=60))
def test_what_is_held_stays_within_the_bound(chunks: list[bytes]) -> None:
    decoder = Decoder(max_event_bytes=64)
    for chunk in chunks:
        decoder.feed(chunk)

        assert decoder.pending <= 64 + 2 + 1


def test_a_stream_that_ends_within_an_event_says_so() -> None:
    decoder = Decoder()
    decoder.feed(b"data: x\n\ndata: [DONE]\n")

    assert not decoder.torn
    assert told(decoder.finish()) == [(b"data: [DONE]\n", "", b"[DONE]", True)]
    assert decoder.torn
    assert decoder.finish() == []


def test_a_stream_byte_by_byte_takes_linear_time() -> None:
    """A quadratic search over half a mebibyte would take minutes."""
    event = b"data: " + b"x" * (512 * 1024) + b"\r\n\r\n"
    started = time.process_time()

    assert len(decode(split(event, range(len(event))))) == 2
    assert time.process_time() - started < 10
