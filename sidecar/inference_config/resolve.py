"""Layers to one Config: merges, lets the schema judge, and tells every problem at once.

Enters: `Given` values by dotted path. Leaves: a `Config`, the values it came from, problems.
Must not read anything, and must not let pydantic's own messages out: they hold the values, and so the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .layers import Given, expand
from .problems import Problem, closest, shown, shown_key
from .schema import SPANS_FIELDS, Config
from .settings import SETTINGS, Setting, parse


@dataclass(frozen=True, slots=True)
class Resolved:
    """`config` is made of what is valid in `given`; it may be used only where there are no `problems`.

    `failing`: the leaves that have problems; nothing can be concluded from their values in `config`.
    """

    config: Config
    given: Mapping[str, Given]
    problems: tuple[Problem, ...]
    failing: frozenset[str]


def resolve(layers: Iterable[Mapping[str, Given]], environ: Mapping[str, str]) -> Resolved:
    """The layers, weakest first, as one Config. What a later one replaces is neither expanded nor judged."""
    merged: dict[str, Given] = {}
    for layer in layers:
        merged |= layer
    given, unexpanded = expand(merged, environ)
    problems = [problem for found in unexpanded.values() for problem in found]
    failing = set(unexpanded)
    while True:
        try:
            config = Config.model_validate(_nested(given, failing))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        else:
            return Resolved(config, given, tuple(problems), frozenset(failing))
        # A rule over several fields is judged only once each is valid: so again, without the faulty ones.
        before = frozenset(failing)
        for detail in found:
            problem, paths = _told(detail, given)
            if not paths & before:
                problems.append(problem)
            failing |= paths
        if failing == before:
            raise AssertionError("the schema's defaults are not valid")


def _nested(given: Mapping[str, Given], failing: set[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, one in given.items():
        if path not in failing:
            *sections, name = path.split(".")
            branch = tree
            for section in sections:
                branch = branch.setdefault(section, {})
            branch[name] = one.value
    return tree


def _told(detail: ErrorDetails, given: Mapping[str, Given]) -> tuple[Problem, frozenset[str]]:
    """One of pydantic's errors as a problem, and the paths of the leaves that it is about."""
    context = detail.get("ctx", {})
    if detail["type"] == SPANS_FIELDS:
        path = context["path"]
        origin = given[path].origin if path in given else ""
        told = Problem(path, context["found"], context["valid"], origin=origin)
        return told, frozenset(context["fields"].split(","))
    setting, rest = _located(detail["loc"])
    one = given[setting.path]
    value, path = one.value, setting.path
    for step in rest:
        if step != "[key]":
            value = value[step]
            path += f"[{step}]" if isinstance(step, int) else f".{shown_key(step)}"
    in_key = "[key]" in rest
    found = "this name" if in_key else shown(value, masked=setting.secret or one.expanded)
    valid = str(context["error"]) if detail["type"] == "value_error" else _valid(setting, rest, in_key=in_key)
    return Problem(path, found, valid, _hint(setting, one) if not rest else "", one.origin), frozenset(
        [setting.path]
    )


def _located(loc: tuple[int | str, ...]) -> tuple[Setting, tuple[int | str, ...]]:
    for length in range(1, len(loc) + 1):
        if setting := SETTINGS.get(".".join(map(str, loc[:length]))):
            return setting, loc[length:]
    raise AssertionError("an error outside of every setting")


def _valid(setting: Setting, rest: tuple[int | str, ...], *, in_key: bool) -> str:
    if not rest:
        return setting.valid
    return setting.each[0] if in_key else setting.each[-1]


def _hint(setting: Setting, one: Given) -> str:
    if setting.kind in ("int", "float") and isinstance(one.value, str) and one.in_file and not one.expanded:
        return "" if isinstance(parse(setting, one.value), str) else "write it without quotes"
    if setting.kind == "text" and isinstance(one.value, int | float) and not isinstance(one.value, bool):
        return "" if setting.choices else "put it in quotes"
    if setting.choices and isinstance(one.value, str):
        near = closest(one.value.lower(), setting.choices)
        return f"nearest: {near}" if near else ""
    return ""
