"""The contract, compiled: what a request needs to know of the configuration, worked out once.

Enters: a `Config`, its key, its revision. Leaves: an immutable `Runtime`, swapped whole on a reload.
Must not do I/O, and must not hold anything that changes while requests are served.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from pydantic import SecretStr

from inference_config import codec
from inference_config.schema import Config, Inference

from ..records import Headers, Rules
from .target import Located, Target, target_of, unknown_url

__all__ = ["Located", "Runtime", "Target", "compile_runtime", "target_of", "unknown_url"]

OPENAI_MODEL_FILTER = ("*gpt*", "*turbo*", "*davinci*")

_PATTERN = frozenset("*?[")
_CAN_STREAM = {"openai": True, "azure": True, "echo": True}


@dataclass(frozen=True, slots=True)
class Values:
    """Values of the configuration that requests look at, each as its setting has it: to ask pydantic's own objects takes
    many times as long."""

    timeout_secs: float
    stream_timeout_secs: float | None
    stream_idle_timeout_secs: float
    keepalive_comment_secs: float
    max_retries: int
    retry_backoff_ms: int
    max_json_bytes: int
    max_body_bytes: int
    propagate_traceparent: bool
    content: bool


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that one generation of the configuration means for a request.

    `fixed_headers` go up with every request and replace what the app sent under the same names; the key is
    not among them: `auth_header()` makes its line. `hidden` is the key as it stands in text and in bytes, empty where
    there is none: what is masked looks for it many times a request. `listed` says whether a model is shown
    in the list, None where the list goes down as it came. `revision` is the operator's opaque value, or the digest.
    `named_models` are the models that the configuration has by name, patterns aside. `debugged`: debug lines are wanted.
    """

    config: Config
    values: Values
    digest: str
    revision: str
    target: Target
    rules: Rules
    key: SecretStr | None
    hidden: tuple[str, bytes] = field(repr=False)
    fixed_headers: Headers = field(repr=False)
    listed: Callable[[str], bool] | None
    named_models: frozenset[str]
    debugged: bool

    def auth_header(self) -> tuple[bytes, bytes] | None:
        """The header line that carries the key, None where the provider needs none."""
        if self.key is None:
            return None
        inference = self.config.inference
        scheme = inference.auth or ("api-key" if self.target.azure else "bearer")
        key = self.key.get_secret_value().encode("ascii")
        return (b"api-key", key) if scheme == "api-key" else (b"authorization", b"Bearer " + key)

    def mask(self, text: bytes) -> bytes:
        """`text` without the key: for what an upstream says about a request that it refused."""
        key = self.hidden[1]
        # It is hardly ever there, and to look takes less than to replace nothing.
        return text.replace(key, b"***") if key and text.find(key) >= 0 else text

    def masked(self, text: str) -> str:
        """As `mask`, and without halves of surrogate pairs, which JSON can escape: one would spoil a whole batch of
        spans or metrics."""
        key = self.hidden[0]
        if text.isascii():
            return text.replace(key, "***") if key else text
        return self.mask(text.encode("utf-8", "replace")).decode("utf-8", "replace")


def compile_runtime(config: Config, key: SecretStr | None, revision: str | None) -> Runtime:
    """Compile one generation. `revision` None: the digest stands in for it."""
    inference = config.inference
    target = target_of(inference)
    digest = codec.digest(config)
    allowed = _matcher(inference.allowed_models)
    secret = "" if key is None else key.get_secret_value()
    shown = inference.model_filter
    if shown is None and target.is_openai:
        shown = OPENAI_MODEL_FILTER
    return Runtime(
        config=config,
        values=_values(config),
        digest=digest,
        revision=revision or digest,
        target=target,
        rules=Rules(
            strict=inference.validation == "strict",
            default_model=inference.default_model,
            model_required=not target.names_model,
            allowed=allowed,
            inject_usage=inference.usage_injection == "auto",
            can_stream=_CAN_STREAM[inference.provider],
            max_depth=config.server.max_json_depth,
        ),
        key=key,
        hidden=(secret, secret.encode("ascii")),
        fixed_headers=_fixed_headers(config),
        listed=_both(_matcher(shown or None), allowed),
        named_models=_named_models(inference, target),
        debugged=config.logging.level == "debug",
    )


def _values(config: Config) -> Values:
    inference, http, server = config.inference, config.inference.http, config.server
    return Values(
        timeout_secs=http.timeout_secs,
        stream_timeout_secs=http.stream_timeout_secs,
        stream_idle_timeout_secs=http.stream_idle_timeout_secs,
        keepalive_comment_secs=inference.keepalive_comment_secs,
        max_retries=http.max_retries,
        retry_backoff_ms=http.retry_backoff_ms,
        max_json_bytes=server.max_json_bytes,
        max_body_bytes=server.max_body_bytes,
        propagate_traceparent=config.telemetry.propagate_traceparent,
        content=config.logging.content,
    )


def _named_models(inference: Inference, target: Target) -> frozenset[str]:
    names = [inference.default_model, target.deployment and unquote(target.deployment)]
    names += [name for name in inference.allowed_models or () if _PATTERN.isdisjoint(name)]
    return frozenset(name for name in names if name)


def _fixed_headers(config: Config) -> Headers:
    inference = config.inference
    lines = [
        (name.lower().encode(), value.get_secret_value().encode("latin-1"))
        for name, value in inference.extra_headers.items()
    ]
    if inference.organization_id is not None:
        lines.append((b"openai-organization", inference.organization_id.encode()))
    if inference.project_id is not None:
        lines.append((b"openai-project", inference.project_id.encode()))
    return lines


def _matcher(globs: Iterable[str] | None) -> Callable[[str], bool] | None:
    """One compiled expression for all globs; None stands for "everything"."""
    if globs is None:
        return None
    pattern = re.compile("|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs) or r"(?!)")
    return lambda name: pattern.match(name) is not None


def _both(
    first: Callable[[str], bool] | None, second: Callable[[str], bool] | None
) -> Callable[[str], bool] | None:
    if first is None or second is None:
        return first or second
    return lambda name: first(name) and second(name)
