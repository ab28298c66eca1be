"""The operator as a process: started, asked for its health, killed, started again.

Enters: the URL of what it takes for the API server, arguments, a pace. Leaves: its log, health, figures, memory. At
its end the log is searched for keys and for faults of its own.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from harness.evidence import EVIDENCE
from inference_operator.handlers import Pace

# The command as it is, but for times that a test can't wait for.
HASTY = """
import sys
from inference_operator import __main__, handlers, run
pace = handlers.Pace(resync_secs=float(sys.argv.pop(1)), probe_secs=float(sys.argv.pop(1)))
plain = run.Options
run.Options = lambda *given: plain(*given, pace=pace)
__main__.main()
"""
FAULTS = re.compile(r'"level":\s*"(error|critical)"|Traceback|Warning:')


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Operator:
    """`start` may follow `kill` or `stop`, any number of times; the log goes on."""

    def __init__(
        self, folder: Path, server: str, *arguments: str, token: str | None = None, pace: Pace | None = None
    ) -> None:
        self._kubeconfig = folder / "operator.kubeconfig"
        self._kubeconfig.write_text(kubeconfig(server, token))
        self._log = folder / "operator.log"
        self._home = folder
        self._arguments = arguments
        self._pace = pace
        self._process: subprocess.Popen[bytes] | None = None
        self._expected = ["will retry"]
        self.health_port = 0

    def __enter__(self) -> Operator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()
        self.assert_clean()

    def start(self, *, ready: bool = True) -> None:
        assert self._process is None
        self.health_port = free_port()
        program = ["-m", "inference_operator"]
        if self._pace is not None:
            program = ["-c", HASTY, str(self._pace.resync_secs), str(self._pace.probe_secs)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *program, "run", "--health-port", str(self.health_port), *self._arguments],
                env={"KUBECONFIG": str(self._kubeconfig), "HOME": str(self._home), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if not ready:
            return
        try:
            self.until_ready()
        except AssertionError:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Of the process that runs; another one after each start."""
        assert self._process is not None
        assert self._process.poll() is None, f"exit code {self._process.returncode}\n{self.tail()}"
        return self._process.pid

    def until_ready(self) -> None:
        self.until(lambda: self.health("/readyz")[0] == 200, "operator that is ready", 30)

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def stop(self) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise AssertionError(f"SIGTERM was not enough\n{self.tail()}") from None
        assert code == 0, f"exit code {code}\n{self.tail()}"

    def health(self, path: str) -> tuple[int, str]:
        """Status and text; 0 where nobody answers."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.health_port}{path}", timeout=5, trust_env=False)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def memory(self) -> int:
        """Bytes that are resident."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * 4096

    def cpu_secs(self) -> float:
        assert self._process is not None
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) / 100

    def expect(self, words: str) -> None:
        """Errors in the log that have them are the test's own doing."""
        self._expected.append(words)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def tail(self, lines: int = 25) -> str:
        return "\n".join(line[:600] for line in self.log().splitlines()[-lines:])

    def until(self, true: Any, what: str, seconds: float = 20) -> None:
        """Waits for what nothing reports; tells the end of the log where it does not come about."""
        deadline = time.monotonic() + seconds
        while not true():
            if self._process is not None and self._process.poll() is not None:
                raise AssertionError(f"no {what}: exit code {self._process.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {seconds:g} s\n{self.tail()}")
            time.sleep(0.05)

    def assert_clean(self) -> None:
        """No error, no warning of Python's and no key in all that it said."""
        EVIDENCE.add("log of the operator", self._log.read_bytes())
        assert not EVIDENCE.leaks()
        faults = [
            line
            for line in self.log().splitlines()
            if FAULTS.search(line) and not any(words in line for words in self._expected)
        ]
        assert not faults, "\n".join(faults[:10])


def kubeconfig(server: str, token: str | None) -> str:
    """Access over plain HTTP; as JSON, which is YAML too."""
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "operator", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "proxy",
    }
    return json.dumps(whole)
