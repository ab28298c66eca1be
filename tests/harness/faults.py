"""The fault matrix itself: what an upstream can do wrong at each phase of an answer, plain and streaming.

Enters: nothing. Leaves: `Case`s, each a script for the upstream and what an app is to see. Whoever tests what becomes
of a fault (answers, figures, spans) goes through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness import answers
from harness.upstream import CLOSE, HANG, RESET, Drip, Script

Down = Literal["http", "event", "cut"]

JSON = answers.dense(answers.completion())
PLAIN_HEAD = answers.head(200, "content-type: application/json", f"content-length: {len(JSON)}")
CHUNKED_JSON = answers.chunked_head()
EVENTS = answers.chat_events()
GARBAGE = b"\x16\x03\x01\x02\x00\x01 not HTTP at all\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """`down`: http an HTTP error, event an error event after what came, cut a transfer cut short."""

    name: str
    script: Script
    code: str
    down: Down = "http"
    status: int = 500
    whole_events: int = 0
    attempts: int | None = None


def _all(events: list[bytes]) -> list[bytes]:
    return [answers.chunk(event) for event in events]


PLAIN = [
    Case("headers-reset", [RESET], "upstream_disconnected", attempts=4),
    Case("headers-hang", [HANG], "upstream_timeout", attempts=1),
    Case("headers-truncate", [CLOSE], "upstream_disconnected", attempts=4),
    Case("headers-truncate-inside", [b"HTTP/1.1 200 OK\r\ncontent-ty", CLOSE], "upstream_disconnected"),
    Case("headers-garbage", [GARBAGE, CLOSE], "upstream_protocol_error"),
    Case("headers-html", [answers.html_502()], "upstream_http_error", status=502, attempts=4),
    Case("headers-drip", [Drip(PLAIN_HEAD + JSON, gap=0.1)], "upstream_timeout", attempts=1),
    Case("first-reset", [PLAIN_HEAD, RESET], "upstream_disconnected"),
    Case("first-hang", [PLAIN_HEAD, HANG], "upstream_timeout", attempts=1),
    Case("first-truncate", [PLAIN_HEAD, CLOSE], "upstream_disconnected"),
    Case("first-garbage", [CHUNKED_JSON, b"zz\r\n" + GARBAGE, CLOSE], "upstream_protocol_error"),
    Case("first-html", [answers.chunked_head(502, "text/html"), HANG], "upstream_timeout", attempts=1),
    Case("first-drip", [PLAIN_HEAD, Drip(JSON, gap=0.1)], "upstream_timeout", "cut", 200),
    Case("mid-reset", [PLAIN_HEAD, Drip(JSON[:50], 50, 0.05), RESET], "upstream_disconnected", "cut", 200),
    Case("mid-hang", [PLAIN_HEAD, JSON[:50], HANG], "upstream_timeout", "cut", 200),
    Case("mid-truncate", [PLAIN_HEAD, JSON[:50], CLOSE], "upstream_disconnected", "cut", 200),
    Case(
        "mid-truncate-chunked",
        [CHUNKED_JSON, answers.chunk(JSON[:50]), CLOSE],
        "upstream_disconnected",
        "cut",
        200,
    ),
    Case(
        "mid-garbage",
        [CHUNKED_JSON, answers.chunk(JSON[:50]), b"zz\r\n", CLOSE],
        "upstream_protocol_error",
        "cut",
        200,
    ),
]

HEAD = answers.sse_head()
FIRST = answers.chunk(EVENTS[0])
HALF = answers.chunk(EVENTS[1][:40])
FINISHED = _all(EVENTS[:-1])

STREAMING = [
    Case("headers-reset", [RESET], "upstream_disconnected", attempts=4),
    Case("headers-hang", [HANG], "upstream_timeout", attempts=1),
    Case("headers-truncate", [CLOSE], "upstream_disconnected", attempts=4),
    Case("headers-garbage", [GARBAGE, CLOSE], "upstream_protocol_error"),
    Case("headers-html", [answers.html_502()], "upstream_http_error", status=502, attempts=4),
    Case("headers-drip", [Drip(HEAD, gap=0.1)], "upstream_timeout", attempts=1),
    Case("first-reset", [HEAD, RESET], "upstream_disconnected"),
    Case("first-hang", [HEAD, HANG], "upstream_timeout", attempts=1),
    Case("first-truncate", [HEAD, CLOSE], "upstream_disconnected"),
    Case("first-garbage", [HEAD, b"zz\r\n" + GARBAGE, CLOSE], "upstream_protocol_error"),
    Case(
        "mid-reset",
        [HEAD, FIRST, HALF, Drip(b"5\r\nab", 5, 0.05), RESET],
        "upstream_disconnected",
        "event",
        200,
        1,
    ),
    Case("mid-hang", [HEAD, FIRST, HALF, HANG], "upstream_idle_timeout", "event", 200, 1),
    Case("mid-truncate", [HEAD, FIRST, HALF, CLOSE], "upstream_disconnected", "event", 200, 1),
    Case("mid-garbage", [HEAD, FIRST, HALF, b"zz\r\n", CLOSE], "upstream_protocol_error", "event", 200, 1),
    Case(
        "end-reset",
        [HEAD, *FINISHED, Drip(b"e\r\ndata", 10, 0.05), RESET],
        "upstream_disconnected",
        "event",
        200,
        5,
    ),
    Case("end-hang", [HEAD, *FINISHED, HANG], "upstream_idle_timeout", "event", 200, 5),
    Case("end-truncate", [HEAD, *FINISHED, CLOSE], "upstream_disconnected", "event", 200, 5),
    Case("end-garbage", [HEAD, *FINISHED, b"zz\r\n", CLOSE], "upstream_protocol_error", "event", 200, 5),
    Case(
        "after-done-reset",
        [HEAD, *FINISHED, Drip(answers.chunk(answers.DONE), 100, 0.05), RESET],
        "upstream_disconnected",
        "event",
        200,
        6,
    ),
]
