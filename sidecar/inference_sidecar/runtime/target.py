"""Where a request goes: the app's path and the configured base_url → one request target on one host.

Enters: base_url and what the config says of it; then, per request, method, raw path, query and model.
Leaves: a `Located` (what kind of resource, and the exact target for the wire), or a `Refusal`.
Must not do I/O. Whatever the path, the target stays below the base_url, or on Azure below its resource.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from inference_config.schema import OPENAI_BASE_URL, Inference

from ..records import Endpoint, Reason, Refusal

AZURE_API_VERSION: Final = "2024-10-21"
"""Azure's newest generally available version of the classic data plane; it knows stream_options."""

_AZURE_HOSTS: Final = re.compile(
    r"(?:^|\.)(?:openai\.azure\.(?:com|us|cn)|(?:services\.ai|cognitiveservices)\.azure\.(?:com|us|cn))$"
)
_DEPLOYMENT: Final = re.compile(r"^(?P<root>.*)/openai/deployments/(?P<deployment>[^/]+)$")
_OF_A_DEPLOYMENT: Final = (
    ("chat", "completions"),
    ("completions",),
    ("embeddings",),
    ("audio",),
    ("images",),
)
"""On Azure's classic paths these lie below a deployment; all else lies beside the deployments."""

_POSTED: Final = {
    ("chat", "completions"): Endpoint.CHAT,
    ("completions",): Endpoint.COMPLETIONS,
    ("embeddings",): Endpoint.EMBEDDINGS,
    ("responses",): Endpoint.RESPONSES,
}
_LONGEST_KEPT: Final = 256
"""Bytes of a path that is kept with what it was found to be."""

_ECHO_BASE_URL: Final = "http://echo.invalid/v1"
_DEEPEST_ENCODING: Final = 8
_LEAVES: Final = frozenset({".", ".."})
_NOT_IN_A_TARGET: Final = re.compile(rb"[^\x21-\x7e]|\\")


class Located:
    """One request's place. `target` is what stands in the request line; `model` is what the path names."""

    __slots__ = ("endpoint", "model", "target")

    def __init__(self, endpoint: Endpoint, target: bytes, model: str | None = None) -> None:
        self.endpoint = endpoint
        self.target = target
        self.model = model


@dataclass(frozen=True, slots=True)
class Target:
    """The upstream of one config.

    `base` is base_url's path without a slash at its end; `root` is what stands before Azure's `/openai`.
    `deployment` is the one that base_url names. `api_version` is None where Azure's v1 form needs none.
    """

    scheme: str
    host: str
    port: int
    base: str
    azure: bool = False
    root: str = ""
    deployment: str | None = None
    api_version: str | None = None

    @property
    def host_header(self) -> bytes:
        """The Host header's value: no port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return (host if self.port == default else f"{host}:{self.port}").encode()

    @property
    def origin(self) -> str:
        """Scheme, host and port, for messages."""
        return f"{self.scheme}://{self.host_header.decode()}"

    @property
    def names_model(self) -> bool:
        """Whether base_url itself says which model answers."""
        return self.deployment is not None

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI's own host, whose list of models gets the spec's filter."""
        return self.host == "api.openai.com"

    def serves(self, raw_path: bytes) -> bool:
        """Whether a path is one of the API's: below /v1, and on Azure below /openai too."""
        return (
            raw_path.startswith(b"/v1/")
            or raw_path == b"/v1"
            or (self.azure and raw_path.startswith(b"/openai/"))
        )

    def locate(self, method: str, raw_path: bytes, query: bytes, model: str | None) -> Located | Refusal:
        """Place one request. `model` is what the body names, where it is known already.

        Returns a refusal for a path that this sidecar does not serve or that tries to leave base_url.
        """
        segments = _segments(raw_path)
        if isinstance(segments, Refusal):
            return segments
        if not self.serves(raw_path):
            return unknown_url(method, raw_path)
        if raw_path.startswith(b"/v1"):
            rest = segments[1:]
            return Located(
                _endpoint(method, rest), self._up(rest, raw_path[3:], query, model), _model_of(rest)
            )
        return self._azure_path(method, segments[1:], raw_path, query)

    def _up(self, rest: list[str], raw_rest: bytes, query: bytes, model: str | None) -> bytes:
        """The target of `/v1/…`. `raw_rest` is the path after `/v1`, as it came."""
        if self.azure and self.api_version is not None:
            place = f"{self.root}/openai"
            of_a_deployment = any(tuple(rest[: len(head)]) == head for head in _OF_A_DEPLOYMENT)
            deployment = self.deployment or (quote(model, safe="") if model else None)
            if of_a_deployment and deployment:
                place = f"{place}/deployments/{deployment}"
            return _join(place, raw_rest, _with_version(query, self.api_version))
        return _join(self.base, raw_rest, query)

    def _azure_path(self, method: str, rest: list[str], raw_path: bytes, query: bytes) -> Located | Refusal:
        """Azure's own paths, as its SDKs call them: they lie beside base_url, on the same resource."""
        if rest[:1] == ["v1"]:
            return Located(
                _endpoint(method, rest[1:]), _join(self.root, raw_path, query), _model_of(rest[1:])
            )
        version = self.api_version or AZURE_API_VERSION
        target = _join(self.root, raw_path, _with_version(query, version))
        if rest[:1] != ["deployments"]:
            return Located(_endpoint(method, rest), target, _model_of(rest))
        if len(rest) < 3:
            return unknown_url(method, raw_path)
        if self.deployment is not None and rest[1] != unquote(self.deployment):
            return Refusal(
                Reason.NOT_FOUND,
                f"The deployment '{_shown(rest[1])}' is not the one this sidecar is configured for.",
                code="DeploymentNotFound",
            )
        return Located(_endpoint(method, rest[2:]), target, rest[1])


def target_of(inference: Inference) -> Target:
    """Read provider, base_url and api_version."""
    if inference.provider == "echo":
        return Target("http", "echo.invalid", 80, urlsplit(_ECHO_BASE_URL).path)
    parts = urlsplit(inference.base_url or OPENAI_BASE_URL)
    host = parts.hostname or ""
    base = parts.path.rstrip("/")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    in_path = _DEPLOYMENT.match(base)
    if not (inference.provider == "azure" or in_path or _AZURE_HOSTS.search(host)):
        return Target(parts.scheme, host, port, base)

    version = inference.api_version or dict(parse_qsl(parts.query)).get("api-version")
    if in_path:
        return Target(
            parts.scheme, host, port, base, azure=True, root=in_path["root"],
            deployment=in_path["deployment"], api_version=version or AZURE_API_VERSION,
        )  # fmt: skip
    root = base.removesuffix("/v1").removesuffix("/openai")
    if base.endswith("/openai/v1"):
        version = None
    elif version is None:
        base = f"{root}/openai/v1"
    return Target(parts.scheme, host, port, base, azure=True, root=root, api_version=version)


def _segments(raw_path: bytes) -> list[str] | Refusal:
    """Decoded segments without empty ones."""
    found = _read_path(raw_path) if len(raw_path) <= _LONGEST_KEPT else _read_path.__wrapped__(raw_path)
    return found if isinstance(found, Refusal) else list(found)


@lru_cache(maxsize=64)
def _read_path(raw_path: bytes) -> tuple[str, ...] | Refusal:
    """Decoded until nothing changes, so that no upstream that decodes once more than we did finds a `..` that we did
    not see. Apps ask for the same few paths again and again."""
    if _NOT_IN_A_TARGET.search(raw_path):
        return Refusal(Reason.INVALID_REQUEST, "The path holds characters that a URL must not hold.")
    path = raw_path.decode("ascii")
    deepest = path
    for _ in range(_DEEPEST_ENCODING):
        if (further := unquote(deepest)) == deepest:
            break
        deepest = further
    else:
        return Refusal(Reason.INVALID_REQUEST, "The path is percent-encoded many times over.")
    if not _LEAVES.isdisjoint(re.split(r"[/\\;]", deepest)) or "\0" in deepest:
        return Refusal(Reason.INVALID_REQUEST, "The path must not hold '.' or '..' segments, encoded or not.")
    return tuple(unquote(segment) for segment in path.split("/") if segment)


def _endpoint(method: str, rest: list[str]) -> Endpoint:
    if method == "POST":
        return _POSTED.get(tuple(rest), Endpoint.OTHER)
    if method == "GET" and rest[:1] == ["models"]:
        return Endpoint.MODEL if len(rest) > 1 else Endpoint.MODELS
    return Endpoint.OTHER


def _model_of(rest: list[str]) -> str | None:
    """The model of `/models/{id}`. Names with a slash come raw as well as encoded."""
    return "/".join(rest[1:]) if rest[:1] == ["models"] and len(rest) > 1 else None


def _join(place: str, raw_rest: bytes, query: bytes) -> bytes:
    path = place.encode() + raw_rest
    return path + b"?" + query if query else path


def _with_version(query: bytes, version: str) -> bytes:
    if any(name == "api-version" for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)):
        return query
    own = f"api-version={quote(version, safe='')}".encode()
    return query + b"&" + own if query else own


def unknown_url(method: str, raw_path: bytes) -> Refusal:
    """The refusal of a path that is none of the API's."""
    shown = _shown(raw_path.decode("ascii", "replace"))
    return Refusal(
        Reason.NOT_FOUND,
        f"Unknown request URL: {method} {shown}. The API lies below /v1.",
        code="unknown_url",
    )


def _shown(text: str) -> str:
    cut = text if len(text) <= 100 else text[:100] + "…"
    return cut.encode("ascii", "backslashreplace").decode()
