"""The vocabulary of the rules: small checks that are put together into the shape of a parameter.

Enters: one value that JSON can hold. Leaves: None where it is fine, else its first `Fault`, in its own order.
Must not know any parameter by name, and must never show what may be a prompt: a fault quotes numbers and
choices only; of all else it tells the type or the length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..records import Reason, Refusal

SHOWN_CHARS = 64
"""A quoted value is cut to this: a message goes into logs and must not carry a body there."""

NAME = re.compile(r"[A-Za-z0-9_-]+")
NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where below the value that was checked.

    The path grows on the way up, so that a request without a fault never pays for one.
    The message is `head`, the path in quotes, `tail`.
    """

    head: str
    tail: str
    code: str
    path: str = ""

    def at(self, step: str) -> Fault:
        """The same fault seen from one level up: `step` is `.name`, `[3]`, or a parameter's name."""
        return replace(self, path=step + self.path)

    def refusal(self) -> Refusal:
        """The answer to a request that has this fault."""
        param = self.path.removeprefix(".")
        return Refusal(
            Reason.INVALID_REQUEST, f"{self.head} '{param}'{self.tail}", param=param, code=self.code
        )


Check = Callable[[Any], Fault | None]


def shown(value: object) -> str:
    """A value as a message may carry it: short, printable, encodable whatever escapes the app sent."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN_CHARS else repr(value[:SHOWN_CHARS]) + "…"
    text = str(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def step(name: str) -> str:
    """A name that the app chose, as part of a path."""
    return "." + shown(name).replace("'", "").replace('"', "")


_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def kind(value: object) -> str:
    """JSON's word for the type of a value that was read from it, with its article."""
    return _KINDS[type(value)]


def wrong_type(expected: str, value: object) -> Fault:
    """A value of another type than the field takes."""
    return Fault("Invalid type for", f": expected {expected}, but got {kind(value)} instead.", "invalid_type")


def missing(name: str) -> Fault:
    """A required member that is not there."""
    return Fault("Missing required parameter:", ".", "missing_required_parameter", f".{name}")


def invalid(what: str, expected: str, code: str) -> Fault:
    """A value of the right type that is out of bounds."""
    return Fault("Invalid", f": {what}. Expected {expected}.", code)


def anything(_: Any) -> Fault | None:
    """A member that has to be there and may be whatever it likes."""
    return None


def boolean(value: Any) -> Fault | None:
    """true or false."""
    return None if isinstance(value, bool) else wrong_type("a boolean, true or false", value)


def number(low: int | float, high: int | float) -> Check:
    """Any number from `low` to `high`."""
    expected = f"a number between {low} and {high}"

    def check(value: Any) -> Fault | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return wrong_type(expected, value)
        return (
            None if low <= value <= high else _out_of_range("decimal", expected, value, above=not value < low)
        )

    return check


def integer(low: int, high: int | None = None) -> Check:
    """A whole number from `low` to `high`; 1.0 is one."""
    expected = f"an integer of at least {low}" if high is None else f"an integer between {low} and {high}"

    def check(value: Any) -> Fault | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return wrong_type(expected, value)
        if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
            return wrong_type(expected, value)
        # An infinity is what a literal beyond every float is read as: out of any range, also an open one.
        if value < low or value in (math.inf, -math.inf) or (high is not None and value > high):
            return _out_of_range("integer", expected, value, above=not value < low)
        return None

    return check


def _out_of_range(word: str, expected: str, value: int | float, *, above: bool) -> Fault:
    bound, code = ("above maximum", "above_max") if above else ("below minimum", "below_min")
    what = f"{word} {bound} value"
    return invalid(what, f"{expected}, but got {shown(value)} instead", f"{word}_{code}_value")


def string(longest: int | None = None) -> Check:
    """A string, of at most `longest` characters."""
    expected = "a string" if longest is None else f"a string of at most {longest} characters"

    def check(value: Any) -> Fault | None:
        if not isinstance(value, str):
            return wrong_type(expected, value)
        return too_long(value, longest, expected) if longest is not None and len(value) > longest else None

    return check


def too_long(value: str, longest: int, expected: str | None = None) -> Fault:
    """A string beyond its bound."""
    expected = expected or f"a string of at most {longest} characters"
    return invalid("string too long", f"{expected}, but got {len(value)} instead", "string_above_max_length")


def name(value: Any) -> Fault | None:
    """What OpenAI takes as the name of a function or a schema."""
    expected = f"1 to {NAME_CHARS} characters of a-z, A-Z, 0-9, _ and -"
    if not isinstance(value, str):
        return wrong_type(f"a string of {expected}", value)
    if not value:
        return invalid("empty string", expected, "empty_string")
    if len(value) > NAME_CHARS:
        return too_long(value, NAME_CHARS, expected)
    return (
        None if NAME.fullmatch(value) else invalid("string does not match pattern", expected, "invalid_value")
    )


def one_of(*values: str) -> Check:
    """One of a published set of words."""
    expected = "one of " + ", ".join(f"'{value}'" for value in values)

    def check(value: Any) -> Fault | None:
        if not isinstance(value, str):
            return wrong_type(expected, value)
        return (
            None
            if value in values
            else invalid(f"unsupported value {shown(value)}", expected, "invalid_value")
        )

    return check


def array(item: Check, expected: str, low: int = 0, high: int | None = None) -> Check:
    """An array whose items all pass. `expected` tells its bounds in words."""

    def check(value: Any) -> Fault | None:
        if not isinstance(value, list):
            return wrong_type(expected, value)
        if len(value) < low:
            return invalid("empty array", expected, "empty_array")
        if high is not None and len(value) > high:
            return invalid(
                "array too long", f"{expected}, but got {len(value)} instead", "array_above_max_length"
            )
        for index, inner in enumerate(value):
            if (fault := item(inner)) is not None:
                return fault.at(f"[{index}]")
        return None

    return check


def shape(known: Mapping[str, Check], *required: str) -> Check:
    """An object with some known members: they are checked in the object's own order, what is required but
    absent comes last, what is unknown passes. null stands for absent, except where a member is required.
    """

    def check(value: Any) -> Fault | None:
        if not isinstance(value, dict):
            return wrong_type("an object", value)
        for key, inner in value.items():
            rule = known.get(key)
            if rule is None or (inner is None and key not in required):
                continue
            if (fault := rule(inner)) is not None:
                return fault.at(f".{key}")
        return next((missing(key) for key in required if key not in value), None)

    return check


any_object: Check = shape({})


def tagged(kinds: Mapping[str, Check], refused: tuple[str, ...] = ()) -> Check:
    """An object whose `type` decides by which rules the rest of it is read, and so is looked at first.

    A type that nobody here knows passes on: compatible servers have types of their own. `refused` are those
    that are known, but out of place here.
    """
    expected = "one of " + ", ".join(f"'{tag}'" for tag in kinds)

    def check(value: Any) -> Fault | None:
        if not isinstance(value, dict):
            return wrong_type("an object", value)
        if "type" not in value:
            return missing("type")
        tag = value["type"]
        if not isinstance(tag, str):
            return wrong_type(expected, tag).at(".type")
        if tag in refused:
            return invalid(f"unsupported value {shown(tag)}", expected, "invalid_value").at(".type")
        rule = kinds.get(tag)
        return rule(value) if rule is not None else None

    return check
