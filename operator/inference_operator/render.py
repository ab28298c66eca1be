"""An InferenceConfig and its key → what the sidecar mounts: a config file per schema version, the key, `revision`.

Enters: a spec, the Secret that it names as it was read, a salt. Leaves: `Rendered`, or why not, as a value.
Must not look anything up, and must not let a key or a header's value into a message.

The revision. It changes with every byte that a sidecar would read, and it is shown to whoever may ask a pod's
/status or see a pod's annotations. A plain hash would let them test guesses of a short key. So it is an HMAC
under a random salt that lies in the rendered Secret itself: whoever can read the salt can read the key. The
same salt is used for as long as that Secret stands, so that nothing is written when nothing has changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import SecretStr

from inference_config import codec
from inference_config.layers import Given
from inference_config.load import MAX_KEY_BYTES
from inference_config.names import KEY_FILE, MOUNT_PATH, REVISION_FILE, SCHEMA_VERSIONS, config_file
from inference_config.resolve import resolve
from inference_config.schema import Config
from inference_config.values import key_text

from . import naming
from .crd import InferenceSpec, SecretKeyRef, camel

SALT_BYTES: Final = 32
MAX_BYTES: Final = 900 * 1024
"""Of all files together: a Secret may hold 1 MiB, its metadata included."""

DUMPS: Final[Mapping[int, Callable[[Config], str]]] = {1: codec.dump}
"""How a config is written for each schema version in use."""

_FOREIGN_TYPES: Final = frozenset(
    (
        "kubernetes.io/service-account-token",
        "kubernetes.io/dockercfg",
        "kubernetes.io/dockerconfigjson",
        "kubernetes.io/ssh-auth",
        "kubernetes.io/tls",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
        naming.RENDERED_TYPE,
    )
)
"""Types of Secrets that hold other credentials than a provider's key: none of them is sent out by mistake."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The key cannot be had. `reason` is CamelCase, `message` says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """The contract refuses the config. `message` has a line for each field, in the custom resource's names."""

    message: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a sidecar mounts. `files` holds the key, the revision and the salt too: never to be shown."""

    files: Mapping[str, str] = field(repr=False)
    digest: str
    revision: str


def resolve_key(
    reference: SecretKeyRef | None, secret: Mapping[str, Any] | None
) -> SecretStr | Unresolved | None:
    """The key that `reference` means in `secret` (None: there is no such Secret); None where none is needed."""
    if reference is None:
        return None
    where = f"Secret {reference.name}"
    if secret is None:
        create = f"kubectl create secret generic {reference.name} --from-file={reference.key}=FILE"
        return Unresolved("SecretNotFound", f"{where} does not exist in this namespace. Create it: {create}")
    if secret.get("type") in _FOREIGN_TYPES:
        return Unresolved(
            "WrongSecretType",
            f"{where} is of type {secret['type']}, which holds other credentials. Name one of type Opaque.",
        )
    data = secret.get("data") or {}
    if reference.key not in data:
        there = f"It has {', '.join(sorted(data)[:10])}." if data else "It is empty."
        return Unresolved("KeyNotFound", f"{where} has no entry {reference.key}. {there}")
    return _key_in(data[reference.key], f"{where}, entry {reference.key}")


def _key_in(encoded: object, where: str) -> SecretStr | Unresolved:
    valid = "ASCII text"
    try:
        text = base64.b64decode(str(encoded), validate=True).decode("ascii")
        if not text.strip():
            return Unresolved("KeyEmpty", f"{where} is empty. Put the upstream's key into it.")
        if len(text) <= MAX_KEY_BYTES:
            return key_text(SecretStr(text))
        valid = f"at most {MAX_KEY_BYTES} bytes"
    except (UnicodeDecodeError, binascii.Error):
        pass
    except ValueError as error:
        valid = str(error)
    return Unresolved("KeyInvalid", f"{where} is no usable key. Valid: {valid}.")


def contract(spec: InferenceSpec) -> Config | Invalid:
    """`spec` as the contract has it. Texts are taken as they are: there are no variables to put in here."""
    given = {path: Given(value, "") for path, value in spec.settings.items()}
    if spec.api_key_secret_ref is not None:
        given["inference.api_key_file"] = Given(f"{MOUNT_PATH}/{KEY_FILE}", "")
    resolved = resolve([given], {})
    if resolved.problems:
        shown = (str(replace(problem, path=camel(problem.path))) for problem in resolved.problems)
        return Invalid("\n".join(shown))
    return resolved.config


def render(spec: InferenceSpec, key: SecretStr | None, salt: bytes) -> Rendered | Invalid:
    """The files of the rendered Secret. `salt`: that of the Secret that stands, else `SALT_BYTES` random ones."""
    config = contract(spec)
    if isinstance(config, Invalid):
        return config
    files = {config_file(version): DUMPS[version](config) for version in SCHEMA_VERSIONS}
    if key is not None:
        files[KEY_FILE] = key.get_secret_value()
    if sum(map(len, files.values())) > MAX_BYTES:
        return Invalid(
            f"spec.inference: found a config of more than {MAX_BYTES} bytes; valid: shorter extraHeaders"
        )
    revision = _revision(files, salt)
    files |= {REVISION_FILE: revision, naming.SALT_KEY: salt.hex()}
    return Rendered(files, codec.digest(config), revision)


def salt_of(rendered_secret: Mapping[str, Any] | None) -> bytes | None:
    """The salt of the rendered Secret that stands, None where there is none to be used again."""
    encoded = ((rendered_secret or {}).get("data") or {}).get(naming.SALT_KEY)
    try:
        salt = bytes.fromhex(base64.b64decode(encoded or "", validate=True).decode("ascii"))
    except (ValueError, TypeError):
        return None
    return salt if len(salt) == SALT_BYTES else None


def _revision(files: Mapping[str, str], salt: bytes) -> str:
    canonical = json.dumps(files, sort_keys=True, separators=(",", ":"))
    return hmac.new(salt, canonical.encode(), hashlib.sha256).hexdigest()[:32]
