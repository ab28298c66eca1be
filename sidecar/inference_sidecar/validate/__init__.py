"""Bytes → InferenceRequest, or a refusal.

Enters: a whole body and the config's `Rules`. Leaves: an `InferenceRequest` whose body is the very bytes that
came, but for the default model and the wish for usage, or a `Refusal` of the first fault in the request's own
order; what is missing comes after all that is present.
Must not do I/O, write logs, or encode anything anew that the app wrote itself.

    checks      small checks, put together into shapes
    messages    roles and their content
    parameters  every parameter of a chat request and its bounds
    body        the JSON reader that keeps order, duplicates and places, and the splicer
"""

from __future__ import annotations

import json
from typing import Any

from ..records import InferenceRequest, Reason, Refusal, Rules
from .body import TOO_DEEP, Body, Edit, Member, members_of, read, splice
from .checks import Fault, invalid, missing, shown, step, wrong_type
from .parameters import PARAMETERS

TOLD = frozenset({
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "seed", "stop", "service_tier", "encoding_format", "dimensions",
})  # fmt: skip
"""Members of a body that traces tell of (`telemetry.span_names.PARAMETERS`)."""

_MODEL = "a non-empty string, the name of a model"


def chat(
    body: bytes, rules: Rules, *, usage_shown: bool = False, text: str | Refusal | None = None
) -> InferenceRequest | Refusal:
    """A chat request, checked and completed. `usage_shown`: the app asked for stream stats, so it sees the
    usage chunk whoever asked for it. `text`: the body, where it was `decoded` before.
    """
    if not rules.strict:
        return _unchecked(body, rules, text)
    parsed = read(body, rules.max_depth, text=text)
    if isinstance(parsed, Refusal):
        return parsed
    values = {member.name: member.value for member in parsed.members}
    refusal = _first_fault(parsed.members, values, rules) or _what_is_missing(values, rules)
    return refusal or _completed(body, parsed, values, rules, usage_shown=usage_shown)


def passthrough(
    body: bytes, rules: Rules, *, text: str | Refusal | None = None
) -> InferenceRequest | Refusal:
    """A JSON body of another endpoint: allowed models and the bounds of JSON hold, all else is left alone.

    Where models are restricted, a body that cannot be read is refused: nobody could tell what it names.
    An empty one names nothing and passes. `text`: the body, where it was `decoded` before.
    """
    return _unchecked(body, rules, text)


def model_allowed(model: str, rules: Rules) -> Refusal | None:
    """Whether apps may use a model, here one that a path names."""
    if rules.allowed is None or rules.allowed(model):
        return None
    message = (
        f"Invalid 'model': {shown(model)} is not allowed. Expected one of the models that /v1/models lists."
    )
    return Refusal(Reason.MODEL_NOT_ALLOWED, message, param="model", code="model_not_allowed")


def _unchecked(body: bytes, rules: Rules, text: str | Refusal | None) -> InferenceRequest | Refusal:
    """The body as it came, with what can be learned from it. Goes up unread where no rule needs a look."""
    untouched = InferenceRequest(body=body, original=body)
    if not rules.read or not body.strip():
        return untouched
    parsed = read(body, rules.max_depth, lenient=True, text=text)
    if isinstance(parsed, Refusal):
        decided = rules.allowed is not None or parsed.code == TOO_DEEP
        return parsed if decided else untouched
    model: str | None = None
    seen = False
    for member in parsed.members:
        if (refusal := _other_model(member, rules, seen=seen)) is not None:
            return refusal
        if member.name == "model":
            seen = True
            if rules.allowed is not None and (refusal := _model(member.value, rules)) is not None:
                return refusal
            model = member.value if isinstance(member.value, str) and _encodable(member.value) else None
    values = {member.name: member.value for member in parsed.members}
    return InferenceRequest(
        body=body,
        original=body,
        model=model,
        stream=values.get("stream") is True,
        choices=_choices(values),
        parameters=_told(values),
    )


def _first_fault(members: list[Member], values: dict[str, Any], rules: Rules) -> Refusal | None:
    seen = False
    for member in members:
        name, value = member.name, member.value
        if (refusal := _other_model(member, rules, seen=seen)) is not None:
            return refusal
        if name == "model":
            seen = True
            if (refusal := _model(value, rules)) is not None:
                return refusal
            continue
        check = PARAMETERS.get(name)
        if check is None or (value is None and name != "messages"):
            continue
        fault = check(value) or _out_of_place(name, values, rules)
        if fault is not None:
            return fault.at(name).refusal()
    return None


def _other_model(member: Member, rules: Rules, *, seen: bool) -> Refusal | None:
    """A second `model`, or where models are restricted one in other letters: an upstream that reads names
    without regard to case, or takes the other of two, would serve a model that was never checked.
    """
    if member.name == "model":
        if not seen:
            return None
        return invalid("given more than once", "it once", "duplicate_parameter").at("model").refusal()
    if rules.allowed is None or member.name.casefold() != "model":
        return None
    tail = ". Expected 'model', in lower case, where models are restricted."
    return Fault("Unknown parameter:", tail, "unknown_parameter", step(member.name)).refusal()


def _model(value: Any, rules: Rules) -> Refusal | None:
    """What may stand as `model`; null is as good as nothing."""
    if value is None:
        return None
    if not isinstance(value, str):
        return wrong_type(_MODEL, value).at("model").refusal()
    if not value:
        return invalid("empty string", _MODEL, "empty_string").at("model").refusal()
    if not _encodable(value):
        return invalid("half of a surrogate pair", _MODEL, "invalid_value").at("model").refusal()
    return model_allowed(value, rules)


def _encodable(text: str) -> bool:
    """JSON can escape half of a surrogate pair; as text it can go nowhere, not even into a log line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _out_of_place(name: str, values: dict[str, Any], rules: Rules) -> Fault | None:
    """Parameters that are fine by themselves, but not beside the others or for this upstream."""
    match name:
        case "top_logprobs" if values.get("logprobs") is not True:
            expected = "an integer between 0 and 20 together with 'logprobs': true"
            return invalid("'logprobs' is not true", expected, "invalid_value")
        case "stream_options" if values.get("stream") is not True:
            return invalid("'stream' is not true", "it only together with 'stream': true", "invalid_value")
        case "stream" if values["stream"] is True and not rules.can_stream:
            return invalid("this upstream cannot stream", "false", "unsupported_value")
        case _:
            return None


def _what_is_missing(values: dict[str, Any], rules: Rules) -> Refusal | None:
    if values.get("model") is None:
        if rules.default_model is not None:
            if (refusal := model_allowed(rules.default_model, rules)) is not None:
                return refusal
        elif rules.model_required:
            return missing("model").refusal()
    return None if "messages" in values else missing("messages").refusal()


def _completed(
    raw: bytes, body: Body, values: dict[str, Any], rules: Rules, *, usage_shown: bool
) -> InferenceRequest:
    """A request without fault, with what the sidecar has to add."""
    model: str | None = values.get("model")
    edits: list[Edit] = []
    if model is None and rules.default_model is not None:
        model = rules.default_model
        edits = [_member_edit(body, "model", json.dumps(model))]
    original = splice(raw, body.text, edits) if edits else raw
    stream = values.get("stream") is True
    options = values.get("stream_options") or {}
    ask = stream and rules.inject_usage and options.get("include_usage") is not True
    return InferenceRequest(
        body=splice(raw, body.text, edits + _usage_edits(body)) if ask else original,
        original=original,
        model=model,
        stream=stream,
        usage_hidden=ask and not usage_shown,
        choices=_choices(values),
        parameters=_told(values),
    )


def _member_edit(body: Body, name: str, new: str) -> Edit:
    """Gives a member that is null or absent its value."""
    found = _last(body.members, name)
    if found is not None:
        return Edit(found.start, found.end, new)
    after = body.opening + 1
    return Edit(after, after, '"' + name + '":' + new + ("," if body.members else ""))


def _usage_edits(body: Body) -> list[Edit]:
    """Asks for usage, and leaves the app's other stream options as they are."""
    options = _last(body.members, "stream_options")
    if options is None or options.value is None:
        return [_member_edit(body, "stream_options", '{"include_usage":true}')]
    inner = members_of(body.text, options.start)
    given = [Edit(member.start, member.end, "true") for member in inner if member.name == "include_usage"]
    after = options.start + 1
    return given or [Edit(after, after, '"include_usage":true' + ("," if inner else ""))]


def _last(members: list[Member], name: str) -> Member | None:
    """Of a member that is given twice the last counts, as nearly every reader has it."""
    for member in reversed(members):
        if member.name == name:
            return member
    return None


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """What traces tell of a request: small members by name. The rest of the body must not outlive its reading."""
    return {name: values[name] for name in values if name in TOLD and type(values[name]) is not dict}


def _choices(values: dict[str, Any]) -> int:
    """`n` where it is one; a request that was not checked may hold anything there."""
    wanted = values.get("n")
    if (
        wanted is None
        or isinstance(wanted, bool)
        or not isinstance(wanted, int | float)
        or not 1 <= wanted <= 128
    ):
        return 1
    return int(wanted)
