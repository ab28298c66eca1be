"""What is measured: how each target is started, where it listens, and what it makes of an answer.

Enters: the upstream's ports. Leaves: a running process that answers, and how long that took. Must not: measure.
Every target adds the key, as the sidecar does, and logs to a file or not at all. A target's process is pinned to the
proxy's core before it runs a single instruction.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import parts
from .figures import DIRECT, LITELLM, NGINX, SIDECAR, TENSORZERO

QUIET = "sidecar-quiet"
START_SECS = 120.0
STOP_SECS = 15.0
POLL_SECS = 0.002
EXPORT_MS = "1000"  # of metrics; the default of a minute would pass by most measurements
SCRIPTS = ("plain", "stream-5-2000", "stream-100-0", "stream-50-10000")


class NoAnswer(Exception):
    """A target that does not start."""


@dataclass(frozen=True)
class Upstream:
    """Ports of the scripted upstream, and of the sink that takes exports."""

    port: int
    tls_port: int
    sink: int

    def url(self, tls: bool) -> str:
        return f"https://127.0.0.1:{self.tls_port}" if tls else f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Target:
    """How to start one. `exact`: it passes bytes on unchanged. `model`: what it calls a model of that name."""

    name: str
    exact: bool = True
    tls: bool = False
    path: str = "/v1/chat/completions"
    model: str = "{}"
    environment: Mapping[str, str] = field(default_factory=dict)

    def body(self, script: str, padding: int = 0) -> bytes:
        """A request for a script, `padding` bytes longer than it need be."""
        content = "Say something about a fox." + "x" * padding
        request: dict[str, object] = {
            "model": self.model.format(script),
            "messages": [{"role": "user", "content": content}],
        }
        if script != "plain":
            request["stream"] = True
        return json.dumps(request).encode()


@dataclass
class Running:
    """A target that answers. `start_secs`: from the start of its process to its first answer. `blocked`: the file in
    which `native/blocked.c` tells how long its loop was."""

    target: Target
    port: int
    tls: bool
    pid: int | None = None
    start_secs: float = 0.0
    log: Path | None = None
    blocked: Path | None = None

    def keep_log(self) -> Path | None:
        """Copy the log to where it outlives the run; where that is, None where there is no log."""
        if self.log is None:
            return None
        parts.LOGS.mkdir(parents=True, exist_ok=True)
        kept = parts.LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.log.name}"
        shutil.copyfile(self.log, kept)
        return kept


def known(extra: Mapping[str, str], variants: Mapping[str, Mapping[str, str]]) -> dict[str, Target]:
    """All targets by name.

    Args:
        extra: Environment variables of every sidecar.
        variants: Sidecars with variables of their own, by name.

    """
    exporting = {"OTEL_METRIC_EXPORT_INTERVAL": EXPORT_MS, **extra}
    targets = [
        Target(DIRECT, tls=True),
        Target(NGINX, tls=True),
        Target(SIDECAR, tls=True, environment=exporting),
        Target(QUIET, environment={"OTEL_SDK_DISABLED": "true", **extra}),
        Target(
            TENSORZERO, exact=False, path="/openai/v1/chat/completions", model="tensorzero::model_name::{}"
        ),
        Target(LITELLM, exact=False),
        *(
            Target(f"{SIDECAR}-{name}", tls=True, environment={**exporting, **own})
            for name, own in variants.items()
        ),
    ]
    return {target.name: target for target in targets}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ask(port: int, path: str, body: bytes, timeout: float = 30.0) -> tuple[int, str, bytes]:
    """One POST over plain HTTP: status, content type, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json", "Authorization": "Bearer unused"}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.getheader("content-type", ""), response.read()


def counts(port: int) -> dict[str, int]:
    """What has come in at an upstream or sink: chats, exports, export_bytes, others."""
    found: dict[str, int] = json.loads(ask(port, "/counts", b"")[2])
    return found


class Starter:
    """Starts targets, one at a time, in a folder of their own."""

    def __init__(self, work: Path, upstream: Upstream, core: int, sidecar: Path) -> None:
        self._work = work
        self._upstream = upstream
        self._core = core
        self._sidecar = sidecar

    @contextlib.contextmanager
    def running(self, target: Target, tls: bool) -> Iterator[Running]:
        """The target in front of the upstream's plain or TLS port, until the end of the block."""
        if target.name == DIRECT:
            yield Running(target, self._upstream.tls_port if tls else self._upstream.port, tls)
            return
        port = free_port()
        words, environment = self._command(target, port, self._upstream.url(tls))
        log, blocked = self._work / f"{target.name}.log", self._work / f"{target.name}.blocked"
        blocked.write_bytes(bytes(8))
        environment |= {"LD_PRELOAD": str(parts.PROGRAMS / "blocked.so"), "BLOCKED_FILE": str(blocked)}
        with log.open("wb") as out:
            began = time.monotonic()
            process = subprocess.Popen(
                ["taskset", "-c", str(self._core), *words],
                cwd=self._work, env=environment, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            found = self._await(target, process, port, log)
            yield Running(target, found, False, process.pid, time.monotonic() - began, log, blocked)
        finally:
            _stop(process)

    def _await(self, target: Target, process: subprocess.Popen[bytes], port: int, log: Path) -> int:
        body, until = target.body("plain"), time.monotonic() + START_SECS
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            if target.name == TENSORZERO and not (port := _told_port(log)):
                time.sleep(POLL_SECS)
                continue
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(port, target.path, body)[0] == 200:
                    return port
            time.sleep(POLL_SECS)
        raise NoAnswer(f"{target.name} did not answer; its log ends:\n{log.read_text()[-2000:].rstrip()}")

    def _command(self, target: Target, port: int, upstream: str) -> tuple[list[str], dict[str, str]]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("INFERENCE_", "OTEL_"))
        }
        if target.name == NGINX:
            return [*self._nginx(port, upstream)], environment
        if target.name == TENSORZERO:
            return self._tensorzero(upstream), environment
        if target.name == LITELLM:
            # Its table of prices comes with it; without this it is fetched from the internet at each start.
            return self._litellm(port, upstream), environment | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        words = [str(self._sidecar), "run", "--port", str(port), "--admin-port", str(free_port())]
        environment |= parts.image_environment()
        if self._sidecar != parts.SIDECAR:
            # Nobody has compiled another checkout's: its first start does, and all others are like a pod's.
            del environment["PYTHONDONTWRITEBYTECODE"]
        return words, environment | self._sidecar_environment(upstream) | dict(target.environment)

    def _sidecar_environment(self, upstream: str) -> dict[str, str]:
        return {
            "INFERENCE_INFERENCE_PROVIDER": "openai",
            "INFERENCE_INFERENCE_API_KEY": "unused",
            "INFERENCE_INFERENCE_BASE_URL": f"{upstream}/v1",
            "INFERENCE_INFERENCE_HTTP_CA_FILE": str(parts.CERTIFICATES / "authority.pem"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._upstream.sink}",
        }

    def _nginx(self, port: int, upstream: str) -> list[str]:
        scheme, _, authority = upstream.partition("://")
        text = (Path(__file__).parent / "nginx.conf").read_text()
        for name, value in {
            "WORK": str(self._work), "PORT": str(port), "SCHEME": scheme, "UPSTREAM": authority,
            "AUTHORITY": str(parts.CERTIFICATES / "authority.pem"),
        }.items():  # fmt: skip
            text = text.replace(f"@{name}@", value)
        (self._work / "nginx.conf").write_text(text)
        return [parts.program("nginx"), "-p", str(self._work), "-c", str(self._work / "nginx.conf")]

    def _tensorzero(self, upstream: str) -> list[str]:
        models = "".join(
            f'[models."{script}"]\nrouting = ["bench"]\n[models."{script}".providers.bench]\ntype = "openai"\n'
            f'api_base = "{upstream}/v1/"\nmodel_name = "{script}"\napi_key_location = "none"\n'
            for script in SCRIPTS
        )
        config = self._work / "tensorzero.toml"
        config.write_text(f"[gateway]\nobservability.enabled = false\n{models}")
        code = (
            "import signal, sys, tensorzero\n"
            "gateway = tensorzero._start_http_gateway(config_file=sys.argv[1], clickhouse_url=None,\n"
            "    postgres_url=None, valkey_url=None, async_setup=False)\n"
            "print('listening on', gateway.base_url, flush=True)\n"
            "signal.pause()\n"
        )
        return [str(parts.peer("tensorzero")), "-c", code, str(config)]

    def _litellm(self, port: int, upstream: str) -> list[str]:
        models = [
            {"model_name": script,
             "litellm_params": {"model": f"openai/{script}", "api_base": f"{upstream}/v1", "api_key": "unused"}}
            for script in SCRIPTS
        ]  # fmt: skip
        config = self._work / "litellm.yaml"
        # Without a key of its own it does the least work; it wants to be told that this is meant.
        settings = {"dangerously_permit_weak_or_unset_master_key": True}
        config.write_text(json.dumps({"model_list": models, "general_settings": settings}))  # JSON is YAML
        command = parts.peer("litellm").with_name("litellm")
        return [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


def _told_port(log: Path) -> int:
    found = re.search(r"listening on http://[^:/]+:(\d+)", log.read_text(errors="replace"))
    return int(found[1]) if found else 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def upstream() -> Iterator[tuple[Upstream, set[int]]]:
    """The scripted upstream and the sink, each a process on this one's core. Their ports and process ids."""
    secure = [
        "--certificate", str(parts.CERTIFICATES / "chain.pem"), "--key", str(parts.CERTIFICATES / "key.pem"),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        started = []
        for words in (secure, []):
            process = subprocess.Popen(
                [str(parts.PROGRAMS / "upstream"), *words], stdout=subprocess.PIPE, stderr=sys.stderr
            )
            stack.callback(_stop, process)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            started.append((process.pid, json.loads(process.stdout.readline())))
        (main, ports), (sink, sink_ports) = started
        yield Upstream(ports["port"], ports["tls_port"], sink_ports["port"]), {main, sink}
