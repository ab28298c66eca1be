"""Messages of a chat as span attributes, in the JSON of the GenAI conventions v1.41. Only where it was asked for.

Enters: a request's body and the first bytes of its answer, without the key. Leaves: gen_ai.input.messages and
gen_ai.output.messages, bounded: long texts are cut, and of many messages the newest stay. Pure.
Covers chat completions, plain and streamed, with text and tool calls; of images, audio and files only that they were
there. What cannot be read (an answer larger than what was kept, a coding that is not known) is left out.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from opentelemetry.util.types import AttributeValue

from ..records import Endpoint
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


def tell(attributes: dict[str, AttributeValue], endpoint: Endpoint, request: bytes, answer: bytes) -> None:
    """Add what can be told."""
    if endpoint is not Endpoint.CHAT:
        return
    asked = _read(request)
    if asked is not None and (messages := _messages(asked.get("messages"))):
        attributes[INPUT_MESSAGES] = _dump(messages)
    if answer and (answers := _answers(_plain(answer))):
        attributes[OUTPUT_MESSAGES] = _dump(answers)


def _messages(found: Any) -> list[Part]:
    """What was asked, oldest first; where there is too much of it, the newest."""
    kept: list[Part] = []
    room = MAX_ALL
    for message in reversed(found if isinstance(found, list) else []):
        if not isinstance(message, dict):
            continue
        parts = _parts(message)
        room -= sum(len(json.dumps(part)) for part in parts)
        if room < 0 and kept:
            break
        kept.append({"role": str(message.get("role"))[:64], "parts": parts})
    return kept[::-1]


def _parts(message: dict[str, Any]) -> list[Part]:
    content = message.get("content")
    if message.get("role") == "tool":
        told = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": _cut(content)}
        return [told]
    parts: list[Part] = []
    if isinstance(content, str):
        parts.append({"type": "text", "content": _cut(content)})
    for one in content if isinstance(content, list) else []:
        if isinstance(one, dict) and isinstance(one.get("text"), str):
            parts.append({"type": "text", "content": _cut(one["text"])})
        elif isinstance(one, dict):
            parts.append({"type": str(one.get("type"))[:64]})
    return [*parts, *_calls(message.get("tool_calls"))]


def _calls(found: Any) -> list[Part]:
    parts = []
    for call in found[:_MAX_CALLS] if isinstance(found, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = _cut(function.get("arguments"))
            name = _cut(function.get("name"))
            parts.append({"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments})
    return parts


def _answers(answer: bytes) -> list[Part]:
    """One message for each choice, of a whole answer or of a stream's events."""
    whole = _read(answer)
    if whole is not None:
        found = whole.get("choices")
        choices = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        return [
            _answer(_parts(message), choice.get("finish_reason"))
            for choice in choices[:_MAX_CHOICES]
            if isinstance(message := choice.get("message"), dict)
        ]
    texts: dict[int, list[str]] = {}
    calls: dict[int, dict[int, Part]] = {}
    reasons: dict[int, Any] = {}
    for line in answer.splitlines():
        chunk = _read(line[5:]) if line.startswith(b"data:") else None
        found = chunk.get("choices") if chunk is not None else None
        for choice in found if isinstance(found, list) else []:
            if isinstance(choice, dict):
                _add(choice, texts, calls, reasons)
    return [
        _answer(
            [
                *([{"type": "text", "content": _cut("".join(texts[at]))}] if texts[at] else []),
                *calls.get(at, {}).values(),
            ],
            reasons.get(at),
        )
        for at in sorted(texts)[:_MAX_CHOICES]
    ]


def _add(
    choice: dict[str, Any],
    texts: dict[int, list[str]],
    calls: dict[int, dict[int, Part]],
    reasons: dict[int, Any],
) -> None:
    """One chunk's part of one choice."""
    at = choice.get("index")
    at = at if isinstance(at, int) else 0
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    text = texts.setdefault(at, [])
    if isinstance(delta.get("content"), str):
        text.append(delta["content"])
    pieces = delta.get("tool_calls")
    for piece in pieces if isinstance(pieces, list) else []:
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(function, dict):
            continue
        known = calls.setdefault(at, {}).setdefault(
            piece.get("index") or 0, {"type": "tool_call", "id": None, "name": "", "arguments": ""}
        )
        known["id"] = known["id"] or piece.get("id")
        known["name"] += _cut(function.get("name"))
        known["arguments"] = _cut(known["arguments"] + _cut(function.get("arguments")))
    if choice.get("finish_reason"):
        reasons[at] = choice["finish_reason"]


def _answer(parts: list[Part], reason: Any) -> Part:
    return {"role": "assistant", "parts": parts, "finish_reason": _cut(reason) or "error"}


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


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


def _dump(messages: list[Part]) -> str:
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
