"""Everything that is measured with or beside, made once and kept below .cache/bench.

Enters: the machine's compiler, Debian's packages, the package index. Leaves: paths of programs, a certificate.
Must not: touch the project's own environment; each peer from the index has one of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import trustme

BENCH = Path(__file__).resolve().parents[1]
CHECKOUT = BENCH.parent
CACHE = CHECKOUT / ".cache" / "bench"
LOGS = CACHE / "logs"
"""Logs of targets that answered wrongly."""
PROGRAMS = CACHE / "bin"
MEMORY = Path("/dev/shm")
"""Where targets log to, where it is there: a container's output is a pipe, and waits for no disk."""
CERTIFICATES = CACHE / "tls"
SIDECAR = CACHE / "sidecar" / "bin" / "inference-sidecar"

DAY_SECS = 86400  # a certificate is made anew each day, and so never out of date

# What is looked for, and Debian's package that has it.
DEBIAN = {
    "nginx": "nginx-light",
    "wrk": "wrk",
    "cc": "gcc libc6-dev",
    "make": "make",
    "taskset": "util-linux",
    "/usr/include/openssl/ssl.h": "libssl-dev",
    "/usr/bin/python3-config": "python3-dev",
}
PEERS = {"tensorzero": "tensorzero>=2026.6,<2026.7", "litellm": "litellm[proxy]>=1.80"}


class Missing(Exception):
    """A part that cannot be made here; the message says what to do."""


def program(name: str) -> str:
    """The path of a Debian program, also where sbin is not on the PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is missing")
    return found


def _missing() -> list[str]:
    packages = []
    for what, package in DEBIAN.items():
        try:
            if not (what.startswith("/") and Path(what).exists()):
                program(what)
        except Missing:
            packages += package.split()
    return packages


def debian() -> None:
    """Install the packages that are missing.

    Raises:
        Missing: Some are, and this user may not install them.

    """
    packages = _missing()
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"these Debian packages are needed: {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["install", "--no-install-recommends", "-y", "-o", "DPkg::Lock::Timeout=300"]
    for words in (["update"], [*install, *packages]):
        subprocess.run(["apt-get", "-q", *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def native() -> None:
    """Compile upstream and client where their sources are newer than they are."""
    subprocess.run(
        ["make", "--silent", "-C", str(BENCH / "native"), f"OUT={PROGRAMS}"], check=True, stdout=sys.stderr
    )


def certificates() -> None:
    """A certificate of the upstream for 127.0.0.1, and the authority that issued it."""
    chain = CERTIFICATES / "chain.pem"
    if chain.exists() and time.time() - chain.stat().st_mtime < DAY_SECS:
        return
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(CERTIFICATES / "key.pem")
    authority.cert_pem.write_to_path(CERTIFICATES / "authority.pem")
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


def peer(name: str) -> Path:
    """The Python of a peer's own environment, which is made where it is not there yet or wants another version."""
    home = CACHE / name
    python, stamp = home / "bin" / "python", home / "installed"
    made_from = f"{interpreter()} {PEERS[name]}"
    if not stamp.exists() or stamp.read_text() != made_from:
        _environment(home, PEERS[name])
        stamp.write_text(made_from)
    return python


def interpreter() -> Path:
    """The Python of all that is measured: Debian's where it is new enough, as in an image on Debian.

    Distributions and the official images optimize theirs by profile; one that a developer has compiled seldom is.
    """
    found = Path("/usr/bin/python3")
    if found.exists():
        code = "import sys; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([str(found), "-c", code], check=False).returncode == 0:
            return found
    return Path(sys.executable)


def python_version() -> str:
    """Its version, and where it is from."""
    told = subprocess.run([str(interpreter()), "-V"], check=True, capture_output=True, text=True).stdout
    ours = interpreter() == Path(sys.executable)
    return told.split()[1] if ours else f"{told.split()[1]} of the distribution"


def _environment(home: Path, *words: str) -> None:
    """An environment of its own, made anew."""
    print(f"installing {' '.join(words)} into {home.relative_to(CHECKOUT)} ...", file=sys.stderr, flush=True)
    subprocess.run([str(interpreter()), "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "--quiet"]
    install = ["--disable-pip-version-check", "install", "--no-compile", *words]
    subprocess.run([*pip, *install], check=True, cwd=CHECKOUT)


def sidecar() -> Path:
    """The command of this checkout's sidecar, in an environment with what its image has and no more.

    Beside a developer's tools a package may find more to load than it ever does in a pod. The environment is made
    anew where what it is made from has changed. As in the image, what every request passes is compiled to machine
    code, and bytecode of all the rest is there before the first start.
    """
    home, compiler = CACHE / "sidecar", CACHE / "compiler"
    python, stamp = home / "bin" / "python", home / "installed"
    made_from = hashlib.sha256(python_version().encode())
    for name in ("pyproject.toml", "constraints.txt"):
        made_from.update((CHECKOUT / name).read_bytes())
    if not stamp.exists() or stamp.read_text() != made_from.hexdigest():
        _environment(home, "--constraint", "constraints.txt", ".")
        _environment(compiler, "--constraint", "constraints.txt", "mypy[mypyc]")
        stamp.write_text(made_from.hexdigest())
    _compiled(compiler, python)
    return SIDECAR


def _compiled(compiler: Path, python: Path) -> None:
    """Put this checkout's packages, compiled, in place of those that were installed."""
    made = CACHE / "compiled"
    words = [CHECKOUT / "deploy" / "image" / "compile", CHECKOUT / "sidecar", made, python]
    path = f"{compiler / 'bin'}:{os.environ['PATH']}"
    print("compiling the sidecar, unless it is as it was ...", file=sys.stderr, flush=True)
    subprocess.run(words, check=True, env=os.environ | {"PATH": path}, stdout=sys.stderr)
    (packages,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    for name in ("inference_config", "inference_sidecar"):
        shutil.rmtree(packages / name)
    for old in packages.glob("*__mypyc.*.so"):
        old.unlink()
    shutil.copytree(made, packages, dirs_exist_ok=True)
    _bytecode(python, packages)


def _bytecode(python: Path, folder: Path) -> None:
    """Of a folder, and of what the sidecar uses of the standard library where that may be written."""
    environment = os.environ | image_environment()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for words in (["-m", "compileall", "-q", str(folder)], ["-c", "import inference_sidecar.serve"]):
        subprocess.run([str(python), *words], check=True, env=environment)


def image_environment() -> dict[str, str]:
    """The variables of the sidecar's image that say how Python runs."""
    text = (CHECKOUT / "Dockerfile.sidecar").read_text()
    delivered = text.rpartition("\nFROM ")[2]
    lines = re.findall(r"^ENV (.*)$", delivered, re.MULTILINE)
    words = [word.split("=", 1) for line in lines for word in line.split()]
    return {name: value for name, value in words if name.startswith(("PYTHON", "MALLOC_"))}


def version(python: Path, package: str) -> str:
    """The version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def nginx_version() -> str:
    told = subprocess.run([program("nginx"), "-v"], check=True, capture_output=True, text=True).stderr
    return told.strip().rpartition("/")[2]
