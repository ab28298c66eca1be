"""Every name that spans carry beside those of metrics (`names`): attributes, events, routes.

The HTTP and GenAI names are the semantic conventions' (HTTP stable, GenAI v1.41); what no convention names is under
`inference_sidecar.`. Pure. docs/telemetry.md tells what each holds.
"""

from __future__ import annotations

import re
from typing import Final

from ..records import Endpoint

HTTP_METHOD: Final = "http.request.method"
HTTP_METHOD_ORIGINAL: Final = "http.request.method_original"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_RESEND_COUNT: Final = "http.request.resend_count"
URL_FULL: Final = "url.full"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
USER_AGENT: Final = "user_agent.original"
PEER_ADDRESS: Final = "network.peer.address"
PEER_PORT: Final = "network.peer.port"
PROTOCOL_VERSION: Final = "network.protocol.version"

REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
API_TYPE: Final = "openai.api.type"
FINGERPRINT: Final = "openai.response.system_fingerprint"
SERVICE_TIER: Final = "openai.response.service_tier"

REQUEST_ID: Final = "inference_sidecar.request.id"
UPSTREAM_REQUEST_ID: Final = "inference_sidecar.upstream.request_id"
ATTEMPTS: Final = "inference_sidecar.attempts"
OUTCOME: Final = "inference_sidecar.outcome"
OPERATION: Final = "inference_sidecar.operation"
"""The operation of a call for which no model works (a list of models, files): it is none of gen_ai.*."""

RETRY_EVENT: Final = "inference_sidecar.retry"
FIRST_CHUNK_EVENT: Final = "inference_sidecar.first_chunk"
END_EVENT: Final = "inference_sidecar.end"
RETRY_ATTEMPT: Final = "inference_sidecar.retry.attempt"
RETRY_WAIT: Final = "inference_sidecar.retry.wait_s"
RETRY_REASON: Final = "inference_sidecar.retry.reason"
CHUNKS: Final = "inference_sidecar.stream.chunks"

PARAMETERS: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
    "service_tier": "openai.request.service_tier",
    "encoding_format": "gen_ai.request.encoding_formats",
    "dimensions": "gen_ai.embeddings.dimension.count",
}
"""Members of a request's body, as they are told."""

_LISTS: Final = frozenset({"stop", "encoding_format"})
_FRACTIONS: Final = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty"})
_MAX_NUMBER: Final = 2**63
_MAX_WORD: Final = 256
_MAX_LIST: Final = 16

API_TYPES: Final = {Endpoint.CHAT: "chat_completions", Endpoint.RESPONSES: "responses"}

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
_PLACES: Final = {
    Endpoint.CHAT: "/chat/completions",
    Endpoint.COMPLETIONS: "/completions",
    Endpoint.EMBEDDINGS: "/embeddings",
    Endpoint.RESPONSES: "/responses",
    Endpoint.MODELS: "/models",
    Endpoint.MODEL: "/models/{model}",
    Endpoint.OTHER: "/{path}",
}
_AZURE: Final = re.compile(r"/openai(?P<rest>/v1|/deployments/[^/]+)?(?=/)")


def method(name: str) -> str:
    """http.request.method: a method that no standard knows is `_OTHER`."""
    return name if name in _METHODS else "_OTHER"


def route(endpoint: Endpoint, path: str) -> str:
    """http.route: a path's template, with nothing of the app's own in it."""
    azure = _AZURE.match(path)
    if azure is None:
        base = "/v1"
    elif azure["rest"] is None or azure["rest"] == "/v1":
        base = azure[0]
    else:
        base = "/openai/deployments/{deployment}"
    return base + _PLACES[endpoint]


def parameter(name: str, value: object) -> str | int | float | tuple[str, ...] | None:
    """A parameter's value as an attribute, bounded; None where it is of no use as one."""
    if name in _LISTS:
        words = value if isinstance(value, list) else [value]
        return tuple(_word(word) for word in words[:_MAX_LIST] if isinstance(word, str)) or None
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if name in _FRACTIONS:
        return float(value) if abs(value) < _MAX_NUMBER else None
    # An attribute's integer has 64 bits.
    return int(value) if abs(value) < _MAX_NUMBER else None


def _word(text: str) -> str:
    """Bounded, and without halves of surrogate pairs: one would spoil a whole batch."""
    return text[:_MAX_WORD].encode("utf-8", "replace").decode()
