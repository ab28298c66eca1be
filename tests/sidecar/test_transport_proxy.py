"""The way through a proxy: which one the environment names, and what is said to it.

Covered: the variables and their precedence, NO_PROXY by table, refused values that never show themselves;
tunnels, forwarding, credentials and failures against a scripted proxy, on asyncio and on uvloop. Left out:
SOCKS, which is refused.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trustme
from pydantic import SecretStr

from direct.peers import Peer, Server
from direct.transport import OK, STOCK, Run, always, fetch, transport
from inference_sidecar.errors import UpstreamConnectError
from inference_sidecar.runtime.proxy import Proxy, proxy_for

P = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("base_url", "environ", "url"),
    [
        ("https://api.openai.com/v1", {}, None),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": P}, P),
        ("https://api.openai.com/v1", {"https_proxy": P, "HTTPS_PROXY": "http://other:1"}, P),
        ("https://api.openai.com/v1", {"https_proxy": "", "HTTPS_PROXY": P}, None),
        ("https://api.openai.com/v1", {"HTTP_PROXY": P}, None),
        ("http://vllm:8000/v1", {"HTTPS_PROXY": P}, None),
        ("http://vllm:8000/v1", {"http_proxy": P}, P),
        ("http://vllm:8000/v1", {"HTTP_PROXY": P}, P),
        ("http://vllm:8000/v1", {"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, None),
        ("http://vllm:8000/v1", {"ALL_PROXY": P}, P),
        ("http://vllm:8000/v1", {"all_proxy": P, "HTTP_PROXY": "http://nearer:1"}, "http://nearer:1"),
        ("http://127.0.0.1:8000/v1", {"HTTP_PROXY": P}, P),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "proxy.example:3128"}, P),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": " http://proxy.example:3128/ "}, P),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://proxy.example"}, "http://proxy.example:80"),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "https://proxy.example"}, "https://proxy.example:443"),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "http://[::1]:3128"}, "http://[::1]:3128"),
    ],
)
def test_which_proxy(base_url: str, environ: dict[str, str], url: str | None) -> None:
    proxy = proxy_for(base_url, environ)
    assert (proxy and proxy.url) == url


@pytest.mark.parametrize(
    ("base_url", "no_proxy", "direct"),
    [
        ("https://api.openai.com/v1", "", False),
        ("https://api.openai.com/v1", "*", True),
        ("https://api.openai.com/v1", "example.com,*", True),
        ("https://api.openai.com/v1", "openai.com", True),
        ("https://api.openai.com/v1", ".openai.com", True),
        ("https://openai.com/v1", ".openai.com", True),
        ("https://api.openai.com/v1", "*.openai.com", True),
        ("https://api.openai.com/v1", "API.OpenAI.com", True),
        ("https://API.openai.com./v1", "api.openai.com.", True),
        ("https://api.openai.com/v1", "ai.com", False),
        ("https://api.openai.com/v1", "pi.openai.com", False),
        ("https://api.openai.com/v1", "api.openai.com.evil.example", False),
        ("https://api.openai.com/v1", "a.example , api.openai.com", True),
        ("https://api.openai.com/v1", "a.example api.openai.com", True),
        ("https://api.openai.com/v1", "api.openai.com:443", True),
        ("https://api.openai.com/v1", "api.openai.com:8443", False),
        ("https://api.openai.com:8443/v1", "openai.com:8443", True),
        ("https://10.1.2.3/v1", "10.1.2.3", True),
        ("https://10.1.2.3/v1", "2.3", False),
        ("https://10.1.2.3/v1", "10.0.0.0/8", True),
        ("https://10.1.2.3/v1", "10.1.0.0/24", False),
        ("https://10.1.2.3/v1", "10.1.2.3:443", True),
        ("https://10.1.2.3/v1", "10.1.2.3:80", False),
        ("https://[fd00::5]/v1", "fd00::/8", True),
        ("https://[fd00::5]/v1", "fd00:0::5", True),
        ("https://[fd00::5]/v1", "[fd00::5]:443", True),
        ("https://[fd00::5]/v1", "[fd00::5]:80", False),
        ("https://localhost/v1", "localhost", True),
        ("https://api.openai.com/v1", "not/a/network,.,:,[", False),
    ],
)
def test_no_proxy(base_url: str, no_proxy: str, direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert (proxy_for(base_url, {"HTTPS_PROXY": P, name: no_proxy}) is None) == direct


@pytest.mark.parametrize(
    "value",
    [
        "socks5://u:hunter2@p:1",
        "ftp://u:hunter2@p",
        "http://u:hunter2@p:99999",
        "http://u:hunter2@",
        "http://[",
    ],
)
def test_a_value_that_will_not_do_names_its_variable_and_never_itself(value: str) -> None:
    with pytest.raises(ValueError, match=r"^ALL_PROXY: ") as caught:
        proxy_for("https://api.openai.com", {"ALL_PROXY": value})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_are_kept_apart_and_masked() -> None:
    proxy = proxy_for("https://api.openai.com", {"HTTPS_PROXY": "http://user:p%40ss@proxy.example:3128"})
    assert proxy is not None
    assert proxy.url == P
    assert proxy.authorization is not None
    assert proxy.authorization.get_secret_value() == "Basic dXNlcjpwQHNz"
    assert "dXNlcjpwQHNz" not in repr(proxy)


CA = trustme.CA()
AUTHORIZATION = SecretStr("Basic dXNlcjpwQHNz")


def serving(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(*names).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def tunnelling(heads: list[bytes], upstream: str) -> Callable[[Peer], None]:
    """A proxy that plays the upstream as well, beyond its tunnel."""

    def part(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.tls(serving(upstream))
        always(heads=heads)(peer)

    return part


@STOCK
@pytest.mark.parametrize(("host", "name"), [("api.example", "api.example"), ("[fd00::5]", "fd00::5")])
def test_a_tunnel(run: Run, host: str, name: str) -> None:
    heads: list[bytes] = []

    async def scenario() -> None:
        with Server(tunnelling(heads, name)) as server:
            proxy = Proxy(f"http://{server.authority}", AUTHORIZATION)
            async with transport(ssl_context=trusting(), proxy=proxy) as made:
                for _ in range(2):
                    assert (await fetch(made, f"https://{host}/v1/models"))[1] == b"ok"
                assert server.accepted == 1

    run(scenario)
    connect, *rest = heads
    assert connect.startswith(b"CONNECT %b:443 HTTP/1.1\r\n" % host.encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in connect
    assert [head.split(b"\r\n")[0] for head in rest] == [b"GET /v1/models HTTP/1.1"] * 2
    assert not any(b"roxy-Authorization" in head for head in rest)


@STOCK
def test_forwarding(run: Run) -> None:
    heads: list[bytes] = []

    async def scenario() -> None:
        with Server(always(heads=heads)) as server:
            proxy = Proxy(f"http://{server.authority}", AUTHORIZATION)
            async with transport(proxy=proxy) as made:
                assert (await fetch(made, "http://vllm.example:8000/v1/models", target=b"/v1/m%2F"))[
                    1
                ] == b"ok"
                assert (await fetch(made, "http://[fd00::5]:8000/v1"))[1] == b"ok"

    run(scenario)
    assert heads[0].startswith(b"GET http://vllm.example:8000/v1/m%2F HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in heads[0]
    assert heads[1].startswith(b"GET http://[fd00::5]:8000/v1 HTTP/1.1\r\n")


@STOCK
def test_a_tunnel_through_a_proxy_that_speaks_tls(run: Run) -> None:
    """TLS within TLS: the proxy relays what it cannot read."""
    heads: list[bytes] = []

    def part(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = serving("api.example").wrap_bio(incoming, outgoing, server_side=True)

        def step(work: Callable[[], bytes | int | None]) -> bytes | int | None:
            while True:
                try:
                    result = work()
                except ssl.SSLWantReadError:
                    peer.send(outgoing.read())
                    incoming.write(peer.sock.recv(65536))
                else:
                    peer.send(outgoing.read())
                    return result

        step(inner.do_handshake)
        heads.append(step(lambda: inner.read(65536)))  # type: ignore[arg-type]
        step(lambda: inner.write(OK))
        peer.gone()

    async def scenario() -> None:
        with Server(part, tls=serving("127.0.0.1")) as server:
            proxy = Proxy(f"https://{server.authority}")
            async with transport(ssl_context=trusting(), proxy=proxy) as made:
                assert (await fetch(made, "https://api.example/v1/models"))[1] == b"ok"

    run(scenario)
    assert heads[0].startswith(b"CONNECT api.example:443 HTTP/1.1\r\n")
    assert heads[1].startswith(b"GET /v1/models HTTP/1.1\r\n")


def _needing_credentials(peer: Peer) -> None:
    peer.head()
    peer.send(b"HTTP/1.1 407 hunter2 required\r\nContent-Length: 0\r\n\r\n")
    peer.gone()


def _closing(peer: Peer) -> None:
    peer.head()


def _silent(peer: Peer) -> None:
    peer.head()
    peer.gone()


@STOCK
@pytest.mark.parametrize(
    ("part", "why"),
    [(_needing_credentials, "HTTP 407"), (_closing, "before a tunnel was open"), (_silent, r"within 0\.3 s")],
)
def test_a_tunnel_that_does_not_open(run: Run, part: Callable[[Peer], None], why: str) -> None:
    async def scenario() -> None:
        with Server(part) as server:
            proxy = Proxy(f"http://{server.authority}")
            async with transport(ssl_context=trusting(), proxy=proxy, connect_timeout=0.3) as made:
                with pytest.raises(UpstreamConnectError, match=why) as caught:
                    await fetch(made, "https://api.example/v1/models")
                assert server.authority in str(caught.value)
                assert "hunter2" not in str(caught.value)
                assert not caught.value.sent
                assert made.connections == 0

    run(scenario)
