"""Every name that the sidecar tells: metrics with unit, kind, attributes and buckets; attributes of metrics and spans.

docs/telemetry.md is generated from this file, dashboards and alerts are written against it. GenAI names are those of
the semantic conventions v1.41; what no convention names is under `inference_sidecar.`. Pure.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from ..records import Endpoint

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  a kind of token, not a secret
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
OUTCOME: Final = "outcome"
STATE: Final = "state"
VERSION: Final = "version"

OTHER: Final = "_OTHER"
"""What stands for a value that would make a series of its own without being worth one."""

CANCELLED: Final = "cancelled"
"""The error.type of an operation whose app left before its answer was whole; its outcome, too."""

_GEN_AI: Final = (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT)

_Bounds = tuple[float, ...]

# Reasoning models think longer than the conventions' last bucket of 81.92 s: two more doublings and a half.
_SECONDS: Final[_Bounds] = (*(0.01 * 2**n for n in range(14)), 163.84, 327.68, 655.36)
_TOKENS: Final[_Bounds] = tuple(float(4**n) for n in range(14))
_FIRST_TOKEN: Final[_Bounds] = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
_PER_TOKEN: Final[_Bounds] = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)
_RATE: Final[_Bounds] = (
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0,
)  # fmt: skip


class Kind(enum.StrEnum):
    """What a metric is. A gauge may fall; OTLP has it as a gauge, too."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `unit` is UCUM's word, `bounds` are a histogram's upper bucket bounds in that unit."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus(self) -> str:
        """The name in Prometheus, whether scraped or sent by OTLP: a histogram's without _bucket, _sum and _count."""
        unit = {"s": "_seconds"}.get(self.unit, "")
        total = "_total" if self.kind is Kind.COUNTER else ""
        return f"{re.sub('[^a-zA-Z0-9]', '_', self.name)}{unit}{total}"


def label(attribute: str) -> str:
    """An attribute's name as a label of Prometheus."""
    return re.sub("[^a-zA-Z0-9]", "_", attribute)


OPERATION_DURATION: Final = Metric(
    "gen_ai.client.operation.duration", Kind.HISTOGRAM, "s",
    "From a request's arrival to its end; a stream's to its last byte.", (*_GEN_AI, ERROR_TYPE), _SECONDS,
)  # fmt: skip
TOKEN_USAGE: Final = Metric(
    "gen_ai.client.token.usage", Kind.HISTOGRAM, "{token}",
    "Tokens of a request as the upstream reported them; nothing where it reported none.", (*_GEN_AI, TOKEN_TYPE),
    _TOKENS,
)  # fmt: skip
TIME_TO_FIRST_CHUNK: Final = Metric(
    "gen_ai.client.operation.time_to_first_chunk", Kind.HISTOGRAM, "s",
    "From a request's arrival to the first chunk of its stream.", (*_GEN_AI, ERROR_TYPE), _SECONDS,
)  # fmt: skip
TIME_PER_OUTPUT_CHUNK: Final = Metric(
    "gen_ai.client.operation.time_per_output_chunk", Kind.HISTOGRAM, "s",
    "Gap between a stream's chunks, one value for each after the first.", (*_GEN_AI, ERROR_TYPE), _SECONDS,
)  # fmt: skip
REQUEST_DURATION: Final = Metric(
    "gen_ai.server.request.duration", Kind.HISTOGRAM, "s",
    "The same as gen_ai.client.operation.duration, under the name that servers' dashboards read.",
    (*_GEN_AI, ERROR_TYPE), _SECONDS,
)  # fmt: skip
TIME_TO_FIRST_TOKEN: Final = Metric(
    "gen_ai.server.time_to_first_token", Kind.HISTOGRAM, "s",
    "From a request's arrival to the first chunk of its stream that carries output.", _GEN_AI, _FIRST_TOKEN,
)  # fmt: skip
TIME_PER_OUTPUT_TOKEN: Final = Metric(
    "gen_ai.server.time_per_output_token", Kind.HISTOGRAM, "s",
    "Time after the first token, divided by the tokens after the first. Streams whose usage was reported.",
    _GEN_AI, _PER_TOKEN,
)  # fmt: skip

REQUESTS: Final = Metric(
    "inference_sidecar.requests", Kind.COUNTER, "{request}",
    "Requests by how they ended (completed, failed, refused, cancelled), and why where they did not complete.",
    (OPERATION, PROVIDER, REQUEST_MODEL, OUTCOME, ERROR_TYPE),
)  # fmt: skip
ACTIVE_REQUESTS: Final = Metric(
    "inference_sidecar.active_requests", Kind.GAUGE, "{request}", "Requests that are open."
)
RETRIES: Final = Metric(
    "inference_sidecar.retries", Kind.COUNTER, "{retry}", "Attempts upstream after a request's first.",
    (OPERATION, PROVIDER, REQUEST_MODEL),
)  # fmt: skip
STREAMS: Final = Metric(
    "inference_sidecar.streams", Kind.COUNTER, "{stream}",
    "Event streams by how they ended: completed, failed, or cancelled (the app left).",
    (OPERATION, PROVIDER, REQUEST_MODEL, OUTCOME),
)  # fmt: skip
STREAM_DURATION: Final = Metric(
    "inference_sidecar.stream.duration", Kind.HISTOGRAM, "s", "From an event stream's first byte to its end.",
    (OPERATION, PROVIDER, REQUEST_MODEL, OUTCOME), _SECONDS,
)  # fmt: skip
STREAM_CHUNKS: Final = Metric(
    "inference_sidecar.stream.chunks", Kind.COUNTER, "{chunk}", "Chunks sent down in streams.",
    (OPERATION, PROVIDER, REQUEST_MODEL),
)  # fmt: skip
# `{token}/s` as unit would make Prometheus write `_per_second` where the name says so already.
TOKENS_PER_SECOND: Final = Metric(
    "inference_sidecar.stream.tokens_per_second", Kind.HISTOGRAM, "",
    "Output tokens per second after the first, one value for each stream whose usage was reported.",
    (OPERATION, PROVIDER, REQUEST_MODEL), _RATE,
)  # fmt: skip
CONFIG_RELOADS: Final = Metric(
    "inference_sidecar.config.reloads", Kind.COUNTER, "{reload}",
    "Configurations found after the start: applied or refused.", (OUTCOME,),
)  # fmt: skip
UPSTREAM_CONNECTIONS: Final = Metric(
    "inference_sidecar.upstream.connections", Kind.GAUGE, "{connection}",
    "Connections open to the upstream: active or idle.", (STATE,),
)  # fmt: skip
BUILD_INFO: Final = Metric(
    "inference_sidecar.build_info", Kind.GAUGE, "", "Always 1; the version is its label.", (VERSION,)
)

METRICS: Final = (
    OPERATION_DURATION, TOKEN_USAGE, TIME_TO_FIRST_CHUNK, TIME_PER_OUTPUT_CHUNK, REQUEST_DURATION,
    TIME_TO_FIRST_TOKEN, TIME_PER_OUTPUT_TOKEN, REQUESTS, ACTIVE_REQUESTS, RETRIES, STREAMS, STREAM_DURATION,
    STREAM_CHUNKS, TOKENS_PER_SECOND, CONFIG_RELOADS, UPSTREAM_CONNECTIONS, BUILD_INFO,
)  # fmt: skip

ATTRIBUTES: Final = {
    OPERATION: "What was asked for; see the operations below.",
    PROVIDER: "`openai` (and whatever speaks its API), `azure.ai.openai`, or `echo`, the embedded upstream.",
    REQUEST_MODEL: "The model that the request named, where somebody vouches for the name; else `_OTHER`. Absent "
    "where the request named none, or was refused before it was read.",
    RESPONSE_MODEL: "The model that the answer named, under the same rule. Absent where it named none.",
    TOKEN_TYPE: "`input` or `output`.",
    SERVER_ADDRESS: "The upstream's host. Absent for `echo`.",
    SERVER_PORT: "The upstream's port. Absent for `echo`.",
    ERROR_TYPE: "Why it did not complete, one of the types of errors in [health.md](health.md), or `_OTHER` beyond the "
    "first 64. On gen_ai metrics also `cancelled`: the app left. Absent where it completed.",
    OUTCOME: "How it ended: `completed`, `failed`, `refused` or `cancelled`; of a configuration `applied` or `refused`.",
    STATE: "`active` (in use, or being opened) or `idle`.",
    VERSION: "The sidecar's version.",
}
"""What each attribute of a metric says."""

PROMOTED: Final = (
    "service.name", "service.version", "k8s.namespace.name", "k8s.pod.name", "k8s.workload.name", "k8s.workload.kind",
)  # fmt: skip
"""Resource attributes that are labels of every series: by /metrics itself, and by a Prometheus that takes OTLP and
promotes them (`otlp.promote_resource_attributes`). Dashboards can then read both alike."""

_OF_ENDPOINT: Final = {
    Endpoint.CHAT: "chat",
    Endpoint.COMPLETIONS: "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.RESPONSES: "responses",
    Endpoint.MODELS: "models",
    Endpoint.MODEL: "models",
}
_OF_PATH: Final = {
    "chat": "chat", "completions": "text_completion", "embeddings": "embeddings", "responses": "responses",
    "models": "models",
}  # fmt: skip
_KINDS_OF_MEDIA: Final = {
    "audio": ("speech", "transcriptions", "translations"),
    "images": ("generations", "edits", "variations"),
}
_RESOURCES: Final = (
    "assistants", "batches", "containers", "conversations", "evals", "files", "fine_tuning", "moderations",
    "realtime", "threads", "uploads", "vector_stores", "videos",
)  # fmt: skip
_BASE: Final = re.compile(r"/(?:v1|openai/v1|openai/deployments/[^/]*|openai)(?=/|$)")
_INFERENCE: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES})
_INFERENCE_BY_PATH: Final = frozenset(
    {f"{media}.{kind}" for media, kinds in _KINDS_OF_MEDIA.items() for kind in kinds}
    | {"moderations", "videos"}
)

OPERATIONS: Final = tuple(
    sorted({*_OF_ENDPOINT.values(), *_OF_PATH.values(), *_INFERENCE_BY_PATH, *_RESOURCES, OTHER})
)
"""Every value of gen_ai.operation.name: chat, text_completion and embeddings are the conventions', the rest is named
after the API's paths."""


def operation(endpoint: Endpoint, path: str) -> str:
    """gen_ai.operation.name: of the endpoints that are read the conventions' word, else one after the path.

    `path` is the request's, below /v1 or Azure's /openai, without a query. What the API does not name is `_OTHER`.
    """
    if (known := _OF_ENDPOINT.get(endpoint)) is not None:
        return known
    base = _BASE.match(path)
    if base is None:
        return OTHER
    below = base.end()
    parts = [unquote(part) for part in path[below:].split("/") if part]
    first, second = (*parts, "", "")[:2]
    if second in _KINDS_OF_MEDIA.get(first, ()):
        return f"{first}.{second}"
    return _OF_PATH.get(first) or (first if first in _RESOURCES else OTHER)


def infers(endpoint: Endpoint, method: str, operation: str) -> bool:
    """Whether a model works for this request, so that the gen_ai.* metrics and the span of a model's call are
    its own: not where stored things are listed, fetched, cancelled or deleted."""
    return endpoint in _INFERENCE or (method == "POST" and operation in _INFERENCE_BY_PATH)


def provider(configured: str, *, azure: bool) -> str:
    """gen_ai.provider.name, from `inference.provider` and whether the upstream speaks Azure's dialect."""
    if configured == "echo":
        return "echo"
    return "azure.ai.openai" if azure else "openai"
