"""Properties of the validator over any body: it always answers, and what it lets pass is what came.

Any bytes and any JSON object, also with broken surrogates, odd blanks and escapes, under several rules. Of what
passes, the body that goes up holds what came and the additions, and without additions it is the very bytes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inference_sidecar.records import InferenceRequest, Refusal, Rules
from inference_sidecar.validate import chat, passthrough
from inference_sidecar.validate.parameters import PARAMETERS

RULES = Rules(
    strict=True,
    default_model=None,
    model_required=True,
    allowed=None,
    inject_usage=True,
    can_stream=True,
    max_depth=64,
)
EVERY_KIND = [
    RULES,
    replace(RULES, default_model="gpt-4", allowed=lambda model: "g" in model),
    replace(RULES, default_model="ünïcode", inject_usage=False),
    replace(RULES, model_required=False, can_stream=False, max_depth=2),
    replace(RULES, strict=False),
    replace(RULES, strict=False, allowed=lambda model: "g" in model),
]

any_text = st.text(st.characters(), max_size=12)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
blanks = st.text(" \t\r\n", max_size=2)

content = any_text | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": any_text}), min_size=1)
good_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "developer"]), "content": content}
)
good_members: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.none() | st.floats(0, 2),
    "n": st.none() | st.integers(1, 128),
    "stream": st.none() | st.booleans(),
    "user": st.none() | any_text,
    "an unknown one": any_json,
    "ünknöwn": any_json,
}
good_body = st.fixed_dictionaries(
    {"messages": st.lists(good_message, min_size=1, max_size=3)},
    optional={**good_members, "model": st.none() | st.sampled_from(["gpt-4", "größe"])},
)
streaming_body = st.fixed_dictionaries(
    {
        "messages": st.lists(good_message, min_size=1, max_size=3),
        "stream": st.just(True),
        "stream_options": st.none()
        | st.fixed_dictionaries({}, optional={"include_usage": st.none() | st.booleans(), "other": any_json}),
    },
    optional={"ünknöwn": any_json, "model": st.just("gpt-4")},
)
odd_body = st.dictionaries(
    st.sampled_from([*PARAMETERS, "model", "Model"]) | any_text, any_json | good_message, max_size=6
)


@st.composite
def written(draw: st.DrawFn, bodies: st.SearchStrategy[dict[str, Any]]) -> bytes:
    """A body as JSON in one of many spellings: order, blanks, escapes."""
    body = draw(bodies)
    names = draw(st.permutations(list(body)))
    ascii_only = draw(st.booleans())
    before, after = draw(blanks), draw(blanks)

    def spelled(value: object) -> str:
        text = json.dumps(value, ensure_ascii=ascii_only)
        # Half of a surrogate pair has no UTF-8; JSON can only escape it.
        return text if text.isascii() or text.isprintable() else json.dumps(value)

    members = (f"{before}{spelled(name)}{after}:{before}{spelled(body[name])}{after}" for name in names)
    return f"{after}{{{','.join(members)}}}{before}".encode()


def check_refusal(refusal: Refusal) -> None:
    for text in (refusal.message, refusal.param or "", refusal.code or ""):
        assert text.encode() is not None
        assert len(text) < 1000
    assert refusal.code


def additions(came: dict[str, Any], rules: Rules, request: InferenceRequest) -> dict[str, Any]:
    """What should go up: the body that came, completed by rules that are told here anew."""
    expected = dict(came)
    if expected.get("model") is None and rules.default_model is not None:
        expected["model"] = rules.default_model
    assert json.loads(request.original) == expected
    if rules.inject_usage and expected.get("stream") is True:
        expected["stream_options"] = {**(expected.get("stream_options") or {}), "include_usage": True}
    return expected


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text('{}[]",:\\ueE+-.019 \n\ttruefalsnNI', max_size=60).map(str.encode))
def test_any_bytes_get_an_answer(raw: bytes) -> None:
    for rules in EVERY_KIND:
        for result in (chat(raw, rules), passthrough(raw, rules)):
            if isinstance(result, Refusal):
                check_refusal(result)


@settings(deadline=None)
@given(written(odd_body | good_body | streaming_body))
def test_any_object_gets_an_answer_and_goes_up_as_it_came(raw: bytes) -> None:
    came = json.loads(raw)
    for rules in EVERY_KIND:
        passing = passthrough(raw, rules)
        assert isinstance(passing, Refusal) or passing.body is passing.original is raw
        result = chat(raw, rules)
        if isinstance(result, Refusal):
            check_refusal(result)
        elif not rules.strict:
            assert result.body is result.original is raw
        else:
            expected = additions(came, rules, result)
            assert json.loads(result.body) == expected
            if expected == came:
                assert result.body is result.original is raw


@settings(deadline=None)
@given(written(good_body | streaming_body))
def test_good_bodies_pass_and_keep_their_bytes(raw: bytes) -> None:
    rules = replace(RULES, default_model="größer")
    result = chat(raw, rules)
    assert isinstance(result, InferenceRequest), result
    came = json.loads(raw)
    assert json.loads(result.body) == additions(came, rules, result)
    asked = (came.get("stream_options") or {}).get("include_usage") is True
    assert result.usage_hidden == (result.stream and not asked)
    options = came.get("stream_options", {})
    if (
        came.get("model", "") is not None
        and options is not None
        and options.get("include_usage", True) is True
    ):
        # Nothing had to be replaced: all that came is there, in its order.
        going_up = iter(result.body)
        assert all(byte in going_up for byte in raw)
