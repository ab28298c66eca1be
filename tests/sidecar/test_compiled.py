"""What a module keeps to so that it may be compiled (decision 011), read from its source.

mypyc evaluates a slice's bounds twice, except on bytes: a call in one is made twice. Its coroutines share one place for
the exception that is being handled: whoever waits while handling one finds another's there when it goes on, or none, and
then the process dies. An instance of a compiled class with a base that is not may be referred to weakly, and is freed
without those references being told.

Left out: that what is compiled does what its sources do. For that the whole of this folder is run with it (`make compiled`).
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "sidecar"
MODULES = subprocess.run(
    [ROOT / "deploy" / "image" / "compile", "--modules"], check=True, capture_output=True, text=True
).stdout.split()

SUSPENDS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
HARMLESS = {"Protocol", "NamedTuple", "Generic", "StrEnum"}
"""Bases that mypyc makes no compiled class of, or of which nobody makes an instance."""


def waits_while_handling(tree: ast.AST) -> Iterator[int]:
    """Lines that wait inside an except or a finally; `async with` does so at its end."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith):
            yield node.lineno
        if isinstance(node, ast.Try | ast.TryStar):
            handling = [statement for handler in node.handlers for statement in handler.body] + node.finalbody
            for part in (part for statement in handling for part in ast.walk(statement)):
                if isinstance(part, SUSPENDS):
                    yield part.lineno


def foreign_bases(tree: ast.AST, compiled: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
                if name not in compiled | HARMLESS:
                    yield f"{node.name}({name})"


def calls_in_slices(tree: ast.AST) -> Iterator[int]:
    """Lines with a slice whose bounds do more than say where it begins and ends."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Slice):
            for part in ast.walk(node):
                if isinstance(part, ast.NamedExpr | ast.Await) or (
                    isinstance(part, ast.Call) and ast.unparse(part.func) != "len"
                ):
                    yield part.lineno


TREES = {module: ast.parse((SOURCES / module).read_text()) for module in MODULES}
CLASSES = {node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module(module: str) -> None:
    tree = TREES[module]
    assert not list(waits_while_handling(tree)), "awaits while an exception is handled"
    assert not list(foreign_bases(tree, CLASSES)), "classes with a base that is not compiled"
    assert not list(calls_in_slices(tree)), "calls in the bounds of a slice"


def test_what_is_looked_for_is_found() -> None:
    """The judge judged: of this code each function has a fault, and no line is named twice for none."""
    faulty = """
async def handler():
    try:
        pass
    except ValueError:
        await x
async def last():
    try:
        pass
    finally:
        if y:
            await x
async def context():
    async with x:
        pass
class Foreign(Exception):
    pass
view = view[len(view) - 1 : socket.send(view)]
"""
    tree = ast.parse(faulty)
    assert sorted(waits_while_handling(tree)) == [6, 12, 14]
    assert list(foreign_bases(tree, set())) == ["Foreign(Exception)"]
    assert list(calls_in_slices(tree)) == [18]
