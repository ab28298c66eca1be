"""Real servers for a transport to meet: nginx, Node's own, uvicorn with either of its parsers.

Enters: a folder for their files. Leaves: base URLs, plain and TLS. Each is a process of its own, ended with the
test. All answer alike: /plain, /empty (204), /chunked, /large, /close, /refuse (413 to any body, unread where the
server can), /echo (the body), and HEAD of each.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trustme

LARGE = bytes(range(256)) * 16 * 1024
"""4 MiB, in which a piece that is lost or comes twice shows."""

NGINX = """\
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log crit; {user}
events {{}}
http {{
  access_log off; client_max_body_size 1m; gzip off; keepalive_timeout 60s 60s; default_type text/plain;
  client_body_temp_path {home}/1; proxy_temp_path {home}/2; fastcgi_temp_path {home}/3; uwsgi_temp_path {home}/4;
  scgi_temp_path {home}/5; ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; root {home};
    location = /plain {{ return 200 "plain"; }}
    location = /empty {{ return 204; }}
    location = /chunked {{ ssi on; ssi_types text/plain; try_files /chunked.txt =404; }}
    location = /large {{ try_files /large.bin =404; }}
    location = /close {{ keepalive_timeout 0; return 200 "close"; }}
    location = /refuse {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:{plain}/plain; }}
    location = /echo {{ client_max_body_size 64m; proxy_pass http://127.0.0.1:{plain}/taken; }}
    location = /taken {{ client_max_body_size 64m; return 200 "taken"; }}
  }}
}}
"""

NODE = """\
const fs = require('fs'), http = require('http'), https = require('https');
const large = fs.readFileSync('large.bin');
function answer(req, res) {
  const path = req.url;
  if (path === '/plain') { res.setHeader('Content-Length', 5); return res.end('plain'); }
  if (path === '/empty') { res.statusCode = 204; return res.end(); }
  if (path === '/chunked') {
    res.writeEarlyHints({ link: '</a>; rel=preload' });
    if (req.method === 'HEAD') return res.end();
    res.setHeader('Trailer', 'X-End');
    res.write('chunk'); setTimeout(() => { res.write('ed'); res.addTrailers({ 'X-End': '1' }); res.end(); }, 5);
    return;
  }
  if (path === '/large') return res.end(large);
  if (path === '/close') { res.setHeader('Connection', 'close'); return res.end('close'); }
  if (path === '/refuse') { res.writeHead(413, { Connection: 'close' }); return res.end('refused'); }
  let size = 0; req.on('data', (data) => { size += data.length; }); req.on('end', () => res.end('taken'));
}
http.createServer(answer).listen(+process.argv[2], '127.0.0.1');
const tls = { key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') };
https.createServer(tls, answer).listen(+process.argv[3], '127.0.0.1');
"""

ASGI = """\
import asyncio, sys
import uvicorn
LARGE = open("large.bin", "rb").read()
async def app(scope, receive, send):
    async def say(status, *pieces, headers=(), length=True):
        size = [(b"content-length", b"%d" % sum(map(len, pieces)))] if length and status != 204 else []
        await send({"type": "http.response.start", "status": status, "headers": [*size, *headers]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    path = scope["path"]
    if path == "/plain": await say(200, b"plain")
    elif path == "/empty": await say(204)
    elif path == "/chunked": await say(200, b"chunk", b"ed", length=False)
    elif path == "/large": await say(200, LARGE)
    elif path == "/close": await say(200, b"close", headers=[(b"connection", b"close")])
    elif path == "/refuse": await say(413, b"refused", headers=[(b"connection", b"close")])
    else:
        while (await receive()).get("more_body"): pass
        await say(200, b"taken")
async def main():
    both = {"http": sys.argv[3], "log_level": "critical", "lifespan": "off"}
    tls = {"ssl_certfile": "cert.pem", "ssl_keyfile": "key.pem"}
    await asyncio.gather(
        uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[1]), **both)).serve(),
        uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[2]), **both, **tls)).serve())
asyncio.run(main())
"""

KINDS = ("nginx", "node", "uvicorn-h11", "uvicorn-httptools")


def command(kind: str) -> str | None:
    """The program of a server, None where this machine lacks it."""
    if kind.startswith("uvicorn"):
        return sys.executable
    return shutil.which(kind, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def serving(kind: str, home: Path, authority: trustme.CA) -> Iterator[dict[str, str]]:
    """A running server: base URLs by scheme."""
    program = command(kind)
    assert program is not None
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(str(home / "key.pem"))
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(str(home / "cert.pem"), append=index > 0)
    (home / "large.bin").write_bytes(LARGE)
    (home / "chunked.txt").write_text('chunk<!--# set var="x" value="y" -->ed')
    plain, tls = _free_ports()
    if kind == "nginx":
        user = "user root;" if os.geteuid() == 0 else ""
        (home / "nginx.conf").write_text(NGINX.format(home=home, plain=plain, tls=tls, user=user))
        arguments = ["-c", str(home / "nginx.conf")]
    elif kind == "node":
        (home / "serve.js").write_text(NODE)
        arguments = ["serve.js", str(plain), str(tls)]
    else:
        (home / "serve.py").write_text(ASGI)
        arguments = ["serve.py", str(plain), str(tls), kind.partition("-")[2]]
    process = subprocess.Popen(
        [program, *arguments], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for port in (plain, tls):
            _await(port, process)
        yield {"http": f"http://127.0.0.1:{plain}", "https": f"https://127.0.0.1:{tls}"}
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            raise AssertionError(f"the server ended: {process.communicate()[0].decode()}")
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.02)
