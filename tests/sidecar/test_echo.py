"""The embedded upstream.

Covers: chat plain and as a stream (that both say the same, usage, limits, stop sequences, choices, logprobs),
tools and what follows them, JSON answers, what is refused and how, that no body raises.
Not covered: models and what a client makes of it all (test_echo_sdk).
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar import echo
from inference_sidecar.meter import Meter
from inference_sidecar.records import Endpoint, Usage
from inference_sidecar.sse import Decoder

HELLO = [{"role": "user", "content": "Hello big world"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "hourly": {"type": "boolean"},
            },
            "required": ["city", "days", "unit"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "PAUSE_S", 0)


async def post(body: bytes | dict[str, Any], method: str = "POST", path: str = "/chat/completions") -> Any:
    made = await echo.answer(method, path, body if isinstance(body, bytes) else json.dumps(body).encode())
    return made, b"".join([chunk async for chunk in made.chunks])


async def chat(messages: Any = HELLO, **more: Any) -> dict[str, Any]:
    made, body = await post({"model": "gpt-4", "messages": messages, **more})
    assert made.status == 200
    assert dict(made.headers)[b"content-type"] == b"application/json"
    assert dict(made.headers)[b"content-length"] == str(len(body)).encode()
    return dict(json.loads(body))


async def stream(messages: Any = HELLO, **more: Any) -> list[dict[str, Any]]:
    made, body = await post({"model": "gpt-4", "messages": messages, "stream": True, **more})
    assert made.status == 200
    assert dict(made.headers)[b"content-type"].startswith(b"text/event-stream")
    *events, last = Decoder().feed(body)
    assert last.data == b"[DONE]"
    return [json.loads(event.data or b"") for event in events]


def said(chunks: list[dict[str, Any]], index: int = 0) -> list[str]:
    choices = [one for chunk in chunks for one in chunk["choices"] if one["index"] == index]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


async def test_a_chat_says_what_was_said_to_it() -> None:
    made = await chat()

    assert made["id"].startswith("chatcmpl-")
    assert (made["object"], made["model"]) == ("chat.completion", "gpt-4")
    assert made["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "You said: Hello big world",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert made["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


async def test_a_stream_is_a_role_then_a_word_a_chunk_then_the_finish() -> None:
    chunks = await stream()
    choices = [chunk["choices"][0] for chunk in chunks]

    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert choices[0]["delta"] == {"role": "assistant", "refusal": None, "content": ""}
    assert said(chunks) == ["You", " said:", " Hello", " big", " world"]
    assert [choice["finish_reason"] for choice in choices] == [None] * 6 + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_usage_of_a_stream_comes_only_where_it_was_asked_for() -> None:
    *chunks, last = await stream(stream_options={"include_usage": True})

    assert {repr(chunk["usage"]) for chunk in chunks} == {"None"}
    assert last["choices"] == []
    assert last["usage"] == (await chat())["usage"]


async def test_a_stream_pauses_between_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(delay: float) -> None:
        pauses.append(delay)

    monkeypatch.setattr(echo, "PAUSE_S", 0.5)
    monkeypatch.setattr(asyncio, "sleep", pause)
    await stream()

    assert pauses == [0.5] * 5


@pytest.mark.parametrize(
    ("wish", "content", "finish"),
    [
        ({"max_tokens": 3}, "You said: Hello", "length"),
        ({"max_tokens": 5}, "You said: Hello big world", "stop"),
        ({"max_completion_tokens": 2.0, "max_tokens": 4}, "You said:", "length"),
        ({"stop": "big"}, "You said: Hello ", "stop"),
        ({"stop": ["world", "Hello", ""]}, "You said: ", "stop"),
        ({"stop": "You"}, "", "stop"),
        ({"stop": None, "max_tokens": None, "n": None, "seed": 7}, "You said: Hello big world", "stop"),
        ({"response_format": {"type": "json_object"}}, '{"you_said": "Hello big world"}', "stop"),
    ],
)
async def test_limits_and_forms_hold_for_plain_and_stream(
    wish: dict[str, Any], content: str, finish: str
) -> None:
    plain = await chat(**wish)
    *chunks, last = await stream(**wish, stream_options={"include_usage": True})

    assert plain["choices"][0]["message"]["content"] == "".join(said(chunks)) == content
    assert plain["choices"][0]["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == finish
    assert plain["usage"] == last["usage"]


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        ([{"role": "system", "content": "Be kind"}, *HELLO], "You said: Hello big world"),
        ([*HELLO, {"role": "assistant", "content": "Hi"}], "You said: Hello big world"),
        ([{"role": "system", "content": "Be kind"}], "You said: Be kind"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}], "You said: a b"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "You said nothing that is text."),
        ([{"role": "user", "content": "\ud83d"}], "You said: \ud83d"),
        ([*HELLO, {"role": "tool", "content": "18 degrees"}], "The tool answered: 18 degrees"),
    ],
)
async def test_what_is_said_back(messages: Any, content: str) -> None:
    assert (await chat(messages))["choices"][0]["message"]["content"] == content
    assert "".join(said(await stream(messages))) == content


async def test_every_choice_is_there_and_paid_for() -> None:
    plain = await chat(n=3)
    chunks = await stream(n=3)

    assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2]
    assert plain["usage"]["completion_tokens"] == 15
    assert said(chunks, 0) == said(chunks, 1) == said(chunks, 2) != []


async def test_logprobs_come_where_they_were_asked_for() -> None:
    one = {"token": "You", "logprob": 0.0, "bytes": [89, 111, 117]}

    assert (await chat(logprobs=True))["choices"][0]["logprobs"]["content"][0] == {**one, "top_logprobs": []}
    chunks = await stream(logprobs=True, top_logprobs=2)
    assert chunks[1]["choices"][0]["logprobs"]["content"] == [{**one, "top_logprobs": [one]}]


async def test_an_answer_is_bounded() -> None:
    made = await chat([{"role": "user", "content": "word " * 50_000}])

    assert len(made["choices"][0]["message"]["content"]) <= 16 * 1024
    assert made["choices"][0]["finish_reason"] == "length"
    assert made["usage"]["prompt_tokens"] == 50_000


async def test_a_tool_that_is_offered_is_called() -> None:
    wanted = {"city": "example", "days": 1, "unit": "celsius"}
    choice = (await chat(tools=[WEATHER, TIME], stop=","))["choices"][0]
    (call,) = choice["message"]["tool_calls"]

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == wanted

    chunks = await stream(tools=[WEATHER, TIME])
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == wanted
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("auto", "get_weather"),
        ("required", "get_weather"),
        ("none", None),
        ({"type": "function", "function": {"name": "get_time"}}, "get_time"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TIME]}}, "get_time"),
    ],
)
async def test_which_tool_is_called(choice: Any, called: str | None) -> None:
    message = (await chat(tools=[WEATHER, TIME], tool_choice=choice))["choices"][0]["message"]

    assert [call["function"]["name"] for call in message.get("tool_calls", [])] == (
        [called] if called else []
    )


async def test_after_a_tool_has_answered_it_is_not_called_again() -> None:
    result = {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}
    message = (await chat([*HELLO, result], tools=[WEATHER]))["choices"][0]["message"]

    assert message["content"] == "The tool answered: 18 degrees"
    assert "tool_calls" not in message


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["string", "null"]}, "example"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [0, 0]),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"const": "x"}, "x"),
        ({"type": "string", "default": "y"}, "y"),
        ({"type": "object"}, {}),
        ({"type": "null"}, None),
        ({"$ref": "#/$defs/there"}, 3),
        ({"$ref": "#/$defs/nowhere"}, None),
        ({"const": "x" * 100_000}, None),
        ({"type": {}}, None),
        (True, None),
    ],
)
async def test_a_schema_is_filled_in(schema: Any, value: Any) -> None:
    root = {
        "type": "object",
        "properties": {"it": schema},
        "required": ["it"],
        "$defs": {"there": {"type": "integer", "minimum": 3}},
    }
    made = await chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": root}})

    assert json.loads(made["choices"][0]["message"]["content"]) == {"it": value}


@pytest.mark.parametrize("name", ["", "name"])
async def test_a_schema_that_never_ends_ends(name: str) -> None:
    """Each of its members stands for the whole; followed to the bound one by one it would take long."""
    endless = {"type": "object", "required": [name] * 100_000, "properties": {name: {"$ref": "#"}}}
    started = time.process_time()
    made = await chat(response_format={"type": "json_schema", "json_schema": {"schema": endless}})

    assert len(made["choices"][0]["message"]["content"]) <= 16 * 1024
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/models/nothing", 404, "model_not_found"),
        ("POST", "/embeddings", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/chat/completions", 405, "method_not_supported"),
        ("DELETE", "/models/echo", 405, "method_not_supported"),
    ],
)
async def test_what_it_does_not_answer(method: str, path: str, status: int, code: str) -> None:
    made, body = await post(b"{}", method, path)
    error = json.loads(body)["error"]

    assert made.status == status
    assert error["code"] == code
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff", None),
        (b'{"messages": NaN}', None),
        (b'{"messages": 1e999}', None),
        (b"[" * 200_000, None),
        (b"{}", "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": "x"}', "messages"),
        (b'{"messages": [{}]}', "messages"),
        (b'{"messages": [{"role": "user"}], "n": 129}', "n"),
        (b'{"messages": [{"role": "user"}], "n": true}', "n"),
        (b'{"messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
        (b'{"messages": [{"role": "user"}], "model": 1}', "model"),
        (b'{"messages": [{"role": "user"}], "stream": "yes"}', "stream"),
        (b'{"messages": [{"role": "user"}], "stop": [1]}', "stop"),
        (
            b'{"messages": [{"role": "user"}], "tools": [{"function": {"name": "f"}}], "tool_choice": {}}',
            "tool_choice",
        ),
    ],
)
async def test_what_cannot_be_understood_is_refused_in_the_api_s_own_shape(
    body: bytes, param: str | None
) -> None:
    made, answer = await post(body)
    error = json.loads(answer)["error"]

    assert made.status == 400
    assert error["param"] == param
    assert error.keys() == {"message", "type", "param", "code"}


FIELDS = (
    *("messages", "role", "content", "text", "model", "stream", "n", "stop", "max_tokens", "logprobs"),
    *("tools", "function", "name", "parameters", "tool_choice", "allowed_tools", "response_format", "type"),
    *(
        "json_schema",
        "schema",
        "properties",
        "required",
        "enum",
        "anyOf",
        "$ref",
        "minItems",
        "minimum",
        "items",
    ),
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 200)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(FIELDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=15,
)


@given(st.binary(max_size=30) | st.dictionaries(st.sampled_from(FIELDS), values, max_size=6), st.booleans())
def test_no_body_raises(body: Any, sound: bool) -> None:
    if sound and isinstance(body, dict):
        body["messages"] = HELLO
    made, answer = asyncio.run(post(body))

    assert made.status in (200, 400)
    assert answer


async def test_the_meter_reads_a_stream_of_it_to_its_end() -> None:
    _, body = await post(
        {"messages": HELLO, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    )
    meter = Meter(Endpoint.CHAT, 0.0, choices=2)
    *events, done = Decoder().feed(body)
    marks = [meter.event(event, 1.0) for event in events]

    assert meter.complete
    assert meter.finish_reasons == ("stop", "stop")
    assert meter.usage == Usage(3, 10, 13)
    assert [mark.usage_only for mark in marks] == [False] * (len(marks) - 1) + [True]
    assert meter.event(done, 1.0).done
