"""Runs the load's programs and reads what they found.

Enters: a running target, a request body. Leaves: their figures. Must not: be on the proxy's core; this process is
pinned to the load's, and what it starts inherits that.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import parts
from .targets import Running

SLACK_SECS = 60.0
WRK_TRIES = 3  # it gives up where its first connection fails, which has nothing to do with what is measured


class Broken(Exception):
    """The load itself failed."""


@dataclass(frozen=True)
class Load:
    """What is sent, and what must come back. `expected` is None where a target writes its answers anew."""

    body: Path
    expected: Path | None
    events: int = 0  # of a stream, [DONE] included; 0: a plain answer


def wrk(running: Running, load: Load, connections: int, seconds: int) -> dict[str, Any]:
    """Plain requests, as many as go through: requests, seconds, p50_us, p99_us, errors."""
    scheme = "https" if running.tls else "http"
    url = f"{scheme}://127.0.0.1:{running.port}{running.target.path}"
    script = str(Path(__file__).parent / "wrk.lua")
    words = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url, "--", str(load.body)]
    for _ in range(WRK_TRIES):
        done = subprocess.run(
            [parts.program("wrk"), *words],
            check=False, capture_output=True, text=True, timeout=seconds + SLACK_SECS,
        )  # fmt: skip
        if done.returncode == 0:
            break
    else:
        raise Broken(f"wrk failed with {done.returncode}: {(done.stderr or done.stdout)[-200:].strip()}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    found["fault"] = f"{found['errors']} requests failed" if found["errors"] else ""
    return found


@dataclass
class Client:
    """The stream client, started."""

    process: subprocess.Popen[str]

    def until(self, word: str) -> None:
        """Wait until the client says "begin" or "end": when what counts begins and ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise Broken(f"the client ended before its {word}")

    def figures(self) -> dict[str, Any]:
        """What it found; `fault` says in words what was wrong, if anything was."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            out = lines.read()
        if self.process.wait(SLACK_SECS):
            raise Broken(f"the client failed with {self.process.returncode}")
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        wrong = found["failed"] + found["mismatched"]
        found["fault"] = f"wrong answers: {wrong}, the first: {found['fault']}" if wrong else ""
        return found


def client(running: Running, load: Load, seconds: float, **options: float | str) -> Client:
    """Start the stream client; `options` are its own (see streams.c)."""
    words: dict[str, object] = {
        "port": running.port, "path": running.target.path, "tls": int(running.tls), "body": load.body,
        "seconds": seconds, **options,
    }  # fmt: skip
    if load.events:
        words["events"] = load.events
    if load.expected is not None:
        words["expect"] = load.expected
    command = [str(parts.PROGRAMS / "streams")]
    for name, value in words.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return Client(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))


def counted(running: Running, load: Load, seconds: float, begin: Callable[[], None], end: Callable[[], None],
            **options: float | str) -> dict[str, Any]:  # fmt: skip
    """The stream client from start to end; `begin` and `end` are called when what counts begins and ends."""
    started = client(running, load, seconds, **options)
    started.until("begin")
    begin()
    started.until("end")
    end()
    return started.figures()
