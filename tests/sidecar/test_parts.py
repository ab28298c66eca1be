"""Requests and answers made of what is here already (`upstream.parts`): whoever looks at them as httpx's finds what httpx's
own constructors make.

Left out: that the transports carry them, which every test of a transport shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar.upstream.framing import Answer
from inference_sidecar.upstream.parts import Opened, Prepared, blank_answer, blank_request
from inference_sidecar.upstream.request import Ready

NAME = st.text("abcXYZ-", min_size=1, max_size=4).map(str.encode)
LINES = st.lists(st.tuples(NAME, st.text("abc ,;", max_size=6).map(str.encode)), max_size=6)
Lines = list[tuple[bytes, bytes]]

URL = httpx.URL("http://upstream.test/")


class Pieces:
    """A body of the app's."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)


class Body(Pieces):
    """One that a connection gives."""

    def __init__(self, lines: Lines, *pieces: bytes) -> None:
        super().__init__(*pieces)
        self.answer = Answer(bare=False)
        self.answer.feed(b"HTTP/1.1 201 Created\r\n\r\n")
        self.answer.headers = lines
        self.changed = False
        self.closed = False

    def close(self) -> None:
        self.closed = True


def prepared(lines: Lines, body: bytes | AsyncIterator[bytes] = b"") -> Prepared:
    made = blank_request()
    made.ready = Ready("POST", URL, b"/", tuple(lines[:1]), lines[1:], body)
    return made


def opened(lines: Lines, *pieces: bytes) -> Opened:
    made = blank_answer()
    made.body = Body(lines, *pieces)  # type: ignore[assignment]
    return made


def state(of: httpx.Request | httpx.Response, *without: str) -> dict[str, Any]:
    """All that httpx's own constructor gives one of its kind, as it is here."""
    plain: httpx.Request | httpx.Response
    stream = httpx.ByteStream(b"")
    plain = (
        httpx.Request("GET", URL, stream=stream)
        if isinstance(of, httpx.Request)
        else httpx.Response(200, stream=stream)
    )
    return {name: getattr(of, name) for name in vars(plain) if name not in without}


@given(LINES)
def test_they_have_all_that_httpx_gives_them(lines: Lines) -> None:
    request = httpx.Request(
        "post", URL, headers=lines, stream=httpx.ByteStream(b""), extensions={"target": b"/", "fresh": False}
    )
    assert state(prepared(lines), "stream") == state(request, "stream")
    answer = httpx.Response(
        201,
        headers=lines,
        stream=httpx.ByteStream(b""),
        extensions={"http_version": b"HTTP/1.1", "reason_phrase": b"Created"},
    )
    assert state(opened(lines), "stream") == state(answer, "stream")
    assert prepared(lines).headers.raw == request.headers.raw


def test_what_is_changed_is_changed() -> None:
    lines = [(b"a", b"0")]
    request, answer, other = prepared(lines), opened(lines), opened(lines)
    for one in (request, answer):
        one.headers["A"] = "1"
        assert one.headers.raw == [(b"A", b"1")]
    assert request.ready.changed
    assert answer.body.changed
    answer.history.append(other)
    assert not other.history
    assert lines == [(b"a", b"0")]


async def test_bodies_are_read_as_httpx_reads_them() -> None:
    assert await prepared([], b"whole").aread() == b"whole"
    assert await prepared([], Pieces(b"piece ", b"by piece")).aread() == b"piece by piece"
    answer = opened([(b"content-length", b"5")], b"an", b"swer")
    assert await answer.aread() == b"answer"
    assert answer.is_closed
    body: Any = answer.body
    assert body.closed
    with pytest.raises(RuntimeError, match="request"):
        _ = answer.request
