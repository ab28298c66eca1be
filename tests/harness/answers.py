"""What an API of this kind says: whole HTTP answers and streams, as bytes, for scripts.

Enters: a few words of content. Leaves: bytes ready for the wire, or scripts. Written after recorded answers
of OpenAI and Azure; must not know what the sidecar does with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from harness.upstream import Exchange, Script

DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"
"""The last chunk of a chunked body."""

USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\r\n"
REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    429: "Too Many Requests",
}


def dense(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def head(status: int, *headers: str, reason: str | None = None) -> bytes:
    words = reason if reason is not None else REASONS.get(status, "Whatever")
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} {words}", *headers, "")).encode()


def answer(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    return head(status, f"content-type: {kind}", f"content-length: {len(body)}", *headers) + body


def json_answer(value: Any, *headers: str, status: int = 200) -> bytes:
    return answer(status, dense(value), *headers)


def error(status: int, message: str, kind: str, code: str | None, *headers: str) -> bytes:
    """An error of the upstream itself."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json_answer(body, *headers, status=status)


def rate_limited(*headers: str, code: str = "rate_limit_exceeded") -> bytes:
    return error(429, "Rate limit reached", "tokens", code, *headers)


def html_502() -> bytes:
    return answer(502, HTML, kind="text/html")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def chunked_head(status: int = 200, kind: str = "application/json", *headers: str) -> bytes:
    return head(status, f"content-type: {kind}", "transfer-encoding: chunked", *headers)


def sse_head(*headers: str) -> bytes:
    return chunked_head(200, "text/event-stream; charset=utf-8", *headers)


def event(value: Any, name: str | None = None) -> bytes:
    lead = b"" if name is None else b"event: " + name.encode() + b"\n"
    return lead + b"data: " + dense(value) + b"\n\n"


def sse(events: Iterable[bytes], *headers: str) -> list[bytes]:
    """A whole event stream, one chunk an event, with a clean end."""
    return [sse_head(*headers), *(chunk(each) for each in events), END]


def completion(content: str = "Paris.", model: str = "gpt-4") -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion",
        "created": 1234567890,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "system_fingerprint": "fp_1",
    }


def _chat_chunk(model: str, choices: list[Any], more: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1234567890,
        "model": model,
        "system_fingerprint": "fp_1",
        "choices": choices,
        **more,
    }


def delta(
    content: dict[str, Any],
    finish: str | None = None,
    *,
    index: int = 0,
    model: str = "gpt-4",
    usage_null: bool = False,
) -> bytes:
    """The event of one chat chunk. `usage_null`: as OpenAI writes it once usage was asked for."""
    choice = {"index": index, "delta": content, "logprobs": None, "finish_reason": finish}
    return event(_chat_chunk(model, [choice], {"usage": None} if usage_null else {}))


def usage_event(model: str = "gpt-4", usage: dict[str, Any] | None = None) -> bytes:
    """The chunk of its own that carries the usage."""
    return event(_chat_chunk(model, [], {"usage": usage or USAGE}))


def chat_events(
    words: Iterable[str] = ("Once", " upon", " a time"),
    *,
    model: str = "gpt-4",
    usage: bool = False,
    done: bool = True,
) -> list[bytes]:
    """A chat stream as OpenAI sends it; `usage`: as it is where include_usage was asked for."""
    events = [delta({"role": "assistant", "content": ""}, model=model, usage_null=usage)]
    events += [delta({"content": word}, model=model, usage_null=usage) for word in words]
    events.append(delta({}, "stop", model=model, usage_null=usage))
    if usage:
        events.append(usage_event(model))
    if done:
        events.append(DONE)
    return events


def tool_events(model: str = "gpt-4", usage: bool = False) -> list[bytes]:
    """A chat stream that calls a function, its arguments in pieces."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    events = [
        delta({"role": "assistant", "content": None, "tool_calls": [call]}, model=model, usage_null=usage)
    ]
    for piece in ('{"ci', 'ty":"Par', 'is"}'):
        part = {"index": 0, "function": {"arguments": piece}}
        events.append(delta({"tool_calls": [part]}, model=model, usage_null=usage))
    events.append(delta({}, "tool_calls", model=model, usage_null=usage))
    return [*events, *([usage_event(model)] if usage else []), DONE]


def azure_first_chunk() -> bytes:
    filters = [
        {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    ]
    value = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": filters,
    }
    return event(value)


def response_object(status: str = "completed", text: str = "Paris.") -> dict[str, Any]:
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1234567890,
        "status": status,
        "model": "gpt-4",
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": {"code": "server_error", "message": "no"} if status == "failed" else None,
        "incomplete_details": None,
        "usage": usage if status != "in_progress" else None,
    }


def response_events(end: str | None = "completed", words: Iterable[str] = ("Par", "is.")) -> list[bytes]:
    """A stream of the responses API; `end` None leaves out its last event."""
    events: list[tuple[str, dict[str, Any]]]
    events = [("response.created", {"response": response_object("in_progress")})]
    place: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events += [("response.output_text.delta", {**place, "delta": word, "logprobs": []}) for word in words]
    if end is not None:
        events.append((f"response.{end}", {"response": response_object(end)}))
    numbered = enumerate(events)
    return [event({"type": name, "sequence_number": at, **value}, name) for at, (name, value) in numbered]


def embeddings(model: str = "text-embedding-3-small") -> dict[str, Any]:
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "data": data, "model": model, "usage": usage}


MODELS = ("gpt-4", "gpt-3.5-turbo", "o3-mini", "davinci-002", "text-embedding-3-small", "whisper-1")


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1686935002, "owned_by": "openai"}


def models() -> dict[str, Any]:
    return {"object": "list", "data": [model(name) for name in MODELS]}


def typical(exchange: Exchange) -> Script:
    """What a well upstream answers to a request that names no scenario."""
    path = urlsplit(exchange.target).path
    if path.endswith("/chat/completions"):
        return _chat(exchange)
    if path.endswith("/responses"):
        if exchange.json.get("stream"):
            return sse(response_events())
        return [json_answer(response_object())]
    if path.endswith("/embeddings"):
        return [json_answer(embeddings())]
    if path.endswith("/models"):
        return [json_answer(models())]
    if "/models/" in path:
        name = path.rpartition("/")[2]
        if name in MODELS:
            return [json_answer(model(name))]
    return [error(404, f"no such thing: {path}", "invalid_request_error", None)]


def _chat(exchange: Exchange) -> Script:
    body = exchange.json
    if not body.get("stream"):
        return [json_answer(completion(model=body.get("model", "gpt-4")), "x-request-id: req_up")]
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    build = tool_events if body.get("tools") else chat_events
    return sse(build(model=body.get("model", "gpt-4"), usage=usage), "x-request-id: req_up")
