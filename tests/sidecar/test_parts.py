"""Header lines that httpx indexes late (`upstream.parts.Lines`): they are what httpx makes of the same lines at once.

Left out: that requests and answers carry them, which every test of a transport shows.
"""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_sidecar.upstream.parts import NO_LINES, Lines

NAME = st.text("abcXYZ-", min_size=1, max_size=4).map(str.encode)
LINES = st.lists(st.tuples(NAME, st.text("abc ,;", max_size=6).map(str.encode)), max_size=6)


@given(LINES)
def test_they_say_what_httpx_says(lines: list[tuple[bytes, bytes]]) -> None:
    theirs = httpx.Headers(lines)
    assert Lines(lines).raw == theirs.raw
    assert Lines(lines).multi_items() == theirs.multi_items()
    assert Lines(lines) == theirs
    assert httpx.Headers(Lines(lines)).raw == theirs.raw
    for name in (b"abc", *(name for name, _ in lines)):
        assert Lines(lines).get(name.decode()) == theirs.get(name.decode())


@given(LINES)
def test_what_is_changed_afterwards_is_changed(lines: list[tuple[bytes, bytes]]) -> None:
    ours, theirs, before = Lines(lines), httpx.Headers(lines), list(lines)
    assert ours.raw == before
    for headers in (ours, theirs):
        headers["A"] = "1"
        headers.pop("abc", None)
    assert ours.raw == theirs.raw
    assert ours.encoding == theirs.encoding
    assert lines == before


def test_what_they_do_not_have_they_do_not_invent() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = Lines([]).nothing
    assert not NO_LINES.raw
