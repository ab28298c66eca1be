"""The injector on real sockets: in this process on a thread of its own, with what it reads given by the test.

    API server's part (httpx over TLS, trusting the bundle) ──▶ webhook ──▶ configs, certificates, as the test has them

Enters: configs, certificates, faults. Leaves: answers, log lines, figures. Its loop is uvloop's, as in production.
`ApiServer` is for the whole process: it answers reads of objects by path, and counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import json
import logging
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import httpx
import uvloop

from harness.evidence import EVIDENCE
from inference_operator import certs, crd
from inference_operator.health import Health, bind
from inference_operator.telemetry import Metrics, configure
from inference_operator.webhook.app import Door, inject_app
from inference_operator.webhook.certificate import Served, Unusable
from inference_operator.webhook.injector import Injector
from inference_operator.webhook.serve import House, Ports, until

HOSTS = ("inference-sidecar-injector.system.svc", "inference-sidecar-injector.system")
Result = TypeVar("Result")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def review(
    pod: Mapping[str, Any] | None, *, uid: str = "uid-1", namespace: str = "shop", **request: Any
) -> dict[str, Any]:
    """What the API server sends when `pod` is created. `request`: more of the request, or other."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            **request,
        },
    }


class Webhook:
    """Serves from `with` on. `pair`, `configs`, `fault`, `slow` are read at each use, and may be changed meanwhile."""

    def __init__(
        self, configs: Sequence[Mapping[str, Any]] = (), *, drain_secs: float = 0.0, poll_secs: float = 10.0
    ) -> None:
        self.authority = certs.issue_authority(now())
        self.trusted = [self.authority]
        self.pair: certs.Pair | None = certs.issue_leaf(self.authority, HOSTS, now())
        self.configs = list(configs)
        self.fault: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.reads: list[str] = []
        self.defaults = crd.Sidecar()
        self.log = io.StringIO()
        self.metrics = Metrics("1.2.3")
        self.door = Door()
        self.exit_code: int | None = None
        self._drain_secs = drain_secs
        self._poll_secs = poll_secs
        self._ports = Ports(bind("127.0.0.1", 0), bind("127.0.0.1", 0))
        self.port, self.health_port = (
            sock.getsockname()[1] for sock in (self._ports.inject, self._ports.health)
        )
        self._thread = threading.Thread(target=self._run)
        self._running = threading.Event()
        self._handlers = logging.getLogger().handlers[:]

    def __enter__(self) -> Webhook:
        configure(stream=self.log)
        self._thread.start()
        assert self._running.wait(10)
        if self.pair is not None:
            self.until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        EVIDENCE.add("log of the webhook", self.log.getvalue().encode())
        logging.getLogger().handlers[:] = self._handlers

    def stop(self) -> None:
        """As SIGTERM does."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    def ended(self) -> int | None:
        """The exit code, once it has ended by itself or by `stop`."""
        self._thread.join(20)
        return self.exit_code

    def until_ready(self) -> None:
        """Until it serves."""
        self.until(lambda: self.door.why_not_ready() is None)

    def until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds, which its loop brings about and no event of this thread tells."""
        never = threading.Event()
        for _ in range(5000):
            if condition():
                return
            never.wait(0.002)
        raise AssertionError(f"in vain; the log:\n{self.log.getvalue()}")

    def look(self) -> None:
        """Have it look for a newer certificate now."""
        self.within(self.served.look())

    def within(self, awaitable: Awaitable[Result]) -> Result:
        """Run something in its loop."""

        async def run() -> Result:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def client(self, **settings: Any) -> httpx.Client:
        """As the API server calls: by the Service's name, trusting `trusted` alone, connections kept."""
        context = ssl.create_default_context(
            cadata=b"".join(one.certificate for one in self.trusted).decode()
        )
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=context, trust_env=False, timeout=20, **settings
        )

    def post(self, content: bytes, client: httpx.Client | None = None, **settings: Any) -> httpx.Response:
        """A body to /inject, on a connection of its own or on one of `client`."""
        with contextlib.ExitStack() as stack:
            used = client or stack.enter_context(self.client())
            answer = used.post(
                "/inject",
                content=content,
                headers={"content-type": "application/json"},
                extensions={"sni_hostname": HOSTS[0]},
                **settings,
            )
        EVIDENCE.add("answer of the webhook", answer.content)
        return answer

    def ask(
        self, pod: Mapping[str, Any] | None, client: httpx.Client | None = None, **request: Any
    ) -> dict[str, Any]:
        """The response to a review, whose frame is checked."""
        asked = review(pod, **request)
        answer = self.post(json.dumps(asked).encode(), client)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["apiVersion"], told["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response: dict[str, Any] = told["response"]
        assert response["uid"] == asked["request"]["uid"]
        return response

    def health(self, path: str) -> httpx.Response:
        """An answer on the health port."""
        return httpx.get(f"http://127.0.0.1:{self.health_port}{path}", trust_env=False)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Log lines with this message."""
        found = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in found if line["message"].startswith(message)]

    def handshake(self, host: str | None = HOSTS[0]) -> bytes:
        """The certificate that a new connection is shown, in DER."""
        context = ssl.create_default_context(
            cadata=b"".join(one.certificate for one in self.trusted).decode()
        )
        context.check_hostname = host is not None
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as sock,
            context.wrap_socket(sock, server_hostname=host) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self.exit_code = runner.run(self._serve())

    async def _serve(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.served = Served(self._certificate, self.metrics, self._poll_secs)
        injector = Injector(self._read, lambda: self.defaults, self.metrics)
        health = Health(alive=lambda: None, ready=self.door.why_not_ready, metrics=self.metrics.text)
        house = House(inject_app(injector, self.door), health.app(), self.door, self.served)
        self._running.set()
        return await until(self._stop, house, self._ports, self._drain_secs)

    async def _certificate(self) -> certs.Pair:
        if self.pair is None:
            raise Unusable("the Secret does not exist yet")
        return self.pair

    async def _read(self, namespace: str) -> Sequence[Mapping[str, Any]]:
        self.reads.append(namespace)
        if self.fault is not None:
            raise self.fault
        await asyncio.to_thread(self.gate.wait, 10)
        return self.configs


class ApiServer:
    """Objects by path, for reading: as much of an API server as a stateless injector asks for. A `dead` one hangs up."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.asked: list[str] = []
        self.dead = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if outer.dead:
                    self.close_connection = True
                    return
                outer.asked.append(path)
                found = outer.objects.get(path)
                status, told = (200, found) if found is not None else (404, {"message": f"{path} not found"})
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Not on the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> ApiServer:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def kubeconfig(port: int) -> dict[str, Any]:
    """A configuration for clients of an API server on this port of the loopback."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@contextlib.contextmanager
def serving(*configs: Mapping[str, Any], **settings: Any) -> Iterator[Webhook]:
    """A webhook that reads `configs`."""
    with Webhook(configs, **settings) as running:
        yield running
