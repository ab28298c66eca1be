"""Whatever text, environment and flags there are: a Loaded or a ConfigError, in printable lines, without secrets.

Covers: arbitrary bytes, YAML-like text, trees shaped like the schema, any environment; every valid Config survives
its own text.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference_config import codec
from inference_config.load import ConfigError, load
from inference_config.schema import Config
from inference_config.settings import SECTIONS, SETTINGS
from inference_config.text import read_mapping, write

SECRET = "sk-proj-0123456789abcdef"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "c.yaml"


def judge(file: Path, content: bytes, environ: Mapping[str, str]) -> None:
    """Loads; whatever comes out must be one of the two, and fit to be shown."""
    file.write_bytes(content)
    try:
        told = "\n".join(load(file, environ).warnings)
    except ConfigError as refused:
        told = str(refused) or "refused without a problem\x00"
    assert all(line.isprintable() for line in told.split("\n"))
    assert SECRET not in told


NAMES = [name for path in (*SECTIONS, *SETTINGS) for name in path.split(".") if name]
VARIABLES = [setting.variable for setting in SETTINGS.values() if setting.variable]
PIECES = st.sampled_from(
    [
        *NAMES,
        *"&*!{}[]:,#?|>%@`\"'-~=<\\\n\t ",
        ": ",
        "- ",
        "\n  ",
        "\n---\n",
        "!!int ",
        "<<: ",
        "${",
        "$${A}",
        "${A}",
    ]
)
ODD = st.sampled_from(
    [
        "",
        "null",
        "true",
        "on",
        "0",
        "-1",
        "1e999",
        "nan",
        "[",
        '["a", 1]',
        "{}",
        '{"a": "b"}',
        "a,b",
        "tcp://1:1",
        "${A}",
        "https://h/v1",
        "https://[",
        "x" * 5000,
        "9" * 5000,
        "[" * 5000,
        "�",
        "\x00",
        SECRET,
        "echo",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from([*VARIABLES, "A", "RUN_ENV", "INFERENCE_X"]) | st.text(string.ascii_uppercase + "_"),
    ODD | st.text(max_size=20),
    max_size=6,
)


@given(content=st.binary(max_size=200), environ=ENVIRONMENTS)
def test_any_bytes(file: Path, content: bytes, environ: dict[str, str]) -> None:
    judge(file, content, environ)


@given(pieces=st.lists(PIECES, max_size=25), environ=ENVIRONMENTS)
def test_any_text_like_yaml(file: Path, pieces: list[str], environ: dict[str, str]) -> None:
    judge(file, "".join(pieces).encode(), environ)


@given(
    tree=st.fixed_dictionaries({}, optional=dict.fromkeys(SECTIONS[""].model_fields, TREES)),
    inference=st.dictionaries(st.sampled_from(NAMES), TREES, max_size=5),
    environ=ENVIRONMENTS,
)
@settings(max_examples=300)
def test_any_tree_like_the_schema(
    file: Path, tree: dict[str, Any], inference: dict[str, Any], environ: dict[str, str]
) -> None:
    text = yaml.safe_dump({**tree, "inference": inference}, allow_unicode=False)
    judge(file, text.encode(), environ)


@given(environ=ENVIRONMENTS)
@example(dict.fromkeys(VARIABLES, "x"))
@example(dict.fromkeys(VARIABLES, SECRET))
def test_any_environment(file: Path, environ: dict[str, str]) -> None:
    judge(file, b"inference: {provider: echo}", environ)


LINES = st.text(string.ascii_letters + string.digits + string.punctuation + " ", max_size=12)
PLAIN = (
    LINES
    | st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(value=st.dictionaries(LINES, PLAIN | st.lists(PLAIN, max_size=3), min_size=1, max_size=5))
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    assert repr(read_mapping(write(value), "t")) == repr(dict(sorted(value.items())))


TEXTS = st.text(string.ascii_letters + string.digits + " ${}'\"#:-*?", min_size=1, max_size=20).filter(
    lambda text: text == text.strip()
)


@given(
    model=TEXTS,
    models=st.none() | st.lists(TEXTS, max_size=3),
    headers=st.dictionaries(st.sampled_from(["X-A", "X-B"]), TEXTS),
    timeout=st.floats(min_value=0.001, max_value=86_400),
    retries=st.integers(min_value=0, max_value=10),
)
def test_every_config_survives_its_own_text(
    model: str, models: list[str] | None, headers: dict[str, str], timeout: float, retries: int
) -> None:
    http = {"timeout_secs": timeout, "max_retries": retries}
    inference = {
        "provider": "echo",
        "default_model": model,
        "allowed_models": models,
        "extra_headers": headers,
    }
    config = Config.model_validate({"inference": {**inference, "http": http}})
    text = codec.dump(config)
    again = codec.parse(text)
    assert again == config
    assert codec.dump(again) == text
    assert codec.digest(again) == codec.digest(config)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_nest_of_aliases_is_not_unfolded(file: Path, size: int) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, size // 50)
    )
    judge(file, bomb.encode(), {})
