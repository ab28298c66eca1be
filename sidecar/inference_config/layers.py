"""The layers of a configuration: what a file, the environment and the command line each give.

Enters: a mapping from YAML, variables, flags. Leaves: `Given` values by dotted path, with problems or
warnings. A text from outside YAML gets its kind here (a port is a number); whether a value is valid is for
`resolve` to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .problems import Problem, shown, shown_key
from .settings import PREFIX, SECTIONS, SETTINGS, Setting, keys_of, nearest, nearest_variable, parse

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|\$\{")

_ADDRESS = r"[0-9A-Fa-f.:]+"
_ENDPOINT = r"(tcp|udp|sctp)://.+"
_KUBELET = [
    (re.compile(f"{PREFIX}(.+_)?{name}"), re.compile(value))
    for name, value in (
        (r"SERVICE_HOST", _ADDRESS),
        (r"SERVICE_PORT(_[A-Z0-9_]+)?", r"[0-9]+"),
        (r"PORT(_[0-9]+_(TCP|UDP|SCTP))?", _ENDPOINT),
        (r"PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
        (r"PORT_[0-9]+_(TCP|UDP|SCTP)_PORT", r"[0-9]+"),
        (r"PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR", _ADDRESS),
    )
]


@dataclass(frozen=True, slots=True)
class Given:
    """A value that some layer gives. `expanded`: a variable's value is in it, so it may be a secret."""

    value: Any
    origin: str
    in_file: bool = False
    expanded: bool = False


def of_file(tree: Mapping[str, Any], origin: str) -> tuple[dict[str, Given], list[Problem]]:
    """The leaves that a file gives, with `${VAR}` still in them; every key that the schema does not know."""
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    _descend(tree, "", origin, given, problems)
    return given, problems


def _descend(
    tree: Mapping[str, Any], section: str, origin: str, given: dict[str, Given], problems: list[Problem]
) -> None:
    known = keys_of(section)
    for key, value in tree.items():
        path = f"{section}.{key}" if section else key
        if key not in known:
            problems.append(_unknown(section, key, origin))
        elif path in SETTINGS:
            given[path] = Given(value, origin, in_file=True)
        elif isinstance(value, dict):
            _descend(value, path, origin, given, problems)
        elif value is not None:  # a section whose every line is commented out is an empty section
            valid = f"a mapping of {', '.join(keys_of(path))}"
            problems.append(Problem(path, shown(value, masked=True), valid, origin=origin))


def _unknown(section: str, key: str, origin: str) -> Problem:
    path = f"{section}.{key}" if section else key
    known = f"nearest known key: {near}" if (near := nearest(path)) else ""
    name = shown_key(key)
    return Problem(
        f"{section}.{name}" if section else name,
        "an unknown key",
        f"one of {', '.join(keys_of(section))}",
        known,
        origin,
    )


def of_environment(environ: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    """The leaves that variables give; a warning for each INFERENCE_ variable that means nothing here."""
    by_variable = {setting.variable: setting for setting in SETTINGS.values() if setting.variable}
    given: dict[str, Given] = {}
    warnings: list[str] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or not text.strip() or _made_by_kubelet(name, text):
            continue
        if setting := by_variable.get(name):
            given[setting.path] = Given(parse(setting, text), f"environment {name}")
        else:
            near = f"; nearest known variable: {near}" if (near := nearest_variable(name)) else ""
            warnings.append(f"environment {shown_key(name)}: sets nothing{near}")
    return given, warnings


def _made_by_kubelet(name: str, value: str) -> bool:
    """Whether a variable tells of a Service, such as one named inference-server: pods beside it have them."""
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in _KUBELET)


def of_flags(flags: Mapping[str, object]) -> tuple[dict[str, Given], list[Problem]]:
    """The leaves that flags give, by dotted path. A text is read as a variable's is; None is no flag."""
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for path, value in flags.items():
        if value is None:
            continue
        if setting := SETTINGS.get(path):
            typed = parse(setting, value) if isinstance(value, str) else value
            given[path] = Given(typed, f"flag {setting.flag}")
        else:
            section, _, key = path.rpartition(".")
            problems.append(_unknown(section if section in SECTIONS else "", key, "flag"))
    return given, problems


def expand(
    given: Mapping[str, Given], environ: Mapping[str, str]
) -> tuple[dict[str, Given], dict[str, list[Problem]]]:
    """Puts variables into what a file gives, and takes `$${` for `${`. Leaves with problems are left out.

    A text that had a variable in it becomes the setting's kind of value, as a variable's own text would.
    """
    expanded: dict[str, Given] = {}
    problems: dict[str, list[Problem]] = {}
    for path, one in given.items():
        reading = _Expansion(environ)
        value = reading.of(one.value) if one.in_file else one.value
        if reading.faults:
            problems[path] = [
                Problem(path, found, valid, origin=one.origin) for found, valid in reading.faults
            ]
        elif reading.names:
            origin = f"{one.origin}, {', '.join(f'${{{name}}}' for name in reading.names)}"
            typed = _typed(SETTINGS[path], value)
            expanded[path] = replace(one, value=typed, origin=origin, expanded=True)
        else:
            expanded[path] = replace(one, value=value)
    return expanded, problems


def _typed(setting: Setting, value: Any) -> Any:
    return parse(setting, value) if isinstance(value, str) else value


class _Expansion:
    """One leaf's variables: the names that were put in, and (found, valid) of each that could not be."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.names: list[str] = []
        self.faults: list[tuple[str, str]] = []

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(self._replace, value)
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if isinstance(value, dict):
            return {key: self.of(item) for key, item in value.items()}
        return value

    def _replace(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name: str | None = match["name"]
        if name is None:
            self._fault("a ${ that no variable's name and } follow", "${NAME}, or $${ for ${ itself")
        elif name not in self._environ:
            valid = f"{name} in the environment, or $${{ for ${{ itself"
            self._fault(f"${{{name}}}, a variable that is not set", valid)
        elif name not in self.names:
            self.names.append(name)
        return self._environ.get(name or "", "")

    def _fault(self, found: str, valid: str) -> None:
        if (found, valid) not in self.faults:
            self.faults.append((found, valid))
