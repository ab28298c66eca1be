"""A Config as canonical text and back, and its digest.

Covers: round trips through `parse` and through `load`, defaults left out, order, keys kept out, `${` kept whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_config import codec
from inference_config.load import ConfigError, load
from inference_config.schema import Config

FULL: dict[str, Any] = {
    "inference": {
        "provider": "azure",
        "api_key_file": "/etc/inference-sidecar/api-key",
        "base_url": "https://r.openai.azure.com",
        "api_version": "2024-10-21",
        "default_model": "1e3",
        "organization_id": "${NOT} $${NOT} $ {",
        "allowed_models": ["gpt-*", "off"],
        "model_filter": [],
        "extra_headers": {"X-B": "${B}", "X-A": "on"},
        "validation": "off",
        "http": {"timeout_secs": 60, "stream_timeout_secs": 1.5, "max_retries": 0},
    },
    "server": {"allowed_hosts": ["h"]},
    "telemetry": {"propagate_traceparent": True},
}

TEXT = """\
inference:
  allowed_models:
  - gpt-*
  - 'off'
  api_key_file: /etc/inference-sidecar/api-key
  api_version: '2024-10-21'
  base_url: https://r.openai.azure.com
  default_model: '1e3'
  extra_headers:
    X-A: 'on'
    X-B: $${B}
  http:
    max_retries: 0
    stream_timeout_secs: 1.5
    timeout_secs: 60
  model_filter: []
  organization_id: $${NOT} $$${NOT} $ {
  provider: azure
  validation: 'off'
server:
  allowed_hosts:
  - h
telemetry:
  propagate_traceparent: true
version: 1
"""


def test_the_canonical_text() -> None:
    assert codec.dump(Config.model_validate(FULL)) == TEXT


def test_what_was_dumped_is_read_back_by_both_readers(tmp_path: Path) -> None:
    config = Config.model_validate(FULL)
    file = tmp_path / "c.yaml"
    file.write_text(codec.dump(config))
    assert codec.parse(codec.dump(config)) == load(file, {"B": "x", "NOT": "y"}).config == config


def test_defaults_are_left_out_also_where_they_are_given() -> None:
    assert codec.dump(Config()) == "version: 1\n"
    given = {"inference": {"http": {"timeout_secs": 30}, "extra_headers": {}}, "server": {"port": 3000}}
    assert codec.dump(Config.model_validate(given)) == "version: 1\n"
    assert codec.parse("version: 1\n") == Config()


def test_a_key_is_not_dumped_and_not_shown() -> None:
    config = Config.model_validate({"inference": {"api_key": "sk-test-1234"}})
    with pytest.raises(ValueError, match="api_key_file") as caught:
        codec.dump(config)
    assert "sk-test-1234" not in str(caught.value)


def test_parse_is_strict_and_asks_no_environment() -> None:
    with pytest.raises(ConfigError) as caught:
        codec.parse('inference: {modle: x, default_model: "${HOME}"}\nserver: {port: "1"}')
    assert [problem.path for problem in caught.value.problems] == [
        "inference.modle",
        "inference.default_model",
        "server.port",
    ]


def test_the_digest_follows_the_config_and_nothing_else() -> None:
    digest = codec.digest(Config.model_validate(FULL))
    assert digest.startswith("sha256:")
    assert len(digest) == 71
    assert codec.digest(codec.parse(TEXT)) == digest
    assert codec.digest(codec.parse(TEXT.replace("max_retries: 0", "max_retries: 1"))) != digest


def test_the_digest_is_the_same_everywhere() -> None:
    defaults = "2430f1a2ad2982d0067885488a4c89e21ad1d7c83b115ba8f1b20acc88dfaea8"
    assert codec.digest(Config()) == f"sha256:{defaults}"


def test_no_secret_goes_into_the_digest() -> None:
    def digest(key: str, header: str, name: str = "X-A") -> str:
        inference = {"api_key": key, "extra_headers": {name: header}}
        return codec.digest(Config.model_validate({"inference": inference}))

    assert digest("sk-one", "one") == digest("sk-two", "two")
    assert digest("sk-one", "one") != digest("sk-one", "one", name="X-B")
