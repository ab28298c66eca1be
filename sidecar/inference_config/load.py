"""Where a configuration comes from: a file, the environment, flags; and a key from its file.

Enters: paths and mappings. Leaves: `Loaded`, or a `ConfigError` with every problem at once.
Precedence, weakest first: defaults, file, environment, flags. A variable is INFERENCE_ and the setting's path
in capitals, joined by _. Must not keep anything between calls: a reload is another call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import SecretStr

from . import layers
from .names import SCHEMA_VERSIONS, config_file
from .problems import ConfigError, Problem
from .resolve import resolve
from .schema import Config
from .settings import SETTINGS
from .values import key_text

__all__ = ["ConfigError", "Loaded", "Problem", "load", "read_key", "require_key"]

MAX_KEY_BYTES = 64 * 1024
_NO_FLAGS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that is whole, and its story.

    `sources` tells of every leaf where its value came from: `default`, `file PATH` (with `, ${VAR}` where
    variables were put in), `environment NAME`, `flag --NAME`. `file` is the file that was read, if any.
    """

    config: Config
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    file: Path | None


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object] = _NO_FLAGS) -> Loaded:
    """The configuration of one sidecar. Raises ConfigError.

    `path` is a file, or a directory that holds a file for each schema version; None is config/{RUN_ENV}.yaml
    below the working directory, if it is there. `flags` has dotted paths as keys. No key file is read here.
    """
    file, text, warnings = _chosen(path, environ)
    from_file, problems = ({}, []) if file is None else _of_file(file, text)
    from_environment, unknown = layers.of_environment(environ)
    from_flags, misspelt = layers.of_flags(flags)
    resolved = resolve([from_file, from_environment, from_flags], environ)
    problems += [*misspelt, *resolved.problems]
    if not resolved.failing & {"inference.provider", "inference.api_key", "inference.api_key_file"}:
        problems += _without_key(resolved.config)
    if problems:
        raise ConfigError(problems)
    given = resolved.given
    sources = {name: given[name].origin if name in given else "default" for name in SETTINGS}
    return Loaded(resolved.config, MappingProxyType(sources), (*warnings, *unknown), file)


def _of_file(file: Path, text: str) -> tuple[dict[str, layers.Given], list[Problem]]:
    from .text import read_mapping  # noqa: PLC0415  a megabyte of memory that the environment alone never needs

    return layers.of_file(read_mapping(text, str(file)), f"file {file}")


def require_key(config: Config) -> None:
    """Raises ConfigError where the provider needs a key and `config` says of none where it is."""
    if problems := _without_key(config):
        raise ConfigError(problems)


def _without_key(config: Config) -> list[Problem]:
    inference = config.inference
    if inference.provider == "echo" or inference.api_key is not None or inference.api_key_file is not None:
        return []
    return [
        Problem(
            "inference.api_key",
            f"no key for provider {inference.provider}",
            f"{SETTINGS['inference.api_key'].variable} in the environment, or inference.api_key or "
            "inference.api_key_file in the file",
            "provider: echo needs none",
        )
    ]


def read_key(path: Path) -> SecretStr:
    """The key in a file, without the blanks and line ends around it. Raises ConfigError, never showing it."""
    found, valid = "", "a file that can be read"
    try:
        # A pipe would be read once and then wait for ever, and a key file is read again whenever it changes.
        if not path.is_file():
            found, valid = (
                "no such file" if not path.exists() else "no regular file",
                "a file that holds a key",
            )
        else:
            return key_text(SecretStr(_read(path, MAX_KEY_BYTES)))
    except _TooLargeError:
        found, valid = "a file that is too large for a key", f"at most {MAX_KEY_BYTES} bytes"
    except OSError as error:
        found = (error.strerror or "an error").lower()
    except UnicodeDecodeError:
        found, valid = "bytes that are no text", "a key in ASCII"
    except ValueError as error:
        found, valid = "no usable key", str(error)
    raise ConfigError([Problem(str(path), found, valid)])


def _chosen(path: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, str, tuple[str, ...]]:
    """The file to read with its text, and warnings."""
    if path is None:
        run_env = environ.get("RUN_ENV", "").strip() or "development"
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", run_env):
            valid = "a name such as development or production: letters, digits, dot, _ and -"
            raise ConfigError(
                [Problem("RUN_ENV", "a text that is no file's name", valid, origin="environment")]
            )
        file = Path("config") / f"{run_env}.yaml"
        if not _there(file):
            mistyped = "RUN_ENV" in environ and file.parent.is_dir()
            warning = f"RUN_ENV {run_env}: there is no {file}; environment and defaults alone are used"
            return None, "", (warning,) if mistyped else ()
        return file, _text(file), ()
    if path.is_dir():
        names = [config_file(version) for version in SCHEMA_VERSIONS]
        files = [path / name for name in names if _there(path / name)]
        if not files:
            raise ConfigError([Problem(str(path), "a directory without a configuration", " or ".join(names))])
        return files[0], _text(files[0]), ()
    return path, _text(path), ()


def _there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder that must not be looked into: reading will say so
        return True


def _text(file: Path) -> str:
    from .text import MAX_BYTES  # noqa: PLC0415

    found, valid = "", "a file that can be read"
    try:
        return _read(file, MAX_BYTES)
    except _TooLargeError:
        found, valid = "a file that is too large", f"at most {MAX_BYTES} bytes"
    except OSError as error:
        found = (error.strerror or "an error").lower()
    except ValueError:
        found, valid = "bytes that are no text", "YAML text in UTF-8"
    raise ConfigError([Problem(str(file), found, valid)])


class _TooLargeError(Exception):
    """More bytes than the bound."""


def _read(file: Path, limit: int) -> str:
    with file.open("rb") as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise _TooLargeError
    return content.decode("utf-8-sig")
