"""The two upstream transports side by side: requests per second and CPU of each, alone, without the sidecar.

    python bench/transport.py [--repeat 5] [--seconds 3] [--write]

Needs nginx (Debian: nginx-light) and two cores: nginx on one, the transport's process on the other. Each figure
is the median of repetitions in which the two take turns. `--write` keeps the table in bench/results/transport.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = ("httpcore", "asyncio")
CHUNKS = 100

ANSWER = json.dumps(
    {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"message": {"content": "x" * 420}}]}
)
EVENT = "data: " + json.dumps({"choices": [{"delta": {"content": "word " * 20}}]}) + "\n\n"

CONFIG = """\
daemon off; worker_processes 1; pid {home}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; client_max_body_size 10m; gzip off;
  client_body_temp_path {home}/1; proxy_temp_path {home}/2; fastcgi_temp_path {home}/3;
  uwsgi_temp_path {home}/4; scgi_temp_path {home}/5;
  ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
    location = /plain {{ default_type application/json; return 200 '{answer}'; }}
    location = /large {{ alias {home}/large; }}
  }}
}}
"""


# The measured process


async def _requests(send: Callable[[], Any], concurrent: int, seconds: float) -> dict[str, float]:
    """Requests one after the other on each of `concurrent` connections, for `seconds`."""
    done = 0
    loop = asyncio.get_running_loop()

    async def worker(until: float) -> None:
        nonlocal done
        while loop.time() < until:
            await send()
            done += 1

    await asyncio.gather(*(worker(loop.time() + 0.3) for _ in range(concurrent)))
    done, began, cpu = 0, loop.time(), time.process_time()
    await asyncio.gather(*(worker(began + seconds) for _ in range(concurrent)))
    return {"per_s": done / (loop.time() - began), "cpu_us": (time.process_time() - cpu) / done * 1e6}


def _transport(kind: str, **changes: Any) -> Any:
    if kind == "httpcore":
        from inference_sidecar.upstream.transport import PoolTransport as Transport  # noqa: PLC0415
    else:
        from inference_sidecar.upstream.asyncio_transport import (  # noqa: PLC0415
            AsyncioTransport as Transport,
        )
    settings: dict[str, Any] = {
        "ssl_context": None, "connect_timeout": 5.0, "keep_alive": 300.0, "max_idle": 1000, "max_connections": 1000,
    }  # fmt: skip
    return Transport(**settings | changes)


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _measure(kind: str, case: str, port: int, seconds: float, authority: str) -> dict[str, float]:
    import httpx  # noqa: PLC0415  what is imported is measured

    name, _, concurrent = case.partition("@")
    tls = name.endswith("tls")
    context = ssl.create_default_context(cafile=authority) if tls else None
    base = httpx.URL(scheme="https" if tls else "http", host="127.0.0.1", port=port, path="/")
    word = name.partition(" ")[0]
    target = {"download": b"/large", "burst": b"/burst", "steps": b"/steps"}.get(word, b"/plain")
    body = b"x" * (500_000 if name.startswith("upload") else 600)
    headers = [
        (b"host", b"127.0.0.1"), (b"authorization", b"Bearer sk-0123456789"), (b"accept", b"application/json"),
        (b"content-type", b"application/json"), (b"user-agent", b"OpenAI/Python 3"),
        (b"accept-encoding", b"identity"), (b"content-length", b"%d" % len(body)),
    ]  # fmt: skip
    method = "GET" if name.startswith("download") else "POST"
    if method == "GET":
        body, headers = b"", headers[:-1]
    made = _transport(kind, ssl_context=context)

    async def send() -> None:
        request = httpx.Request(
            method, base, headers=headers, stream=httpx.ByteStream(body),
            extensions={"target": target, "fresh": False},
        )  # fmt: skip
        response = await made.handle_async_request(request)
        assert response.status_code == 200, response
        async for _ in response.stream:
            pass
        await response.aclose()

    try:
        if name.startswith("idle"):
            await send()
            before = _rss()
            requests = [send() for _ in range(int(concurrent))]
            await asyncio.gather(*requests)
            count = made.connections - 1
            assert count == int(concurrent) - 1, count
            return {"kib": (_rss() - before) / 1024 / count}
        return await _requests(send, int(concurrent), seconds)
    finally:
        await made.aclose()


def _child(arguments: list[str]) -> None:
    kind, case, port, seconds, authority = arguments
    if case == "import":
        import uvloop  # noqa: PLC0415

        import inference_sidecar.upstream  # noqa: F401, PLC0415  what both need

        before = _rss()
        _transport(kind)
        print(json.dumps({"mib": (_rss() - before) / 2**20}))
        return
    import uvloop  # noqa: PLC0415

    print(json.dumps(uvloop.run(_measure(kind, case, int(port), float(seconds), authority))))


# The streaming upstream: says prepared bytes, at one go or chunk by chunk


class _Streams(asyncio.Protocol):
    HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT.encode())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if b"\r\n\r\n" not in self.seen or len(self.seen.partition(b"\r\n\r\n")[2]) < 600:
            return
        paced = self.seen.startswith(b"POST /steps")
        self.seen = b""
        if not paced:
            self.transport.write(self.HEAD + self.CHUNK * CHUNKS + b"0\r\n\r\n")  # type: ignore[attr-defined]
            return
        self.task = asyncio.ensure_future(self.steps())

    async def steps(self) -> None:
        self.transport.write(self.HEAD)  # type: ignore[attr-defined]
        for _ in range(CHUNKS):
            await asyncio.sleep(0.002)
            self.transport.write(self.CHUNK)  # type: ignore[attr-defined]
        self.transport.write(b"0\r\n\r\n")  # type: ignore[attr-defined]


def _streams(port: int) -> None:
    import uvloop  # noqa: PLC0415

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Streams, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


# The run


CASES = {
    "request @1": "plain", "request @16": "plain", "request tls@1": "tls", "request tls@16": "tls",
    "upload @1": "plain", "upload tls@1": "tls", "download @1": "plain", "download tls@1": "tls",
    "burst @16": "streams", "steps @16": "streams", "idle @200": "plain", "idle tls@200": "tls",
    "import": "plain",
}  # fmt: skip
"""What is measured, and on which port. `upload`: 500 KB of a body; `download`: 8 MiB; `burst`, `steps`: streams of
100 chunks, at one go and every 2 ms; `idle`: memory of a connection; `import`: memory of the transport's modules."""


@contextlib.contextmanager
def _upstreams(home: Path) -> Iterator[dict[str, int]]:
    import trustme  # noqa: PLC0415

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(str(home / "key.pem"))
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(str(home / "cert.pem"), append=index > 0)
    (home / "large").write_bytes(bytes(8 * 2**20))
    ports = dict(zip(("plain", "tls", "streams"), _free_ports(3), strict=True))
    config = CONFIG.format(home=home, answer=ANSWER, plain=ports["plain"], tls=ports["tls"])
    (home / "nginx.conf").write_text(config)
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx, "nginx is missing; Debian: apt-get install nginx-light"
    running = [
        subprocess.Popen(["taskset", "-c", "1", nginx, "-c", str(home / "nginx.conf")]),
        subprocess.Popen(
            ["taskset", "-c", "1", sys.executable, __file__, "--streams", str(ports["streams"])]
        ),
    ]
    try:
        for port in ports.values():
            _wait_for(port)
        yield ports
    finally:
        for process in running:
            process.terminate()
            process.wait()


def _free_ports(count: int) -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def _run(kind: str, case: str, port: int, seconds: float, home: Path) -> dict[str, float]:
    command = ["taskset", "-c", "0", sys.executable, __file__, "--child"]
    command += [kind, case, str(port), str(seconds), str(home / "ca.pem")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout))


def _table(found: dict[str, dict[str, list[dict[str, float]]]]) -> Iterator[str]:
    yield "| case | figure | httpcore | asyncio | ratio |"
    yield "|---|---|---|---|---|"
    for case, by_kind in found.items():
        for figure in by_kind["asyncio"][0]:
            values = {kind: statistics.median(one[figure] for one in by_kind[kind]) for kind in KINDS}
            ratio = values["asyncio"] / values["httpcore"]
            yield (
                f"| {case} | {figure} | {values['httpcore']:.4g} | {values['asyncio']:.4g} | {ratio:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child)
        return
    if options.streams:
        _streams(options.streams)
        return
    cases = {case: port for case, port in CASES.items() if options.only in case}
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        case: {kind: [] for kind in KINDS} for case in cases
    }
    with tempfile.TemporaryDirectory() as folder, _upstreams(Path(folder)) as ports:
        Path(folder).chmod(0o755)
        for _ in range(options.repeat):
            for case, port in cases.items():
                for kind in KINDS:
                    found[case][kind].append(_run(kind, case, ports[port], options.seconds, Path(folder)))
    lines = list(_table(found))
    print("\n".join(lines))
    if options.write:
        head = f"{options.repeat} repetitions of {options.seconds:g} s, Python {platform.python_version()}, {platform.machine()}"
        text = "\n".join(["# Transports", "", f"{head}. Written by bench/transport.py.", "", *lines, ""])
        (HERE / "results" / "transport.md").write_text(text)


if __name__ == "__main__":
    main()
