"""A JSON body and its top level: every member in its order, duplicates included, and where its value stands.

Enters: bytes. Leaves: a `Body`, or a `Refusal` where no JSON object can be read. `splice` turns a text and a
few edits into bytes again; what is not edited comes out as it came in.
Must not know what a member means, nor write JSON of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from json import JSONDecodeError
from typing import Any, NoReturn

from ..errors import NotJson
from ..records import Reason, Refusal
from .checks import kind

TOO_DEEP = "json_too_deep"

_CONTAINERS = frozenset({dict, list})

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_SMALL = 16 * 1024  # bytes


class Member:
    """One member of an object: `text[start:end]` is its value, without the blanks around it."""

    __slots__ = ("end", "name", "start", "value")

    def __init__(self, name: str, value: Any, start: int, end: int) -> None:
        self.name = name
        self.value = value
        self.start = start
        self.end = end


class Edit:
    """`text[start:end]` is to become `new`."""

    __slots__ = ("end", "new", "start")

    def __init__(self, start: int, end: int, new: str) -> None:
        self.start = start
        self.end = end
        self.new = new


class Body:
    """A body that holds one JSON object. `opening` is where its first brace stands in the text."""

    __slots__ = ("members", "opening", "text")

    def __init__(self, text: str, opening: int, members: list[Member]) -> None:
        self.text = text
        self.opening = opening
        self.members = members


def _refuse_constant(word: str) -> NoReturn:
    raise NotJson(word)


Scan = Callable[[str, int], tuple[Any, int]]
"""Reads the value that begins at a place, and says where it ends. What `json.JSONDecoder.raw_decode` asks; that is one
more call for each name and each value."""

_STRICT: Scan = json.JSONDecoder(parse_constant=_refuse_constant).scan_once  # type: ignore[attr-defined]
_LENIENT: Scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def unreadable(why: str, code: str = "invalid_json") -> Refusal:
    """The answer to a body that no rule can be put to."""
    return Refusal(Reason.INVALID_REQUEST, f"The request body {why}", code=code)


def read(
    raw: bytes, max_depth: int, *, lenient: bool = False, text: str | Refusal | None = None
) -> Body | Refusal:
    """The top level of a body. `max_depth` counts the root; `lenient` lets NaN and Infinity pass. `text`: the body, where
    it was `decoded` before."""
    if text is None:
        text = decoded(raw)
    if isinstance(text, Refusal):
        return text
    try:
        body = _read_root(text, _LENIENT if lenient else _STRICT)
    except JSONDecodeError as error:
        why = error.msg.strip().removesuffix(":").removesuffix(" at")
        return unreadable(f"is not valid JSON: {why} at line {error.lineno}, column {error.colno}.")
    except NotJson as error:
        return unreadable(f"is not valid JSON: {error} is not a JSON number.")
    except ValueError:
        return unreadable("holds an integer with more digits than can be read.")
    except RecursionError:
        return _too_deep(max_depth)
    return _too_deep(max_depth) if isinstance(body, Body) and _deeper(body, max_depth) else body


def _too_deep(max_depth: int) -> Refusal:
    return unreadable(f"is nested too deeply. Expected at most {max_depth} levels.", TOO_DEEP)


def decoded(raw: bytes) -> str | Refusal:
    """A body's text."""
    # A number is looked for, not b"\0": of bytes CPython first makes a TypeError, which it then forgets.
    if raw.startswith(_BYTE_ORDER_MARKS) or 0 in raw[:4]:
        return unreadable("must be UTF-8 without a byte order mark.", "invalid_encoding")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return unreadable(f"is not valid UTF-8 at byte {error.start}.", "invalid_encoding")


def _read_root(text: str, scan: Scan) -> Body | Refusal:
    opening = _blanks(text, 0)
    if opening == len(text):
        return unreadable("is empty. Expected a JSON object.")
    if text[opening] == "{":
        members, end = _read_object(text, opening, scan)
        result: Body | Refusal = Body(text, opening, members)
    else:
        value, end = _value(text, opening, scan)
        result = unreadable(f"must be a JSON object, but is {kind(value)}.", "invalid_type")
    end = _blanks(text, end)
    if end != len(text):
        raise JSONDecodeError("Extra data", text, end)
    return result


def members_of(text: str, opening: int) -> list[Member]:
    """The members of an object inside a text that was read before."""
    return _read_object(text, opening, _LENIENT)[0]


def _read_object(text: str, opening: int, scan: Scan) -> tuple[list[Member], int]:
    """Members of the object at `opening`, and where it ends. Values are read whole, at the speed of C."""
    found: list[Member] = []
    at = _blanks(text, opening + 1)
    if _at(text, at) == "}":
        return found, at + 1
    while True:
        if _at(text, at) != '"':
            raise JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        name, at = _value(text, at, scan)
        at = _blanks(text, at)
        if _at(text, at) != ":":
            raise JSONDecodeError("Expecting ':' delimiter", text, at)
        start = _blanks(text, at + 1)
        value, end = _value(text, start, scan)
        found.append(Member(name, value, start, end))
        at = _blanks(text, end)
        if _at(text, at) == "}":
            return found, at + 1
        if _at(text, at) != ",":
            raise JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _blanks(text, at + 1)


def _value(text: str, at: int, scan: Scan) -> tuple[Any, int]:
    try:
        return scan(text, at)
    except StopIteration as none:
        raise JSONDecodeError("Expecting value", text, none.value) from None


def _blanks(text: str, at: int) -> int:
    """Where the blanks that begin at `at` end."""
    end = len(text)
    while at < end and ord(text[at]) in (0x20, 0x0A, 0x0D, 0x09):
        at += 1
    return at


def _at(text: str, at: int) -> str:
    """The character at `at`, none beyond the end."""
    return text[at] if at < len(text) else ""


def _deeper(body: Body, max_depth: int) -> bool:
    """Whether a body is nested deeper than the bound: level by level, so that it cannot exhaust the stack."""
    if not _more_than(max_depth, body.text):
        return False
    level: list[Any] = [member.value for member in body.members if type(member.value) in _CONTAINERS]
    for _ in range(max_depth - 1):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else _items(outer))
            if type(inner) in _CONTAINERS
        ]
    return bool(level)


def _more_than(most: int, text: str) -> bool:
    """Whether more brackets open in a text. To find the few that most texts have takes a tenth of counting, which looks
    at one character after the other."""
    for bracket in ("{", "["):
        at = text.find(bracket)
        while at >= 0:
            if not most:
                return True
            most -= 1
            at = text.find(bracket, at + 1)
    return False


def _items(outer: list[Any]) -> list[Any]:
    """An array's items, none where no container is among them: arrays of a hundred thousand tokens exist."""
    return [] if _CONTAINERS.isdisjoint(map(type, outer)) else outer


def splice(raw: bytes, text: str, edits: Sequence[Edit]) -> bytes:
    """`raw`, of which `text` is the reading, with its edits, which must not overlap."""
    pieces: list[bytes | memoryview] = []
    # To copy a small body twice takes less than to make views of it.
    view = None if len(raw) <= _SMALL else memoryview(raw)
    done = 0
    for edit in edits if len(edits) == 1 else sorted(edits, key=lambda edit: edit.start):
        start = _byte_of(raw, text, edit.start)
        pieces.append(raw[done:start] if view is None else view[done:start])
        pieces.append(edit.new.encode())
        done = start + len(text[edit.start : edit.end].encode())
    pieces.append(raw[done:] if view is None else view[done:])
    return b"".join(pieces)


def _byte_of(raw: bytes, text: str, at: int) -> int:
    """Where the character at `at` begins, counted from the nearer end: edits are seldom in the middle."""
    if len(raw) == len(text):
        return at
    if at <= len(text) // 2:
        return len(text[:at].encode())
    return len(raw) - len(text[at:].encode())
