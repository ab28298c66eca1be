"""The chart-wide defaults: a file in the form of spec.sidecar, which may change while it is in use.

Enters: a path. Leaves: `crd.Sidecar`, the newest that could be read. Must not know where the file comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from . import crd
from .errors import InvalidObject
from .telemetry import LOGGER


class Defaults:
    """The defaults of now: call it. Without a file there are none."""

    def __init__(self, file: Path | None) -> None:
        """Raises InvalidObject where the file cannot be used."""
        self._file = file
        self._seen = None if file is None else _version(file)
        self._sidecar = crd.Sidecar() if file is None else read(file)

    def __call__(self) -> crd.Sidecar:
        """What the file says. Of a file that became useless the last good state holds on, and the log says so."""
        if self._file is None:
            return self._sidecar
        version = _version(self._file)
        if version != self._seen:
            self._seen = version
            try:
                self._sidecar = read(self._file)
            except InvalidObject as error:
                LOGGER.error("the defaults were changed and cannot be used; the old ones hold on: %s", error)
            else:
                LOGGER.info("the defaults were changed", extra={"fields": {"file": str(self._file)}})
        return self._sidecar


def read(file: Path) -> crd.Sidecar:
    """The defaults in `file`. Raises InvalidObject, with a line for each field that is wrong."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidObject(f"{file}: {(error.strerror or 'an error').lower()}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidObject(f"{file}: no valid YAML") from None
    found = {} if found is None else found
    if not isinstance(found, Mapping):
        raise InvalidObject(f"{file}: one mapping is wanted")
    if unknown := crd.unknown_fields({"spec": {"sidecar": found}}):
        known = (path.removeprefix("spec.sidecar.") for path in unknown)
        raise InvalidObject("\n".join(f"{file}: {path}: an unknown field" for path in known))
    return _parsed(file, found)


def _parsed(file: Path, found: Mapping[str, Any]) -> crd.Sidecar:
    try:
        return crd.parse_sidecar(found)
    except InvalidObject as error:
        raise InvalidObject("\n".join(f"{file}: {line}" for line in str(error).splitlines())) from None


def _version(file: Path) -> tuple[int, int, int] | None:
    """Changes with the file: a mounted ConfigMap is replaced by other files, an editor writes anew."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
