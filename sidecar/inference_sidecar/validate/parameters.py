"""The parameters of a chat request and their bounds, as OpenAI publishes them.

Enters: the value of one top-level member. Leaves: None, or the first `Fault` inside it.
Must not refuse a parameter for being unknown: new ones appear monthly, and compatible servers have their own.

The sets of words hold OpenAI's, and behind these the ones that compatible servers publish for the same field.
"""

from __future__ import annotations

from typing import Any

from .checks import (
    Check,
    Fault,
    any_object,
    array,
    boolean,
    integer,
    invalid,
    name,
    number,
    one_of,
    shape,
    step,
    string,
    tagged,
    too_long,
    wrong_type,
)
from .messages import content, messages

METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512

_named = shape({"name": string()}, "name")
_function = shape(
    {"name": name, "description": string(), "parameters": any_object, "strict": boolean}, "name"
)

_tool = tagged(
    {
        "function": shape({"function": _function}, "function"),
        "custom": shape({"custom": _named}, "custom"),
    }
)

_tool_choice_word = one_of("none", "auto", "required", "any")
_tool_choice_object = tagged(
    {
        "function": shape({"function": _named}, "function"),
        "custom": shape({"custom": _named}, "custom"),
        "allowed_tools": shape(
            {
                "allowed_tools": shape(
                    {
                        "mode": one_of("auto", "required"),
                        "tools": array(any_object, "an array of tools"),
                    },
                    "mode",
                    "tools",
                )
            },
            "allowed_tools",
        ),
    }
)

_function_call_word = one_of("none", "auto")


def _word_or_object(word: Check, nested: Check, expected: str) -> Check:
    def check(value: Any) -> Fault | None:
        if isinstance(value, str):
            return word(value)
        return nested(value) if isinstance(value, dict) else wrong_type(expected, value)

    return check


def _stop(value: Any) -> Fault | None:
    return None if isinstance(value, str) else _stops(value)


_stops = array(string(), "a string or an array of 1 to 4 strings", low=1, high=4)

_bias = number(-100, 100)


def _logit_bias(value: Any) -> Fault | None:
    if not isinstance(value, dict):
        return wrong_type("an object that maps tokens to numbers between -100 and 100", value)
    for token, bias in value.items():
        if (fault := _bias(bias)) is not None:
            return fault.at(step(token))
    return None


_metadata_value = string(METADATA_VALUE)


def _metadata(value: Any) -> Fault | None:
    expected = f"an object of at most {METADATA_PAIRS} pairs"
    if not isinstance(value, dict):
        return wrong_type(expected, value)
    if len(value) > METADATA_PAIRS:
        what = f"{expected}, but got {len(value)} instead"
        return invalid("too many properties", what, "object_above_max_properties")
    for key, text in value.items():
        if len(key) > METADATA_KEY:
            return too_long(key, METADATA_KEY, f"a key of at most {METADATA_KEY} characters").at(step(key))
        if (fault := _metadata_value(text)) is not None:
            return fault.at(step(key))
    return None


_schema = shape({"name": name, "description": string(), "schema": any_object, "strict": boolean}, "name")
_schema_apart = shape({"json_schema": _schema}, "json_schema")
_schema_within = shape({"json_schema": _schema, "schema": any_object})


def _json_schema(value: dict[str, Any]) -> Fault | None:
    """Some compatible servers take the schema right beside the type."""
    return _schema_within(value) if "schema" in value else _schema_apart(value)


_response_format_type = one_of("text", "json_object", "json_schema", "structural_tag", "grammar", "regex")
_response_format_tagged = tagged({"text": any_object, "json_object": any_object, "json_schema": _json_schema})


def _response_format(value: Any) -> Fault | None:
    if isinstance(value, dict) and "type" in value and (fault := _response_format_type(value["type"])):
        return fault.at(".type")
    return _response_format_tagged(value)


def _voice(value: Any) -> Fault | None:
    return None if isinstance(value, str) else _custom_voice(value)


_custom_voice = shape({"id": string()}, "id")

_penalty = number(-2, 2)

PARAMETERS: dict[str, Check] = {
    "messages": messages,
    "max_tokens": integer(1, 131072),
    "max_completion_tokens": integer(1),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "frequency_penalty": _penalty,
    "presence_penalty": _penalty,
    "stop": _stop,
    "seed": integer(-(2**63), 2**63),
    "stream": boolean,
    "stream_options": shape({"include_usage": boolean, "include_obfuscation": boolean}),
    "n": integer(1, 128),
    "logprobs": boolean,
    "top_logprobs": integer(0, 20),
    "logit_bias": _logit_bias,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max", "default"),
    "verbosity": one_of("low", "medium", "high"),
    "service_tier": one_of(
        "auto", "default", "flex", "scale", "priority", "fast", "on_demand", "performance"
    ),
    "modalities": array(one_of("text", "audio", "image"), "an array of 'text' and 'audio'"),
    "audio": shape({"format": string(), "voice": _voice}, "format", "voice"),
    "prediction": tagged({"content": shape({"content": content("text")}, "content")}),
    "tools": array(_tool, "an array of tools"),
    "tool_choice": _word_or_object(
        _tool_choice_word, _tool_choice_object, "'none', 'auto', 'required' or an object"
    ),
    "parallel_tool_calls": boolean,
    "store": boolean,
    "functions": array(_function, "an array of 1 to 128 functions", low=1, high=128),
    "function_call": _word_or_object(_function_call_word, _named, "'none', 'auto' or an object"),
    "response_format": _response_format,
    "metadata": _metadata,
    "safety_identifier": string(128),
    "prompt_cache_key": string(),
    "user": string(),
    "prompt_cache_options": any_object,
    "moderation": any_object,
    "web_search_options": any_object,
}
