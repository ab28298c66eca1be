"""constraints.txt: whatever pyproject.toml leads to is pinned there, to what is installed, and nothing has an address.

Tested: the closure of the dependencies, of each extra and of the build backend. Left out: other platforms and
other versions of Python, whose markers may ask for more.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LINES = [
    line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
]
PINS = {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in LINES)}


def closure() -> set[str]:
    """Names of every package that an installation with all extras has, the backend's included."""
    direct = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        direct += extra
    waiting = [Requirement(text) for text in direct]
    found: set[str] = set()
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        step = (name, frozenset(requirement.extras))
        if step in done:
            continue
        done.add(step)
        found.add(name)
        for text in _requires(name):
            below = Requirement(text)
            if below.marker is None or any(
                below.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                waiting.append(below)
    return found


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []  # the backend is in the environment of `make`, but not in every other one


def test_the_whole_closure_is_pinned() -> None:
    found = closure()
    assert len(found) > 40
    assert sorted(found - PINS.keys()) == []


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {}
    for name in closure():
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    assert {name: installed[name] for name in installed if installed[name] != PINS[name]} == {}


def test_pins_are_exact_sorted_and_without_addresses() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line) for line in LINES)
    assert sorted(LINES, key=str.lower) == LINES


def test_the_backend_is_pinned_where_it_is_asked_for() -> None:
    assert PROJECT["build-system"]["requires"] == [f"hatchling=={PINS['hatchling']}"]
