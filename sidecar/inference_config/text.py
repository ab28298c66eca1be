"""YAML text to plain values and back.

Enters: text of any kind, or a mapping of plain values. Leaves: a mapping or a `ConfigError`, or text.
YAML as version 1.2 reads it: only true and false are booleans, so that `validation: off` is the word off, and
a date such as an api-version stays a text. Aliases, tags and keys given twice are refused, depth and size are
bounded: read event by event, no input can make this room hold more than it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from .problems import ConfigError, Problem, shown_key

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 16
MAX_VALUES = 50_000

_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {"true": True, "false": False, "null": None, "~": None, "": None}
_READER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _RefusedError(Exception):
    """What YAML allows and a configuration may not hold."""

    def __init__(self, event: yaml.Event, found: str, valid: str) -> None:
        super().__init__(found)
        self.found = found + _line_of(event.start_mark)
        self.valid = valid


def read_mapping(text: str, name: str) -> dict[str, Any]:
    """The one mapping that `text` holds: str keys, and dict, list, str, int, float, bool, None as values.

    `name` says where the text came from. Raises ConfigError with one problem.
    """
    found, valid = "", "YAML text in UTF-8"
    try:
        if len(text.encode()) > MAX_BYTES:
            found, valid = "a text that is too large", f"at most {MAX_BYTES} bytes"
        else:
            value = _Reader(text).document()
            if isinstance(value, dict):
                return value
            found = "nothing" if value is None else "no mapping at the top"
            valid = "a mapping with inference, server, logging or telemetry"
    except _RefusedError as refused:
        found, valid = refused.found, refused.valid
    except yaml.MarkedYAMLError as error:
        where = _line_of(error.problem_mark or error.context_mark)
        found = f"no valid YAML: {error.problem or error.context}{where}"
    except (yaml.YAMLError, UnicodeEncodeError):
        found = "a character that YAML does not allow"
    raise ConfigError([Problem(name, found, valid)])


def _line_of(mark: Any) -> str:
    return f" in line {mark.line + 1}" if mark else ""


class _Reader:
    """Recursive descent over the events of one document."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_READER)
        self._values = 0

    def document(self) -> Any:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _RefusedError(event, "a second document", "one document")
        return value

    def _value(self, event: yaml.Event, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _RefusedError(event, "too many values", f"at most {MAX_VALUES}")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _RefusedError(
                event, "an anchor or alias (& or *)", "each value written out, in quotes where it has & or *"
            )
        if getattr(event, "tag", None) is not None:
            raise _RefusedError(event, "a tag (!)", "values without tags, in quotes where they begin with !")
        if isinstance(event, yaml.ScalarEvent):
            return _plain(event.value) if event.implicit[0] else event.value
        if depth >= MAX_DEPTH:
            raise _RefusedError(event, "values nested too deeply", f"at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(depth + 1)
        return self._mapping(depth + 1)

    def _sequence(self, depth: int) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _RefusedError(event, "a key that is no text", "texts as keys")
            self._value(event, depth)
            if event.value in values:
                raise _RefusedError(event, f"the key {shown_key(event.value)} a second time", "each key once")
            values[event.value] = self._value(next(self._events), depth)
        return values


def _plain(text: str) -> object:
    """A scalar without quotes. A number too long for any setting stays a text: none is costly to read."""
    if text.lower() in _SPECIAL and text in (text.lower(), text.upper(), text.capitalize()):
        return _SPECIAL[text.lower()]
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text) and not text.lstrip("+-").isdigit():
        return float(text)
    return text


class _Writer(yaml.SafeDumper):
    """Puts quotes around every text that YAML 1.1 or 1.2 would take for something else; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data  # whatever it is: the reader refuses aliases
        return True


_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(f"^(?:{_INT.pattern})$"), list("-+0123456789")
)
_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


def write(mapping: Mapping[str, Any]) -> str:
    """Plain values as YAML text: keys sorted, block style, one form for one value."""
    return yaml.dump(mapping, Dumper=_Writer, sort_keys=True, allow_unicode=True, width=MAX_BYTES)
