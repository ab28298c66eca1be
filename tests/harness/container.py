"""Images built and run as real containers, on a machine without an engine and without a registry.

    debootstrap ──▶ base image ──▶ Dockerfile ──▶ image ──▶ root file system ──▶ runc

Enters: a Dockerfile, a user, mounts. Leaves: the image's own config, a running process in namespaces of its own,
its output and its exit code. Images are kept between runs in a folder of the repository, everything else goes
with the test. Must not touch the machine's own images, networks or containers. Needs root.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evidence import EVIDENCE

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "deploy" / "image"
COMMANDS = ("buildah", "debootstrap", "runc", "nsenter", "curl")
END_SECS = 60.0
KEPT = 12


def lacking() -> str | None:
    """Why containers can't be built and run here, in one line; None where they can."""
    if os.geteuid() != 0:
        return "containers are built and run as root"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    return f"missing commands: {', '.join(missing)} (`make machine` installs them)" if missing else None


class Store:
    """A folder of images, with the base in it. One process at a time writes; the others wait for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.buildah = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run")]

    def build(self, dockerfile: str, tag: str) -> None:
        """Builds by the same scripts that people use."""
        environ = {**os.environ, "BUILDAH": " ".join(self.buildah), "BUILDER": " ".join(self.buildah)}
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, words in (("BASE_IMAGE", []), ("BUILD_IMAGE", ["--build"])):
                made = [str(SCRIPTS / "debian-base"), *words]
                run(*made, env=environ)
                environ[name] = run(*made, "--tag").strip()
            run(str(SCRIPTS / "build"), dockerfile, tag, env=environ)
            # What earlier builds left is the next build's cache, and a bound keeps it from eating the disk.
            if len(run(*self.buildah, "images", "--quiet", "--filter", "dangling=true").split()) > KEPT:
                run(*self.buildah, "rmi", "--prune")

    def config(self, image: str) -> dict[str, Any]:
        """What the image says of itself: User, Env, Entrypoint, Cmd, WorkingDir, Labels, ..."""
        return dict(json.loads(run(*self.buildah, "inspect", "--type", "image", image))["OCIv1"]["config"])

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's root file system. What is written into it is gone afterwards."""
        container = run(*self.buildah, "from", "--pull-never", image).strip()
        try:
            yield Path(run(*self.buildah, "mount", container).strip())
        finally:
            run(*self.buildah, "rm", container)

    def close(self) -> None:
        """Undoes the mount that the storage keeps on its own folder."""
        own = self.folder / "root" / "overlay"
        if own.is_mount():
            run("umount", str(own))


@dataclass(frozen=True)
class Image:
    """`config` is what the image says of itself, `rootfs` where it is mounted."""

    tag: str
    config: dict[str, Any]
    rootfs: Path


class Container:
    """One process of an image, confined as a cluster confines it: read-only root, no capability, no new
    privilege, namespaces of its own, a network of nothing but a loopback. Listens once it is made."""

    def __init__(
        self,
        image: Image,
        folder: Path,
        *,
        user: tuple[int, int] | None = None,
        environ: Mapping[str, str] | None = None,
        mounts: Mapping[str, Path] | None = None,
    ) -> None:
        """`user`: in place of the image's own. `environ`: beside the image's own. `mounts`: read-only, by path."""
        self.output: list[str] = []
        self._runc = ["runc", "--root", str(folder / "state")]
        self._name = f"sidecar-{uuid.uuid4().hex[:12]}"
        bundle = folder / "bundle"
        bundle.mkdir(parents=True)
        spec = runtime_spec(image, self._name, user, environ or {}, mounts or {})
        (bundle / "config.json").write_text(json.dumps(spec))
        pid_file = folder / "pid"
        self.process = subprocess.Popen(
            [*self._runc, "run", "--bundle", str(bundle), "--pid-file", str(pid_file), self._name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        self._seen = EVIDENCE.channel("output of the container")
        self._reader = threading.Thread(target=lambda: [None for _ in self._lines()], daemon=True)
        try:
            listens = any('"listening"' in text for text in self._lines())
            assert listens, "did not begin to listen:\n" + "\n".join(self.output)
        except BaseException:
            self._reader.start()
            self._end()
            raise
        self._reader.start()
        self.pid = int(pid_file.read_text())

    def _lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._seen.extend(raw)
            self.output.append(raw.decode("utf-8", "replace").rstrip("\n"))
            yield self.output[-1]

    def status(self) -> dict[str, str]:
        """What the kernel says of the process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def curl(self, *arguments: str) -> str:
        """A call from within the container's network, where nothing but its loopback is."""
        found = run(
            "nsenter", f"--net=/proc/{self.pid}/ns/net", "curl", "-sS", "--max-time", "30", *arguments
        )
        EVIDENCE.add("answer to curl", found.encode())
        return found

    def execute(self, *command: str) -> str:
        """A command inside, as the same user and as confined."""
        return run(*self._runc, "exec", self._name, *command)

    def stop(self) -> int:
        """SIGTERM to the process; its exit code."""
        if self.process.poll() is None:
            run(*self._runc, "kill", self._name, signal.Signals.SIGTERM.name)
        try:
            return self.process.wait(END_SECS)
        finally:
            self._end()

    def _end(self) -> None:
        """Nothing of it is left afterwards, whatever state it was in."""
        if self.process.poll() is None:
            subprocess.run([*self._runc, "kill", self._name, "KILL"], check=False, capture_output=True)
            self.process.wait(END_SECS)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


def runtime_spec(
    image: Image,
    name: str,
    user: tuple[int, int] | None,
    environ: Mapping[str, str],
    mounts: Mapping[str, Path],
) -> dict[str, Any]:
    """An OCI runtime spec of a `restricted` container for what the image says of itself."""
    config = image.config
    uid, gid = user or tuple(int(part) for part in config["User"].split(":"))
    nowhere = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": [*config["Entrypoint"], *config.get("Cmd", [])],
            "env": [*config["Env"], *(f"{key}={value}" for key, value in environ.items())],
            "cwd": config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.rootfs), "readonly": True},
        "hostname": name,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": nowhere},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *(
                {"destination": path, "type": "bind", "source": str(source), "options": ["bind", "ro"]}
                for path, source in mounts.items()
            ),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "cgroupsPath": f"/{name}",
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that has to succeed; what it printed is in the error if it does not."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
