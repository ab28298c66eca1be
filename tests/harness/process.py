"""The sidecar as a real process: started as it is shipped, watched, stopped, searched for its key.

Enters: a configuration file, flags, an environment. Leaves: ports, log lines as they come, figures, the exit
code. Must not reach into the process: what cannot be seen on a socket or in its output cannot be tested here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.client import Answer, Client, call
from harness.evidence import EVIDENCE
from harness.upstream import SCENARIO

START_SECS = 20.0

OF_THE_RUN: dict[str, str] = {}
"""Variables of every sidecar of this run: what `pytest --transport` asks for."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, section by section."""
    result = dict(base)
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = (
            merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
        )
    return result


def clean_environment() -> dict[str, str]:
    """The machine's environment without anything that configures the sidecar or its way out."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INFERENCE_", "OTEL_", "OPENAI_"))
        and name != "RUN_ENV"
        and name.lower() not in proxies
    }


class Sidecar:
    """One process. `key` is what it was configured with, for comparing with what the upstream got."""

    def __init__(
        self,
        config: Path | None,
        key: str,
        *flags: str,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Starts it and waits until it listens. `config` None: what `cwd` and `environ` say."""
        self.config = config or Path()
        self.key = key
        self.output: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        command = [sys.executable, "-W", "error", "-m", "inference_sidecar", "run"]
        command += [] if config is None else ["-c", str(config)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--admin-port", "0", *flags],
            env={**clean_environment(), **OF_THE_RUN, **(environ or {})},
            cwd=cwd or self.config.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._readers = []
        for name in ("stdout", "stderr"):
            reader = threading.Thread(
                target=self._read, args=(name, getattr(self.process, name)), daemon=True
            )
            reader.start()
            self._readers.append(reader)
        ready = self._listening()
        self.api: list[str] = ready["api"]
        self.port = int(self.api[0].rpartition(":")[2])
        self.admin_port = int(ready["admin"].rpartition(":")[2])

    def _listening(self) -> dict[str, Any]:
        try:
            return self.line(lambda line: line.get("message") == "listening", "listening", timeout=START_SECS)
        except AssertionError:
            self.process.kill()
            self.process.wait()
            self._join()
            raise

    def _read(self, name: str, stream: IO[bytes]) -> None:
        seen = EVIDENCE.channel(f"{name} of the process")
        for raw in stream:
            seen.extend(raw)
            text = raw.decode("utf-8", "replace").rstrip("\n")
            with self._news:
                self.output.append(text)
                try:
                    found = json.loads(text)
                except ValueError:
                    found = None
                if isinstance(found, dict):
                    self.lines.append(found)
                self._news.notify_all()
        stream.close()
        with self._news:
            self._news.notify_all()

    def line(
        self, wanted: Callable[[dict[str, Any]], bool], what: str, *, after: int = 0, timeout: float = 10
    ) -> dict[str, Any]:
        """The first log line from number `after` on that is wanted, waited for."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.lines[after:] if wanted(line)), None)

        def over() -> bool:
            return find() is not None or (self.process.poll() is not None and not self._readers[0].is_alive())

        with self._news:
            self._news.wait_for(over, timeout)
            found = find()
        assert found is not None, f"no line about {what}; the output:\n" + "\n".join(self.output[-40:])
        return found

    @contextmanager
    def requests(self, count: int = 1) -> Iterator[list[dict[str, Any]]]:
        """Collects the log lines of the requests made inside; waits at the end until `count` are there."""
        self._settled()
        mark = len(self._request_lines())
        found: list[dict[str, Any]] = []
        yield found
        with self._news:
            self._news.wait_for(lambda: len(self._request_lines()) >= mark + count, 10)
            found.extend(self._request_lines()[mark:])
        assert len(found) == count, f"{len(found)} request lines instead of {count}: {found}"

    def _request_lines(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("message") == "request"]

    def _settled(self, requests: int = 0) -> dict[str, float]:
        """The figures once nothing is open, `requests` are counted, and each has its line in the log."""
        deadline = time.monotonic() + 10
        while True:
            now = flat(self.health())
            if now["requests.total"] >= requests and now["requests.active"] == 0:
                break
            assert time.monotonic() < deadline, f"not {requests} requests counted and none open: {now}"
            threading.Event().wait(0.01)  # /health offers nothing to wait for
        with self._news:
            told = self._news.wait_for(lambda: len(self._request_lines()) >= now["requests.total"], 10)
        assert told, "a request without its line in the log"
        return now

    def call(
        self,
        method: str,
        target: str,
        body: bytes | Any = None,
        headers: Mapping[str, str] | None = None,
        scenario: str | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        more = {SCENARIO: scenario} if scenario is not None else {}
        return call(self.port, method, target, body, {**more, **(headers or {})})

    def chat(
        self, scenario: str | None = None, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Answer:
        """One chat request with a body that is valid unless `fields` say otherwise."""
        return self.call("POST", "/v1/chat/completions", chat_body(**fields), headers, scenario)

    def connect(self) -> Client:
        return Client(self.port)

    def admin(self, target: str) -> Answer:
        return call(self.admin_port, "GET", target)

    def health(self) -> dict[str, Any]:
        answer = call(self.port, "GET", "/health")
        assert answer.status == 200, answer
        return dict(answer.json)

    @contextmanager
    def figures(self, requests: int | None) -> Iterator[dict[str, Any]]:
        """How the figures differ after the requests made inside, once all of them are accounted for.

        `requests` None: as many as there were, once nothing is open.
        """
        before = self._settled()
        delta: dict[str, Any] = {}
        yield delta
        after = self._settled(int(before["requests.total"]) + (requests or 0))
        delta.update({name: value - before.get(name, 0) for name, value in after.items()})
        assert requests is None or delta["requests.total"] == requests, delta

    def terminate(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 15) -> int:
        """Waits for the end; whatever it printed has been read then."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._join()
            raise AssertionError("did not end:\n" + "\n".join(self.output[-40:])) from None
        self._join()
        return code

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(5)

    def show(self) -> None:
        """Has everything that the sidecar tells about itself searched for the key."""
        for target in ("/livez", "/readyz", "/status", "/metrics"):
            self.admin(target)
        self.health()

    def faults(self) -> list[str]:
        """Lines that no healthy process prints."""
        words = ("Traceback", "Warning", "never retrieved", "never awaited", "Unclosed", "Exception ignored")
        return [text for text in self.output if any(word in text for word in words)]


Start = Callable[..., Sidecar]
"""What the fixtures `start` and `spawn` are."""


def flat(health: Mapping[str, Any], lead: str = "") -> dict[str, float]:
    """Every number of /health by its dotted path."""
    numbers: dict[str, float] = {}
    for name, value in health.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{lead}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[lead + name] = value
    return numbers


def chat_body(**fields: Any) -> dict[str, Any]:
    """The body of a chat request; a field given as None stays out."""
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello!"}], **fields}
    return {name: value for name, value in body.items() if value is not None}
