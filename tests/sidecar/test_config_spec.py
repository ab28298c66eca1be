"""The requirement's own configurations: every YAML and every variable of it loads as it is printed.

Covers: minimal, full, development, production, Azure, the ConfigMap's file, the compose file's environment, each
export line, and the precedence that those examples rely on. Left out: what is refused (test_config_problems).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_config.load import ConfigError, load

DATA = Path(__file__).parent.parent / "data" / "config"

EXPORTS = {
    "INFERENCE_INFERENCE_API_KEY": ("sk-your-api-key", "inference.api_key"),
    "INFERENCE_INFERENCE_PROVIDER": ("openai", "inference.provider"),
    "INFERENCE_INFERENCE_DEFAULT_MODEL": ("gpt-4", "inference.default_model"),
    "INFERENCE_INFERENCE_BASE_URL": ("https://api.openai.com/v1", "inference.base_url"),
    "INFERENCE_INFERENCE_ORGANIZATION_ID": ("org-your-org-id", "inference.organization_id"),
    "INFERENCE_INFERENCE_HTTP_TIMEOUT_SECS": ("30", "inference.http.timeout_secs"),
    "INFERENCE_INFERENCE_HTTP_CONNECT_TIMEOUT_SECS": ("10", "inference.http.connect_timeout_secs"),
}


def test_minimal() -> None:
    config = load(DATA / "minimal.yaml", {}).config
    assert config.inference.api_key is not None
    assert config.inference.api_key.get_secret_value() == "sk-your-openai-api-key-here"
    assert (config.inference.provider, config.inference.default_model) == ("openai", "gpt-3.5-turbo")
    http = config.inference.http
    assert (http.timeout_secs, http.connect_timeout_secs, http.keep_alive_secs) == (30, 10, 30)
    assert (http.max_idle_connections, http.max_retries, http.retry_backoff_ms) == (10, 3, 100)


def test_full() -> None:
    inference = load(DATA / "full.yaml", {}).config.inference
    assert inference.organization_id == "org-your-org-id"
    assert inference.base_url == "https://api.openai.com/v1"
    http = inference.http
    assert (http.timeout_secs, http.connect_timeout_secs) == (30, 10)
    assert (http.keep_alive_secs, http.max_idle_connections) == (30, 10)


def test_azure() -> None:
    inference = load(DATA / "azure.yaml", {}).config.inference
    assert inference.provider == "openai"
    assert inference.base_url == (
        "https://your-resource-name.openai.azure.com/openai/deployments/your-deployment-name"
    )
    assert inference.organization_id is None


def test_the_configmaps_file() -> None:
    loaded = load(
        DATA / "configmap_production.yaml", {"INFERENCE_INFERENCE_API_KEY": "sk-your-openai-api-key"}
    )
    http = loaded.config.inference.http
    assert (http.timeout_secs, http.max_idle_connections, http.keep_alive_secs) == (60, 20, 30)


@pytest.mark.parametrize("environ", [{}, {"RUN_ENV": "development"}, {"RUN_ENV": ""}])
def test_development_is_the_default(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA / "by_environment")
    loaded = load(None, {**environ, "OPENAI_API_KEY": "sk-from-the-shell"})
    assert loaded.file == Path("config/development.yaml")
    assert loaded.config.inference.api_key is not None
    assert loaded.config.inference.api_key.get_secret_value() == "sk-from-the-shell"
    assert loaded.config.inference.http.timeout_secs == 15
    assert loaded.sources["inference.api_key"] == "file config/development.yaml, ${OPENAI_API_KEY}"


def test_production_takes_its_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA / "by_environment")
    environ = {"RUN_ENV": "production", "INFERENCE_INFERENCE_API_KEY": "sk-your-api-key"}
    loaded = load(None, environ)
    assert loaded.file == Path("config/production.yaml")
    http = loaded.config.inference.http
    assert (http.timeout_secs, http.connect_timeout_secs) == (60, 15)
    assert (http.keep_alive_secs, http.max_idle_connections) == (60, 20)
    assert loaded.config.inference.default_model == "gpt-4"
    with pytest.raises(ConfigError, match="no key for provider openai"):
        load(None, {"RUN_ENV": "production"})


def test_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {
        "INFERENCE_INFERENCE_PROVIDER": "openai",
        "INFERENCE_INFERENCE_API_KEY": "sk-from-compose",
        "INFERENCE_INFERENCE_DEFAULT_MODEL": "gpt-3.5-turbo",
        "RUN_ENV": "production",
    }
    loaded = load(None, environ)
    assert (loaded.file, loaded.warnings) == (None, ())
    assert loaded.config.inference.default_model == "gpt-3.5-turbo"


@pytest.mark.parametrize("variable", EXPORTS)
def test_each_export_overrides_its_field(variable: str) -> None:
    text, path = EXPORTS[variable]
    loaded = load(DATA / "minimal.yaml", {variable: text})
    assert loaded.sources[path] == f"environment {variable}"
    assert loaded.warnings == ()


def test_all_exports_together_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None, {name: text for name, (text, _) in EXPORTS.items()}).config
    assert config.inference.organization_id == "org-your-org-id"
    assert config.inference.http.timeout_secs == 30.0
    assert config.inference.default_model == "gpt-4"


def test_exports_win_over_the_file() -> None:
    environ = {
        "INFERENCE_INFERENCE_HTTP_TIMEOUT_SECS": "60",
        "INFERENCE_INFERENCE_HTTP_CONNECT_TIMEOUT_SECS": "15",
    }
    http = load(DATA / "full.yaml", environ).config.inference.http
    assert (http.timeout_secs, http.connect_timeout_secs, http.keep_alive_secs) == (60, 15, 30)
