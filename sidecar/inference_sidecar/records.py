"""What the rooms hand to each other: records that nobody changes, no behaviour beyond a derived figure.

Units are in the names: `_ms` milliseconds, `_s` seconds, `_bytes` bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Headers = list[tuple[bytes, bytes]]
"""Header lines in order, names in lower case, as ASGI and httpx have them."""


class Endpoint(enum.StrEnum):
    """What kind of resource a path names. Decides reading, retries and how the answer is measured."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MODELS = "models"
    MODEL = "model"
    OTHER = "other"


class Reason(enum.StrEnum):
    """Why the sidecar itself refused a request. `respond` gives each its status; figures count by it."""

    INVALID_REQUEST = "invalid_request"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    FORBIDDEN_HOST = "forbidden_host"
    FORBIDDEN_ORIGIN = "forbidden_origin"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    TOO_MANY_REQUESTS = "too_many_requests"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that the sidecar answers itself.

    `param` is the path of the field at fault (`messages[1].role`), `code` OpenAI's or our own word for it;
    where it is None the reason's own name is not shown as code. `message` names the field and the valid range.
    """

    reason: Reason
    message: str
    param: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What one config asks of requests, compiled once for all of them.

    `strict`: chat bodies are checked; else they go up unread, but for the models allowed. `model_required` is
    False where the upstream's URL names the model. `allowed` is None where every model is. `inject_usage`: ask
    for a stream's usage where the app did not. `max_depth` bounds the nesting of a JSON body, root included.
    """

    strict: bool
    default_model: str | None
    model_required: bool
    allowed: Callable[[str], bool] | None
    inject_usage: bool
    can_stream: bool
    max_depth: int

    @property
    def read(self) -> bool:
        """Whether a body has to be read at all."""
        return self.strict or self.allowed is not None


class InferenceRequest:
    """A body that may go up, and what was learned from it.

    `body` is what goes up; `original` is the same without the sidecar's own wish for usage (the very same
    object where nothing was asked). `usage_hidden`: the usage chunk is the sidecar's and stays with it.
    `choices` is the number of choices asked for (`n`). `parameters` are the body's members that traces tell,
    as they came; None where the body was not read.
    """

    def __init__(
        self,
        body: bytes,
        original: bytes,
        model: str | None = None,
        stream: bool = False,
        usage_hidden: bool = False,
        choices: int = 1,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.body = body
        self.original = original
        self.model = model
        self.stream = stream
        self.usage_hidden = usage_hidden
        self.choices = choices
        self.parameters = parameters


class Usage(NamedTuple):
    """Tokens as the upstream reported them; never an estimate. A sort that it did not report is 0 and says so.

    `cached_tokens` are part of the prompt's, `reasoning_tokens` of the completion's; None where not reported.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_reported: bool = True
    completion_reported: bool = True
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Event:
    """One event of an SSE stream: its bytes, and what they say.

    `raw` is what came, line ends included. `name` is the `event:` field, "" where there is none. `data` are
    the data lines joined by LF; None where there is no such line (a comment, a blank line), or where the
    event is larger than the decoder's bound. Such an event comes in pieces, and `whole` is False for each.
    `count`: so many events it stands for, one after the other, of which all that matters is known.
    """

    __slots__ = ("count", "data", "name", "raw", "whole")

    def __init__(self, raw: bytes, name: str, data: bytes | None, whole: bool = True, count: int = 1) -> None:
        self.raw = raw
        self.name = name
        self.data = data
        self.whole = whole
        self.count = count


class Gaps(NamedTuple):
    """All gaps between a stream's chunks, as a histogram: `counts` has one for each bound that the meter was given
    (a bound belongs to the bucket below it) and one for what is longer."""

    counts: tuple[int, ...]
    total_s: float
    least_s: float
    most_s: float


class StreamStats(NamedTuple):
    """The spec's `stream_stats`, beside what the figures need of a stream.

    `first_gaps_s` are the gaps between chunks, at most the first few thousand; `gaps` are all of them, None where
    there is none.
    """

    duration_ms: float
    chunks_sent: int
    avg_chunk_interval_ms: float
    first_gaps_s: Sequence[float] = ()
    gaps: Gaps | None = None


class End(enum.StrEnum):
    """How a request ended. Refused and failed are errors; cancelled (the app left) is neither error nor success."""

    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Retry:
    """One more attempt that was decided on. `at` is `time.monotonic()`'s, `attempt` the number of the one that had
    failed, from 1; `why` is low in cardinality, as `Outcome.error` is."""

    at: float
    attempt: int
    wait_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Said:
    """Content of one request, where traces tell it: the body that went up, and the first bytes that came down, as
    they were, compressed or not. `mask` takes the key out of a text."""

    request: bytes
    answer: bytes
    mask: Callable[[bytes], bytes]


class Outcome:
    """One finished request, whole: what the log line, the figures and the traces are made from.

    `status` is what went down (0: the app left before a status could). `error` is low in cardinality: a
    `Reason`, an `UpstreamError.code`, `upstream_http_<status>` or `upstream_error_event`.
    `streamed`: an event stream was begun downstream. Times are seconds from the request's arrival; those of the
    first chunk and of the first token are of when a stream's came from the upstream.
    `model_configured`: the configuration itself has this model's name. `operation` and `provider` are
    `telemetry.names`' words; where the embedded upstream answers there is no server.
    `retries` are the waits between attempts. `response_id`, `fingerprint` and `service_tier` are the answer's own.
    `trace`: ids of the trace and of the `chat {model}` span in hex, where the trace is kept; else None.
    """

    def __init__(
        self,
        request_id: str,
        endpoint: Endpoint,
        method: str,
        path: str,
        status: int,
        end: End,
        duration_s: float,
        error: str | None = None,
        error_message: str | None = None,
        param: str | None = None,
        streaming: bool = False,
        streamed: bool = False,
        model: str | None = None,
        response_model: str | None = None,
        attempts: int = 0,
        bytes_up: int = 0,
        bytes_down: int = 0,
        first_byte_s: float | None = None,
        first_chunk_s: float | None = None,
        first_token_s: float | None = None,
        usage: Usage | None = None,
        finish_reasons: tuple[str, ...] = (),
        stream: StreamStats | None = None,
        upstream_request_id: str | None = None,
        trace: tuple[str, str] | None = None,
        operation: str = "_OTHER",
        provider: str = "openai",
        server_address: str | None = None,
        server_port: int | None = None,
        retries: tuple[Retry, ...] = (),
        parameters: Mapping[str, Any] | None = None,
        choices: int = 1,
        response_id: str | None = None,
        fingerprint: str | None = None,
        service_tier: str | None = None,
        model_configured: bool = False,
    ) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.method = method
        self.path = path
        self.status = status
        self.end = end
        self.duration_s = duration_s
        self.error = error
        self.error_message = error_message
        self.param = param
        self.streaming = streaming
        self.streamed = streamed
        self.model = model
        self.response_model = response_model
        self.attempts = attempts
        self.bytes_up = bytes_up
        self.bytes_down = bytes_down
        self.first_byte_s = first_byte_s
        self.first_chunk_s = first_chunk_s
        self.first_token_s = first_token_s
        self.usage = usage
        self.finish_reasons = finish_reasons
        self.stream = stream
        self.upstream_request_id = upstream_request_id
        self.trace = trace
        self.operation = operation
        self.provider = provider
        self.server_address = server_address
        self.server_port = server_port
        self.retries = retries
        self.parameters = parameters
        self.choices = choices
        self.response_id = response_id
        self.fingerprint = fingerprint
        self.service_tier = service_tier
        self.model_configured = model_configured

    @property
    def pace(self) -> tuple[int, float] | None:
        """Of a stream whose usage was reported: output tokens after the first, and the seconds that they took."""
        if not self.streamed or self.usage is None or self.first_token_s is None:
            return None
        seconds = self.duration_s - self.first_token_s
        tokens = self.usage.completion_tokens - 1
        return (tokens, seconds) if tokens > 0 and seconds > 0 else None
