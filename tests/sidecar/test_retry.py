"""When a request may be sent again, and after what wait: statuses, the upstream's own word, quota, dates, jitter."""

from __future__ import annotations

import pytest

from inference_sidecar.errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTLSError,
)
from inference_sidecar.records import Endpoint
from inference_sidecar.upstream import retry

QUOTA = b'{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}'
RATE = b'{"error":{"message":"m","type":"tokens","param":null,"code":"rate_limit_exceeded"}}'


@pytest.mark.parametrize(
    ("endpoint", "method", "expected"),
    [
        (Endpoint.CHAT, "POST", True), (Endpoint.COMPLETIONS, "POST", True), (Endpoint.EMBEDDINGS, "POST", True),
        (Endpoint.OTHER, "GET", True), (Endpoint.OTHER, "HEAD", True), (Endpoint.MODELS, "GET", True),
        (Endpoint.RESPONSES, "POST", False), (Endpoint.OTHER, "POST", False), (Endpoint.OTHER, "DELETE", False),
    ],
)  # fmt: skip
def test_repeatable(endpoint: Endpoint, method: str, *, expected: bool) -> None:
    assert retry.repeatable(endpoint, method) is expected


@pytest.mark.parametrize(
    ("status", "headers", "body", "may_repeat", "expected"),
    [
        *[(status, {}, b"", True, True) for status in (408, 429, 500, 502, 503, 504)],
        *[(status, {}, b"", True, False) for status in (400, 401, 403, 404, 409, 413, 422, 501, 505)],
        (429, {}, QUOTA, True, False),
        (429, {}, RATE, True, True),
        (429, {}, b"[]", True, True),
        (429, {}, b"\xff", True, True),
        (503, {}, QUOTA, True, True),
        (503, {b"x-should-retry": b"false"}, b"", True, False),
        (409, {b"x-should-retry": b"true"}, b"", True, True),
        (409, {b"x-should-retry": b" True "}, b"", True, True),
        (503, {b"x-should-retry": b"maybe"}, b"", True, True),
        (503, {}, b"", False, False),
        (503, {b"x-should-retry": b"true"}, b"", False, False),
        (429, {}, RATE, False, True),
        (429, {}, QUOTA, False, False),
    ],
)
def test_after_status(
    status: int, headers: dict[bytes, bytes], body: bytes, *, may_repeat: bool, expected: bool
) -> None:
    assert retry.after_status(status, headers, body, may_repeat=may_repeat) is expected


@pytest.mark.parametrize(
    ("error", "repeatable", "otherwise"),
    [
        (UpstreamConnectError("m"), True, True), (UpstreamDisconnected("m"), True, False), (UpstreamTLSError("m"), False, False),
        (UpstreamProtocolError("m"), False, False), (UpstreamTimeout("m"), False, False),
    ],
)  # fmt: skip
def test_after_error(error: UpstreamError, *, repeatable: bool, otherwise: bool) -> None:
    assert retry.after_error(error, may_repeat=True) is repeatable
    assert retry.after_error(error, may_repeat=False) is otherwise


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"retry-after": b"2"}, 2.0),
        ({b"retry-after": b"0"}, 0.0),
        ({b"retry-after": b"-5"}, 0.0),
        ({b"retry-after": b"1.5"}, 1.5),
        ({b"retry-after-ms": b"250", b"retry-after": b"9"}, 0.25),
        ({b"retry-after-ms": b"x", b"retry-after": b"9"}, 9.0),
        ({b"retry-after": b"Thu, 01 Jan 1970 00:16:50 GMT"}, 10.0),
        ({b"retry-after": b"Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_wait_asked_for(headers: dict[bytes, bytes], expected: float) -> None:
    assert retry.wait_secs(1, 100, headers, now=1000.0) == expected


@pytest.mark.parametrize(
    "headers", [{}, {b"retry-after": b"soon"}, {b"retry-after": b"nan"}, {b"retry-after": b"inf"}]
)
def test_wait_doubles_with_jitter_and_is_bounded(headers: dict[bytes, bytes]) -> None:
    for tries, whole in ((1, 0.1), (2, 0.2), (3, 0.4), (10, retry.MAX_BACKOFF_SECS)):
        waits = [retry.wait_secs(tries, 100, headers, 0.0) for _ in range(200)]
        assert whole / 2 <= min(waits) < max(waits) <= whole


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":{"message":"Unknown parameter: stream_options"}}', True),
        (422, b'{"detail":[{"loc":["body","stream_options"],"msg":"extra fields not permitted"}]}', True),
        (400, b'{"error":{"message":"include_usage is not supported"}}', True),
        (400, b'{"error":{"message":"bad"}}', False), (500, b"stream_options", False),
    ],
)  # fmt: skip
def test_refuses_usage(status: int, body: bytes, *, expected: bool) -> None:
    assert retry.refuses_usage(status, body) is expected
