"""What goes down that the sidecar words itself, and which headers of an upstream's answer go with it.

Enters: a refusal, a fault, or an upstream's error answer. Leaves: status, headers, body in OpenAI's shape.
The only home of status codes. Must not send anything, and must not say more than the errors' public words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .errors import UpstreamError
from .records import Headers, Reason, Refusal

JSON: Final = (b"content-type", b"application/json")
EVENT_STREAM: Final = b"text/event-stream"

_STATUS: Final = {
    Reason.INVALID_REQUEST: 400,
    Reason.MODEL_NOT_ALLOWED: 400,
    Reason.MODEL_NOT_FOUND: 404,
    Reason.NOT_FOUND: 404,
    Reason.FORBIDDEN_HOST: 403,
    Reason.FORBIDDEN_ORIGIN: 403,
    Reason.BODY_TOO_LARGE: 413,
    Reason.UNSUPPORTED_ENCODING: 415,
    Reason.TOO_MANY_REQUESTS: 429,
    Reason.SHUTTING_DOWN: 503,
    Reason.INTERNAL_ERROR: 500,
}
_TYPE: Final = {
    Reason.TOO_MANY_REQUESTS: "requests",
    Reason.SHUTTING_DOWN: "server_error",
    Reason.INTERNAL_ERROR: "server_error",
    Reason.FORBIDDEN_HOST: "request_forbidden",
    Reason.FORBIDDEN_ORIGIN: "request_forbidden",
}
_OWN_CODE_SHOWN: Final = frozenset(Reason) - {Reason.INVALID_REQUEST}

STREAM_HEADERS: Final = [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache")]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_NOT_DOWN: Final = HOP_BY_HOP | {
    # The app has no use for them, or they would speak for an origin that is not the sidecar's.
    b"set-cookie", b"alt-svc", b"strict-transport-security", b"access-control-allow-origin",
    b"access-control-allow-credentials", b"access-control-allow-headers", b"access-control-allow-methods",
    b"access-control-expose-headers", b"access-control-max-age", b"content-length",
}  # fmt: skip

EXCERPT: Final = 200
"""Characters of a non-JSON error body that are quoted."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of known length."""

    status: int
    headers: Headers
    body: bytes


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error shape: message, type, param and code, all present."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()


def refusal(refused: Refusal) -> Reply:
    """The answer to a request that the sidecar refuses."""
    reason = refused.reason
    code = refused.code or (reason.value if reason in _OWN_CODE_SHOWN else None)
    body = error_body(refused.message, _TYPE.get(reason, "invalid_request_error"), refused.param, code)
    headers = [JSON]
    if reason is Reason.TOO_MANY_REQUESTS:
        headers.append((b"retry-after", b"1"))
    return Reply(_STATUS[reason], headers, body)


def fault(error: UpstreamError, *, exhausted: bool) -> Reply:
    """The answer where no answer came. `exhausted`: the sidecar's own tries are used up."""
    headers = [JSON, *_no_more_tries(exhausted)]
    return Reply(500, headers, error_body(str(error), "upstream_error", None, error.code))


def upstream_error(
    status: int,
    headers: Headers,
    body: bytes,
    *,
    exhausted: bool,
    mask: Callable[[bytes], bytes],
    method: str,
    cut: bool = False,
) -> Reply:
    """An upstream's error answer as it goes down: its status, its JSON as it came; what is no JSON is wrapped.

    `mask` takes the key out of what the upstream says. `cut`: `body` is not all that the upstream said.
    """
    kept = [line for line in down(headers, mask=mask) if not (exhausted and line[0] == b"x-should-retry")]
    kept += _no_more_tries(exhausted)
    if method == "HEAD" or (_is_json(body) and not _encoded(headers)):
        return Reply(status, kept, mask(body))
    kept = [line for line in kept if line[0] not in (b"content-type", b"content-encoding")]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    wrapped = error_body(_excerpt(status, headers, mask(body), cut=cut), kind, None, "upstream_http_error")
    return Reply(status, [JSON, *kept], wrapped)


def words_of(body: bytes) -> str | None:
    """An error body's code, type and param: what may be logged of it without logging content."""
    try:
        error = json.loads(body)["error"]
        words = [str(error[name])[:64] for name in ("code", "type", "param") if error.get(name)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return ", ".join(words) or None


def message_of(body: bytes) -> str:
    """The message of an error body, or the body itself where it has another shape."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return body[:EXCERPT].decode("utf-8", "replace")


def down(headers: Headers, *, mask: Callable[[bytes], bytes]) -> Headers:
    """The headers of an answer that go down, in order, without content-length; the key is never among them."""
    lines = end_to_end(headers, _NOT_DOWN)
    # One look at all of them: the key is hardly ever there.
    values = b"\n".join([value for _, value in lines])
    return lines if mask(values) == values else [(name, mask(value)) for name, value in lines]


def end_to_end(headers: Headers, barred: frozenset[bytes], prefixes: tuple[bytes, ...] = ()) -> Headers:
    """Header lines, in order, without those of `barred` names, of which hop-by-hop ones are some, those whose names begin with
    one of `prefixes`, and those that a Connection line says are for this hop alone. Names are in lower case."""
    lines = []
    hops = False
    for line in headers:
        name = line[0]
        if name in barred:
            hops = hops or name == b"connection"
        elif not name.startswith(prefixes):
            lines.append(line)
    if not hops:
        return lines
    named = _named_by_connection(headers)
    return [line for line in lines if line[0] not in named]


def _named_by_connection(headers: Headers) -> set[bytes]:
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return named


def cors(origin: bytes) -> Headers:
    """What lets a page of an accepted origin read the answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def preflight(requested_headers: bytes) -> Reply:
    """The answer to a browser's question whether it may send its request."""
    return Reply(
        204,
        [
            (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (b"access-control-allow-headers", requested_headers or b"*"),
            (b"access-control-max-age", b"600"),
        ],
        b"",
    )


def _no_more_tries(exhausted: bool) -> Iterable[tuple[bytes, bytes]]:
    return [(b"x-should-retry", b"false")] if exhausted else []


def _encoded(headers: Headers) -> bool:
    return any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _excerpt(status: int, headers: Headers, body: bytes, *, cut: bool) -> str:
    media = next((value for name, value in headers if name == b"content-type"), b"no content type")
    text = " ".join(body[: EXCERPT * 4].decode("utf-8", "replace").split())
    said = "".join(char if char.isprintable() else "?" for char in text)[:EXCERPT]
    what = "a body that is too large or broke off" if cut else f"{media.decode('latin-1')} in place of JSON"
    told = f"The upstream answered {status} with {what}"
    return f"{told}: {said}" if said and not _encoded(headers) else f"{told}."
