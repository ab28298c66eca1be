"""The command line: check, run, --version, their exit codes, and what goes to which stream.

Covers: the effective configuration with origins and masks, warnings, problems, key and CA files, flags, the
scripts themselves. Left out: what run does once the configuration is good (the tests of the server).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from inference_config import __version__
from inference_sidecar.__main__ import command

SECRET = "sk-proj-0123456789"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines_of(text: str) -> dict[str, tuple[str, str]]:
    """What check printed: path → (value, origin)."""
    printed = {}
    for line in text.splitlines():
        path, _, rest = line.partition(" = ")
        value, _, origin = rest.rpartition("  (")
        printed[path.strip()] = (value.strip(), origin.removesuffix(")"))
    return printed


def test_check_prints_values_and_origins(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text(
        f"""
        inference:
          api_key: {SECRET}
          project_id: {SECRET}
          allowed_models: [gpt-4*, o3]
          extra_headers: {{X-Team: "${{TEAM}}"}}
          http: {{timeout_secs: 60}}
        """
    )
    environ = {"TEAM": "a-team-secret", "INFERENCE_LOGGING_LEVEL": "debug"}
    assert command(["check", "-c", "c.yaml", "--port", "0"], environ) == 0
    out, err = capsys.readouterr()
    printed = lines_of(out)
    assert err == ""
    assert printed["inference.provider"] == ("openai", "default")
    assert printed["inference.api_key"] == ("********", "file c.yaml")
    assert printed["inference.project_id"] == ("********", "file c.yaml")
    assert printed["inference.allowed_models"] == ('["gpt-4*", "o3"]', "file c.yaml")
    assert printed["inference.extra_headers"] == ('{"X-Team": "********"}', "file c.yaml, ${TEAM}")
    assert printed["inference.http.timeout_secs"] == ("60", "file c.yaml")
    assert printed["inference.http.stream_timeout_secs"] == ("null", "default")
    assert printed["logging.level"] == ("debug", "environment INFERENCE_LOGGING_LEVEL")
    assert printed["logging.content"] == ("false", "default")
    assert printed["server.port"] == ("0", "flag --port")
    assert SECRET not in out
    assert "a-team-secret" not in out
    assert len({line.index(" = ") for line in out.splitlines()}) == 1


def test_check_tells_warnings_beside_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check"], {"INFERENCE_INFERENCE_API_KEY": SECRET, "INFERENCE_API_KEY": SECRET}) == 0
    out, err = capsys.readouterr()
    assert "inference.provider" in out
    assert err == (
        "warning: environment INFERENCE_API_KEY: sets nothing; "
        "nearest known variable: INFERENCE_INFERENCE_API_KEY\n"
    )


@pytest.mark.parametrize("name", ["check", "run"])
def test_problems_are_told_line_by_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text("inference: {provider: echo, http: {timeout_secs: 0}}\nserver: {prt: 1}")
    assert command([name, "-c", "c.yaml"], {}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(" ")[0] for line in err.splitlines()] == [
        "server.prt",
        "inference.http.timeout_secs",
    ]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"INFERENCE_INFERENCE_API_KEY_FILE": "none"},
            "none: found no such file; valid: a file that holds a key\n",
        ),
        (
            {"INFERENCE_INFERENCE_API_KEY_FILE": "bad"},
            "bad: found no usable key; valid: ASCII without blanks or control characters\n",
        ),
        (
            {"INFERENCE_INFERENCE_PROVIDER": "echo", "INFERENCE_INFERENCE_HTTP_CA_FILE": "none"},
            "none: found no such file or directory; valid: a file that can be read\n",
        ),
        (
            {"INFERENCE_INFERENCE_PROVIDER": "echo", "INFERENCE_INFERENCE_HTTP_CA_FILE": "bad"},
            "bad: found no certificates; valid: certificates in PEM form\n",
        ),
    ],
)
def test_check_reads_the_files_that_are_named(
    environ: Mapping[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad").write_text("two words\n")
    assert command(["check"], environ) == 2
    out, err = capsys.readouterr()
    assert "inference.provider" in out
    assert err == told


def test_check_is_content_with_a_good_key_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("key").write_text(f"{SECRET}\n")
    assert command(["check"], {"INFERENCE_INFERENCE_API_KEY_FILE": "key"}) == 0
    out, err = capsys.readouterr()
    assert lines_of(out)["inference.api_key_file"][0] == "key"
    assert SECRET not in out + err


def test_run_hands_over_what_was_asked_and_returns_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
        asked.append((path, environ, flags))
        return 143

    serve = ModuleType("inference_sidecar.serve")
    monkeypatch.setattr(serve, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "inference_sidecar.serve", serve)
    environ = {"A": "b"}
    assert command(["run", "-c", "x.yaml", "--host", "::1", "--admin-port", "0"], environ) == 143
    assert command(["run"], environ) == 143
    assert asked == [
        (Path("x.yaml"), environ, {"server.host": "::1", "server.admin_port": "0"}),
        (None, environ, {}),
    ]


@pytest.mark.parametrize("package", ["inference_sidecar", "inference_operator"])
def test_the_scripts_say_their_version(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == f"{package.replace('_', '-')} {__version__}\n"


def test_check_as_a_process_needs_no_server() -> None:
    code = (
        "import os, sys\n"
        "from inference_sidecar.__main__ import command\n"
        "code = command(['check'], {'INFERENCE_INFERENCE_PROVIDER': 'echo'})\n"
        "heavy = {'uvicorn', 'httpx', 'httpcore', 'starlette'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("inference_sidecar.__main__", {"pydantic", "yaml", "asyncio", "ssl"}),
        ("inference_sidecar.check", {"yaml", "difflib", "uvicorn", "httpx", "starlette"}),
        (
            "inference_sidecar.serve",
            {"yaml", "difflib", "httpcore", "opentelemetry", "inference_sidecar.echo"},
        ),
    ],
)
def test_nothing_is_imported_before_it_is_needed(imported: str, absent: set[str]) -> None:
    code = f"import json, sys, {imported}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)
    modules = set(json.loads(done.stdout))
    assert imported in modules
    assert not modules & absent


@pytest.mark.parametrize("arguments", [[], ["serve"], ["check", "--prot", "1"]])
def test_arguments_that_nobody_knows(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(arguments, {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: inference-sidecar")
