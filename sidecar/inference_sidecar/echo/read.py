"""The body of a chat request, as the embedded upstream understands it.

Enters: bytes. Leaves: a `Chat` with all that there is to say, or `BadRequestError`, which is an answer too.
Checks for itself what it builds on, since validation may be off.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .chat import Chat, Json
from .example import example

DEFAULT_MODEL: Final = "echo"

_MAX_CHARS: Final = 16 * 1024
_MAX_CHOICES: Final = 128
_TOKEN: Final = re.compile(r"\s*\S+(?:\s+\Z)?")


class BadRequestError(Exception):
    """The request cannot be answered, and this is the answer."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error(message, param, code)


def error(message: str, param: str | None = None, code: str | None = None) -> Json:
    """An error body in OpenAI's shape."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def read(body: bytes) -> Chat:
    """What a chat asks for. Raises BadRequestError. The bounds are the API's."""
    found = _json(body)
    messages = _typed(found, "messages", list, "an array")
    if not messages or not all(
        isinstance(one, dict) and isinstance(one.get("role"), str) for one in messages
    ):
        raise BadRequestError("'messages' must hold at least one message with a role.", "messages")
    options = _typed(found, "stream_options", dict, "an object") or {}
    tool = _tool(found, messages)
    said = _arguments(tool) if tool else _reply(found, messages)
    stops = _stops(found)
    tokens, finish_reason = _cut(found, said, () if tool else stops)
    if tool and finish_reason == "stop":
        finish_reason = "tool_calls"
    return Chat(
        model=(_typed(found, "model", str, "a string") or DEFAULT_MODEL)[:256],
        prompt_tokens=sum(_count(message.get("content")) for message in messages),
        tokens=tokens,
        finish_reason=finish_reason,
        tool=tool["name"] if tool else None,
        choices=_integer(found, "n", 1, _MAX_CHOICES) or 1,
        top_logprobs=(_integer(found, "top_logprobs", 0, 20) or 0) if found.get("logprobs") else None,
        stream=bool(_typed(found, "stream", bool, "a boolean")),
        include_usage=options.get("include_usage") is True,
    )


def _reply(found: Json, messages: list[Json]) -> str:
    last = messages[-1]
    if last["role"] not in ("tool", "function"):
        last = next((one for one in reversed(messages) if one["role"] == "user"), last)
    text = _text(last.get("content")).strip()
    wanted = _typed(found, "response_format", dict, "an object") or {}
    if wanted.get("type") == "json_object":
        return json.dumps({"you_said": text})
    if wanted.get("type") == "json_schema":
        schema = wanted.get("json_schema")
        return json.dumps(example(schema.get("schema") if isinstance(schema, dict) else None) or {})
    if last["role"] in ("tool", "function"):
        return f"The tool answered: {text}"
    return f"You said: {text}" if text else "You said nothing that is text."


def _tool(found: Json, messages: list[Json]) -> Json | None:
    """The function to call, if one is offered, may be called, and has not just answered."""
    offered = [
        tool.get("function")
        for tool in _typed(found, "tools", list, "an array") or ()
        if isinstance(tool, dict)
    ]
    functions = {
        one["name"]: one for one in offered if isinstance(one, dict) and isinstance(one.get("name"), str)
    }
    choice = found.get("tool_choice")
    if not functions or choice == "none" or messages[-1]["role"] in ("tool", "function"):
        return None
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools")
        tools = allowed.get("tools") if isinstance(allowed, dict) else [choice]
        first = tools[0] if isinstance(tools, list) and tools else None
        function = first.get("function") if isinstance(first, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in functions:
            raise BadRequestError("'tool_choice' names no function that 'tools' offers.", "tool_choice")
        return functions[name]
    return next(iter(functions.values()))


def _arguments(function: Json) -> str:
    value = example(function.get("parameters"))
    return json.dumps(value if isinstance(value, dict) else {})


def _stops(found: Json) -> list[str]:
    stop = found.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise BadRequestError("'stop' must be a string or an array of strings.", "stop")
    return stops


def _cut(found: Json, said: str, stops: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """The tokens that are said, and why no more: stop sequences first, then the limits."""
    limit = _integer(found, "max_completion_tokens", 1) or _integer(found, "max_tokens", 1)
    said = said[: min((at for one in stops if one and (at := said.find(one)) >= 0), default=len(said))]
    tokens = _TOKEN.findall(said[:_MAX_CHARS]) or ([said[:_MAX_CHARS]] if said else [])
    cut = len(said) > _MAX_CHARS or (limit is not None and len(tokens) > limit)
    return tuple(tokens[:limit]), "length" if cut else "stop"


def _text(content: Any) -> str:
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return " ".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _count(content: Any) -> int:
    parts = content if isinstance(content, list) else ()
    return len(_text(content).split()) + sum(
        1 for part in parts if not (isinstance(part, dict) and "text" in part)
    )


def _json(body: bytes) -> Json:
    try:
        found = json.loads(body.decode(), parse_float=_finite, parse_constant=_finite)
    except ValueError:
        raise BadRequestError("The body is not valid JSON.") from None
    if not isinstance(found, dict):
        raise BadRequestError("The body must be a JSON object.")
    return found


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _typed(found: Mapping[str, Any], name: str, kind: type, words: str) -> Any:
    value = found.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadRequestError(f"'{name}' must be {words}.", name)
    return value


def _integer(found: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if type(whole) is not int or whole < least or (most is not None and whole > most):
        bounds = f"between {least} and {most}" if most is not None else f"of at least {least}"
        raise BadRequestError(f"'{name}' must be an integer {bounds}.", name)
    return whole
