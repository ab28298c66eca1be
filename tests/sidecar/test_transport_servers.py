"""Either transport and real servers, plain and TLS, on asyncio and on uvloop: nginx, Node, uvicorn with both parsers.

Covered: every framing these servers use, HEAD, uploads with a length and in chunks, refusals of a body that nobody
reads, many requests at once on few connections. nginx and Node are the machine's (`make machine`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from direct.servers import KINDS, LARGE, command, serving
from direct.transport import EVERY_WAY, Run, Upload, fetch, pieces, transport, upload

pytestmark = EVERY_WAY

CA = trustme.CA()
TRUSTING = ssl.create_default_context()
CA.configure_trust(TRUSTING)
MIB = 1024 * 1024

BODIES = {"/plain": b"plain", "/empty": b"", "/chunked": b"chunked", "/large": LARGE, "/close": b"close"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=[] if kind.startswith("uvicorn") else pytest.mark.machine) for kind in KINDS
    ],
)
def urls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    if command(request.param) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{request.param} is missing")
    home: Path = tmp_path_factory.mktemp(request.param)
    with serving(request.param, home, CA) as found:
        yield found


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_tour(run: Run, urls: dict[str, str], scheme: str) -> None:
    url = urls[scheme]

    async def sent(made: httpx.AsyncBaseTransport, request: httpx.Request) -> tuple[int, bytes]:
        response = await made.handle_async_request(request)
        return response.status_code, b"".join([piece async for piece in pieces(response)])

    async def scenario() -> None:
        async with transport(ssl_context=TRUSTING, max_connections=3) as made:
            for _ in range(2):
                for path, body in BODIES.items():
                    response, got = await fetch(made, url + path)
                    assert (response.status_code, got) == (200 if body else 204, body)
                    response, got = await fetch(made, url + path, "HEAD")
                    assert (response.status_code, got) == (200 if body else 204, b"")
            assert await sent(made, upload(url + "/echo", Upload(8 * MIB), 8 * MIB)) == (200, b"taken")
            headers = {"Host": httpx.URL(url).netloc.decode(), "Transfer-Encoding": "chunked"}
            request = httpx.Request("POST", url + "/echo", headers=headers, stream=Upload(MIB))
            assert await sent(made, request) == (200, b"taken")
            for whole in (False, True):
                body: Any = httpx.ByteStream(bytes(16 * MIB)) if whole else Upload(16 * MIB)
                status, _ = await sent(made, upload(url + "/refuse", body, 16 * MIB))
                assert status == 413
            answers = await asyncio.gather(*(fetch(made, url + "/chunked") for _ in range(50)))
            assert [body for _, body in answers] == [b"chunked"] * 50
            assert 1 <= made.connections <= 3

    run(scenario)
