"""YAML as this project reads and writes it: what a plain scalar is, what is refused, what keeps memory bounded."""

from __future__ import annotations

import math

import pytest

from inference_config.problems import ConfigError
from inference_config.text import MAX_DEPTH, MAX_VALUES, read_mapping, write


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("off", "off"),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e999", math.inf),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-10-21", "2024-10-21"),
        ("9" * 5000, "9" * 5000),
        ("=", "="),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("[a, 1, []]", ["a", 1, []]),
        ("{b: {c: }}", {"b": {"c": None}}),
    ],
)
def test_what_a_value_is(scalar: str, value: object) -> None:
    got = read_mapping(f"a: {scalar}", "t")["a"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["1: a", "true: a", "on: a", "a-b: a"])
def test_keys_are_texts(text: str) -> None:
    assert read_mapping(text, "t") == {text.partition(":")[0]: "a"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &x 1", "an anchor or alias"),
        ("a: 1\nb: *x", "an anchor or alias"),
        ("&x a: 1", "an anchor or alias"),
        ("a: !!int 1", r"a tag \(!\)"),
        ("a: !x 1", r"a tag \(!\)"),
        ("!!map {a: 1}", r"a tag \(!\)"),
        ("a: 1\n---\nb: 1", "a second document in line 2"),
        ("? [a]\n: 1", "a key that is no text"),
        ("a:\n  b: 1\n  b: 2", "the key b a second time in line 3"),
        ("a: \ud800", "a character that YAML does not allow"),
        ("a: \x07", "a character that YAML does not allow"),
        ("\ta: 1", "no valid YAML: .* in line 1"),
        ("[" * 100_000, "values nested too deeply"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "values nested too deeply"),
        ("a: [" + "1," * MAX_VALUES + "]", "too many values"),
    ],
)
def test_what_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f"^t: found {found}"):
        read_mapping(text, "t")


@pytest.mark.parametrize(
    "value", ["1e3", "0o17", "010", "12", "off", "true", "null", "~", "2024-10-21", "", "a: b", "#"]
)
def test_a_text_is_written_so_that_it_stays_a_text(value: str) -> None:
    assert read_mapping(write({"a": value}), "t") == {"a": value}


def test_equal_values_are_written_out_each_time() -> None:
    shared = ["x"]
    assert write({"b": shared, "a": shared}) == "a:\n- x\nb:\n- x\n"
