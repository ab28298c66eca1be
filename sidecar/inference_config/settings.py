"""The settings one by one, as the schema declares them: path, variable, kind, what is valid, default.

Enters: the schema's models. Leaves: `SETTINGS` and `SECTIONS` by dotted path; texts as typed values.
Must not hold a setting's name of its own: what the schema does not say is not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from .problems import closest
from .schema import Config, Section
from .values import Valid

PREFIX: Final = "INFERENCE_"

Kind = Literal["bool", "int", "float", "text", "list", "map"]
_KINDS: Mapping[type, Kind] = {
    bool: "bool", int: "int", float: "float", str: "text", SecretStr: "text", tuple: "list", dict: "map",
}  # fmt: skip
_BOOLS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the schema. `secret`: no part of its value is ever shown.

    `valid` is in words, `each` the same for what a list holds, or for the keys and the values of a mapping.
    """

    path: str
    kind: Kind
    optional: bool
    secret: bool
    choices: tuple[str, ...]
    valid: str
    each: tuple[str, ...]
    default: object
    description: str

    @property
    def variable(self) -> str | None:
        """Its environment variable. The schema's version belongs to a file, and has none."""
        return None if self.path == "version" else PREFIX + self.path.upper().replace(".", "_")

    @property
    def flag(self) -> str:
        """Its name on the command line, where it has one."""
        return "--" + self.path.rpartition(".")[2].replace("_", "-")

    def of(self, config: Config) -> Any:
        """Its value in `config`."""
        return reduce(getattr, self.path.split("."), config)


def parse(setting: Setting, text: str) -> object:
    """A text from outside YAML as the setting's kind of value, or unchanged, for the schema to refuse.

    `null` is None. Lists are JSON or comma-separated, mappings JSON.
    """
    text = text.strip()
    return None if text == "null" else _parsed(setting, text)


def _parsed(setting: Setting, text: str) -> object:
    match setting.kind:
        case "bool":
            return _BOOLS.get(text.lower(), text)
        case "int":
            return int(text) if re.fullmatch(r"[-+]?[0-9]{1,40}", text) else text
        case "float":
            return float(text) if re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]{1,3})?", text) else text
        case "list" if not text.startswith("["):
            return [part for part in (part.strip() for part in text.split(",")) if part]
        case "list" | "map":
            return _json(text)
    return text.lower() if text.lower() in setting.choices else text


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def nearest(path: str) -> str:
    """The known path that `path` may be meant for: one beside it, else one elsewhere, else nothing."""
    section, _, name = path.rpartition(".")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    beside = {
        _name(known): known
        for known in (*SETTINGS, *SECTIONS)
        if known.rpartition(".")[0] == section and known
    }
    elsewhere = {_name(known): known for known in (*SECTIONS, *SETTINGS) if known}
    for known in (beside, elsewhere):
        if match := closest(name, known):
            return known[match]
    return ""


def nearest_variable(name: str) -> str:
    """The known environment variable that `name` may have been meant for, or nothing."""
    return closest(name, [setting.variable for setting in SETTINGS.values() if setting.variable])


def keys_of(section: str) -> list[str]:
    """The keys that a section (`""` is the top) may hold, in the schema's order."""
    return list(SECTIONS[section].model_fields)


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _walk(model: type[Section], section: str) -> Iterator[tuple[str, type[Section] | Setting]]:
    yield section, model
    for name, field in model.model_fields.items():
        path = f"{section}.{name}" if section else name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _walk(field.annotation, path)
        else:
            yield path, _setting(path, field)


def _setting(path: str, field: FieldInfo) -> Setting:
    base, notes, optional = _unwrapped(field.annotation, field.metadata)
    choices = get_args(base) if get_origin(base) is Literal else ()
    kind = _KINDS[type(choices[0]) if choices else get_origin(base) or base]
    items = [arm for arm in get_args(base) if arm is not Ellipsis] if kind in ("list", "map") else []
    each = tuple(_valid("text", _unwrapped(item, [])[1]) for item in items)
    if choices:
        valid = ", ".join(map(str, choices))
    else:
        valid = f"a list, each {each[0]}" if kind == "list" else _valid(kind, notes)
    return Setting(
        path=path,
        kind=kind,
        optional=optional,
        secret=base is SecretStr or kind == "map",
        choices=tuple(map(str, choices)),
        valid=f"one of {valid}" if len(choices) > 1 else valid,
        each=each,
        default=field.get_default(call_default_factory=True),
        description=field.description or "",
    )


def _unwrapped(annotation: Any, notes: Iterable[Any]) -> tuple[Any, list[Any], bool]:
    """The bare type of an annotation, all notes on it, and whether None is allowed."""
    notes, optional = list(notes), False
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            notes += more
        elif get_origin(annotation) in (Union, UnionType):
            annotation, optional = next(arm for arm in get_args(annotation) if arm is not type(None)), True
        else:
            return annotation, notes, optional


def _valid(kind: Kind, notes: Iterable[Any]) -> str:
    bounds: dict[str, Any] = {}
    for note in notes:
        if isinstance(note, Valid):
            return note.text
        for part in note.metadata if isinstance(note, FieldInfo) else [note]:
            bounds |= {word: getattr(part, word) for word in ("gt", "ge", "le") if hasattr(part, word)}
    noun = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
    if "gt" in bounds:
        return f"{noun} above {bounds['gt']}, up to {bounds['le']}"
    return f"{noun} from {bounds['ge']} to {bounds['le']}" if bounds else noun


_NODES: Final = dict(_walk(Config, ""))
SECTIONS: Final[Mapping[str, type[Section]]] = {
    path: node for path, node in _NODES.items() if not isinstance(node, Setting)
}
SETTINGS: Final[Mapping[str, Setting]] = {
    path: node for path, node in _NODES.items() if isinstance(node, Setting)
}
