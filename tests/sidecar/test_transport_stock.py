"""What is peculiar to PoolTransport, the stock one: httpcore's private place, the ear of its uploads, its TLS.

Covered: where httpcore keeps its parser, which words of an answer stop an upload, an alert that is heard while
sending. All that both transports promise is in the files beside this one.
"""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trustme
from httpcore._async.http11 import AsyncHTTP11Connection, HTTP11ConnectionByteStream

from direct.transport import STOCK, Run
from inference_sidecar.upstream import pool
from inference_sidecar.upstream.link import Hear, Secure
from inference_sidecar.upstream.net import Stream

pytestmark = STOCK

CA = trustme.CA()


def serving(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(*names).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def test_the_place_where_httpcore_keeps_its_parser(run: Run) -> None:
    """The one private path that is relied upon: should a release move it, this says so before a user does."""

    async def scenario() -> None:
        connection = AsyncHTTP11Connection(None, None)  # type: ignore[arg-type]
        stream = HTTP11ConnectionByteStream(connection, None)  # type: ignore[arg-type]
        assert pool._PARSER(stream).trailing_data == (b"", False)

    run(scenario)


@pytest.mark.parametrize(
    ("heard", "stops"),
    [
        (b"HTTP/1.1 4", True),
        (b"HTTP/1.1 500 Oh no\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429", True),
        (b"HTTP/1.1 100 Continue\nX: y\n\nHTTP/1.1 429", True),
        (b"HTTP/1.1 200 OK\r\nX: HTTP/1.1 400\r\n", False),
        (b"HTTP/1.1 302 Found\r\n", False),
        (b"garbage that is no HTTP", False),
        (b"", False),
    ],
)
def test_what_stops_an_upload(run: Run, heard: bytes, stops: bool) -> None:
    async def scenario() -> None:
        stream = Stream(None, None)  # type: ignore[arg-type]  # only its ear is needed
        if stops:
            with pytest.raises(Exception, match="answered before"):
                stream._hear(heard)
        else:
            assert not stream._hear(heard)

    run(scenario)


@pytest.mark.parametrize(
    "heard", [b"HTTP/1.", b"HTTP/1.1 ", b"HTTP/1.1 100 Cont", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_what_is_not_decided_yet_is_listened_to_further(run: Run, heard: bytes) -> None:
    async def scenario() -> None:
        stream = Stream(None, None)  # type: ignore[arg-type]  # only its ear is needed
        assert stream._hear(heard)
        assert await stream.read(len(heard) + 1) == heard

    run(scenario)


class Crowded:
    """A layer whose peer is TLS in memory, and which takes no more once `crowded`: then it only listens."""

    ready = False

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.crowded = False

    async def receive(self, size: int) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.peer.do_handshake()
        return self.outgoing.read(size)

    async def send(self, data: bytes, hear: Hear) -> None:
        if self.crowded:
            assert hear is not None
            while hear(self.outgoing.read()):
                pass
        self.incoming.write(data)


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_alert_that_is_heard_while_sending_is_no_end_for_the_reader(run: Run, before: bytes) -> None:
    """OpenSSL reports a fatal alert once, and after that an orderly end, which it is not."""

    async def scenario() -> None:
        lower = Crowded(serving("127.0.0.1"))
        secure = Secure(lower, trusting(), "127.0.0.1")
        await secure.handshake()
        await lower.receive(0)
        heard: list[bytes] = []
        if before:
            lower.peer.write(before)
        lower.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            lower.peer.read()
        lower.crowded = True
        with pytest.raises(ssl.SSLError):
            await secure.send(b"body", lambda data: heard.append(data) is None)
        assert b"".join(heard) == before
        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                await secure.receive(100)

    run(scenario)
