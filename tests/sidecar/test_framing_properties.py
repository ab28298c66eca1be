"""Random answers through `framing.Answer`, with h11 as judge of the valid ones.

Covered: valid answers of every framing read as h11 reads them; any bytes split anywhere say the same; valid
answers with random damage never raise, never give a byte that was not sent, nor one of a second answer behind the
first, and are never taken for something else than h11 takes them for where it takes them at all.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from inference_sidecar.upstream.framing import Answer

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"
"""Capitals, which no body below has."""

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.!", min_size=1, max_size=8).map(str.encode)
VALUE = st.text('abc XYZ,;="\t\x80\xff', max_size=12).map(lambda text: text.strip(" \t").encode("latin-1"))
BODY = st.binary(max_size=300).map(lambda data: bytes(byte & 0x3F for byte in data))
BLANKS = st.sampled_from([b"", b" ", b"\t", b"  "])


class Sent(NamedTuple):
    """An answer as it goes over the wire, and what it says. `ends`: it says itself where it ends."""

    data: bytes
    status: int
    body: bytes
    ends: bool
    bare: bool


@st.composite
def answers(draw: st.DrawFn) -> Sent:
    head = [
        b"HTTP/1.1 %d %b\r\n\r\n" % (draw(st.sampled_from([100, 102, 103])), draw(TOKEN))
        for _ in range(draw(st.integers(0, 2)))
    ]
    version = draw(st.sampled_from([b"1", b"1", b"1", b"0"]))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 429, 500, 599]))
    head.append(b"HTTP/1.%b %d %b\r\n" % (version, status, draw(VALUE)))
    fields = [
        b"x-%b:%b%b%b\r\n" % (draw(TOKEN), draw(BLANKS), draw(VALUE), draw(BLANKS))
        for _ in range(draw(st.integers(0, 4)))
    ]
    body, bare = draw(BODY), draw(st.integers(0, 9)) == 0
    framing = draw(st.sampled_from(["length", "chunks", "end"] if version == b"1" else ["length", "end"]))
    if framing == "length":
        fields.append(
            b"%b: %d\r\n" % (draw(st.sampled_from([b"Content-Length", b"content-length"])), len(body))
        )
    elif framing == "chunks":
        fields.append(b"Transfer-Encoding: %b\r\n" % draw(st.sampled_from([b"chunked", b"Chunked"])))
    if draw(st.integers(0, 4)) == 0:
        fields.append(b"Connection: %b\r\n" % draw(st.sampled_from([b"close", b"keep-alive", b"x, Close"])))
    fields = draw(st.permutations(fields))
    none = bare or status in (204, 304)
    if none:
        body = b""
    wire = _chunked(draw, body) if framing == "chunks" and not none else body
    return Sent(b"".join([*head, *fields, b"\r\n", wire]), status, body, none or framing != "end", bare)


def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    wire = []
    while body:
        size = draw(st.integers(1, len(body)))
        extension = draw(st.sampled_from([b"", b"", b";a", b';a="b;c"', b"; a = b"]))
        wire.append(b"%b%b\r\n%b\r\n" % (draw(_size(size)), extension, body[:size]))
        body = body[size:]
    trailers = [b"%b: %b\r\n" % (draw(TOKEN), draw(VALUE)) for _ in range(draw(st.integers(0, 2)))]
    return b"".join([*wire, b"0\r\n", *trailers, b"\r\n"])


def _size(size: int) -> st.SearchStrategy[bytes]:
    return st.sampled_from([b"%x" % size, b"%X" % size, b"00%x" % size])


class Read(NamedTuple):
    """What a reader made of some bytes. `over`: whole and nothing behind it, so that another may follow."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    complete: bool
    over: bool
    fault: bool


def ours(data: bytes, bare: bool, cuts: list[int], *, end: bool = False) -> Read:
    answer = Answer(bare=bare)
    body = b""
    bounds = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)] if data else []
    for begin, finish in itertools.pairwise(bounds):
        body += answer.feed(data[begin:finish])
        if answer.fault is not None:
            break
    if end and answer.fault is None:
        answer.end()
    over = answer.complete and not answer.surplus and answer.reusable
    headers = [(name.lower(), _as_h11(name, value)) for name, value in answer.headers if answer.status]
    return Read(answer.status, headers, body, answer.complete, over, answer.fault is not None)


def _as_h11(name: bytes, value: bytes) -> bytes:
    return value.lower() if name.lower() == b"transfer-encoding" else value


def h11s(data: bytes, bare: bool, *, end: bool = False) -> Read:
    """The same from h11. A fault, too, where it wants to have a connection of another protocol."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=b"HEAD" if bare else b"GET", target=b"/", headers=[(b"host", b"h")]))
    connection.send(h11.EndOfMessage())
    status, headers, body, complete = 0, [], b"", False
    connection.receive_data(data)
    if end:
        connection.receive_data(b"")
    try:
        while True:
            event = connection.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.Response):
                status, headers = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                complete = True
                break
    except h11.RemoteProtocolError:
        return Read(status, headers, body, complete=False, over=False, fault=True)
    over = complete and connection.their_state is h11.DONE and not connection.trailing_data[0]
    return Read(status, headers, body, complete, over, fault=False)


CUTS = st.lists(st.integers(0, 1_000_000), max_size=12)


@given(answers(), CUTS)
def test_valid_answers_are_read_as_h11_reads_them(sent: Sent, cuts: list[int]) -> None:
    read = ours(sent.data, sent.bare, cuts)
    assert (read.status, read.body, read.complete) == (sent.status, sent.body, sent.ends)
    assert read == h11s(sent.data, sent.bare)
    assert ours(sent.data, sent.bare, cuts, end=True).complete


@given(answers(), CUTS, st.sampled_from([POISON, b"\r\n", b"\n", b"x"]))
def test_what_follows_a_valid_answer_is_not_in_it(sent: Sent, cuts: list[int], extra: bytes) -> None:
    if not sent.ends:
        return
    read = ours(sent.data + extra, sent.bare, cuts)
    assert (read.body, read.complete, read.over) == (sent.body, True, False)


DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "drop", "double"]),
        st.integers(0, 1_000_000),
        st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"f", b"\xff", b"+"])
        | st.binary(min_size=1, max_size=1).filter(lambda byte: not byte.isupper())
        | st.sampled_from([b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def damaged(data: bytes, damage: list[tuple[str, int, bytes]]) -> bytes:
    for how, where, what in damage:
        at = where % (len(data) + 1)
        if how == "set":
            data = data[:at] + what + data[at + len(what) :]
        elif how == "insert":
            data = data[:at] + what + data[at:]
        elif how == "drop":
            data = data[:at] + data[at + len(what) :]
        else:
            data = data[:at] + data[max(0, at - 20) : at] + data[at:]
    return data


def is_part_of(body: bytes, data: bytes) -> bool:
    """Whether `body` is `data` with bytes left out."""
    rest = iter(data)
    return all(byte in rest for byte in body)


@given(answers(), DAMAGE, CUTS)
@example(Sent(b"HTTP/1.1 200 OK\r\n\r\n", 200, b"", False, False), [("drop", 17, b"xx")], [5])
def test_damage(sent: Sent, damage: list[tuple[str, int, bytes]], cuts: list[int]) -> None:
    data = damaged(sent.data, damage) + POISON
    read = ours(data, sent.bare, cuts)
    assert read == ours(data, sent.bare, []), "split otherwise, it says something else"
    assert is_part_of(read.body, data)
    judge = h11s(data, sent.bare)
    assert judge.over or not read.over, "the poison is behind it, or it is no answer"
    if read.complete and not judge.fault:
        assert read[:4] == judge[:4]


@given(st.binary(max_size=400), CUTS)
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    for lead in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        read = ours(lead + data, False, cuts)
        assert read == ours(lead + data, False, [])
        assert is_part_of(read.body, data)
