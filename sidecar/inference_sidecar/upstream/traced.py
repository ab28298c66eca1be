"""What a request's spans are told of one attempt.

Enters: the attempt's URL, and what became of it. The trace is told method, URL without query, status and version, and no
header: it cannot tell a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from ..telemetry.spans import Trace

_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}

Shown = tuple[str, str, int | None]
"""A URL as it may be told, its host and its port."""


def answered(trace: Trace, status: int, version: bytes) -> None:
    """An attempt's answer has its head. `version` as it begins with."""
    trace.attempt_ended(
        status, _VERSIONS.get(version) or version.decode("ascii", "ignore").replace("HTTP/", "")
    )


def unanswered(trace: Trace, error: BaseException) -> None:
    """An attempt has no answer."""
    if isinstance(error, asyncio.CancelledError):
        trace.attempt_cancelled()
    elif isinstance(error, Exception):
        trace.attempt_failed(error)


def shown(url: httpx.URL) -> Callable[[bytes], Shown]:
    """What gives `url` with another path. Paths are few, and httpx takes its time over a URL."""

    @lru_cache(maxsize=64)
    def of_path(path: bytes) -> Shown:
        told = url.copy_with(raw_path=path)
        return str(told), told.host, told.port

    return of_path
