"""Makes the programs of a cluster from Go modules and one C file, and keeps them by what they were made from.

Enters: the folders under `build/`, each with its versions and their sums checked in. Leaves: a folder of programs
for each, named after a digest of its sources, of the flags and of the compiler; whoever finds it there builds
nothing. Must not change a version or a sum, nor write anything of the machine but Go's own caches.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
SOURCES = Path(__file__).parents[1] / "build"
CACHE = REPOSITORY / ".cache" / "cluster"

CNI_PLUGINS = Path("/usr/lib/cni")
COMMANDS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "cc": "gcc",
    "go": "Go 1.26 or newer",
}
"""What has to be on the machine, by command, and what brings it."""


def lacking() -> str | None:
    """Why no cluster can be started here, in one line; None where one can."""
    if os.geteuid() != 0:
        return "a cluster is started as root"
    missing = [bringer for command, bringer in COMMANDS.items() if shutil.which(command) is None]
    if not (CNI_PLUGINS / "ptp").exists():
        missing.append("containernetworking-plugins")
    if missing:
        return f"missing: {', '.join(missing)} (`make machine` installs what Debian has)"
    probe = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "no namespaces can be made here, as in a container without privileges"
    return None


OF_A_CLUSTER = ("kubernetes", "coredns", "helm", "pause")
BESIDE_IT = ("prometheus", "collector")
"""What the tests of telemetry ask and send to; no cluster needs them."""


@dataclass(frozen=True)
class Recipe:
    """`command` makes programs in the folder that it runs in; `compiler` tells what would compile them."""

    name: str
    sources: tuple[Path, ...]
    compiler: tuple[str, ...]
    command: tuple[str, ...]

    def folder(self) -> Path:
        digest = hashlib.sha256(repr(self.command).replace(str(SOURCES), "").encode())
        digest.update(subprocess.check_output(self.compiler))
        for source in self.sources:
            digest.update(source.read_bytes())
        return CACHE / "bin" / f"{self.name}-{digest.hexdigest()[:12]}"


def kubernetes_version() -> str:
    """With its v, as the module has it."""
    found = re.search(
        r"^require k8s\.io/kubernetes (v\S+)", (SOURCES / "kubernetes/go.mod").read_text(), re.MULTILINE
    )
    assert found is not None, "no version of Kubernetes in its go.mod"
    return found[1]


def recipes() -> Iterator[Recipe]:
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    # Clients compare versions, and a build outside of Kubernetes' own tree knows none.
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    yield go_module(
        "kubernetes",
        "tool",
        *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items()),
    )
    yield go_module("coredns", ".")
    yield go_module("helm", "tool")
    yield go_module("prometheus", "tool")
    yield go_module("collector", ".")
    source = SOURCES / "pause.c"
    flags = ("-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")
    yield Recipe("pause", (source,), ("cc", "--version"), ("cc", *flags, "-o", "pause", str(source)))


def go_module(name: str, packages: str, *link_flags: str) -> Recipe:
    """`packages`: "tool" for the programs that the module's go.mod names, "." for the module's own."""
    folder = SOURCES / name
    flags = (
        "-mod=readonly",
        "-trimpath",
        "-buildvcs=false",
        f"-ldflags={' '.join(('-s', '-w', *link_flags))}",
    )
    return Recipe(
        name,
        tuple(sorted(file for file in folder.iterdir() if file.is_file())),
        ("go", "env", "GOVERSION", "GOOS", "GOARCH"),
        ("go", "build", "-C", str(folder), *flags, "-o", "{here}/", packages),
    )


def programs(*only: str) -> dict[str, Path]:
    """A cluster's programs by their names, or those of some recipes; made where there were none. Others wait meanwhile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folders = [made(recipe) for recipe in recipes() if recipe.name in (only or OF_A_CLUSTER)]
    return {program.name: program for folder in folders for program in folder.iterdir()}


def made(recipe: Recipe) -> Path:
    folder = recipe.folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        here = Path(scratch) / "programs"
        here.mkdir()
        command = [word.replace("{here}", str(here)) for word in recipe.command]
        # By hand one goes on working meanwhile; CI waits for nothing else.
        if os.environ.get("CI") != "true":
            command = ["nice", "-n", "19", "ionice", "-c", "3", *command]
        done = subprocess.run(
            command,
            cwd=here,
            env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{recipe.name} could not be built:\n{done.stdout[-4000:]}"
        here.rename(folder)
    return folder
