"""Every parameter of a chat request: bounds on both sides, null, wrong types, and which fault is named first.

By table: what passes, and what is refused with which param, code and range. The examples of the specification
are here as they are sent. Left out: messages (a file of their own) and splicing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from inference_sidecar.records import InferenceRequest, Reason, Refusal, Rules
from inference_sidecar.validate import chat
from inference_sidecar.validate.parameters import PARAMETERS

RULES = Rules(
    strict=True,
    default_model=None,
    model_required=True,
    allowed=None,
    inject_usage=False,
    can_stream=True,
    max_depth=128,
)
HELLO = [{"role": "user", "content": "Hello"}]


def asked(**parameters: Any) -> InferenceRequest | Refusal:
    return chat(json.dumps({"model": "gpt-4", "messages": HELLO, **parameters}).encode(), RULES)


def refused(result: InferenceRequest | Refusal) -> Refusal:
    assert isinstance(result, Refusal), result
    assert result.reason is Reason.INVALID_REQUEST
    assert result.param is not None
    assert f"'{result.param}'" in result.message
    return result


FUNCTION = {"name": "get_weather-2", "description": "d", "parameters": {"type": "object"}, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}
SCHEMA = {"name": "answer", "schema": {"type": "object"}, "strict": None}

FINE: dict[str, list[Any]] = {
    "max_tokens": [1, 131072, 500.0],
    "max_completion_tokens": [1, 10**9],
    "temperature": [0, 2, 0.7, 2.0, -0.0],
    "top_p": [0, 1, 0.5],
    "frequency_penalty": [-2, 2, 0.1],
    "presence_penalty": [-2.0, 2.0, 0],
    "stop": ["END", "", ["a"], ["a", "b", "c", "d"]],
    "seed": [0, -1, 42, 2**63 - 1, -(2**63), 1.0],
    "stream": [True, False],
    "n": [1, 128, 1.0],
    "logprobs": [True, False],
    "logit_bias": [{}, {"50256": -100, "1": 100, "2": 0.5}],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max", "default"],
    "verbosity": ["low", "medium", "high"],
    "service_tier": ["auto", "default", "flex", "scale", "priority", "fast", "on_demand"],
    "modalities": [["text"], ["text", "audio"], ["image", "text"]],
    "audio": [{"format": "wav", "voice": "alloy"}, {"format": "mp3", "voice": {"id": "voice_1"}}],
    "prediction": [
        {"type": "content", "content": "x"},
        {"type": "content", "content": [{"type": "text", "text": "x"}]},
        {"type": "new"},
    ],
    "tools": [
        [TOOL],
        [{"type": "function", "function": {"name": "f" * 64, "parameters": None, "description": None}}],
        [{"type": "custom", "custom": {"name": "any name"}}],
        [{"type": "web_search"}],
        [TOOL] * 300,
        [],
    ],
    "tool_choice": [
        "none",
        "auto",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "f"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}},
        {"type": "new"},
    ],
    "parallel_tool_calls": [True, False],
    "store": [True, False],
    "functions": [[FUNCTION], [{"name": "f"}] * 128],
    "function_call": ["none", "auto", {"name": "f"}],
    "response_format": [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": SCHEMA},
        {"type": "json_schema", "schema": {"type": "object"}},
        {"type": "structural_tag", "structures": []},
    ],
    "metadata": [{}, {"k" * 64: "v" * 512}, {str(i): "" for i in range(16)}],
    "safety_identifier": ["", "x" * 128],
    "prompt_cache_key": ["k"],
    "user": ["u", "é" * 300],
    "prompt_cache_options": [{"mode": "explicit", "new": 1}],
    "moderation": [{"model": "omni-moderation-latest"}],
    "web_search_options": [{}, {"search_context_size": "low"}],
    "top_k": [40, "new", None, [1e308]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in FINE for value in FINE[name]])
def test_within_bounds(name: str, value: Any) -> None:
    assert isinstance(result := asked(**{name: value}), InferenceRequest), result


@pytest.mark.parametrize("name", sorted({*FINE, "top_logprobs", "stream_options"}))
def test_null_is_absent(name: str) -> None:
    assert isinstance(result := asked(**{name: None}), InferenceRequest), result


def test_the_tables_here_cover_every_parameter() -> None:
    elsewhere = {"messages", "stream_options", "top_logprobs"}
    assert set(PARAMETERS) == (set(FINE) - {"top_k"}) | elsewhere


NUMBERS = [
    ("temperature", -0.01, 2.01, "between 0 and 2", "decimal"),
    ("top_p", -1, 1.5, "between 0 and 1", "decimal"),
    ("frequency_penalty", -2.1, 3, "between -2 and 2", "decimal"),
    ("presence_penalty", -3, 2.000001, "between -2 and 2", "decimal"),
    ("max_tokens", 0, 131073, "between 1 and 131072", "integer"),
    ("n", 0, 129, "between 1 and 128", "integer"),
    ("seed", -(2**64), 2**64, f"between -{2**63} and {2**63}", "integer"),
    ("max_completion_tokens", 0, None, "at least 1", "integer"),
]


@pytest.mark.parametrize(("name", "low", "high", "range_", "word"), NUMBERS)
def test_numbers_out_of_bounds(name: str, low: float, high: float | None, range_: str, word: str) -> None:
    below = refused(asked(**{name: low}))
    assert (below.param, below.code) == (name, f"{word}_below_min_value")
    assert range_ in below.message
    if high is not None:
        above = refused(asked(**{name: high}))
        assert (above.param, above.code) == (name, f"{word}_above_max_value")
        assert range_ in above.message


@pytest.mark.parametrize("name", [row[0] for row in NUMBERS])
@pytest.mark.parametrize("value", ["1", True, False, [], {}])
def test_what_is_no_number(name: str, value: Any) -> None:
    refusal = refused(asked(**{name: value}))
    assert (refusal.param, refusal.code) == (name, "invalid_type")
    assert next(row[3] for row in NUMBERS if row[0] == name) in refusal.message


@pytest.mark.parametrize("name", [row[0] for row in NUMBERS])
@pytest.mark.parametrize("literal", ["1e999", "-1e999", "9" * 4000, "9" * 5000])
def test_numbers_beyond_all_bounds(name: str, literal: str) -> None:
    result = chat(f'{{"model":"m","{name}":{literal},"messages":[]}}'.encode(), RULES)
    assert isinstance(result, Refusal)
    open_ended = name == "max_completion_tokens" and literal == "9" * 4000
    assert result.param == ("messages" if open_ended else None if len(literal) == 5000 else name)
    assert result.code in ("empty_array", "invalid_json") or str(result.code).endswith("_value")
    assert len(result.message) < 300


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n", "seed"])
def test_integers_have_no_fraction(name: str) -> None:
    assert refused(asked(**{name: 1.5})).code == "invalid_type"


@pytest.mark.parametrize(
    ("name", "value", "param", "code", "says"),
    [
        ("stop", [], "stop", "empty_array", "1 to 4 strings"),
        ("stop", ["a"] * 5, "stop", "array_above_max_length", "1 to 4 strings"),
        ("stop", ["a", 1], "stop[1]", "invalid_type", "a string"),
        ("stop", [None], "stop[0]", "invalid_type", "a string"),
        ("stop", 1, "stop", "invalid_type", "1 to 4 strings"),
        ("stream", 1, "stream", "invalid_type", "true or false"),
        ("stream", "true", "stream", "invalid_type", "true or false"),
        ("logprobs", 3, "logprobs", "invalid_type", "true or false"),
        ("store", "yes", "store", "invalid_type", "true or false"),
        ("parallel_tool_calls", 0, "parallel_tool_calls", "invalid_type", "true or false"),
        ("logit_bias", [], "logit_bias", "invalid_type", "between -100 and 100"),
        ("logit_bias", {"5": 100.5}, "logit_bias.5", "decimal_above_max_value", "between -100 and 100"),
        ("logit_bias", {"5": "1"}, "logit_bias.5", "invalid_type", "between -100 and 100"),
        ("reasoning_effort", "huge", "reasoning_effort", "invalid_value", "'medium'"),
        ("reasoning_effort", 3, "reasoning_effort", "invalid_type", "'medium'"),
        ("verbosity", "loud", "verbosity", "invalid_value", "'low', 'medium', 'high'"),
        ("service_tier", "gold", "service_tier", "invalid_value", "'flex'"),
        ("modalities", "text", "modalities", "invalid_type", "'audio'"),
        ("modalities", ["text", "smell"], "modalities[1]", "invalid_value", "'audio'"),
        ("audio", {"format": "wav"}, "audio.voice", "missing_required_parameter", ""),
        ("audio", {"voice": {}, "format": "wav"}, "audio.voice.id", "missing_required_parameter", ""),
        ("audio", {"voice": "a", "format": 1}, "audio.format", "invalid_type", "a string"),
        ("prediction", {}, "prediction.type", "missing_required_parameter", ""),
        ("prediction", {"type": "content"}, "prediction.content", "missing_required_parameter", ""),
        ("prediction", {"type": 1}, "prediction.type", "invalid_type", "'content'"),
        ("tools", {}, "tools", "invalid_type", "an array"),
        ("tools", [TOOL, {}], "tools[1].type", "missing_required_parameter", ""),
        ("tools", [{"type": "function"}], "tools[0].function", "missing_required_parameter", ""),
        (
            "tools",
            [{"type": "custom", "custom": {}}],
            "tools[0].custom.name",
            "missing_required_parameter",
            "",
        ),
        ("tool_choice", "maybe", "tool_choice", "invalid_value", "'required'"),
        ("tool_choice", 1, "tool_choice", "invalid_type", "'required'"),
        ("tool_choice", {"type": "function"}, "tool_choice.function", "missing_required_parameter", ""),
        (
            "tool_choice",
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
            "tool_choice.allowed_tools.mode",
            "invalid_value",
            "'required'",
        ),
        ("functions", [], "functions", "empty_array", "1 to 128"),
        ("functions", [{"name": "f"}] * 129, "functions", "array_above_max_length", "1 to 128"),
        ("functions", [{}], "functions[0].name", "missing_required_parameter", ""),
        ("function_call", "required", "function_call", "invalid_value", "'auto'"),
        ("function_call", {}, "function_call.name", "missing_required_parameter", ""),
        ("response_format", "json_object", "response_format", "invalid_type", "an object"),
        ("response_format", {}, "response_format.type", "missing_required_parameter", ""),
        ("response_format", {"type": "xml"}, "response_format.type", "invalid_value", "'json_schema'"),
        (
            "response_format",
            {"type": "json_schema"},
            "response_format.json_schema",
            "missing_required_parameter",
            "",
        ),
        (
            "metadata",
            {str(i): "" for i in range(17)},
            "metadata",
            "object_above_max_properties",
            "at most 16",
        ),
        ("metadata", {"a": "v" * 513}, "metadata.a", "string_above_max_length", "at most 512"),
        ("metadata", {"a": 1}, "metadata.a", "invalid_type", "at most 512"),
        ("safety_identifier", "x" * 129, "safety_identifier", "string_above_max_length", "at most 128"),
        ("user", 7, "user", "invalid_type", "a string"),
        ("prompt_cache_key", [], "prompt_cache_key", "invalid_type", "a string"),
        ("web_search_options", True, "web_search_options", "invalid_type", "an object"),
    ],
)
def test_out_of_bounds(name: str, value: Any, param: str, code: str, says: str) -> None:
    refusal = refused(asked(**{name: value}))
    assert (refusal.param, refusal.code) == (param, code)
    assert says in refusal.message


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "empty_string"),
        ("f" * 65, "string_above_max_length"),
        ("get weather", "invalid_value"),
        ("é", "invalid_value"),
        ("f\n", "invalid_value"),
        (7, "invalid_type"),
        (None, "invalid_type"),
    ],
)
def test_names_of_functions_and_schemas(name: Any, code: str) -> None:
    for param, parameters in (
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {"name": name}}]}),
        ("functions[0].name", {"functions": [{"name": name}]}),
        (
            "response_format.json_schema.name",
            {"response_format": {"type": "json_schema", "json_schema": {"name": name}}},
        ),
    ):
        refusal = refused(asked(**parameters))
        assert (refusal.param, refusal.code) == (param, code)
        assert "1 to 64 characters" in refusal.message


@pytest.mark.parametrize("value", [-1, 21, 0.5, "5", True])
def test_top_logprobs_bounds(value: Any) -> None:
    refusal = refused(asked(logprobs=True, top_logprobs=value))
    assert refusal.param == "top_logprobs"
    assert "between 0 and 20" in refusal.message


def test_top_logprobs_needs_logprobs() -> None:
    for logprobs in ({}, {"logprobs": False}, {"logprobs": None}):
        refusal = refused(asked(top_logprobs=5, **logprobs))
        assert refusal.param == "top_logprobs"
        assert "'logprobs': true" in refusal.message
    for value in (0, 20, 5.0):
        assert isinstance(asked(top_logprobs=value, logprobs=True), InferenceRequest)


def test_stream_options_need_stream() -> None:
    for stream in ({}, {"stream": False}, {"stream": None}):
        assert refused(asked(stream_options={"include_usage": True}, **stream)).param == "stream_options"
    for options in ({}, {"include_usage": False, "include_obfuscation": True}, {"include_usage": None}):
        assert isinstance(asked(stream=True, stream_options=options), InferenceRequest)
    assert refused(asked(stream=True, stream_options=[])).param == "stream_options"
    refusal = refused(asked(stream=True, stream_options={"include_usage": 1}))
    assert refusal.param == "stream_options.include_usage"


def test_stream_only_where_the_upstream_can() -> None:
    plain = replace(RULES, can_stream=False)
    body = {"model": "m", "messages": HELLO, "stream": True}
    refusal = refused(chat(json.dumps(body).encode(), plain))
    assert (refusal.param, refusal.code) == ("stream", "unsupported_value")
    body["stream"] = False
    assert isinstance(chat(json.dumps(body).encode(), plain), InferenceRequest)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"temperature":3,"top_p":2,"messages":[],"model":""}', "temperature"),
        ('{"top_p":2,"temperature":3,"messages":[],"model":""}', "top_p"),
        ('{"messages":[],"temperature":3}', "messages"),
        ('{"model":"","messages":[]}', "model"),
        ('{"n":0}', "n"),
        ('{"unknown":[],"messages":[{"role":"user","content":1},{"role":1}],"n":0}', "messages[0].content"),
        ('{"tools":[{"type":"function","function":{"strict":1,"name":""}}]}', "tools[0].function.strict"),
        ('{"tools":[{"type":"function","function":{"name":"","strict":1}}]}', "tools[0].function.name"),
        ('{"top_logprobs":1,"n":0}', "top_logprobs"),
    ],
)
def test_the_first_fault_in_the_requests_own_order_is_named(body: str, param: str) -> None:
    assert refused(chat(body.encode(), RULES)).param == param


def test_no_message_carries_content_or_grows_with_it() -> None:
    secret = "a private prompt " * 50
    for parameters in (
        {"stop": [secret] * 5},
        {"user": [secret]},
        {"metadata": {"k": secret}},
        {"safety_identifier": secret},
        {"messages": [{"role": "user", "content": {"text": secret}}]},
    ):
        assert "private" not in refused(asked(**parameters)).message
    assert len(refused(asked(verbosity=secret)).message) < 300
    long_key = refused(asked(metadata={"\ud800\n" * 500: "v"}))
    assert len(long_key.message.encode()) < 800
    assert long_key.code == "string_above_max_length"


@pytest.mark.parametrize(
    "body",
    [
        {
            "model": "gpt-3.5-turbo",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        },
        {
            "model": "gpt-4",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "Explain quantum computing in simple terms."},
            ],
            "max_tokens": 500,
            "temperature": 0.7,
            "top_p": 0.9,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.1,
            "stop": ["END", "STOP"],
            "seed": 42,
        },
        {
            "model": "gpt-4",
            "messages": [{"role": "user", "content": "Write a short story about a robot."}],
            "stream": True,
            "max_tokens": 200,
        },
        {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Count to 5"}], "stream": True},
    ],
)
def test_the_specifications_examples_pass(body: dict[str, Any]) -> None:
    raw = json.dumps(body, indent=2).encode()
    result = chat(raw, RULES)
    assert isinstance(result, InferenceRequest)
    assert result.body is raw


@pytest.mark.parametrize(
    ("parameter", "range_"),
    [
        ({"temperature": 3.0}, "between 0 and 2, but got 3.0"),
        ({"top_p": 1.5}, "between 0 and 1, but got 1.5"),
    ],
)
def test_the_specifications_invalid_examples_are_refused(parameter: dict[str, float], range_: str) -> None:
    refusal = refused(asked(**parameter))
    assert [refusal.param] == list(parameter)
    assert range_ in refusal.message
