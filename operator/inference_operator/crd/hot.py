"""Which settings of the contract are hot, and what they are called in the custom resource.

Enters: the contract's schema. Leaves: `HOT`, from dotted contract path to path of camelCase names.
Holds no setting's name but those that the custom resource has in another form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic.alias_generators import to_camel

from inference_config.settings import SETTINGS

ELSEWHERE: Final[Mapping[str, str]] = {
    "inference.api_key": "spec.inference.apiKeySecretRef",
    "inference.api_key_file": "spec.inference.apiKeySecretRef",
    "inference.http.ca_file": "spec.sidecar.caBundle",
}
"""Settings of the contract's `inference` section that name files or keys, and what stands for them here."""

HOT: Final[Mapping[str, tuple[str, ...]]] = {
    path: tuple(to_camel(name) for name in path.split(".")[1:])
    for path in SETTINGS
    if path.startswith("inference.") and path not in ELSEWHERE
}


def camel(path: str) -> str:
    """A contract path as the custom resource has it: `inference.http.max_retries[0]` and what lies below."""
    for known, names in HOT.items():
        if path == known or path.startswith((f"{known}.", f"{known}[")):
            return f"spec.inference.{'.'.join(names)}{path.removeprefix(known)}"
    return ELSEWHERE.get(path, path)


def leaves(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that `spec.inference` gives, by contract path. A null is no setting."""
    for path, (*sections, name) in HOT.items():
        branch: Any = given
        for section in sections:
            branch = branch.get(section) if isinstance(branch, Mapping) else None
        if isinstance(branch, Mapping) and branch.get(name) is not None:
            yield path, branch[name]
