"""The validator as a whole: JSON that cannot be read, models, what is added to a body, other endpoints.

Aspects: encodings, syntax, depth and numbers; the model that is absent, null, double, restricted; splices byte
for byte; what is learned; validation off; pass-through. Left to the files beside this one: each parameter's
bounds, messages, and properties over any body.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import replace

import pytest

from inference_sidecar.records import InferenceRequest, Reason, Refusal, Rules
from inference_sidecar.validate import chat, model_allowed, passthrough

RULES = Rules(
    strict=True,
    default_model=None,
    model_required=True,
    allowed=None,
    inject_usage=True,
    can_stream=True,
    max_depth=16,
)
OFF = replace(RULES, strict=False)
ONLY_GPT = replace(RULES, allowed=lambda model: model.startswith("gpt-"))
DEFAULT = replace(RULES, default_model='gpt-"4"')

MESSAGES = b'"messages":[{"role":"user","content":"\xc3\xa9"}]'


def passed(result: InferenceRequest | Refusal) -> InferenceRequest:
    assert isinstance(result, InferenceRequest), result
    return result


def refused(result: InferenceRequest | Refusal) -> Refusal:
    assert isinstance(result, Refusal), result
    return result


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", "invalid_json", "is empty"),
        (b" \r\n\t", "invalid_json", "is empty"),
        (codecs.BOM_UTF8 + b"{}", "invalid_encoding", "byte order mark"),
        ("{}".encode("utf-16"), "invalid_encoding", "byte order mark"),
        ("{}".encode("utf-16-be"), "invalid_encoding", "UTF-8"),
        ('{"a": 1}'.encode("utf-32-le"), "invalid_encoding", "UTF-8"),
        (b'{"a":"\xff"}', "invalid_encoding", "at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_encoding", "at byte 6"),
        (b"[1]", "invalid_type", "but is an array"),
        (b"null", "invalid_type", "but is null"),
        (b'"{}"', "invalid_type", "but is a string"),
        (b"{", "invalid_json", "line 1, column 2"),
        (b"{}{}", "invalid_json", "Extra data at line 1, column 3"),
        (b'{"a":1,}', "invalid_json", "line 1, column 8"),
        (b'{\n "a" 1}', "invalid_json", "Expecting ':' delimiter at line 2, column 6"),
        (b'{"a":1 "b":2}', "invalid_json", "Expecting ',' delimiter at line 1, column 8"),
        (b"{a:1}", "invalid_json", "column 2"),
        (b"{1:1}", "invalid_json", "column 2"),
        (b'{"a":}', "invalid_json", "column 6"),
        (b'{"a":"\x01"}', "invalid_json", "control character at line 1, column 7"),
        (b'{"a":NaN}', "invalid_json", "NaN"),
        (b'{"a":[-Infinity]}', "invalid_json", "-Infinity"),
        (b'{"a":1' + b"0" * 5000 + b"}", "invalid_json", "digits"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, code: str, says: str) -> None:
    refusal = refused(chat(body, RULES))
    assert (refusal.reason, refusal.param, refusal.code) == (Reason.INVALID_REQUEST, None, code)
    assert says in refusal.message


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_with_the_root_counted(pair: tuple[str, str]) -> None:
    def nested(levels: int) -> bytes:
        inner = pair[0] * levels + "1" + pair[1] * levels
        return f'{{"model":"m","extra":{inner},{MESSAGES.decode()}}}'.encode()

    assert passed(chat(nested(15), RULES))
    for levels in (16, 200, 100_000):
        assert refused(chat(nested(levels), RULES)).code == "json_too_deep"
        assert refused(passthrough(nested(levels), RULES)).code == "json_too_deep"
    assert "at most 16 levels" in refused(chat(nested(16), RULES)).message


def test_wide_is_not_deep() -> None:
    extra = json.dumps([{"a": [[]]}] * 500)
    assert passed(chat(b'{"model":"m","extra":' + extra.encode() + b"," + MESSAGES + b"}", RULES))
    # Behind a plain first item, so that an array is not judged by it.
    behind = "[1," * 20 + "1" + "]" * 20
    body = b'{"model":"m","extra":' + behind.encode() + b"," + MESSAGES + b"}"
    assert refused(chat(body, RULES)).code == "json_too_deep"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m",' + MESSAGES + b"}",
        b' \r\n{ "model" : "m" ,\t"new_in_may" : {"x":[1.0,1e2]} ,' + MESSAGES + b" } \n",
        b'{"mod\\u0065l":"\\u006d","stream":false,"n":2.0,' + MESSAGES + b"}",
    ],
)
def test_a_body_without_additions_goes_up_as_the_very_bytes(body: bytes) -> None:
    request = passed(chat(body, RULES))
    assert request.body is body
    assert request.original is body
    assert request.model == "m"
    assert not request.stream
    assert not request.usage_hidden


@pytest.mark.parametrize(
    ("body", "up"),
    [
        (b"{" + MESSAGES + b"}", b'{"model":"gpt-\\"4\\"",' + MESSAGES + b"}"),
        (b"\n { " + MESSAGES + b"}", b'\n {"model":"gpt-\\"4\\"", ' + MESSAGES + b"}"),
        (
            b"{" + MESSAGES + b',"mod\\u0065l" : null , "user":"\xc3\xa9"}',
            b"{" + MESSAGES + b',"mod\\u0065l" : "gpt-\\"4\\"" , "user":"\xc3\xa9"}',
        ),
        (b'{"model":"m",' + MESSAGES + b"}", b'{"model":"m",' + MESSAGES + b"}"),
    ],
)
def test_the_default_model_is_put_where_none_is(body: bytes, up: bytes) -> None:
    request = passed(chat(body, DEFAULT))
    assert request.body == request.original == up
    assert request.model == json.loads(up)["model"]


@pytest.mark.parametrize("model", [b"", b'"model":null,'])
def test_no_model_and_no_default(model: bytes) -> None:
    body = b"{" + model + MESSAGES + b"}"
    refusal = refused(chat(body, RULES))
    assert (refusal.param, refusal.code) == ("model", "missing_required_parameter")
    named_by_url = passed(chat(body, replace(RULES, model_required=False)))
    assert named_by_url.body is body
    assert named_by_url.model is None


def test_a_body_without_anything_names_model_before_messages() -> None:
    assert refused(chat(b"{ }", RULES)).param == "model"
    assert refused(chat(b"{ }", DEFAULT)).param == "messages"
    assert refused(chat(b'{"model":"m"}', RULES)).code == "missing_required_parameter"


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (b'""', "empty_string"),
        (b"7", "invalid_type"),
        (b'["m"]', "invalid_type"),
        (b'"\\ud800"', "invalid_value"),
    ],
)
def test_a_model_that_is_none(model: bytes, code: str) -> None:
    for rules in (RULES, DEFAULT, ONLY_GPT, replace(OFF, allowed=lambda _: True)):
        refusal = refused(chat(b'{"model":' + model + b"," + MESSAGES + b"}", rules))
        assert (refusal.reason, refusal.param, refusal.code) == (Reason.INVALID_REQUEST, "model", code)


@pytest.mark.parametrize(
    "twice",
    [
        b'"model":"gpt-4","model":"gpt-4"',
        b'"model":"gpt-4","mod\\u0065l":"o1"',
        b'"model":null,"model":"gpt-4"',
    ],
)
@pytest.mark.parametrize("rules", [RULES, DEFAULT, ONLY_GPT, replace(OFF, allowed=lambda _: True)])
def test_a_model_given_twice_is_refused(twice: bytes, rules: Rules) -> None:
    body = b"{" + twice + b"," + MESSAGES + b"}"
    assert refused(chat(body, rules)).code == "duplicate_parameter"
    assert refused(passthrough(body, rules)).param == "model"


@pytest.mark.parametrize("name", [b"Model", b"MODEL", b"m\\u004Fdel"])
def test_where_models_are_restricted_no_other_spelling_of_model_passes(name: bytes) -> None:
    body = b'{"model":"gpt-4","' + name + b'":"o1",' + MESSAGES + b"}"
    for rules in (ONLY_GPT, replace(ONLY_GPT, strict=False)):
        assert refused(chat(body, rules)).code == "unknown_parameter"
        assert refused(passthrough(body, rules)).code == "unknown_parameter"
    assert passed(chat(body, RULES)).body is body


def test_a_model_that_is_not_allowed() -> None:
    body = b'{"model":"o1",' + MESSAGES + b"}"
    for result in (
        chat(body, ONLY_GPT),
        chat(body, replace(ONLY_GPT, strict=False)),
        passthrough(body, ONLY_GPT),
        model_allowed("o1", ONLY_GPT),
        chat(b"{" + MESSAGES + b"}", replace(ONLY_GPT, default_model="o1")),
    ):
        assert isinstance(result, Refusal)
        assert (result.reason, result.param, result.code) == (
            Reason.MODEL_NOT_ALLOWED,
            "model",
            "model_not_allowed",
        )
        assert "'o1'" in result.message
    assert passed(chat(b'{"model":"gpt-4",' + MESSAGES + b"}", ONLY_GPT)).model == "gpt-4"
    assert model_allowed("gpt-4", ONLY_GPT) is None
    assert model_allowed("o1", RULES) is None


def test_a_long_or_odd_model_is_cut_and_escaped_in_the_message() -> None:
    refusal = model_allowed("o\n\ud800\u202e" + "x" * 500, ONLY_GPT)
    assert refusal is not None
    assert len(refusal.message.encode()) < 250
    assert refusal.message.isprintable()


STREAM = b'"model":"m","stream":true,' + MESSAGES


@pytest.mark.parametrize(
    ("body", "up"),
    [
        (b"{" + STREAM + b"}", b'{"stream_options":{"include_usage":true},' + STREAM + b"}"),
        (
            b"{" + STREAM + b', "stream_options" : null }',
            b"{" + STREAM + b', "stream_options" : {"include_usage":true} }',
        ),
        (
            b"{" + STREAM + b',"stream_options":{ }}',
            b"{" + STREAM + b',"stream_options":{"include_usage":true }}',
        ),
        (
            b"{" + STREAM + b',"stream_options":{ "new":"\xc3\xa9"}, "x":1}',
            b"{" + STREAM + b',"stream_options":{"include_usage":true, "new":"\xc3\xa9"}, "x":1}',
        ),
        (
            b'{"stream_options": { "include_usage" : false , "x":1},' + STREAM + b"}",
            b'{"stream_options": { "include_usage" : true , "x":1},' + STREAM + b"}",
        ),
        (
            b"{" + STREAM + b',"stream_options":{"include_usage":null}}',
            b"{" + STREAM + b',"stream_options":{"include_usage":true}}',
        ),
        (
            b"{" + STREAM + b',"stream_options":{"include_usage":true,"include_usage":false}}',
            b"{" + STREAM + b',"stream_options":{"include_usage":true,"include_usage":true}}',
        ),
    ],
)
def test_usage_is_asked_for_where_the_app_did_not(body: bytes, up: bytes) -> None:
    request = passed(chat(body, RULES))
    assert request.body == up
    assert request.original is body
    assert request.stream
    assert request.usage_hidden

    shown = passed(chat(body, RULES, usage_shown=True))
    assert shown.body == up
    assert not shown.usage_hidden

    off = passed(chat(body, replace(RULES, inject_usage=False)))
    assert off.body is body
    assert not off.usage_hidden


def test_usage_that_the_app_asked_for_is_the_apps() -> None:
    body = b"{" + STREAM + b',"stream_options":{"include_usage":true}}'
    for shown in (False, True):
        request = passed(chat(body, RULES, usage_shown=shown))
        assert request.body is body
        assert not request.usage_hidden


def test_both_additions_at_once() -> None:
    body = b'{"stream":true,"user":"\xf0\x9f\x98\x80",' + MESSAGES + b',"stream_options":null}'
    request = passed(chat(body, replace(RULES, default_model="d")))
    assert request.original == b'{"model":"d",' + body[1:]
    assert request.body == request.original.replace(b"null", b'{"include_usage":true}')
    plain = passed(chat(b'{"stream":true,' + MESSAGES + b"}", replace(RULES, default_model="d")))
    assert plain.body.startswith(b'{"model":"d","stream_options":{"include_usage":true},"stream":true,')


def test_places_are_found_again_among_bytes_of_any_width() -> None:
    wide = ("é€😀" * 50).encode()
    body = b'{"user":"' + wide + b'","stream":true,"model":null,"user":"' + wide + b'",' + MESSAGES + b"}"
    request = passed(chat(body, replace(RULES, default_model="d")))
    assert request.original == body.replace(b'"model":null', b'"model":"d"')
    assert request.body == b'{"stream_options":{"include_usage":true},' + request.original[1:]


def test_what_is_learned() -> None:
    request = passed(chat(b'{"model":"m","n":3.0,"stream":true,' + MESSAGES + b"}", RULES))
    assert (request.model, request.stream, request.choices) == ("m", True, 3)
    nothing = passed(chat(b'{"model":"m","n":null,"stream":null,' + MESSAGES + b"}", RULES))
    assert (nothing.stream, nothing.choices) == (False, 1)


def test_of_a_parameter_given_twice_both_are_checked_and_the_last_counts() -> None:
    assert refused(chat(b'{"model":"m","n":200,"n":2,' + MESSAGES + b"}", RULES)).param == "n"
    assert passed(chat(b'{"model":"m","n":3,"n":2,' + MESSAGES + b"}", RULES)).choices == 2


def test_of_stream_options_given_twice_the_last_is_completed() -> None:
    asked, silent = b'"stream_options":{"include_usage":true}', b'"stream_options":{}'
    request = passed(chat(b"{" + STREAM + b"," + asked + b"," + silent + b"}", RULES))
    assert request.body == b"{" + STREAM + b"," + asked + b"," + asked + b"}"
    other_way = b"{" + STREAM + b"," + silent + b"," + asked + b"}"
    assert passed(chat(other_way, RULES)).body is other_way


def test_validation_off_leaves_a_body_unread() -> None:
    for body in (b"", b"\xff{", b"[" * 100_000, b'{"model":"a","model":"b"}'):
        for read in (chat, passthrough):
            request = passed(read(body, OFF))
            assert request.body is body
            assert request.original is body


def test_validation_off_with_restricted_models_looks_at_the_model_alone() -> None:
    rules = replace(ONLY_GPT, strict=False, default_model="gpt-4")
    body = b'{"model":"gpt-4","temperature":9,"n":"x","stream":true,"odd":NaN}'
    request = passed(chat(body, rules))
    assert request.body is body
    assert (request.model, request.stream, request.choices, request.usage_hidden) == ("gpt-4", True, 1, False)
    assert passed(chat(b'{"n":4}', rules)).body == b'{"n":4}'
    assert refused(chat(b"{", rules)).code == "invalid_json"


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"{", b"\xff", b"[1]", b'{"a":NaN}', b'{"model":7}', b'{"model":""}', b'{"n":-1}']
)
def test_pass_through_leaves_bodies_alone(body: bytes) -> None:
    request = passed(passthrough(body, DEFAULT))
    assert request.body is body
    assert (request.model or None, request.stream, request.choices) == (None, False, 1)


def test_pass_through_learns_leniently() -> None:
    request = passed(passthrough(b'{"model":"text-1","stream":true,"input":"x"}', DEFAULT))
    assert (request.model, request.stream) == ("text-1", True)
    assert not passed(passthrough(b'{"stream":1}', DEFAULT)).stream
    assert passed(passthrough(b'{"model":"\\ud800"}', DEFAULT)).model is None


def test_pass_through_where_models_are_restricted() -> None:
    for body in (b"", b"{}", b'{"model":null}', b'{"input":[NaN]}', b'{"model":"gpt-4","temperature":9}'):
        assert passed(passthrough(body, ONLY_GPT)).body is body
    for body in (b"{", b"\xff", b'[{"model":"o1"}]', b'{"model":7}', codecs.BOM_UTF8 + b'{"model":"o1"}'):
        assert refused(passthrough(body, ONLY_GPT)).reason is Reason.INVALID_REQUEST
