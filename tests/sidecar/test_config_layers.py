"""Where values come from: file, variables inside it, environment, flags; which wins, and what each text becomes.

Covers: precedence and the origin told of every leaf, kinds of environment values, `${VAR}`, Kubernetes' Service
variables, unknown variables, directories, RUN_ENV. Left out: the words of a refusal (test_config_problems).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inference_config.load import ConfigError, Loaded, load
from inference_config.settings import SETTINGS

ECHO = "inference: {provider: echo}\n"
KEY = {"INFERENCE_INFERENCE_API_KEY": "sk-test"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, environ: Mapping[str, str] | None = None, **flags: object) -> Loaded:
    Path("c.yaml").write_text(text)
    return load(
        Path("c.yaml"), environ or {}, {name.replace("__", "."): value for name, value in flags.items()}
    )


def value_of(environ: Mapping[str, str], path: str) -> Any:
    return SETTINGS[path].of(loaded(ECHO, environ).config)


def test_flags_win_over_environment_over_file_over_defaults() -> None:
    text = "inference: {provider: echo}\nserver: {port: 1, admin_port: 2, host: 10.0.0.1}"
    environ = {"INFERENCE_SERVER_PORT": "11", "INFERENCE_SERVER_ADMIN_PORT": "12"}
    got = loaded(text, environ, server__port=21, server__host=None)
    server = got.config.server
    assert (server.port, server.admin_port, server.host, server.admin_host) == (
        21,
        12,
        "10.0.0.1",
        "127.0.0.1",
    )
    assert got.sources["server.port"] == "flag --port"
    assert got.sources["server.admin_port"] == "environment INFERENCE_SERVER_ADMIN_PORT"
    assert got.sources["server.host"] == "file c.yaml"
    assert got.sources["server.admin_host"] == "default"


def test_every_leaf_has_an_origin_and_its_own_variable() -> None:
    assert loaded(ECHO).sources.keys() == SETTINGS.keys()
    variables = [setting.variable for setting in SETTINGS.values() if setting.variable]
    assert len(set(variables)) == len(variables) == len(SETTINGS) - 1  # the schema's version has none


def test_a_flag_may_be_a_text_as_it_was_typed() -> None:
    assert loaded(ECHO, server__port="0").config.server.port == 0


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("inference.http.timeout_secs", "2.5", 2.5),
        ("inference.http.timeout_secs", " 30\n", 30.0),
        ("inference.http.max_retries", "0", 0),
        ("logging.content", "TRUE", True),
        ("logging.content", "on", True),
        ("logging.content", "1", True),
        ("logging.content", "no", False),
        ("logging.content", "0", False),
        ("logging.level", "DEBUG", "debug"),
        ("inference.allowed_models", "gpt-4*, o3 ,", ("gpt-4*", "o3")),
        ("inference.allowed_models", '["a,b", "c"]', ("a,b", "c")),
        ("inference.model_filter", "[]", ()),
        ("server.allowed_origins", "http://a:1,https://b", ("http://a:1", "https://b")),
        ("inference.default_model", "null", None),
        ("inference.default_model", "12", "12"),
        ("inference.default_model", "${NOT_A_REFERENCE}", "${NOT_A_REFERENCE}"),
    ],
)
def test_a_variable_becomes_its_settings_kind_of_value(path: str, text: str, value: object) -> None:
    got = value_of({SETTINGS[path].variable or "": text}, path)
    assert got == value
    assert type(got) is type(value)


def test_a_mapping_in_a_variable_is_json() -> None:
    headers = value_of({"INFERENCE_INFERENCE_EXTRA_HEADERS": '{"X-Team": "blue"}'}, "inference.extra_headers")
    assert {name: value.get_secret_value() for name, value in headers.items()} == {"X-Team": "blue"}


def test_null_takes_a_files_value_away_and_empty_leaves_it() -> None:
    text = "inference: {provider: echo, default_model: a, project_id: b}"
    environ = {"INFERENCE_INFERENCE_DEFAULT_MODEL": "null", "INFERENCE_INFERENCE_PROJECT_ID": " "}
    inference = loaded(text, environ).config.inference
    assert (inference.default_model, inference.project_id) == (None, "b")


def test_a_key_of_the_environment_replaces_the_files() -> None:
    inference = loaded("inference: {api_key: sk-file}", KEY).config.inference
    assert inference.api_key is not None
    assert inference.api_key.get_secret_value() == "sk-test"


def test_variables_in_the_file_become_the_settings_kind_of_value() -> None:
    text = """
    inference:
      provider: echo
      default_model: "${A}-${B}"   # never here: ${NOT_SET}
      organization_id: "$${A} and $$${B}"
      allowed_models: "${LIST}"
      model_filter: ["${A}*", "b"]
      extra_headers: {X-A: "${A}"}
      http: {timeout_secs: "${SECONDS}"}
    logging: {content: "${YES}"}
    """
    environ = {"A": "gpt", "B": "4", "LIST": "a,b", "SECONDS": "7.5", "YES": "yes"}
    got = loaded(text, environ)
    inference = got.config.inference
    assert inference.default_model == "gpt-4"
    assert inference.organization_id == "${A} and $${B}"
    assert inference.allowed_models == ("a", "b")
    assert inference.model_filter == ("gpt*", "b")
    assert inference.extra_headers["X-A"].get_secret_value() == "gpt"
    assert inference.http.timeout_secs == 7.5
    assert got.config.logging.content is True
    assert got.sources["inference.default_model"] == "file c.yaml, ${A}, ${B}"
    assert got.sources["inference.organization_id"] == "file c.yaml"


def test_a_variable_that_is_replaced_need_not_be_set() -> None:
    text = "inference: {api_key: '${OPENAI_API_KEY}'}"
    assert loaded(text, KEY).config.inference.api_key is not None
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        loaded(text)


SERVICE = {
    "INFERENCE_SERVER_SERVICE_HOST": "10.0.0.1",
    "INFERENCE_SERVER_SERVICE_PORT": "3000",
    "INFERENCE_SERVER_SERVICE_PORT_HTTP": "3000",
    "INFERENCE_SERVER_PORT": "tcp://10.0.0.1:3000",
    "INFERENCE_SERVER_PORT_3000_TCP": "tcp://10.0.0.1:3000",
    "INFERENCE_SERVER_PORT_3000_TCP_PROTO": "tcp",
    "INFERENCE_SERVER_PORT_3000_TCP_PORT": "3000",
    "INFERENCE_SERVER_PORT_3000_TCP_ADDR": "10.0.0.1",
}


@pytest.mark.parametrize(
    "service", ["INFERENCE_SERVER", "INFERENCE_SERVER_ADMIN", "INFERENCE", "INFERENCE_OTHER"]
)
@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_variables_that_kubelet_makes_are_passed_over(service: str, address: str) -> None:
    bracketed = f"[{address}]" if ":" in address else address
    environ = {
        name.replace("INFERENCE_SERVER", service): value.replace(
            "10.0.0.1", bracketed if "//" in value else address
        )
        for name, value in SERVICE.items()
    }
    got = loaded(ECHO, environ)
    assert got.warnings == ()
    assert (got.config.server.port, got.config.server.admin_port) == (3000, 3001)


def test_a_variable_that_only_looks_like_kubelets_still_counts() -> None:
    assert value_of({"INFERENCE_SERVER_PORT": "3005"}, "server.port") == 3005
    with pytest.raises(ConfigError, match=r"^server\.port "):
        loaded(ECHO, {"INFERENCE_SERVER_PORT": "http"})


def test_an_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    environ = {"INFERENCE_API_KEY": "sk-x", "INFERENCE_SERVER_PROT": "1", "OTHER": "1", "INFERENCE_QQQ": "1"}
    assert loaded(ECHO, environ).warnings == (
        "environment INFERENCE_API_KEY: sets nothing; nearest known variable: INFERENCE_INFERENCE_API_KEY",
        "environment INFERENCE_QQQ: sets nothing",
        "environment INFERENCE_SERVER_PROT: sets nothing; nearest known variable: INFERENCE_SERVER_PORT",
    )


def test_a_directory_is_read_by_its_schema_version() -> None:
    mount = Path("mount")
    mount.mkdir()
    (mount / "config.v1.yaml").write_text(ECHO)
    (mount / "config.v99.yaml").write_text("inference: {unheard_of: true}")
    got = load(mount, {})
    assert got.file == mount / "config.v1.yaml"
    assert got.config.inference.provider == "echo"


def test_without_a_file_environment_and_defaults_alone() -> None:
    got = load(None, KEY)
    assert (got.file, got.warnings) == (None, ())
    assert got.config.inference.provider == "openai"


def test_a_run_env_without_its_file_is_told_where_there_are_others() -> None:
    Path("config").mkdir()
    assert load(None, KEY).warnings == ()
    assert load(None, {**KEY, "RUN_ENV": "prod"}).warnings == (
        "RUN_ENV prod: there is no config/prod.yaml; environment and defaults alone are used",
    )


def test_a_section_without_lines_is_empty() -> None:
    assert (
        loaded(
            "inference:\n  provider: echo\n  http:\n    # timeout_secs: 5\n"
        ).config.inference.http.timeout_secs
        == 30
    )
