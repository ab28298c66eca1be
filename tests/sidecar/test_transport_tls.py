"""Either transport over TLS, on asyncio and on uvloop.

Covered: trust and its absence, what is said of it, failures during the handshake, where an answer ends
without TLS's own word for the end, reuse and the reasons against it. Certificates are made by trustme.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpx
import pytest
import trustme

from direct.peers import Peer, Server, Signal
from direct.transport import EVERY_WAY, OK, Run, always, fetch, pieces, transport
from inference_sidecar.errors import (
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamTLSError,
)

pytestmark = EVERY_WAY

CA = trustme.CA()
END = b"HTTP/1.1 200 OK\r\n\r\nuntil the end"


def serving(*names: str, authority: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_trust(run: Run) -> None:
    async def scenario() -> None:
        with Server(always(), tls=serving("127.0.0.1", "localhost")) as server:
            async with transport(ssl_context=trusting()) as made:
                assert (await fetch(made, server.url()))[1] == b"ok"
                assert (await fetch(made, server.url()))[1] == b"ok"
                assert server.accepted == 1
                assert (await fetch(made, server.url(host="localhost")))[1] == b"ok"

    run(scenario)


@pytest.mark.parametrize(
    ("context", "client", "why"),
    [
        (serving("elsewhere.example"), trusting(), "not valid for '127.0.0.1'"),
        (serving("127.0.0.1", authority=trustme.CA()), trusting(), "certificate not accepted"),
        (serving("127.0.0.1"), ssl.create_default_context(), "certificate not accepted"),
    ],
    ids=["other host", "other authority", "unknown authority"],
)
def test_no_trust(run: Run, context: ssl.SSLContext, client: ssl.SSLContext, why: str) -> None:
    async def scenario() -> None:
        with Server(always(), tls=context) as server:
            async with transport(ssl_context=client) as made:
                with pytest.raises(UpstreamTLSError, match=why) as caught:
                    await fetch(made, server.url())
                assert not caught.value.sent
                assert server.authority in str(caught.value)
                assert made.connections == 0

    run(scenario)


def _plain(peer: Peer) -> None:
    peer.sock.recv(1)
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    peer.gone()


def _closing(peer: Peer) -> None:
    peer.sock.recv(65536)


def _resetting(peer: Peer) -> None:
    peer.sock.recv(65536)
    peer.reset()


@pytest.mark.parametrize(
    ("part", "kind"),
    [(_plain, UpstreamTLSError), (_closing, UpstreamConnectError), (_resetting, UpstreamConnectError)],
)
def test_a_handshake_that_fails(run: Run, part: Callable[[Peer], None], kind: type[UpstreamError]) -> None:
    async def scenario() -> None:
        with Server(part) as server:
            async with transport(ssl_context=trusting()) as made:
                with pytest.raises(kind) as caught:
                    await fetch(made, f"https://{server.authority}/")
                assert not caught.value.sent
                assert made.connections == 0

    run(scenario)


def test_a_handshake_that_never_ends_is_bounded_with_the_connecting(run: Run) -> None:
    async def scenario() -> None:
        with Server(lambda peer: peer.gone() and None) as server:
            async with transport(ssl_context=trusting(), connect_timeout=0.2) as made:
                with pytest.raises(UpstreamConnectError, match=r"within 0\.2 s"):
                    await fetch(made, f"https://{server.authority}/")
                assert made.connections == 0

    run(scenario)


def test_an_end_that_tls_vouches_for(run: Run) -> None:
    def part(peer: Peer) -> None:
        peer.head()
        peer.send(END)
        peer.sock.unwrap()  # type: ignore[attr-defined]  # the socket is TLS's by now

    async def scenario() -> None:
        with Server(part, tls=serving("127.0.0.1")) as server:
            async with transport(ssl_context=trusting()) as made:
                assert (await fetch(made, server.url()))[1] == b"until the end"

    run(scenario)


def test_an_end_that_tls_does_not_vouch_for_is_none(run: Run) -> None:
    """Without a length, anybody on the way could have cut this answer short by closing."""

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(END)

    async def scenario() -> None:
        with Server(part, tls=serving("127.0.0.1")) as server:
            async with transport(ssl_context=trusting()) as made:
                response = await made.handle_async_request(httpx.Request("GET", server.url()))
                body = pieces(response)
                assert await anext(body) == b"until the end"
                with pytest.raises(UpstreamDisconnected) as caught:
                    await anext(body)
                assert caught.value.sent

    run(scenario)


def test_a_whole_answer_needs_no_word_from_tls(run: Run) -> None:
    closed = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.close()
        if peer.number == 1:
            closed.set()

    async def scenario() -> None:
        with Server(part, tls=serving("127.0.0.1")) as server:
            async with transport(ssl_context=trusting()) as made:
                assert (await fetch(made, server.url()))[1] == b"ok"
                await closed.seen()
                assert (await fetch(made, server.url()))[1] == b"ok"
                assert server.accepted == 2

    run(scenario)


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b"!"])
@pytest.mark.parametrize("records", [1, 2])
def test_leftover_bytes(run: Run, extra: bytes, records: int) -> None:
    """In the same TLS record as the answer they are in h11's hands, in a record of their own in ours."""

    sent = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(*([OK + extra] if records == 1 else [OK, extra]))
        if peer.number == 1:
            sent.set()
        peer.gone()

    async def scenario() -> None:
        with Server(part, tls=serving("127.0.0.1")) as server:
            async with transport(ssl_context=trusting()) as made:
                assert (await fetch(made, server.url()))[1] == b"ok"
                await sent.seen()
                assert (await fetch(made, server.url()))[1] == b"ok"
                assert server.accepted == 2

    run(scenario)


def test_an_alert_after_the_request_is_a_lost_connection(run: Run) -> None:
    """TLS 1.3 tells of a missing client certificate only after the request went up: that was sent."""
    context = serving("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(context)

    async def scenario() -> None:
        with Server(always(), tls=context) as server:
            async with transport(ssl_context=trusting()) as made:
                with pytest.raises(UpstreamDisconnected) as caught:
                    await fetch(made, server.url())
                assert caught.value.sent

    run(scenario)


def test_a_large_answer_comes_whole(run: Run) -> None:
    size = 8 * 1024 * 1024
    done = Signal()

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))
        done.set()
        peer.gone()

    async def scenario() -> None:
        with Server(part, tls=serving("127.0.0.1")) as server:
            async with transport(ssl_context=trusting()) as made:
                _, body = await fetch(made, server.url())
                assert body == bytes(size)
                await done.seen()

    run(scenario)
