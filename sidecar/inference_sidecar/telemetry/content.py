"""Messages of a chat as span attributes, in the JSON of the GenAI conventions v1.41. Only where it was asked for.

Enters: what was `Said`. Leaves: gen_ai.input.messages and gen_ai.output.messages, bounded: long texts are cut, and of
many messages the newest stay. Pure. The key is taken out of each text when it is whole, before it is cut: in the bytes
it may stand compressed, escaped, or spread over two events.
Covers chat completions, plain and streamed, with text and tool calls; of images, audio and files only that they were
there. What cannot be read (an answer larger than what was kept, a coding that is not known) is left out.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any, Final

from ..records import Endpoint, Said
from .span_names import INPUT_MESSAGES, OUTPUT_MESSAGES

MAX_TEXT: Final = 8192
"""Characters of one text."""
MAX_ALL: Final = 32768
"""Characters of one attribute's texts, together."""
_MAX_INFLATED: Final = 1024 * 1024
_MAX_CHOICES: Final = 16
_MAX_CALLS: Final = 64
_CODED: Final = (b"\x1f\x8b", b"\x78")

Part = dict[str, Any]


def told_of(endpoint: Endpoint, said: Said) -> dict[str, str]:
    """What can be told, as attributes."""
    found: dict[str, str] = {}
    if endpoint is not Endpoint.CHAT:
        return found
    reading = _Reading(said.mask)
    asked = _read(said.request)
    if asked is not None and (messages := reading.messages(asked.get("messages"))):
        found[INPUT_MESSAGES] = reading.dump(messages)
    if said.answer and (answers := reading.answers(_plain(said.answer))):
        found[OUTPUT_MESSAGES] = reading.dump(answers)
    return found


class _Choice:
    """One choice of a stream, put together."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: dict[int, Part] = {}
        self.reason: Any = None

    def add(self, choice: dict[str, Any]) -> None:
        """One chunk's part of it."""
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        if isinstance(delta.get("content"), str):
            self.texts.append(delta["content"])
        self.reason = choice.get("finish_reason") or self.reason
        pieces = delta.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else []:
            function = piece.get("function") if isinstance(piece, dict) else None
            at = piece.get("index") if isinstance(piece, dict) else None
            if not isinstance(function, dict) or not isinstance(at, int):
                continue
            call = self.calls.setdefault(at, {"id": None, "function": {"name": "", "arguments": ""}})
            call["id"] = call["id"] or piece.get("id")
            for name in ("name", "arguments"):
                if isinstance(function.get(name), str):
                    call["function"][name] += function[name]


class _Reading:
    def __init__(self, mask: Callable[[bytes], bytes]) -> None:
        self._mask = mask

    def messages(self, found: Any) -> list[Part]:
        """What was asked, oldest first; where there is too much of it, the newest."""
        kept: list[Part] = []
        room = MAX_ALL
        for message in reversed(found if isinstance(found, list) else []):
            if not isinstance(message, dict):
                continue
            parts = self._parts(message)
            room -= sum(len(json.dumps(part)) for part in parts)
            if room < 0 and kept:
                break
            kept.append({"role": self._cut(message.get("role")), "parts": parts})
        return kept[::-1]

    def answers(self, answer: bytes) -> list[Part]:
        """One message for each choice, of a whole answer or of a stream's events."""
        whole = _read(answer)
        if whole is not None:
            return [
                self._answer(self._parts(message), choice.get("finish_reason"))
                for choice in _choices(whole)[:_MAX_CHOICES]
                if isinstance(message := choice.get("message"), dict)
            ]
        streamed: dict[int, _Choice] = {}
        for line in answer.splitlines():
            chunk = _read(line[5:]) if line.startswith(b"data:") else None
            for choice in _choices(chunk or {}):
                at = choice.get("index")
                if isinstance(at, int) and (at in streamed or len(streamed) < _MAX_CHOICES):
                    streamed.setdefault(at, _Choice()).add(choice)
        return [
            self._answer(
                self._parts({"content": "".join(one.texts) or None, "tool_calls": list(one.calls.values())}),
                one.reason,
            )
            for _, one in sorted(streamed.items())
        ]

    def dump(self, messages: list[Part]) -> str:
        """The attribute."""
        return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))

    def _parts(self, message: dict[str, Any]) -> list[Part]:
        found = message.get("content")
        if message.get("role") == "tool":
            call = self._cut(message.get("tool_call_id"))
            return [{"type": "tool_call_response", "id": call, "response": self._cut(found)}]
        parts: list[Part] = []
        if isinstance(found, str):
            parts.append({"type": "text", "content": self._cut(found)})
        for one in found if isinstance(found, list) else []:
            if isinstance(one, dict) and isinstance(one.get("text"), str):
                parts.append({"type": "text", "content": self._cut(one["text"])})
            elif isinstance(one, dict):
                parts.append({"type": self._cut(one.get("type"))})
        calls = message.get("tool_calls")
        for call in calls[:_MAX_CALLS] if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                told = {name: self._cut(function.get(name)) for name in ("name", "arguments")}
                parts.append({"type": "tool_call", "id": self._cut(call.get("id")), **told})
        return parts

    def _answer(self, parts: list[Part], reason: Any) -> Part:
        return {"role": "assistant", "parts": parts, "finish_reason": self._cut(reason) or "error"}

    def _cut(self, value: Any) -> str:
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        text = self._mask(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("choices")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _plain(answer: bytes) -> bytes:
    """What went down compressed, as far as it was kept."""
    if not answer.startswith(_CODED):
        return answer
    try:
        return zlib.decompressobj(47).decompress(answer, _MAX_INFLATED)
    except zlib.error:
        return b""


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
