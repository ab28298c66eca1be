"""The rules of messages: roles, content by role, parts, calls of tools, and the path that a fault names.

By table: what passes and what is refused. A part or a call of a kind unknown to OpenAI passes wherever it
stands. Left out: whether messages make sense one after the other, which is the upstream's to say.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from inference_sidecar.records import InferenceRequest, Refusal, Rules
from inference_sidecar.validate import chat

RULES = Rules(
    strict=True,
    default_model=None,
    model_required=True,
    allowed=None,
    inject_usage=False,
    can_stream=True,
    max_depth=128,
)


def asked(messages: Any) -> InferenceRequest | Refusal:
    return chat(json.dumps({"model": "gpt-4", "messages": messages}).encode(), RULES)


TEXT = {"type": "text", "text": "t"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "f"}}
REFUSAL = {"type": "refusal", "refusal": "no"}
NEW = {"type": "video_url", "video_url": {"url": "u"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CUSTOM_CALL = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "developer", "content": "d"},
        {"role": "system", "content": ""},
        {"role": "system", "content": [TEXT, NEW], "name": None},
        {"role": "user", "content": "u", "name": "n", "new": {}},
        {"content": "u", "role": "user"},
        {"role": "user", "content": [TEXT, IMAGE, AUDIO, FILE, NEW]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.com/a.png"}]},
        {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": [TEXT, REFUSAL]},
        {"role": "assistant", "tool_calls": [CALL, CUSTOM_CALL, {"type": "new"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
        {"role": "assistant", "refusal": "no"},
        {"role": "assistant", "audio": {"id": "audio_1"}},
        {"role": "assistant", "content": "a", "tool_calls": None, "refusal": None, "audio": None},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "tool", "content": [TEXT], "tool_call_id": "c"},
        {"role": "function", "name": "f", "content": None},
        {"role": "function", "name": "f", "content": "x"},
    ],
)
def test_messages_that_pass(message: dict[str, Any]) -> None:
    assert isinstance(result := asked([message]), InferenceRequest), result


@pytest.mark.parametrize(
    ("messages", "code"),
    [([], "empty_array"), (None, "invalid_type"), ({}, "invalid_type"), ("hi", "invalid_type")],
)
def test_messages_are_a_non_empty_array(messages: Any, code: str) -> None:
    result = asked(messages)
    assert isinstance(result, Refusal)
    assert (result.param, result.code) == ("messages", code)
    assert "at least 1" in result.message


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"


@pytest.mark.parametrize(
    ("message", "below", "code"),
    [
        (None, "", TYPE),
        ("hi", "", TYPE),
        ({}, ".role", MISSING),
        ({"content": "x"}, ".role", MISSING),
        ({"role": None, "content": "x"}, ".role", TYPE),
        ({"role": ["user"], "content": "x"}, ".role", TYPE),
        ({"role": "human", "content": "x"}, ".role", VALUE),
        ({"role": "User", "content": "x"}, ".role", VALUE),
        ({"content": 5, "role": "human"}, ".role", VALUE),
        ({"role": "user"}, ".content", MISSING),
        ({"role": "user", "content": None}, ".content", TYPE),
        ({"role": "user", "content": 5}, ".content", TYPE),
        ({"role": "user", "content": []}, ".content", "empty_array"),
        ({"role": "user", "content": "x", "name": 5}, ".name", TYPE),
        ({"role": "user", "content": [None]}, ".content[0]", TYPE),
        ({"role": "user", "content": ["x"]}, ".content[0]", TYPE),
        ({"role": "user", "content": [TEXT, {"text": "x"}]}, ".content[1].type", MISSING),
        ({"role": "user", "content": [{"type": None}]}, ".content[0].type", TYPE),
        ({"role": "user", "content": [{"type": "text"}]}, ".content[0].text", MISSING),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, ".content[0].text", TYPE),
        ({"role": "user", "content": [REFUSAL]}, ".content[0].type", VALUE),
        ({"role": "user", "content": [{"type": "image_url"}]}, ".content[0].image_url", MISSING),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            ".content[0].image_url.url",
            MISSING,
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]},
            ".content[0].input_audio.format",
            MISSING,
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": 5}}]},
            ".content[0].file.file_id",
            TYPE,
        ),
        ({"role": "system", "content": [IMAGE]}, ".content[0].type", VALUE),
        ({"role": "system"}, ".content", MISSING),
        ({"role": "developer", "content": None}, ".content", TYPE),
        ({"role": "assistant"}, ".content", MISSING),
        ({"role": "assistant", "content": None}, ".content", TYPE),
        ({"role": "assistant", "content": None, "refusal": None}, ".content", TYPE),
        ({"role": "assistant", "content": [AUDIO]}, ".content[0].type", VALUE),
        ({"role": "assistant", "content": 5, "tool_calls": [CALL]}, ".content", TYPE),
        ({"role": "assistant", "tool_calls": {}}, ".tool_calls", TYPE),
        ({"role": "assistant", "tool_calls": [None]}, ".tool_calls[0]", TYPE),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, ".tool_calls[0].type", MISSING),
        ({"role": "assistant", "tool_calls": [CALL, {**CALL, "id": None}]}, ".tool_calls[1].id", TYPE),
        (
            {"role": "assistant", "tool_calls": [{"type": "function", "id": "c"}]},
            ".tool_calls[0].function",
            MISSING,
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
            ".tool_calls[0].function.arguments",
            TYPE,
        ),
        (
            {"role": "assistant", "tool_calls": [{**CUSTOM_CALL, "custom": {"name": "f"}}]},
            ".tool_calls[0].custom.input",
            MISSING,
        ),
        ({"role": "assistant", "function_call": {"name": "f"}}, ".function_call.arguments", MISSING),
        ({"role": "assistant", "audio": {}}, ".audio.id", MISSING),
        ({"role": "tool", "content": "x"}, ".tool_call_id", MISSING),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, ".tool_call_id", TYPE),
        ({"role": "tool", "tool_call_id": "c"}, ".content", MISSING),
        ({"role": "tool", "content": None, "tool_call_id": "c"}, ".content", TYPE),
        ({"role": "function", "content": "x"}, ".name", MISSING),
        ({"role": "function", "name": "f"}, ".content", MISSING),
        ({"role": "function", "name": "f", "content": [TEXT]}, ".content", TYPE),
    ],
)
def test_messages_that_are_refused(message: Any, below: str, code: str) -> None:
    result = asked([{"role": "user", "content": "fine"}, message, {"role": "worse"}])
    assert isinstance(result, Refusal), result
    assert (result.param, result.code) == (f"messages[1]{below}", code)
    assert f"'{result.param}'" in result.message


def test_an_unknown_role_is_told_the_known_ones() -> None:
    result = asked([{"role": "human\ud800", "content": "x"}])
    assert isinstance(result, Refusal)
    for role in ("developer", "system", "user", "assistant", "tool", "function"):
        assert f"'{role}'" in result.message
    assert result.message.encode()
