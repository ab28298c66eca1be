"""Which metrics a finished request adds to, and with which attributes.

Enters: `Outcome`s. Leaves: `Family`s. Must not estimate, nor let a name that a client made up become a value of an
attribute: a model has a series of its own where the configuration names it or an upstream answered with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from ..records import End, Outcome
from . import names
from .instruments import Counter, Family, Histogram, Values

MAX_MODELS: Final = 64
"""Models of requests, and of answers, that an upstream's answers can add to those of the configuration."""

MAX_MODEL_LENGTH: Final = 256


class Models:
    """The names of models that may be values of an attribute."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def value(self, name: str | None, *, configured: bool, confirmed: bool) -> str | None:
        """The attribute's value. `configured`: the configuration has this name; `confirmed`: an upstream has just
        answered with it in whole, which admits it from now on while there is room."""
        if not name:
            return None
        known = self._known.get(name)
        if known is not None:
            return known
        if len(name) > MAX_MODEL_LENGTH:
            return names.OTHER
        if configured:
            return _encodable(name)
        if confirmed and len(self._known) < MAX_MODELS:
            return self._known.setdefault(name, _encodable(name))
        return names.OTHER


def _encodable(name: str) -> str:
    """JSON can hold halves of surrogate pairs, which neither form of export can."""
    return name.encode("utf-8", "replace").decode()


class Metrics:
    """Every metric that requests make, of one process, from its start on."""

    def __init__(self) -> None:
        self.started_unix_nano = time.time_ns()
        self._requests = Counter(names.REQUESTS)
        self._retries = Counter(names.RETRIES)
        self._streams = Counter(names.STREAMS)
        self._stream_chunks = Counter(names.STREAM_CHUNKS)
        self._stream_duration = Histogram(names.STREAM_DURATION)
        self._tokens_per_second = Histogram(names.TOKENS_PER_SECOND)
        self._duration = Histogram(names.OPERATION_DURATION)
        self._tokens = Histogram(names.TOKEN_USAGE)
        self._first_chunk = Histogram(names.TIME_TO_FIRST_CHUNK)
        self._per_chunk = Histogram(names.TIME_PER_OUTPUT_CHUNK)
        self._first_token = Histogram(names.TIME_TO_FIRST_TOKEN)
        self._per_token = Histogram(names.TIME_PER_OUTPUT_TOKEN)
        self._request_models = Models()
        self._response_models = Models()

    def record(self, outcome: Outcome, error: str | None) -> None:
        """Take in one finished request. `error` is its error.type, bounded; None where it has none."""
        confirmed = (
            outcome.end is End.COMPLETED
            and outcome.response_model is not None
            and 200 <= outcome.status <= 299
        )
        model = self._request_models.value(
            outcome.model, configured=outcome.model_configured, confirmed=confirmed
        )
        own = (outcome.operation, outcome.provider, model)
        end = str(outcome.end)
        self._requests.add((*own, end, error))
        if outcome.attempts > 1:
            self._retries.add(own, outcome.attempts - 1)
        if outcome.streamed and outcome.stream is not None:
            self._record_stream(outcome, own, end)
        if outcome.attempts and names.infers(outcome.endpoint, outcome.method, outcome.operation):
            answered = self._response_models.value(
                outcome.response_model, configured=False, confirmed=confirmed
            )
            gen_ai = (*own, answered, outcome.server_address, outcome.server_port)
            if outcome.end is End.CANCELLED:
                error = names.CANCELLED
            self._record_inference(outcome, gen_ai, (*gen_ai, error))

    def _record_stream(self, outcome: Outcome, own: Values, end: str) -> None:
        assert outcome.stream is not None
        self._streams.add((*own, end))
        self._stream_chunks.add(own, outcome.stream.chunks_sent)
        began = outcome.duration_s if outcome.first_byte_s is None else outcome.first_byte_s
        self._stream_duration.add((*own, end), outcome.duration_s - began, outcome.trace)
        if outcome.pace is not None:
            tokens, seconds = outcome.pace
            self._tokens_per_second.add(own, tokens / seconds, outcome.trace)

    def _record_inference(self, outcome: Outcome, gen_ai: Values, with_error: Values) -> None:
        trace = outcome.trace
        self._duration.add(with_error, outcome.duration_s, trace)
        usage = outcome.usage
        if usage is not None:
            if usage.prompt_reported:
                self._tokens.add((*gen_ai, "input"), usage.prompt_tokens, trace)
            if usage.completion_reported:
                self._tokens.add((*gen_ai, "output"), usage.completion_tokens, trace)
        if not outcome.streamed:
            return
        if outcome.first_chunk_s is not None:
            self._first_chunk.add(with_error, outcome.first_chunk_s, trace)
        if outcome.stream is not None and outcome.stream.gaps is not None:
            self._per_chunk.merge(with_error, outcome.stream.gaps, trace)
        if outcome.first_token_s is not None:
            self._first_token.add(gen_ai, outcome.first_token_s, trace)
        if outcome.pace is not None:
            tokens, seconds = outcome.pace
            self._per_token.add(gen_ai, seconds / tokens, trace)

    def families(self) -> Iterator[Family]:
        """What they say now. Read it before the loop goes on."""
        for one in (
            self._duration, self._tokens, self._first_chunk, self._per_chunk, self._first_token, self._per_token,
            self._requests, self._retries, self._streams, self._stream_duration, self._stream_chunks,
            self._tokens_per_second,
        ):  # fmt: skip
            yield one.family()
        yield Family(names.REQUEST_DURATION, self._duration.series)
