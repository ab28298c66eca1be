"""A Config as text and back, in one canonical form, and its digest.

Enters: a Config, or text that `dump` wrote. Leaves: text, a digest, a Config.
The form leaves defaults out, so that a config outlives a change of defaults and of versions. It never holds a
key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import SecretStr

from . import layers
from .problems import ConfigError
from .resolve import resolve
from .schema import Config
from .settings import SETTINGS


def dump(config: Config) -> str:
    """YAML of all that differs from the defaults, and the version; `parse` and `load` read the same Config.

    Values of extra_headers are in it in the clear: it is for a Secret or a file that is guarded like one.
    Raises ValueError for a config that holds api_key: in a rendered config a key has a file of its own.
    """
    if config.inference.api_key is not None:
        raise ValueError("a config that holds inference.api_key is not written; use inference.api_key_file")
    from .text import write  # noqa: PLC0415  see `load`

    return write(_tree(config, secrets=True))


def parse(text: str) -> Config:
    """The Config that `text` holds, judged as a file is, but with no environment. Raises ConfigError."""
    from .text import read_mapping  # noqa: PLC0415  see `load`

    given, problems = layers.of_file(read_mapping(text, "config"), "")
    resolved = resolve([given], {})
    problems += resolved.problems
    if problems:
        raise ConfigError(problems)
    return resolved.config


def digest(config: Config) -> str:
    """`sha256:` and 64 hex digits, the same for equal configs on every machine.

    A digest is shown to anyone who asks, and whoever knows the rest of a config could test guesses on it: so
    neither the key nor a header's value goes into it, only the headers' names. The rendered Secret's revision
    tells that a secret alone has changed.
    """
    canonical = json.dumps(_tree(config, secrets=False), sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _tree(config: Config, *, secrets: bool) -> dict[str, Any]:
    tree: dict[str, Any] = {"version": config.version}
    for path, setting in SETTINGS.items():
        value = setting.of(config)
        if value != setting.default:
            *sections, name = path.split(".")
            branch = tree
            for section in sections:
                branch = branch.setdefault(section, {})
            branch[name] = _plain(value, secrets=secrets)
    return tree


def _plain(value: Any, *, secrets: bool) -> Any:
    """`value` in types that YAML and JSON have. `${` is written so that the loader reads it as itself."""
    if isinstance(value, SecretStr):
        return _plain(value.get_secret_value(), secrets=True) if secrets else "secret"
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, tuple):
        return [_plain(item, secrets=secrets) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, secrets=secrets) for name, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
