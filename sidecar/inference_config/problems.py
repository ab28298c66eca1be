"""What is wrong with a configuration, told so that it can be mended: one line per problem, all at once.

Enters: a path, where the value came from, the value. Leaves: `Problem`s, and the exception that carries them.
A value is shown here or nowhere: what may be a secret is told by its type and length only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration.

    `path` is the setting's dotted path (or the file, or the variable, where no setting is meant), `origin`
    where the value came from, `hint` the nearest known key or a way out. `str()` of it is one printable line.
    """

    path: str
    found: str
    valid: str
    hint: str = ""
    origin: str = ""

    def __str__(self) -> str:
        origin = f" ({self.origin})" if self.origin else ""
        hint = f"; {self.hint}" if self.hint else ""
        return one_line(f"{self.path}{origin}: found {self.found}; valid: {self.valid}{hint}")


class ConfigError(Exception):
    """The configuration cannot be used. `str()` of it is safe to show: a line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def closest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that `word` may have been meant for, or nothing."""
    import difflib  # noqa: PLC0415  only faults need it

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def one_line(text: str) -> str:
    """`text` as every terminal and log takes it: no line breaks, control characters or half surrogates."""
    return (
        text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    )


def shown(value: object, *, masked: bool) -> str:
    """A value as a problem may show it. A text that could hold a credential is masked in any setting."""
    if isinstance(value, str):
        credential = value.startswith("sk-") or "@" in value or "?" in value
        if masked or credential or len(value) > LONGEST_SHOWN:
            return f"a string of {len(value)} characters"
        return json.dumps(value)
    if isinstance(value, list | tuple | dict):
        return "a mapping" if isinstance(value, dict) else "a list"
    if masked and value is not None:
        return "a value of another type"
    return json.dumps(value)[:LONGEST_SHOWN]


def shown_key(key: str) -> str:
    """A key that nobody knows, if it looks like one: a missing blank makes a key of `api_key:sk-…`."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key) and not key.startswith("sk-"):
        return key
    return f"<a key of {len(key)} characters>"
