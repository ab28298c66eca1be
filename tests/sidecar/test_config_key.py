"""Keys: read from their file, required by a provider, never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference_config.load import ConfigError, read_key, require_key
from inference_config.schema import Config


@pytest.mark.parametrize("content", [b"sk-test", b" sk-test\r\n", b"\xef\xbb\xbfsk-test\n\n"])
def test_a_key_is_trimmed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    key = read_key(file)
    assert key.get_secret_value() == "sk-test"
    assert "sk-test" not in repr(key)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "found no usable key; valid: a key that is not empty"),
        (b" \n", "found no usable key; valid: a key that is not empty"),
        (b"sk-one\nsk-two\n", "found no usable key; valid: ASCII without blanks or control characters"),
        (b"sk-one two", "found no usable key; valid: ASCII without blanks or control characters"),
        (b"sk-\x00one", "found no usable key; valid: ASCII without blanks or control characters"),
        ("sk-öne".encode(), "found no usable key; valid: ASCII without blanks or control characters"),
        (b"sk-\xff", "found bytes that are no text; valid: a key in ASCII"),
        (b"sk-" + b"x" * 65536, "found a file that is too large for a key; valid: at most 65536 bytes"),
    ],
)
def test_a_file_without_a_usable_key(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_key(file)
    assert str(caught.value) == f"{file}: {told}"
    assert caught.value.__context__ is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"key: found no such file; valid: a file that holds a key$"):
        read_key(tmp_path / "key")


def test_a_pipe_or_a_directory_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="found no regular file"):
            read_key(path)


def test_a_key_is_followed_through_links_as_kubernetes_makes_them(tmp_path: Path) -> None:
    (tmp_path / "..2024").mkdir()
    (tmp_path / "..2024" / "key").write_text("sk-test")
    (tmp_path / "..data").symlink_to("..2024")
    (tmp_path / "key").symlink_to("..data/key")
    assert read_key(tmp_path / "key").get_secret_value() == "sk-test"


@pytest.mark.parametrize(
    "inference",
    [{"provider": "echo"}, {"api_key": "k"}, {"api_key_file": "k"}, {"provider": "echo", "api_key": "k"}],
)
def test_where_a_key_comes_from_or_is_not_needed(inference: dict[str, str]) -> None:
    require_key(Config.model_validate({"inference": inference}))


@pytest.mark.parametrize("inference", [{}, {"provider": "azure", "base_url": "https://r.openai.azure.com"}])
def test_a_provider_without_a_key(inference: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        require_key(Config.model_validate({"inference": inference}))
    told = str(caught.value)
    for way in (
        "INFERENCE_INFERENCE_API_KEY",
        "inference.api_key ",
        "inference.api_key_file",
        "provider: echo",
    ):
        assert way in told
