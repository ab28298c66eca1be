"""What pods are made of: archives of images, into the node's containerd.

Enters: files as `docker save` and `buildah push docker-archive:` write them. Leaves: images under the names that
are in the archives, for pods with `imagePullPolicy: Never` or `IfNotPresent`. Nothing is ever pulled.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from cluster.kube.namespaces import Node

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def load(node: Node, archive: Path) -> None:
    with archive.open("rb") as content:
        node.ctr("images", "import", "-", stdin=content)


def known(node: Node) -> list[str]:
    """The names under which the node has images."""
    return node.ctr("images", "list", "--quiet").split()


def of_program(program: Path, tag: str, archive: Path) -> None:
    """Writes the archive of an image that holds one static program."""
    layer = packed({program.name: program.read_bytes()}, mode=0o755)
    machine = platform.machine()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    archive.write_bytes(packed({"config.json": config, "layer.tar": layer, "manifest.json": manifest}))


def packed(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    """A tar archive; the same for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
