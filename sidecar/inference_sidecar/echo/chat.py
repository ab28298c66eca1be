"""A chat that was understood, and the answer to it in OpenAI's form, plain or as a stream's chunks.

Must not know what was asked beyond what its fields say, nor wait: where a stream pauses it says so.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat that was understood, and what there is to say. Every choice says the same."""

    model: str
    prompt_tokens: int
    tokens: tuple[str, ...]
    """What is said or, where a tool is called, the call's arguments."""
    finish_reason: str
    tool: str | None
    choices: int
    top_logprobs: int | None
    """None: no logprobs were asked for."""
    stream: bool
    include_usage: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self) -> Json:
        """The plain answer."""
        choices = [
            {
                "index": index,
                "message": self._message(index),
                "logprobs": self._logprobs(self.tokens),
                "finish_reason": self.finish_reason,
            }
            for index in range(self.choices)
        ]
        return self._object("chat.completion", choices) | {"usage": self._usage()}

    def chunks(self) -> Iterator[Json | None]:
        """The same as a stream; None is a pause."""
        for index in range(self.choices):
            yield self._chunk(index, {"role": "assistant", "refusal": None, **self._opening(index)})
        for token in self.tokens:
            yield None
            for index in range(self.choices):
                yield self._chunk(index, self._delta(token), logprobs=self._logprobs((token,)))
        for index in range(self.choices):
            yield self._chunk(index, {}, finish_reason=self.finish_reason)
        if self.include_usage:
            yield self._object("chat.completion.chunk", []) | {"usage": self._usage()}

    def _message(self, index: int) -> Json:
        said = "".join(self.tokens)
        if self.tool is None:
            return {"role": "assistant", "content": said, "refusal": None, "annotations": []}
        return {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [self._call(index, said)],
        }

    def _opening(self, index: int) -> Json:
        if self.tool is None:
            return {"content": ""}
        return {"content": None, "tool_calls": [{"index": 0, **self._call(index, "")}]}

    def _delta(self, token: str) -> Json:
        if self.tool is None:
            return {"content": token}
        return {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}

    def _call(self, index: int, arguments: str) -> Json:
        function = {"name": self.tool, "arguments": arguments}
        return {"id": f"call_{self.id[-20:]}{index:04d}", "type": "function", "function": function}

    def _chunk(
        self, index: int, delta: Json, *, finish_reason: str | None = None, logprobs: Json | None = None
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = self._object("chat.completion.chunk", [choice])
        return chunk | {"usage": None} if self.include_usage else chunk

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_echo",
            "choices": choices,
        }

    def _logprobs(self, tokens: tuple[str, ...]) -> Json | None:
        """An echo is certain of what it says: every probability is 1."""
        if self.top_logprobs is None or self.tool is not None:
            return None
        told = [
            {"token": token, "logprob": 0.0, "bytes": list(token.encode("utf-8", "replace"))}
            for token in tokens
        ]
        tops = self.top_logprobs > 0
        return {"content": [{**one, "top_logprobs": [one] if tops else []} for one in told], "refusal": None}

    def _usage(self) -> Json:
        completion = self.choices * (len(self.tokens) + (self.tool is not None))
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }
