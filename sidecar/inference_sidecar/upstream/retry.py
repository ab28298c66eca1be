"""When a request may be sent again, and after what wait. Pure: no clock, no I/O.

Enters: what kind of request it is, and what the last try brought. Leaves: a yes or no, and seconds.
The law: nothing is repeated once a byte of an answer has gone down, and outside the endpoints that are
safe to repeat nothing is repeated that an upstream may have begun to work on.
"""

from __future__ import annotations

import email.utils
import json
import math
import random
from collections.abc import Mapping
from typing import Final

from ..errors import UpstreamConnectError, UpstreamDisconnected, UpstreamError
from ..records import Endpoint

RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})

MAX_BACKOFF_SECS: Final = 8.0

_REPEATABLE: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def repeatable(endpoint: Endpoint, method: str) -> bool:
    """Whether a request may be sent again although the upstream may have seen it."""
    return endpoint in _REPEATABLE or method in _SAFE_METHODS


def after_error(error: UpstreamError, *, may_repeat: bool) -> bool:
    """Whether a try that brought no answer may be followed by another."""
    if isinstance(error, UpstreamConnectError):
        return True
    return may_repeat and isinstance(error, UpstreamDisconnected)


def after_status(status: int, headers: Mapping[bytes, bytes], body: bytes, *, may_repeat: bool) -> bool:
    """Whether an error answer may be followed by another try. `headers` has names in lower case.

    The upstream's own word (x-should-retry) goes before the list of statuses; an exhausted quota is
    never worth a try.
    """
    if not may_repeat and status != 429:
        return False
    word = headers.get(b"x-should-retry", b"").strip().lower()
    if word in (b"true", b"false"):
        return word == b"true"
    return status in RETRIED_STATUSES and not (status == 429 and _quota_used_up(body))


def wait_secs(tries: int, backoff_ms: int, headers: Mapping[bytes, bytes], now: float) -> float:
    """Seconds before the next try, after `tries` of them: what the upstream asks for, else exponential
    from `backoff_ms` with jitter down to a half. `now` is Unix time, for a retry-after that is a date."""
    asked = _retry_after(headers, now)
    if asked is not None:
        return asked
    backoff: float = min(backoff_ms / 1000 * 2 ** (tries - 1), MAX_BACKOFF_SECS)
    return backoff * random.uniform(0.5, 1.0)  # noqa: S311  spreads load; nothing secret depends on it


def refuses_usage(status: int, body: bytes) -> bool:
    """Whether an upstream says that it does not know the stream_options that the sidecar added."""
    return status in (400, 422) and (b"stream_options" in body or b"include_usage" in body)


def _retry_after(headers: Mapping[bytes, bytes], now: float) -> float | None:
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        text = headers.get(name, b"").decode("latin-1").strip()
        if not text:
            continue
        try:
            seconds = float(text) / unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
            except (ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _quota_used_up(body: bytes) -> bool:
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return False
    return isinstance(error, dict) and "insufficient_quota" in (error.get("code"), error.get("type"))
