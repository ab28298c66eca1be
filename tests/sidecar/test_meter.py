"""What is learned from a model's answer.

Covers: marks, usage, model, finish reasons and completeness for each endpoint's events and documents, in the
shapes that upstreams are known to send; that no event raises, whatever it holds; times and stream_stats;
stream_stats put into an event; error events.
Not covered: how bytes become events (test_sse).
"""

from __future__ import annotations

import json
import math
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar.meter import MAX_GAPS, Mark, Meter, add_stats, error_event
from inference_sidecar.records import Endpoint, Event, Usage
from inference_sidecar.sse import Decoder

CHAT, COMPLETIONS, RESPONSES = Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES
USAGE = {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60}


def event(value: Any, name: str = "") -> Event:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Event(b"data: " + data + b"\n\n", name, data)


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def chunk(*choices: dict[str, Any], **more: Any) -> Event:
    return event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": choices, **more})


def meter(endpoint: Endpoint = CHAT, *events: Event, choices: int = 1) -> Meter:
    made = Meter(endpoint, started=0.0, choices=choices)
    for number, one in enumerate(events, 1):
        made.event(one, float(number))
    return made


@pytest.mark.parametrize(
    ("endpoint", "one", "mark"),
    [
        (CHAT, event(b"[DONE]"), Mark(done=True)),
        (CHAT, event(b"[DONE] "), Mark(done=True)),
        (CHAT, chunk(choice(role="assistant", content="")), Mark()),
        (CHAT, chunk(choice(content="Once")), Mark(token=True)),
        (CHAT, chunk(choice(refusal="No")), Mark(token=True)),
        (CHAT, chunk(choice(reasoning_content="Hm")), Mark(token=True)),
        (CHAT, chunk(choice(reasoning="Hm")), Mark(token=True)),
        (CHAT, chunk(choice(tool_calls=[{"index": 0}])), Mark(token=True)),
        (CHAT, chunk(choice(tool_calls=[])), Mark()),
        (CHAT, chunk(choice(function_call={"name": "f"})), Mark(token=True)),
        (CHAT, chunk(choice(audio={"data": "UklG"})), Mark(token=True)),
        (CHAT, chunk(choice(finish="stop"), usage=None), Mark()),
        (CHAT, chunk(choice(finish="stop"), usage=USAGE), Mark(usage=True)),
        (CHAT, chunk(choice(content="x"), usage=USAGE), Mark(usage=True, token=True)),
        (CHAT, chunk(usage=USAGE), Mark(usage=True, usage_only=True)),
        (CHAT, event({"usage": USAGE}), Mark(usage=True, usage_only=True)),
        (CHAT, chunk(usage=None, prompt_filter_results=[{"prompt_index": 0}]), Mark()),
        (CHAT, event({"choices": [{"index": 0, "content_filter_results": {}}]}), Mark()),
        (CHAT, event({"error": {"message": "x", "code": 500}}), Mark(error=True)),
        (CHAT, event({"error": "overloaded"}), Mark(error=True)),
        (CHAT, event({"error": None, "choices": []}), Mark()),
        (CHAT, event({"error": {}, "choices": []}), Mark()),
        (COMPLETIONS, event({"choices": [{"index": 0, "text": "Once"}]}), Mark(token=True)),
        (COMPLETIONS, event({"choices": [{"index": 0, "text": ""}]}), Mark()),
        (COMPLETIONS, event({"choices": [], "usage": USAGE}), Mark(usage=True, usage_only=True)),
        (RESPONSES, event({"type": "response.created", "response": {"usage": None}}), Mark()),
        (RESPONSES, event({"type": "response.output_text.delta", "delta": "x"}), Mark(token=True)),
        (RESPONSES, event({"delta": "x"}, "response.output_text.delta"), Mark(token=True)),
        (RESPONSES, event({"type": "response.completed", "response": {"usage": USAGE}}), Mark(usage=True)),
        (RESPONSES, event({"type": "error", "code": "x", "message": "y"}), Mark(error=True)),
        (RESPONSES, event({"message": "y"}, "error"), Mark(error=True)),
        (RESPONSES, event({"type": "response.failed", "response": None}), Mark(error=True)),
        (RESPONSES, event({"error": "x"}), Mark(error=True)),
        (Endpoint.OTHER, event({"type": "transcript.text.delta", "delta": "x"}), Mark(token=True)),
        (Endpoint.OTHER, event({"type": "transcript.text.done", "usage": USAGE}), Mark(usage=True)),
        (Endpoint.OTHER, event({"type": "error"}), Mark()),
    ],
)
def test_what_an_event_is(endpoint: Endpoint, one: Event, mark: Mark) -> None:
    made = meter(endpoint)

    assert made.event(one, 1.0) == mark
    assert made.errored is mark.error
    assert made.first_token == (1.0 if mark.token else None)


@pytest.mark.parametrize("data", [None, b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_nothing(data: bytes | None) -> None:
    assert meter().event(Event(b"", "", data), 1.0) == Mark()
    assert not meter().document(data or b"")


# The names that are looked for: each is to be met with values that it should not have.
fields = st.sampled_from(
    [
        *("choices", "index", "delta", "content", "text", "tool_calls", "audio", "finish_reason"),
        *("usage", "prompt_tokens", "input_tokens", "completion_tokens", "total_tokens"),
        *("type", "response", "status", "incomplete_details", "reason", "sequence_number"),
        *("error", "model", "stream_stats"),
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "stop", "a.delta"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=6),
    max_leaves=20,
)
documents = st.dictionaries(fields, json_values, max_size=8)


@given(
    st.sampled_from(Endpoint), st.lists(st.binary(max_size=40) | documents, max_size=5), st.text(max_size=9)
)
def test_no_event_and_no_document_raises(endpoint: Endpoint, values: list[Any], name: str) -> None:
    made = meter(endpoint)
    for value in values:
        one = event(value, name)
        made.event(one, 1.0)
        made.document(one.data or b"")
        add_stats(one, b"{}")

    assert isinstance(made.complete, bool)
    assert all(isinstance(reason, str) for reason in made.finish_reasons)
    assert made.usage is None or min(made.usage.prompt_tokens, made.usage.total_tokens) >= 0


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(10, 50, 60)),
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}, Usage(3, 4, 7)),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 8, completion_reported=False)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4, 7)),
        ({"prompt_tokens": None, "input_tokens": 5}, Usage(5, 0, 5, completion_reported=False)),
        ({"prompt_tokens": -1, "completion_tokens": 4}, Usage(0, 4, 4, prompt_reported=False)),
        ({"prompt_tokens": True, "completion_tokens": 2.5, "total_tokens": "9"}, None),
        ({"prompt_tokens": 10**30}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_usage_is_read_in_every_shape_and_only_where_it_can_be_believed(usage: Any, expected: Usage) -> None:
    assert meter(CHAT, chunk(usage=usage)).usage == expected
    assert (
        meter(RESPONSES, event({"type": "response.completed", "response": {"usage": usage}})).usage
        == expected
    )

    plain = meter(Endpoint.EMBEDDINGS)
    assert plain.document(json.dumps({"object": "list", "usage": usage}).encode()) is False
    assert plain.usage == expected


def test_of_several_usages_the_last_counts() -> None:
    running = [
        chunk(choice(content="x"), usage={"prompt_tokens": 9, "completion_tokens": n}) for n in (1, 2, 3)
    ]

    assert meter(CHAT, *running, chunk(usage=None)).usage == Usage(9, 3, 12)


@pytest.mark.parametrize(
    ("asked", "events", "complete", "reasons"),
    [
        (1, [], False, ()),
        (1, [chunk(choice(content="x"))], False, ()),
        (1, [chunk(choice(finish="stop"))], True, ("stop",)),
        (1, [chunk(choice(content="x")), event(b"[DONE]")], True, ()),
        (2, [chunk(choice(0, "stop"))], False, ("stop",)),
        (2, [chunk(choice(1, "length"), choice(0, "stop"))], True, ("stop", "length")),
        (1, [chunk(choice(0, "stop"), choice(1))], False, ("stop",)),
        (1, [chunk(choice(0, "stop"), choice(1)), chunk(choice(1, "stop"))], True, ("stop", "stop")),
        (1, [event({"choices": [{"finish_reason": "stop"}]})], True, ("stop",)),
        (1, [event({"choices": [{"finish_reason": 1, "index": "0"}]})], False, ()),
        (1, [event({"error": "x"})], False, ()),
        (0, [], False, ()),
    ],
)
def test_a_chat_is_complete_when_it_says_so_or_every_choice_has_finished(
    asked: int, events: list[Event], complete: bool, reasons: tuple[str, ...]
) -> None:
    made = meter(CHAT, *events, choices=asked)

    assert made.complete is complete
    assert made.finish_reasons == reasons


@pytest.mark.parametrize(
    ("end", "response", "reasons"),
    [
        ("response.completed", {}, ("completed",)),
        ("response.failed", {"error": {"code": "server_error"}}, ("failed",)),
        (
            "response.incomplete",
            {"incomplete_details": {"reason": "max_output_tokens"}},
            ("max_output_tokens",),
        ),
        ("response.incomplete", {"incomplete_details": None}, ("incomplete",)),
        ("response.completed", None, ("completed",)),
    ],
)
def test_a_response_is_complete_at_its_last_event(end: str, response: Any, reasons: tuple[str, ...]) -> None:
    first = event({"type": "response.created", "sequence_number": 0, "response": {"model": "m-2"}})
    last = event({"type": end, "sequence_number": 41, "response": response})
    made = meter(RESPONSES, first)

    assert not made.complete
    assert (made.model, made.next_sequence) == ("m-2", 1)
    made.event(last, 2.0)
    assert made.complete
    assert made.finish_reasons == reasons
    assert made.next_sequence == 42


def test_elsewhere_the_end_of_the_transport_is_all_there_is() -> None:
    others = set(Endpoint) - {CHAT, RESPONSES}

    assert all(Meter(endpoint, 0.0).complete for endpoint in others)


def test_what_is_kept_of_a_stream_is_bounded() -> None:
    made = meter(CHAT, *(chunk(choice(n, "x" * 1000), model="m" * 1000) for n in range(2000)))

    assert len(made.finish_reasons) == 1024
    assert {len(reason) for reason in made.finish_reasons} == {256}
    assert made.model == "m" * 256


@pytest.mark.parametrize(
    ("endpoint", "document", "failed", "reasons"),
    [
        (CHAT, {"choices": [{"index": 0, "finish_reason": "stop"}, {"finish_reason": "length"}]}, False, 2),
        (CHAT, {"error": {"message": "x"}, "choices": []}, True, 0),
        (CHAT, {"error": "x"}, True, 0),
        (CHAT, {"error": None}, False, 0),
        (CHAT, {"status": "failed"}, False, 0),
        (RESPONSES, {"status": "completed", "error": None}, False, 1),
        (RESPONSES, {"status": "failed"}, True, 1),
        (RESPONSES, {"status": "in_progress"}, False, 0),
        (Endpoint.OTHER, {"object": "fine_tuning.job", "error": {"code": None}}, False, 0),
        (Endpoint.OTHER, {"error": {"code": "x"}}, True, 0),
    ],
)
def test_a_plain_answer(endpoint: Endpoint, document: Any, failed: bool, reasons: int) -> None:
    made = Meter(endpoint, 0.0)

    assert (
        made.document(json.dumps({**document, "model": "m-1"} if len(document) > 1 else document).encode())
        is failed
    )
    assert made.errored is failed
    assert len(made.finish_reasons) == reasons
    assert made.model == ("m-1" if len(document) > 1 else None)


def test_times_are_those_that_were_passed_in() -> None:
    made = meter(
        CHAT, chunk(choice(role="assistant")), chunk(choice(content="a")), chunk(choice(content="b"))
    )
    for now in (1.0, 1.5, 2.25):
        made.sent(now)
    stats = made.stats(2.5)

    assert (made.first_chunk, made.first_token) == (1.0, 2.0)
    assert (stats.duration_ms, stats.chunks_sent) == (2500, 3)
    assert stats.avg_chunk_interval_ms == pytest.approx(2500 / 3)
    assert list(stats.first_gaps_s) == [0.5, 0.75]


def test_stream_stats_are_the_figures_of_the_spec() -> None:
    made = Meter(CHAT, 100.0)

    assert made.stats_json(100.0) == b'{"duration_ms":0,"chunks_sent":0,"avg_chunk_interval_ms":0}'
    for _ in range(12):
        made.sent(101.0)
    assert made.stats_json(102.5) == b'{"duration_ms":2500,"chunks_sent":12,"avg_chunk_interval_ms":208}'


def test_what_comes_first_is_a_chunk_whether_it_can_be_read_or_not() -> None:
    made = Meter(CHAT, 0.0)
    for number, one in enumerate(
        (Event(b": hi\n\n", "", None), event(b"[DONE]"), event(b"no JSON"), chunk())
    ):
        made.event(one, float(number))

    assert made.first_chunk == 2.0


BOUNDS = (0.01, 0.02, 0.5)


@given(
    st.lists(st.one_of(st.floats(0, 1), st.sampled_from(BOUNDS)), max_size=60),
    st.sampled_from([1, 7, MAX_GAPS - 30, MAX_GAPS]),
    st.integers(0, 60),
)
def test_gaps_are_those_of_a_plain_count(some: list[float], lead: int, looked_at: int) -> None:
    """Also beyond the number that is kept one by one, and where somebody looks in between."""
    made = Meter(CHAT, 0.0, gap_bounds=BOUNDS)
    now = 0.0
    times = [now]
    for gap in [0.25] * lead + some:
        now += gap
        times.append(now)
    for number, moment in enumerate(times):
        made.sent(moment)
        if number == looked_at:
            made.stats(moment)
    stats = made.stats(now)
    gaps = [after - before for before, after in pairwise(times)]

    assert stats.chunks_sent == len(gaps) + 1
    assert list(stats.first_gaps_s) == gaps[:MAX_GAPS]
    assert stats.gaps is not None
    upper = (*BOUNDS, math.inf)
    below = (-math.inf, *BOUNDS)
    counts = [sum(low < gap <= high for gap in gaps) for low, high in zip(below, upper, strict=True)]
    assert list(stats.gaps.counts) == counts
    assert stats.gaps.total_s == pytest.approx(sum(gaps))
    assert (stats.gaps.least_s, stats.gaps.most_s) == (min(gaps), max(gaps))


def test_memory_does_not_grow_with_a_stream() -> None:
    made = Meter(CHAT, 0.0, gap_bounds=BOUNDS)
    tracemalloc.start()
    try:
        for number in range(100_000):
            made.sent(number / 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100 * MAX_GAPS, "what is kept one by one and what is put aside, sorted once in a while"


def test_a_stream_of_one_chunk_has_no_gap() -> None:
    made = Meter(CHAT, 0.0)
    made.sent(1.0)

    assert made.stats(1.0).gaps is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'data: {"usage":{"a":1}}\n\n', b'data: {"usage":{"a":1},"stream_stats":{"x":1}}\n\n'),
        (b'data:{"usage": {} }  \r\n\r\n', b'data:{"usage": {} ,"stream_stats":{"x":1}}  \r\n\r\n'),
        (
            b'event: e\ndata: {"a":"}"}\nid: 1\n\n',
            b'event: e\ndata: {"a":"}","stream_stats":{"x":1}}\nid: 1\n\n',
        ),
        (b': data: {"a":1}\ndata: {"a":1}\n\n', b': data: {"a":1}\ndata: {"a":1,"stream_stats":{"x":1}}\n\n'),
        (b'\xef\xbb\xbfdata: {"a":1}\n\n', b'\xef\xbb\xbfdata: {"a":1,"stream_stats":{"x":1}}\n\n'),
        (b"data: {}\n\n", b'data: {"stream_stats":{"x":1}}\n\n'),
        (b'data: {"a":\ndata: 1}\n\n', None),
        (b'data: {"stream_stats":{}}\n\n', None),
        (b"data: [DONE]\n\n", None),
        (b"data: [1]\n\n", None),
        (b": ping\n\n", None),
    ],
)
def test_stream_stats_go_into_the_object_and_nothing_else_changes(raw: bytes, expected: bytes | None) -> None:
    (one,) = Decoder().feed(raw)

    assert add_stats(one, b'{"x":1}') == (raw if expected is None else expected)


def test_an_error_event_has_the_form_of_its_endpoint() -> None:
    def made(endpoint: Endpoint) -> Event:
        raw = error_event(endpoint, message="cut\n\nö", type="t", code="c", param=None, sequence_number=7)
        (one,) = Decoder().feed(raw)
        return one

    for endpoint in set(Endpoint) - {RESPONSES}:
        told = made(endpoint)
        assert json.loads(told.data or b"") == {
            "error": {"message": "cut\n\nö", "type": "t", "param": None, "code": "c"}
        }
        assert meter(endpoint).event(told, 1.0).error
    told = made(RESPONSES)
    assert told.name == "error"
    assert json.loads(told.data or b"") == {
        "type": "error",
        "code": "c",
        "message": "cut\n\nö",
        "param": None,
        "sequence_number": 7,
    }
    assert meter(RESPONSES).event(told, 1.0).error
