"""The schema: frozen pydantic models of the whole configuration, with every default and every bound.

Enters: plain Python values. Leaves: a `Config`, or pydantic's `ValidationError`.
Must not read files or the environment (`load` does), nor know what a setting is used for.
A description here is what docs/configuration.md prints: it says what the setting does and in what unit.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from .names import ADMIN_PORT, API_PORT
from .values import (
    BaseUrl,
    ExtraHeaders,
    FilePath,
    Host,
    Hosts,
    Key,
    Name,
    Names,
    Origins,
    Port,
    Seconds,
    SecondsOrOff,
)

MIB = 1024 * 1024

OPENAI_BASE_URL = "https://api.openai.com/v1"

SPANS_FIELDS = "spans_fields"
"""Type of the error of a rule over several fields. Its context: `path`, `fields` (the paths that the rule
looks at, comma-separated), `found`, `valid`."""


def _spanning(path: str, *, fields: tuple[str, ...], found: str, valid: str) -> PydanticCustomError:
    context = {"path": path, "fields": ",".join(fields), "found": found, "valid": valid}
    return PydanticCustomError(SPANS_FIELDS, "{path}: found {found}; valid: {valid}", context)


class Section(BaseModel):
    """What every section is: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class Http(Section):
    """How the sidecar speaks to the upstream."""

    timeout_secs: Seconds = Field(
        30,
        description="A plain response as a whole, retries included; in a stream the wait for the first byte.",
    )
    connect_timeout_secs: Seconds = Field(10, description="Opening one connection, TLS handshake included.")
    stream_idle_timeout_secs: Seconds = Field(
        300, description="The longest silence between two chunks of a stream."
    )
    stream_timeout_secs: Seconds | None = Field(None, description="A stream as a whole; absent: no bound.")
    keep_alive_secs: SecondsOrOff = Field(30, description="How long an idle upstream connection is kept.")
    max_idle_connections: int = Field(
        10, ge=0, le=10_000, description="Idle upstream connections that are kept."
    )
    max_connections: int = Field(1000, ge=1, le=100_000, description="Upstream connections open at once.")
    max_retries: int = Field(3, ge=0, le=10, description="Tries after the first, only before the first byte.")
    retry_backoff_ms: int = Field(
        100, ge=1, le=60_000, description="First wait before a retry, doubled each time, with jitter."
    )
    ca_file: FilePath | None = Field(
        None, description="PEM file of certificate authorities to trust in place of the system's."
    )
    transport: Literal["auto", "asyncio", "httpcore"] = Field(
        "auto",
        description="What speaks HTTP. asyncio: the sidecar's own, which knows no proxy; httpcore: the stock "
        "one; auto: asyncio, or httpcore where a proxy is configured.",
    )


class Inference(Section):
    """Which upstream is called, with what, and what apps may ask of it."""

    provider: Literal["openai", "azure", "echo"] = Field(
        "openai",
        description="openai: OpenAI or a compatible server; azure: Azure OpenAI; echo: built in, no network.",
    )
    api_key: Key | None = Field(
        None, description="The upstream's key. Better given by environment or api_key_file."
    )
    api_key_file: FilePath | None = Field(
        None, description="File that holds the key (or an Entra token); read again when it changes."
    )
    auth: Literal["api-key", "bearer"] | None = Field(
        None,
        description="Header that carries the key: api-key, or Authorization: Bearer. Absent: by provider.",
    )
    organization_id: Name | None = Field(
        None, description="Sent as OpenAI-Organization, in place of the app's own."
    )
    project_id: Name | None = Field(None, description="Sent as OpenAI-Project, in place of the app's own.")
    base_url: BaseUrl | None = Field(
        None,
        description=f"Root of the upstream's API. Absent: {OPENAI_BASE_URL} for openai; azure needs one.",
    )
    api_version: Name | None = Field(
        None, description="Azure's api-version. Absent: 2024-10-21 where the URL form needs one."
    )
    default_model: Name | None = Field(None, description="The model of a request that names none.")
    allowed_models: Names | None = Field(
        None, description="Models that apps may use: names and globs. Absent: every model."
    )
    model_filter: Names | None = Field(
        None,
        description="Globs that cut the list of models. Absent: *gpt*, *turbo*, *davinci* at api.openai.com, "
        "no cut elsewhere. An empty list: no cut.",
    )
    extra_headers: ExtraHeaders = Field(
        default_factory=dict, description="Headers added to every upstream request. Their values are masked."
    )
    validation: Literal["strict", "off"] = Field(
        "strict",
        description="strict: chat requests are checked before they go up; off: the upstream decides.",
    )
    usage_injection: Literal["auto", "off"] = Field(
        "auto",
        description="auto: ask the upstream for a stream's usage where the app did not, and keep it back.",
    )
    keepalive_comment_secs: SecondsOrOff = Field(
        0, description="Silence after which a stream gets an SSE comment. 0: never."
    )
    health_check_interval_secs: SecondsOrOff = Field(
        30, description="Pause between connectivity checks (GET of the list of models). 0: never."
    )
    http: Http = Field(default_factory=Http, description="How the sidecar speaks to the upstream.")

    @model_validator(mode="after")
    def _key_comes_from_one_place(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise _spanning(
                "inference.api_key",
                fields=("inference.api_key", "inference.api_key_file"),
                found="a key beside inference.api_key_file",
                valid="one of the two",
            )
        return self

    @model_validator(mode="after")
    def _azure_has_a_resource(self) -> Self:
        if self.provider == "azure" and self.base_url is None:
            raise _spanning(
                "inference.base_url",
                fields=("inference.provider", "inference.base_url"),
                found="none, with provider azure",
                valid="the resource's URL, for example https://RESOURCE.openai.azure.com",
            )
        return self


class Server(Section):
    """Where the sidecar listens, what it bounds, how it stops. Read at start: a change needs a restart."""

    host: Host | None = Field(
        None, description="Address of the API. Absent: 127.0.0.1 and ::1. Whoever reaches it spends tokens."
    )
    port: Port = Field(API_PORT, description="Port of the API. 0: any free one.")
    admin_host: Host = Field("127.0.0.1", description="Address of the admin port, which can spend nothing.")
    admin_port: Port = Field(
        ADMIN_PORT, description="Port of /livez, /readyz, /status and /metrics. 0: any free one."
    )
    allowed_hosts: Hosts = Field((), description="Host names accepted beside the loopback's own.")
    allowed_origins: Origins = Field(
        (), description="Origins of web pages accepted beside the loopback's own."
    )
    max_json_bytes: int = Field(
        32 * MIB, ge=1024, le=1024 * MIB, description="Largest JSON body, which is held in memory. Bytes."
    )
    max_body_bytes: int = Field(
        1024 * MIB, ge=1024, le=1024 * 1024 * MIB, description="Largest body that is passed through. Bytes."
    )
    max_header_bytes: int = Field(
        64 * 1024, ge=1024, le=16 * MIB, description="Largest request line and headers. Bytes."
    )
    header_timeout_secs: Seconds = Field(10, description="Time to send request line and headers.")
    max_concurrent_requests: int = Field(1000, ge=1, le=1_000_000, description="Requests served at once.")
    max_json_depth: int = Field(128, ge=8, le=512, description="Deepest nesting of a JSON body.")
    drain_timeout_secs: SecondsOrOff = Field(
        25, description="After SIGTERM, the longest wait for open requests."
    )
    drain_quiet_secs: SecondsOrOff = Field(
        1, description="After SIGTERM, the quiet time without a request before the exit."
    )


class Logging(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: readable lines on a terminal, JSON elsewhere."
    )
    content: bool = Field(
        False, description="Also log prompts and answers, at debug level. They are private."
    )


class Telemetry(Section):
    """What is told to other systems. Export itself follows the standard OTEL_* variables."""

    propagate_traceparent: bool = Field(
        False,
        description="Send the app's traceparent and tracestate to the upstream, which is an outside party.",
    )


class Config(Section):
    """The whole configuration of one sidecar."""

    version: Literal[1] = Field(1, description="Version of this schema.")
    inference: Inference = Field(
        default_factory=Inference, description="The upstream and what apps may ask of it."
    )
    server: Server = Field(default_factory=Server, description="Listening, bounds, drain. Needs a restart.")
    logging: Logging = Field(default_factory=Logging, description="What is logged.")
    telemetry: Telemetry = Field(default_factory=Telemetry, description="What is told to other systems.")
