"""What the bytes of an answer say, by table: `framing.Answer`; and the head of a request, `request.RequestHead`.

Covered: every way to frame a body, at one go and byte by byte; every way to frame it wrongly, each with its
reason; what comes after the end; every bound at its exact edge; what a connection may do after an answer; a
request that must not be written. Left out: random bytes, which test_framing_properties has, and sockets, which
test_transport_* have.
"""

from __future__ import annotations

import pytest

from direct.misframed import BODY_FAULTS, CHUNKED, HEAD_FAULTS, OK, SIX
from inference_sidecar.errors import Unwritable
from inference_sidecar.upstream.framing import (
    MAX_EXTENSION,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_INTERIM,
    MAX_TRAILERS,
    Answer,
)
from inference_sidecar.upstream.request import Beginning, RequestHead

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


def read(data: bytes, *, bare: bool = False, step: int = 0) -> tuple[Answer, bytes]:
    """All of `data`, in pieces of `step` bytes, 0 for one piece. Nothing is fed after a fault."""
    answer = Answer(bare=bare)
    body = b""
    for at in range(0, len(data), step or len(data)):
        body += answer.feed(data[at : at + (step or len(data))])
        if answer.fault is not None:
            break
    return answer, body


in_steps = pytest.mark.parametrize("step", [0, 1, 3])


@in_steps
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (SIX + b"abcdef", 200, b"abcdef"),
        (OK + b"Content-Length: 0\r\n\r\n", 200, b""),
        (OK + b"content-length:\t6 \t\r\n\r\nabcdef", 200, b"abcdef"),
        (OK + b"Content-Length: 0000000000000006\r\n\r\nabcdef", 200, b"abcdef"),
        (CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n", 200, b"abcdef"),
        (CHUNKED + b"1\r\na\r\n05\r\nbcdef\r\n000\r\n\r\n", 200, b"abcdef"),
        (CHUNKED + b'6;a="b;c" ; d\r\nabcdef\r\n0;last\r\n\r\n', 200, b"abcdef"),
        (CHUNKED + b"6 \t\r\nabcdef\r\n0\r\n\r\n", 200, b"abcdef"),
        (CHUNKED + b"6\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", 200, b"\r\n\r\n\r\n"),
        (CHUNKED + b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", 200, b"0123456789" * 2),
        (CHUNKED + b"0\r\n\r\n", 200, b""),
        (CHUNKED + b"6\r\nabcdef\r\n0\r\nDigest: x\r\nContent-Length: 3\r\n\r\n", 200, b"abcdef"),
        (OK + b"Transfer-Encoding:CHUNKED \r\n\r\n6\r\nabcdef\r\n0\r\n\r\n", 200, b"abcdef"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n", 304, b""),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, b""),
        (b"HTTP/1.1 500\r\nContent-Length: 6\r\n\r\nabcdef", 500, b"abcdef"),
        (b"HTTP/1.1 599 \r\nContent-Length: 6\r\n\r\nabcdef", 599, b"abcdef"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nabcdef", 200, b"abcdef"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + SIX + b"abcdef", 200, b"abcdef"),
        (b"HTTP/1.1 103 E\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" * MAX_INTERIM + SIX + b"abcdef", 200, b"abcdef"),
    ],
)  # fmt: skip
def test_whole(data: bytes, status: int, body: bytes, step: int) -> None:
    answer, got = read(data, step=step)
    assert (answer.fault, answer.complete, answer.surplus) == (None, True, False)
    assert (answer.status, got) == (status, body)


@in_steps
def test_head_has_no_body_whatever_it_says(step: int) -> None:
    for said in (SIX, CHUNKED, OK + b"\r\n"):
        answer, got = read(said, bare=True, step=step)
        assert (answer.complete, answer.surplus, answer.reusable, got) == (True, False, True, b"")
        answer, got = read(said + b"a", bare=True, step=step)
        assert (answer.complete, answer.surplus, got) == (True, True, b"")


@in_steps
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_without_a_length_the_end_is_the_end(version: bytes, step: int) -> None:
    answer, got = read(b"HTTP/%b 200 OK\r\n\r\nabc\r\n\r\ndef" % version, step=step)
    assert (answer.complete, got) == (False, b"abc\r\n\r\ndef")
    answer.end()
    assert (answer.complete, answer.reusable) == (True, False)


@in_steps
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 100 Continue\r\n\r\n", SIX + b"abcde", CHUNKED, CHUNKED + b"6",
        CHUNKED + b"6\r\nabcdef", CHUNKED + b"6\r\nabcdef\r\n", CHUNKED + b"6\r\nabcdef\r\n0\r\n",
        CHUNKED + b"6\r\nabcdef\r\n0\r\nDigest: x\r\n",
    ],
)  # fmt: skip
def test_an_end_before_the_end_completes_nothing(data: bytes, step: int) -> None:
    answer, _ = read(data, step=step)
    answer.end()
    assert (answer.fault, answer.complete) == (None, False)


@in_steps
@pytest.mark.parametrize("extra", [b"\n", b"\r\n", b"x", b"\0", POISON])
@pytest.mark.parametrize(
    "whole",
    [
        SIX + b"abcdef", CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n", CHUNKED + b"6\r\nabcdef\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 N\r\nContent-Length: 6\r\n\r\n",
    ],
)  # fmt: skip
def test_what_comes_after_the_end_is_no_part_of_it(whole: bytes, extra: bytes, step: int) -> None:
    answer, got = read(whole + extra, step=step)
    assert (answer.complete, answer.fault, answer.surplus) == (True, None, True)
    assert got in (b"abcdef", b"")


@in_steps
@pytest.mark.parametrize("data", HEAD_FAULTS.values(), ids=HEAD_FAULTS)
def test_a_head_that_is_none(data: bytes, step: int) -> None:
    answer, body = read(data + b"6\r\nabcdef\r\n0\r\n\r\n", step=step)
    assert answer.fault is not None
    assert (answer.status, answer.complete, answer.reusable, body) == (0, False, False, b"")


@in_steps
@pytest.mark.parametrize(("data", "before"), BODY_FAULTS.values(), ids=BODY_FAULTS)
def test_a_body_that_is_misframed(data: bytes, before: bytes, step: int) -> None:
    """What was framed well before it is given, and no byte more."""
    answer, body = read(CHUNKED + data, step=step)
    assert answer.fault is not None
    assert (answer.status, answer.complete, body) == (200, False, before)


@pytest.mark.parametrize("step", [0, 1000])
@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda size: OK + b"X: " + b"a" * (size - len(OK) - 7) + b"\r\n\r\n", MAX_HEAD),
        (lambda count: OK + b"X: a\r\n" * count + b"\r\n", MAX_FIELDS),
        (lambda size: CHUNKED + b"6;" + b"a" * size + b"\r\nabcdef\r\n0\r\n\r\n", MAX_EXTENSION),
        (lambda size: CHUNKED + b"0\r\nT: " + b"a" * (size - 9) + b"\r\n\r\n", MAX_TRAILERS),
        (lambda count: b"HTTP/1.1 102 P\r\n\r\n" * count + SIX, MAX_INTERIM),
    ],
    ids=["head", "fields", "extension", "trailers", "interim"],
)
def test_bounds(make, bound: int, step: int) -> None:  # type: ignore[no-untyped-def]
    assert read(make(bound), step=step)[0].fault is None
    assert read(make(bound + 1), step=step)[0].fault is not None


@pytest.mark.parametrize("endless", [OK + b"X: ", CHUNKED + b"6;", CHUNKED + b"0\r\nT: "])
def test_what_never_ends_is_not_kept(endless: bytes) -> None:
    answer = Answer(bare=False)
    answer.feed(endless)
    for _ in range(1000):
        answer.feed(b"a" * 1000)
        assert len(answer._buffer) + len(answer._tail) <= MAX_HEAD + 1000
        if answer.fault is not None:
            return
    pytest.fail("it was taken without end")


@pytest.mark.parametrize(
    ("fields", "reusable", "kept_for"),
    [
        (b"", True, None),
        (b"Connection: keep-alive\r\n", True, None),
        (b"Connection: Close\r\n", False, None),
        (b"Connection: keep-alive, CLOSE\r\n", False, None),
        (b"Connection: keep-alive\r\nConnection: close\r\n", False, None),
        (b"X-Connection: close\r\n", True, None),
        (b"Keep-Alive: timeout=5\r\n", True, 5),
        (b"Keep-Alive: max=100, Timeout=72\r\n", True, 72),
        (b"Keep-Alive: xtimeout=5, timeout=many\r\n", True, None),
    ],
)
def test_whether_another_request_may_follow(fields: bytes, reusable: bool, kept_for: int | None) -> None:
    answer, _ = read(OK + fields + b"Content-Length: 0\r\n\r\n")
    assert (answer.reusable, answer.kept_for) == (reusable, kept_for)
    assert not read(b"HTTP/1.0 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")[0].reusable


@in_steps
def test_header_lines_come_as_they_were_sent(step: int) -> None:
    lines = b"X-One: a\r\nx-one:\t b, c \t\r\nEmpty:\r\nLatin: \xe9\xff\r\nTab: a\tb\r\n"
    answer, _ = read(b"HTTP/1.1 100 C\r\nGone: 1\r\n\r\n" + OK + lines + b"\r\n", step=step)
    assert answer.headers == [
        (b"X-One", b"a"), (b"x-one", b"b, c"), (b"Empty", b""), (b"Latin", b"\xe9\xff"), (b"Tab", b"a\tb"),
    ]  # fmt: skip
    assert answer.reason == b"OK"


# Requests

HOST = (b"Host", b"h")


def head_of(method: bytes, target: bytes, lines: list[tuple[bytes, bytes]], known: int) -> RequestHead:
    """A head whose first lines are known from the one before."""
    return RequestHead(Beginning(method, target, lines[:known]), lines[known:])


@pytest.mark.parametrize("known", range(5))
def test_the_head_of_a_request(known: int) -> None:
    lines = [HOST, (b"X-A", b"\xe9 \t"), (b"x-a", b""), (b"Content-Length", b"7")]
    head = head_of(b"POST", b"/v1/a%2Fb//../x'y?q=[1]", lines, known)
    assert head.data == (
        b"POST /v1/a%2Fb//../x'y?q=[1] HTTP/1.1\r\nHost: h\r\nX-A: \xe9 \t\r\nx-a: \r\nContent-Length: 7\r\n\r\n"
    )
    assert (head.length, head.closes) == (7, False)
    assert head_of(b"GET", b"/", [HOST], known).length == 0
    assert head_of(b"GET", b"/", [HOST, (b"transfer-encoding", b"Chunked")], known).length is None
    assert head_of(b"GET", b"/", [HOST, (b"Connection", b"x, Close")], known).closes
    assert head_of(b"GET", b"/", [HOST, (b"Connection", b"x"), (b"connection", b"close")], known).closes


def test_a_head_begins_as_the_one_before_where_all_of_that_is_the_same() -> None:
    given = [HOST, (b"a", b"b")]
    before = Beginning(b"GET", b"/", given)
    given.append((b"c", b"d"))
    assert before.again(b"GET", b"/", [HOST, (b"a", b"b")])
    assert not before.again(b"GET", b"/", given)
    for method, target, lines in (
        (b"PUT", b"/", [HOST, (b"a", b"b")]), (b"GET", b"/x", [HOST, (b"a", b"b")]), (b"GET", b"/", [HOST]),
        (b"GET", b"/", [(b"a", b"b"), HOST]), (b"GET", b"/", [HOST, (b"a", b"c")]),
    ):  # fmt: skip
        assert not before.again(method, target, lines)


@pytest.mark.parametrize("known", range(3))
@pytest.mark.parametrize(
    ("method", "target", "lines"),
    [
        (b"", b"/", [HOST]),
        (b"GET /x", b"/", [HOST]),
        (b"G\r\nET", b"/", [HOST]),
        (b"CONNECT", b"h:443", [HOST]),
        (b"GET", b"", [HOST]),
        (b"GET", b"/ HTTP/1.1\r\nX: y\r\n\r\n", [HOST]),
        (b"GET", b"/\xe9", [HOST]),
        (b"GET", b"/\t", [HOST]),
        (b"GET", b"/", []),
        (b"GET", b"/", [HOST, (b"host", b"other")]),
        (b"GET", b"/", [HOST, (b"", b"x")]),
        (b"GET", b"/", [HOST, (b"a b", b"x")]),
        (b"GET", b"/", [HOST, (b"a:", b"x")]),
        (b"GET", b"/", [HOST, (b"a\r\nb", b"x")]),
        (b"GET", b"/", [HOST, (b"a", b"x\r\nb: c")]),
        (b"GET", b"/", [HOST, (b"a", b"x\n")]),
        (b"GET", b"/", [HOST, (b"a", b"x\r")]),
        (b"GET", b"/", [HOST, (b"a", b"\0")]),
        (b"GET", b"/", [HOST, (b"a", b"\x7f")]),
        (b"GET", b"/", [HOST, (b"content-length", b"-1")]),
        (b"GET", b"/", [HOST, (b"content-length", b"")]),
        (b"GET", b"/", [HOST, (b"content-length", b"9" * 5000)]),
        (b"GET", b"/", [HOST, (b"content-length", b"1_0")]),
        (b"GET", b"/", [HOST, (b"content-length", b"1"), (b"Content-Length", b"1")]),
        (b"GET", b"/", [HOST, (b"content-length", b"1"), (b"transfer-encoding", b"chunked")]),
        (b"GET", b"/", [HOST, (b"transfer-encoding", b"gzip, chunked")]),
    ],
)
def test_a_request_that_is_not_written(
    method: bytes, target: bytes, lines: list[tuple[bytes, bytes]], known: int
) -> None:
    with pytest.raises(Unwritable) as caught:
        head_of(method, target, lines, known)
    assert not caught.value.args, "it may hold the key"
