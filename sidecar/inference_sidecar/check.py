"""The command `check`: prints the configuration that `run` would have, and what is wrong with it.

Enters: where the configuration comes from. Leaves: lines on stdout and stderr, and an exit code. Must not show a
key, nor know how anything is served.
"""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from inference_config.load import ConfigError, Loaded, Problem, load, read_key
from inference_config.problems import one_line
from inference_config.settings import SETTINGS

from .telemetry import environment

MASK = "********"


def check(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    """Prints each setting with its value and where it came from, then reads the files that it names."""
    loaded = load(path, environ, flags)
    sys.stdout.write("\n".join(_lines(loaded)) + "\n")
    problems = _telemetry(loaded, environ)
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    problems += _problems_of_files(loaded)
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 2 if problems else 0


def _telemetry(loaded: Loaded, environ: Mapping[str, str]) -> list[Problem]:
    """Prints what is exported, by the standard variables; returns what is wrong with them."""
    try:
        told = environment.described(environment.read(environ))
    except ConfigError as error:
        return list(error.problems)
    left = max(map(len, SETTINGS))
    sys.stdout.writelines(
        f"{name:{left}} = {_without_key(loaded, value)}  (OTEL_*)\n" for name, value in told
    )
    return []


def _without_key(loaded: Loaded, text: str) -> str:
    """The key may have been put into another setting as well."""
    key = loaded.config.inference.api_key
    return text if key is None or len(key) < 8 else text.replace(key.get_secret_value(), MASK)


def _lines(loaded: Loaded) -> list[str]:
    shown = {
        path: _without_key(loaded, _shown(setting.of(loaded.config))) for path, setting in SETTINGS.items()
    }
    left = max(map(len, shown))
    right = max(len(value) for value in shown.values() if len(value) <= 60)
    return [f"{path:{left}} = {value:{right}}  ({loaded.sources[path]})" for path, value in shown.items()]


def _shown(value: object) -> str:
    """A setting's value as YAML would have it, on one line; of a secret only that it is there."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return MASK if isinstance(value, SecretStr) else json.dumps(value, default=lambda _: MASK)


def _problems_of_files(loaded: Loaded) -> list[Problem]:
    """What `run` would find wrong with the key file and the CA file."""
    problems: list[Problem] = []
    inference = loaded.config.inference
    if inference.api_key_file is not None:
        try:
            read_key(Path(inference.api_key_file))
        except ConfigError as error:
            problems += error.problems
    if inference.http.ca_file is not None:
        try:
            ssl.create_default_context(cafile=inference.http.ca_file)
        except ssl.SSLError:
            problems.append(Problem(inference.http.ca_file, "no certificates", "certificates in PEM form"))
        except OSError as error:
            found = (error.strerror or "an error").lower()
            problems.append(Problem(inference.http.ca_file, found, "a file that can be read"))
    return problems
