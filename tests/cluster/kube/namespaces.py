"""The node: a set of Linux namespaces, and processes in them.

Enters: a folder, programs by name. Leaves: a place with a network, a process table, a /run and a /var of its own,
where commands can be run and services started and stopped; their output in files of the folder. Must not change
anything that the machine would notice: what belongs to the kernel as a whole is hidden behind files.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cluster.kube import runs, settings

NAMESPACES = ("--net", "--mount", "--pid", "--ipc", "--uts")
PATH = f"{settings.PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECS = 10.0

# $1 the folder, $2 the node's address with its length, $3 its name, $4 where Services are; then the programs.
SET_UP = """
set -eu
read -r pid rest </proc/self/stat  # the number outside: /proc is still the machine's
echo "$pid" >"$1/first.pid"
folder=$1 address=$2 name=$3 services=$4
shift 4

echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 run /run
mkdir /run/programs /run/lock /run/tunables
for program; do
    touch "/run/programs/${program##*/}"
    mount --bind "$program" "/run/programs/${program##*/}"
done
mkdir "$folder/var" "$folder/var/lib" "$folder/var/log" "$folder/var/tmp"
ln -s /run "$folder/var/run"
mount --bind "$folder/var" /var
mount -t proc proc /proc

# kubelet sets these for the whole kernel, and is content to find that they are set.
for tunable in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
               kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$(mktemp /run/tunables/XXXXXX)
    echo "${tunable#*=}" >"$file"
    if [ -e "/proc/sys/${tunable%=*}" ]; then mount --bind "$file" "/proc/sys/${tunable%=*}"; fi
done
mount --make-rshared /

# Whoever calls outside of the cluster is told that there is no way. The node's own calls to a Service need a
# way before their address is translated.
ip -batch - <<END
link set lo up
link add node0 type bridge
address add $address dev node0
link set node0 up
route add $services dev node0
route add unreachable default
END
echo 1 >/proc/sys/net/ipv4/ip_forward

echo ready
exec /run/programs/pause </dev/null >/dev/null 2>&1
"""


class Node:
    """Living namespaces. `outer` are processes on the machine that stand for some within, to be waited for."""

    def __init__(self, folder: Path) -> None:
        """For namespaces that are there already."""
        pid = runs.first_process(folder)
        assert pid is not None, f"no node lives in {folder}"
        self.folder = folder
        self.pid = pid
        self._outer: list[subprocess.Popen[str]] = []
        self._commands: dict[str, Sequence[str]] = {}
        self._services: dict[str, subprocess.Popen[str]] = {}

    @classmethod
    def create(cls, folder: Path, programs: Sequence[Path]) -> Node:
        words = (folder, f"{settings.NODE_ADDRESS}/24", settings.NODE, settings.SERVICES, *programs)
        script = ("sh", "-c", SET_UP, "sh", *map(str, words))
        holder = subprocess.Popen(
            ["unshare", *NAMESPACES, "--fork", "--propagation", "private", *script],
            cwd="/",
            env={"PATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert holder.stdout is not None
        assert holder.stderr is not None
        with holder.stdout, holder.stderr:
            if holder.stdout.readline() != "ready\n":
                raise AssertionError(f"no namespaces: {holder.stderr.read()} (exit code {holder.wait()})")
        node = cls(folder)
        node._outer.append(holder)
        return node

    def entering(self, *command: str, namespaces: Sequence[str] = NAMESPACES) -> list[str]:
        """The command that runs `command` in the node."""
        return ["nsenter", "--target", str(self.pid), *namespaces, "--", *command]

    def run(self, *command: str, stdin: IO[bytes] | None = None) -> str:
        """Standard output of a command in the node that has to succeed."""
        done = subprocess.run(
            self.entering(*command),
            cwd="/",
            env={"PATH": PATH},
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        said = done.stdout.decode("utf-8", "replace")
        if done.returncode:
            said += done.stderr.decode("utf-8", "replace")
            raise AssertionError(f"{shlex.join(command)} ended with {done.returncode}:\n{said}")
        return said

    def ctr(self, *words: str, stdin: IO[bytes] | None = None) -> str:
        """The same of a command of containerd's, where kubelet's images and containers are."""
        return self.run("ctr", f"--address={settings.CONTAINERD}", "--namespace=k8s.io", *words, stdin=stdin)

    def kill_container(self, pod: Mapping[str, Any], name: str) -> None:
        """SIGKILL to the first process of a pod's container, which has no say in it. `pod`: with its status."""
        status = pod["status"]
        every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        identity = next(str(one["containerID"]) for one in every if one["name"] == name)
        self.ctr("tasks", "kill", "--signal=SIGKILL", identity.removeprefix("containerd://"))

    def write(self, path: str, content: str) -> None:
        """A file of the node, below its /var."""
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def start(
        self, name: str, *command: str, namespaces: Sequence[str] = NAMESPACES, keep: tuple[int, ...] = ()
    ) -> None:
        """A service; what it prints is in its log. `keep`: open files that it inherits."""
        with self.log(name).open("a") as log:
            process = subprocess.Popen(
                self.entering(*command, namespaces=namespaces),
                cwd="/",
                env={"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                pass_fds=keep,
            )
        self._outer.append(process)
        self._commands[name] = command
        self._services[name] = process

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends a service that this process started, and waits until it is gone; SIGKILL if it does not go."""
        process = self._services.pop(name)
        # nsenter and the service are one group; nsenter is gone at once, the service in its own time.
        for attempt in (how, signal.SIGKILL):
            deadline = time.monotonic() + STOP_SECS
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, attempt)
                process.wait()
                while time.monotonic() < deadline:
                    os.killpg(process.pid, 0)
                    time.sleep(0.02)  # a process that is nobody's child here can't be waited for
                continue
            return
        raise AssertionError(f"{name} did not end")

    def restart(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        self.stop(name, how)
        self.start(name, *self._commands[name])

    def log(self, name: str) -> Path:
        return self.folder / "var" / "log" / f"{name}.log"

    def until(self, true: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Waits for what nothing reports; tells the ends of the logs where it does not come about."""
        deadline = time.monotonic() + seconds
        while not true():
            dead = [name for name, process in self._services.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                why = f"{', '.join(dead)} ended" if dead else f"not within {seconds:.0f} s"
                raise AssertionError(f"no {what}: {why}\n{self.tails(dead or list(self._services))}")
            time.sleep(0.05)

    def tails(self, names: Sequence[str], lines: int = 15) -> str:
        """The last lines of the logs."""
        said = []
        for name in names:
            text = self.log(name).read_text(errors="replace").splitlines()
            said += [f"--- {name}", *(line[:300] for line in text[-lines:])]
        return "\n".join(said)

    def forget(self) -> None:
        """After the node's end: takes leave of the processes that stood for those within."""
        for process in self._outer:
            process.wait(STOP_SECS)
