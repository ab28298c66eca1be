"""The rules of `messages`: which roles there are, and which content goes with each.

Enters: one entry of the array. Leaves: None, or the first `Fault` inside it.
Must not look across messages: whether a conversation makes sense is the upstream's to say.

A message's role decides by which rules the rest is read, so a fault in the role comes before all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checks import Check, Fault, array, missing, one_of, shape, string, tagged, wrong_type

_TEXT = shape({"text": string()}, "text")
_REFUSAL = shape({"refusal": string()}, "refusal")
_IMAGE = shape({"url": string(), "detail": string()}, "url")
_AUDIO = shape({"data": string(), "format": string()}, "data", "format")
_FILE = shape({"file_id": string(), "file_data": string(), "filename": string()})


def _image(value: Any) -> Fault | None:
    """OpenAI takes an object; a bare URL is what Mistral publishes."""
    return None if isinstance(value, str) else _IMAGE(value)


_PARTS: Mapping[str, Check] = {
    "text": _TEXT,
    "image_url": shape({"image_url": _image}, "image_url"),
    "input_audio": shape({"input_audio": _AUDIO}, "input_audio"),
    "file": shape({"file": _FILE}, "file"),
    "refusal": _REFUSAL,
}


def content(*kinds: str) -> Check:
    """A string, or a non-empty array of parts of these kinds (or of kinds unknown here)."""
    expected = "a string or a non-empty array of content parts"
    others = tuple(tag for tag in _PARTS if tag not in kinds)
    parts = array(tagged({tag: _PARTS[tag] for tag in kinds}, others), expected, low=1)

    def check(value: Any) -> Fault | None:
        if isinstance(value, str):
            return None
        return parts(value) if isinstance(value, list) else wrong_type(expected, value)

    return check


def _nullable(rule: Check) -> Check:
    return lambda value: None if value is None else rule(value)


_TOOL_CALL: Mapping[str, Check] = {
    "id": string(),
    "function": shape({"name": string(), "arguments": string()}, "name", "arguments"),
    "custom": shape({"name": string(), "input": string()}, "name", "input"),
}

_tool_call = tagged(
    {
        "function": shape(_TOOL_CALL, "id", "function"),
        "custom": shape(_TOOL_CALL, "id", "custom"),
    }
)

_ASSISTANT: Mapping[str, Check] = {
    "content": content("text", "refusal"),
    "name": string(),
    "refusal": string(),
    "audio": shape({"id": string()}, "id"),
    "tool_calls": array(_tool_call, "an array of tool calls"),
    "function_call": shape({"name": string(), "arguments": string()}, "name", "arguments"),
}

_assistant_says = shape(_ASSISTANT, "content")
_assistant_acts = shape(_ASSISTANT)


def _assistant(value: dict[str, Any]) -> Fault | None:
    """Content may be absent where something else takes its place, be it an empty list: servers send that, and
    apps send it back.
    """
    instead = ("tool_calls", "function_call", "refusal", "audio")
    acts = any(value.get(key) is not None for key in instead)
    return _assistant_acts(value) if acts else _assistant_says(value)


_instructions = shape({"content": content("text"), "name": string()}, "content")

_ROLES: Mapping[str, Check] = {
    "developer": _instructions,
    "system": _instructions,
    "user": shape(
        {"content": content("text", "image_url", "input_audio", "file"), "name": string()}, "content"
    ),
    "assistant": _assistant,
    # OpenAI takes text alone from a tool; compatible servers also take what a tool drew or read.
    "tool": shape(
        {"content": content("text", "image_url", "input_audio", "file"), "tool_call_id": string()},
        "content",
        "tool_call_id",
    ),
    "function": shape({"content": _nullable(string()), "name": string()}, "content", "name"),
}

_role = one_of(*_ROLES)

_PLAIN = frozenset({"developer", "system", "user", "assistant"})


def message(value: Any) -> Fault | None:
    """One entry of `messages`."""
    if not isinstance(value, dict):
        return wrong_type("an object", value)
    role = value.get("role")
    # Nearly every message of a long conversation is just this, and nothing in it is left to check.
    if len(value) == 2 and isinstance(value.get("content"), str) and isinstance(role, str) and role in _PLAIN:
        return None
    if "role" not in value:
        return missing("role")
    if not isinstance(role, str) or role not in _ROLES:
        fault = _role(role)
        return fault.at(".role") if fault is not None else None
    return _ROLES[role](value)


messages: Check = array(message, "an array of at least 1 message", low=1)
