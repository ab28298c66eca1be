"""How OTLP requests are sent, against servers that say exactly what the test wants.

Covers: what a request looks like on the wire; one connection for many, a stale one, one that the collector ends; tries
again and their waits; answers that are long, redirected, refused, slow, no HTTP; proxies, forwarding and tunnels, with
credentials; a certificate of the client's, and one that cannot be read; the words in which a failure is told.
Left out: spans and metrics in it, compression, whole processes (test_export).
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from direct.peers import Peer, Server
from inference_sidecar.runtime.proxy import Proxy
from inference_sidecar.telemetry.environment import Signal
from inference_sidecar.telemetry.sender import AGENT, Sender

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LARGE = 10 * 1024 * 1024


def signal_of(url: str, **more: Any) -> Signal:
    settings: dict[str, Any] = {
        "headers": {}, "timeout_s": 2.0, "compression": "none", "certificate": None, "client_certificate": None,
        "client_key": None,
    }  # fmt: skip
    return Signal(url, **(settings | more))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Reasons of failures that were told, and `again` for each recovery."""
    caplog.set_level(logging.INFO)

    def read() -> list[str]:
        return [
            record.fields["reason"] if record.getMessage() == "export fails" else "again"  # type: ignore[attr-defined]
            for record in caplog.records
        ]

    return read


class Log:
    """Plays a collector: every request gets `answer`, and is noted with its connection's number."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[int, bytes]] = []

    def __call__(self, peer: Peer) -> None:
        while head := peer.head():
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            assert peer.take(size) == size
            self.seen.append((peer.number, head))
            peer.send(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    @property
    def head(self) -> bytes:
        return self.seen[-1][1]

    @property
    def connections(self) -> list[int]:
        return [number for number, _ in self.seen]


def sent(server: Server, *bodies: bytes, path: str = "/v1/traces", **more: Any) -> None:
    sender = Sender(signal_of(server.url(path), **more), "traces")
    for body in bodies:
        sender.send(body)
    sender.shutdown()


def test_a_request_on_the_wire(told: Callable[[], list[str]]) -> None:
    log = Log(OK)
    with Server(log) as server:
        sent(server, b"spans", path="/otlp/v1/traces?a=b c", headers={"x-tenant": "a b"})
    line, *lines = log.head.decode().split("\r\n")[:-2]
    assert line == "POST /otlp/v1/traces?a=b%20c HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    assert headers == {
        "host": server.authority,
        "accept-encoding": "identity",
        "content-length": "5",
        "content-type": "application/x-protobuf",
        "user-agent": AGENT,
        "x-tenant": "a b",
    }
    assert told() == []


def test_a_user_in_the_url_is_told_as_a_header_and_nowhere_else() -> None:
    log = Log(OK)
    with Server(log) as server:
        url = server.url("/v1/traces").replace("http://", "http://me:p%40ss@")
        sender = Sender(signal_of(url), "traces")
        sender.send(b"")
        sender.shutdown()
    assert b"authorization: Basic bWU6cEBzcw==\r\n" in log.head
    assert f"Host: {server.authority}\r\n".encode() in log.head
    assert b"me:" not in log.head


def test_one_connection_for_many() -> None:
    log = Log(OK)
    with Server(log) as server:
        sent(server, b"1", b"2", b"3")
    assert log.connections == [1, 1, 1]


def test_a_connection_that_the_collector_ends(told: Callable[[], list[str]]) -> None:
    """In words, or without any: then the request is sent again, at once."""
    log = Log(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", OK)
    with Server(log) as server:
        sent(server, b"1", b"2")
    assert log.connections == [1, 2]

    def once(peer: Peer) -> None:
        log.seen.append((peer.number, peer.head()))
        peer.send(OK)
        peer.close()

    log.seen.clear()
    with Server(once) as server:
        sender = Sender(signal_of(server.url()), "traces")
        sender.send(b"")
        sender.send(b"")
        sender.shutdown()
    assert log.connections == [1, 2]
    assert told() == []


@pytest.mark.parametrize("after", ["0.2", "-1"])
def test_a_busy_collector_is_asked_again(told: Callable[[], list[str]], after: str) -> None:
    busy = f"HTTP/1.1 503 Busy\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n".encode()
    log = Log(busy, busy, OK)
    with Server(log) as server:
        began = time.monotonic()
        sent(server, b"x")
    assert time.monotonic() - began >= 2 * max(float(after), 0)
    assert log.connections == [1, 1, 1]
    assert told() == []


@pytest.mark.parametrize(
    ("answer", "reason", "tries"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "HTTP 302", 1),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HTTP 401", 1),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "HTTP 500", 1),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", "HTTP 503", 1),
    ],
)
def test_answers_that_are_no_success(
    told: Callable[[], list[str]], answer: bytes, reason: str, tries: int
) -> None:
    log = Log(answer, answer, OK)
    with Server(log) as server:
        sent(server, b"1", b"2", b"3")
    assert len(log.seen) == 3 * tries
    assert told() == [reason, "again"]


def test_a_long_answer_is_not_read_to_its_end(told: Callable[[], list[str]]) -> None:
    written: list[int] = []

    def part(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        for _ in range(LARGE // 65536):
            peer.send(bytes(65536))
            written.append(65536)

    with Server(part) as server:
        sender = Sender(signal_of(server.url()), "traces")
        sender.send(b"")
        sender.shutdown()
    assert sum(written) < LARGE
    assert told() == []


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda peer: peer.head() and peer.send(b"\x16\x03\x01 no HTTP\r\n\r\n"), "ConnectionError"),
        (lambda peer: peer.head() and peer.reset(), "ConnectionError"),
        (lambda peer: peer.close(), "ConnectionError"),
        (lambda peer: peer.gone(), "ReadTimeout"),
    ],
    ids=["garbage", "reset", "close", "hang"],
)
def test_no_answer(told: Callable[[], list[str]], part: Callable[[Peer], None], reason: str) -> None:
    with Server(part) as server:
        began = time.monotonic()
        sent(server, b"x", timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert told() == [reason]


def test_nobody_listens(told: Callable[[], list[str]]) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{holder.getsockname()[1]}/v1/traces"
        for proxy in (None, Proxy(url.removesuffix("/v1/traces"))):
            sender = Sender(signal_of(url, timeout_s=0.3, proxy=proxy), "traces")
            sender.send(b"")
            sender.shutdown()
    assert told() == ["ConnectionError", "ProxyError"]


@pytest.mark.parametrize("key", [None, "Basic dTpw"])
def test_a_proxy_that_forwards(key: str | None) -> None:
    log = Log(OK)
    with Server(log) as server:
        proxy = Proxy(server.url(""), None if key is None else SecretStr(key))
        sender = Sender(signal_of("http://collector:4318/v1/traces?a=b", proxy=proxy), "traces")
        sender.send(b"x")
        sender.shutdown()
    assert log.head.startswith(b"POST http://collector:4318/v1/traces?a=b HTTP/1.1\r\n")
    assert b"\r\nHost: collector:4318\r\n" in log.head
    assert (b"proxy-authorization: Basic dTpw\r\n" in log.head) is (key is not None)


class Authority:
    """Certificates that the collector and the sidecar show each other, as files."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.certificate = str(folder / "ca.pem")
        self.client = str(folder / "client.pem")
        self.key = str(folder / "key.pem")
        self.ca.cert_pem.write_to_path(self.certificate)
        issued = self.ca.issue_cert("sidecar")
        issued.cert_chain_pems[0].write_to_path(self.client)
        issued.private_key_pem.write_to_path(self.key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("localhost").configure_cert(self.context)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_proxy_that_tunnels(authority: Authority, told: Callable[[], list[str]]) -> None:
    seen = []

    def part(peer: Peer) -> None:
        seen.append(peer.head())
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.tls(authority.context)
        seen.append(peer.head())
        peer.send(OK)
        peer.gone()

    with Server(part) as server:
        proxy = Proxy(server.url(""), SecretStr("Basic dTpw"))
        signal = signal_of("https://localhost:4318/v1/traces", proxy=proxy, certificate=authority.certificate)
        sender = Sender(signal, "traces")
        sender.send(b"x")
        sender.shutdown()
    tunnel, request = seen
    assert tunnel.startswith(b"CONNECT localhost:4318 HTTP/1.")
    assert b"proxy-authorization: Basic dTpw\r\n" in tunnel
    assert request.startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert b"authorization" not in request.lower()
    assert told() == []


def test_a_proxy_that_refuses(told: Callable[[], list[str]]) -> None:
    with Server(Log(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")) as server:
        signal = signal_of("https://collector/v1/traces", proxy=Proxy(server.url("")), timeout_s=0.3)
        sender = Sender(signal, "traces")
        sender.send(b"x")
        sender.shutdown()
    assert told() == ["ProxyError"]


@pytest.mark.parametrize("shows", [True, False])
def test_a_certificate_of_the_clients(
    authority: Authority, told: Callable[[], list[str]], shows: bool
) -> None:
    authority.context.verify_mode = ssl.CERT_REQUIRED
    authority.context.load_verify_locations(authority.certificate)
    log = Log(OK)
    own = {"client_certificate": authority.client, "client_key": authority.key} if shows else {}
    with Server(log, tls=authority.context) as server:
        url = server.url(host="localhost")
        sender = Sender(signal_of(url, certificate=authority.certificate, timeout_s=0.5, **own), "traces")
        sender.send(b"x")
        sender.shutdown()
    assert len(log.seen) == shows
    assert told() == ([] if shows else ["SSLError"])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_who_is_not_trusted_gets_nothing(
    authority: Authority, told: Callable[[], list[str]], tmp_path: Path, host: str
) -> None:
    """Another's authority, another's name, a file without certificates."""
    log = Log(OK)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    trusted = [None, str(other), str(broken), *([authority.certificate] if host == "127.0.0.1" else [])]
    with Server(log, tls=authority.context) as server:
        for certificate in trusted:
            sender = Sender(
                signal_of(server.url(host=host), certificate=certificate, timeout_s=0.5), "traces"
            )
            sender.send(b"x")
            sender.shutdown()
    assert log.seen == []
    assert told() == ["SSLError"] * len(trusted)


def test_no_line_holds_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Not the library's, whatever level is asked for."""
    caplog.set_level(logging.DEBUG)
    with Server(Log(b"HTTP/1.1 401 key-of-the-collector\r\nContent-Length: 0\r\n\r\n")) as server:
        sent(
            server,
            b"x",
            path="/v1/traces?token=key-in-the-query",
            headers={"authorization": "key-in-a-header"},
        )
    (line,) = caplog.records
    assert line.getMessage() == "export fails"
    assert "key" not in json.dumps(line.__dict__, default=str)
