"""What a mistake in the configuration looks like: one exact line each, all at once, and never a secret.

Covers: unknown keys, wrong types, ranges, choices, rules over several fields, variables, files that cannot be
used, masking. Left out: which texts each type takes (test_config_values).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from inference_config.load import ConfigError, Problem, load

SECRET = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJK"
HTTP_KEYS = (
    "timeout_secs, connect_timeout_secs, stream_idle_timeout_secs, stream_timeout_secs, keep_alive_secs, "
    "max_idle_connections, max_connections, max_retries, retry_backoff_ms, ca_file, transport"
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(text: str, environ: Mapping[str, str] | None = None, **flags: object) -> list[str]:
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(Path("c.yaml"), environ or {}, {name.replace("__", "."): value for name, value in flags.items()})
    lines = [str(problem) for problem in caught.value.problems]
    assert str(caught.value) == "\n".join(lines)
    return lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "inference: {provider: echo, http: {timeout_sec: 15}}",
            (
                f"inference.http.timeout_sec (file c.yaml): found an unknown key; valid: one of {HTTP_KEYS}; "
                "nearest known key: inference.http.timeout_secs"
            ),
        ),
        (
            "provider: echo\ninference: {provider: echo}",
            (
                "provider (file c.yaml): found an unknown key; valid: one of version, inference, server, logging, "
                "telemetry; nearest known key: inference.provider"
            ),
        ),
        (
            "inference: {provider: echo}\nlogging: {levle: debug, qq: 1}",
            (
                "logging.levle (file c.yaml): found an unknown key; valid: one of level, format, content; "
                "nearest known key: logging.level"
            ),
        ),
        (
            'inference: {provider: echo, http: {timeout_secs: "30"}}',
            (
                'inference.http.timeout_secs (file c.yaml): found "30"; valid: a number above 0, up to 86400; '
                "write it without quotes"
            ),
        ),
        (
            "inference: {provider: echo, http: {timeout_secs: 0}}",
            "inference.http.timeout_secs (file c.yaml): found 0; valid: a number above 0, up to 86400",
        ),
        (
            "inference: {provider: echo, http: {max_retries: 11}}",
            "inference.http.max_retries (file c.yaml): found 11; valid: a whole number from 0 to 10",
        ),
        (
            "inference: {provider: echo, http: {max_retries: 1.0}}",
            "inference.http.max_retries (file c.yaml): found 1.0; valid: a whole number from 0 to 10",
        ),
        (
            "inference: {provider: echo, http: {max_retries: true}}",
            "inference.http.max_retries (file c.yaml): found true; valid: a whole number from 0 to 10",
        ),
        (
            "inference: {provider: opnai, api_key: x}",
            'inference.provider (file c.yaml): found "opnai"; valid: one of openai, azure, echo; nearest: openai',
        ),
        (
            "inference: {provider: echo, organization_id: 12}",
            "inference.organization_id (file c.yaml): found 12; valid: 1 to 256 ASCII characters; put it in quotes",
        ),
        (
            "inference: {provider: echo, allowed_models: gpt-4}",
            'inference.allowed_models (file c.yaml): found "gpt-4"; valid: a list, each 1 to 256 ASCII characters',
        ),
        (
            "inference: {provider: echo, allowed_models: [a, [b]]}",
            "inference.allowed_models[1] (file c.yaml): found a list; valid: 1 to 256 ASCII characters",
        ),
        (
            "inference: {provider: echo}\nserver: {port: null}",
            "server.port (file c.yaml): found null; valid: a whole number from 0 to 65535",
        ),
        (
            "inference: echo",
            (
                "inference (file c.yaml): found a string of 4 characters; valid: a mapping of provider, api_key, "
                "api_key_file, auth, organization_id, project_id, base_url, api_version, default_model, "
                "allowed_models, model_filter, extra_headers, validation, usage_injection, "
                "keepalive_comment_secs, health_check_interval_secs, http"
            ),
        ),
        (
            "inference: {api_key: x, api_key_file: y}",
            "inference.api_key (file c.yaml): found a key beside inference.api_key_file; valid: one of the two",
        ),
        (
            "inference: {provider: azure, api_key: x}",
            (
                "inference.base_url: found none, with provider azure; valid: the resource's URL, for example "
                "https://RESOURCE.openai.azure.com"
            ),
        ),
        (
            "inference: {provider: openai}",
            (
                "inference.api_key: found no key for provider openai; valid: INFERENCE_INFERENCE_API_KEY in the "
                "environment, or inference.api_key or inference.api_key_file in the file; provider: echo needs none"
            ),
        ),
        ("version: 2\ninference: {provider: echo}", "version (file c.yaml): found 2; valid: 1"),
    ],
)
def test_the_line_of_a_typical_mistake(text: str, line: str) -> None:
    assert problems(text)[0] == line


def test_an_environments_mistake_names_the_variable() -> None:
    assert problems("inference: {provider: echo}", {"INFERENCE_SERVER_PORT": "70000"}) == [
        "server.port (environment INFERENCE_SERVER_PORT): found 70000; valid: a whole number from 0 to 65535"
    ]


def test_a_flags_mistake_names_the_flag() -> None:
    assert problems("inference: {provider: echo}", server__admin_port="http") == [
        'server.admin_port (flag --admin-port): found "http"; valid: a whole number from 0 to 65535'
    ]


def test_a_key_of_the_environment_beside_a_files_key_file() -> None:
    lines = problems("inference: {api_key_file: k}", {"INFERENCE_INFERENCE_API_KEY": SECRET})
    assert lines == [
        (
            "inference.api_key (environment INFERENCE_INFERENCE_API_KEY): found a key beside inference.api_key_file; "
            "valid: one of the two"
        )
    ]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("${NOT_SET}", "${NOT_SET}, a variable that is not set"),
        ("${}", "a ${ that no variable's name and } follow"),
        ("${A:-b}", "a ${ that no variable's name and } follow"),
    ],
)
def test_a_reference_that_leads_nowhere(value: str, found: str) -> None:
    text = f"inference: {{provider: echo, default_model: '{value} {value}'}}"
    assert [line.partition("; valid")[0] for line in problems(text)] == [
        f"inference.default_model (file c.yaml): found {found}"
    ]


def test_every_problem_is_told_at_once() -> None:
    text = """
    inference:
      api_key: a b
      api_key_file: k
      tiemout: 1
      default_model: "${MISSING}"
      http: {timeout_secs: soon, max_retries: -1}
    server: {port: x}
    loging: {}
    """
    paths = [line.partition(" ")[0] for line in problems(text, {"INFERENCE_LOGGING_LEVEL": "loud"})]
    assert sorted(paths) == [
        "inference.api_key",
        "inference.default_model",
        "inference.http.max_retries",
        "inference.http.timeout_secs",
        "inference.tiemout",
        "logging.level",
        "loging",
        "server.port",
    ]


def test_rules_over_several_fields_are_told_beside_faults_of_others() -> None:
    lines = problems("inference: {provider: azure, http: {timeout_secs: 0}}")
    assert [line.partition(" ")[0].rstrip(":") for line in lines] == [
        "inference.http.timeout_secs",
        "inference.base_url",
    ]


def test_no_rule_is_judged_on_a_value_that_is_refused_itself() -> None:
    assert len(problems("inference: {provider: azure, base_url: nowhere, api_key: x}")) == 1
    assert len(problems("inference: {provider: azzure}")) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"inference: {{api_key: '{SECRET} {SECRET}'}}",
        f"inference: {{api_key: [{SECRET}]}}",
        f"inference: {{api_key: '{SECRET}', api_keys: '{SECRET}'}}",
        f"inference:\n  api_key:{SECRET}\n",
        f"inference: {{api_key:{SECRET}}}",
        f"inference: {{{SECRET}: 1}}",
        f"inference: {SECRET}",
        f"{SECRET}",
        f"api_key: {SECRET}\nbroken: [",
        f"inference: {{provider: echo, extra_headers: {{X-A: ['{SECRET}'], 'é': '{SECRET}', Host: '{SECRET}'}}}}",
        f"inference: {{provider: echo, extra_headers: {SECRET}}}",
        f"inference: {{provider: echo, base_url: 'https://user:{SECRET}@host/v1'}}",
        f"inference: {{provider: echo, base_url: 'https://host/v1?key={SECRET}'}}",
        f"inference: {{provider: {SECRET}}}",
        f"inference: {{provider: echo, http: {{timeout_secs: {SECRET}}}}}",
        "inference: {provider: echo, http: {timeout_secs: '${IN_A_VARIABLE}'}}",
        "inference: {provider: echo, allowed_models: ['${IN_A_VARIABLE}', 1, '${IN_A_VARIABLE} ']}",
    ],
)
def test_no_secret_is_shown(text: str) -> None:
    shown = "\n".join(problems(text, {"IN_A_VARIABLE": f"x {SECRET}"}))
    assert SECRET[:12] not in shown
    assert SECRET[-12:] not in shown


def test_an_error_carries_no_secret_behind_it() -> None:
    Path("c.yaml").write_text(f"inference: {{api_key: '{SECRET} x'}}")
    with pytest.raises(ConfigError) as caught:
        load(Path("c.yaml"), {})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found nothing"),
        (b"# only a comment\n", "found nothing"),
        (b"---\n", "found nothing"),
        (b"- a\n", "found no mapping at the top"),
        (b"inference: {api_key: a, api_key: b}\n", "found the key api_key a second time in line 1"),
        (b"a: 1\nb: [\n", "found no valid YAML: did not find expected node content in line 3"),
        (b"a: \xff\n", "found bytes that are no text"),
        (b"a: \x00\n", "found a character that YAML does not allow"),
        (b"a: " + b"x" * 1024 * 1024, "found a file that is too large"),
    ],
)
def test_a_file_that_holds_no_configuration(content: bytes, found: str) -> None:
    Path("c.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(Path("c.yaml"), {})
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"c.yaml: {found}; valid: ")


def test_a_given_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"^nowhere\.yaml: found no such file or directory; valid: "):
        load(Path("nowhere.yaml"), {})


def test_a_directory_without_a_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"found a directory without a configuration; valid: config\.v1\.yaml$"
    ):
        load(Path(), {})


@pytest.mark.parametrize("name", ["../etc/passwd", "a/b", "a\nb", ".hidden", "x" * 65])
def test_a_run_env_that_is_no_name(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^RUN_ENV \(environment\): found a text that is no file's name; valid: "
    ):
        load(None, {"RUN_ENV": name})


def test_a_line_stays_one_line() -> None:
    assert str(Problem("a\nb\ud800", "c\x1b[0m", "d")) == "a\\nb\\ud800: found c\\u001b[0m; valid: d"
