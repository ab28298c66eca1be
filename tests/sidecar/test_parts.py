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

from inference_sidecar.upstream.parts import Opened, Prepared

NAME = st.text("abcXYZ-", min_size=1, max_size=4).map(str.encode)
LINES = st.lists(st.tuples(NAME, st.text("abc ,;", max_size=6).map(str.encode)), max_size=6)
Lines = list[tuple[bytes, bytes]]

URL = httpx.URL("http://upstream.test/")


class Body:
    """One that a connection gives."""

    def __init__(self, *pieces: bytes) -> None:
        self.closed = False
        self._pieces = list(pieces)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)

    def close(self) -> None:
        self.closed = True


def prepared(lines: Lines, body: bytes | AsyncIterator[bytes] = b"") -> Prepared:
    return Prepared("post", URL, lines[:1], lines[1:], body, {"fresh": False})


def opened(lines: Lines, *pieces: bytes) -> Opened:
    return Opened(201, lines, Body(*pieces), {"http_version": b"HTTP/1.1"})


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
        "post", URL, headers=lines, stream=httpx.ByteStream(b""), extensions={"fresh": False}
    )
    assert state(prepared(lines), "stream") == state(request, "stream")
    answer = httpx.Response(
        201, headers=lines, stream=httpx.ByteStream(b""), extensions={"http_version": b"HTTP/1.1"}
    )
    assert state(opened(lines), "stream") == state(answer, "stream")
    assert prepared(lines).headers.raw == request.headers.raw


def test_what_is_changed_is_changed() -> None:
    lines = [(b"a", b"0")]
    for one in (prepared(lines), opened(lines)):
        one.headers["A"] = "1"
        assert one.headers.raw == [(b"A", b"1")]
        assert one.lines is None
    answer, other = opened(lines), opened(lines)
    answer.history.append(other)
    assert not other.history
    assert lines == [(b"a", b"0")]


async def test_bodies_are_read_as_httpx_reads_them() -> None:
    assert await prepared([], b"whole").aread() == b"whole"
    assert await prepared([], Body(b"piece ", b"by piece")).aread() == b"piece by piece"
    answer = opened([(b"content-length", b"5")], b"an", b"swer")
    assert await answer.aread() == b"answer"
    assert answer.is_closed
    assert isinstance(answer.body, Body)
    assert answer.body.closed
    with pytest.raises(RuntimeError, match="request"):
        _ = answer.request
