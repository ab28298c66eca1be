"""A cluster as tests use it: by kubectl, by Helm, and by the images that pods are to be made of.

Enters: a kubeconfig and the two tools. Leaves: what the API server said. The same for one of ours and for anybody's;
only ours has a `node` to look into. Must not know how it was started, nor what is tested on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.kube import images, namespaces

LOAD_IMAGE = "CLUSTER_LOAD_IMAGE"


class CommandFailed(AssertionError):
    """kubectl or Helm said no; `stderr` has its words."""

    def __init__(self, command: list[str], code: int, stderr: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}:\n{stderr}")
        self.stderr = stderr


@dataclass
class Cluster:
    """`tools`: kubectl and helm. `home`: a folder for what they keep. `timings`: seconds by what took them."""

    kubeconfig: Path
    home: Path
    tools: Mapping[str, Path]
    node: namespaces.Node | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """In which a kubectl or a Helm speaks to this cluster and leaves nothing in the user's own folders."""
        home = {
            name: str(self.home / name.lower())
            for name in ("KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        }
        return {**os.environ, **home, "KUBECONFIG": str(self.kubeconfig)}

    def run(self, tool: str, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of a tool that has to succeed; CommandFailed if it does not."""
        command = [str(self.tools[tool]), *arguments]
        done = subprocess.run(
            command, input=stdin or "", env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CommandFailed([tool, *arguments], done.returncode, done.stderr)
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run("helm", *arguments, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ...` as an object."""
        return dict(json.loads(self.kubectl("get", "--output=json", *arguments)))

    def apply(self, *objects: Mapping[str, Any], namespace: str = "default") -> None:
        """Server-side, as the cluster's own users do it."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl(
            "apply", "--server-side", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(items)
        )

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> Iterator[str]:
        """A namespace with a name of its own, and a ServiceAccount in it; its end is ordered, not awaited."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        meta = {"name": name, "labels": dict(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        try:
            self.kubectl(
                "wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=30s"
            )
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def load_image(self, archive: Path) -> None:
        """Makes the images of a docker archive known to the node.

        On a cluster that is not ours, by the command in CLUSTER_LOAD_IMAGE, with the archive as its last word;
        without one, the images are expected to be there.
        """
        if self.node is not None:
            images.load(self.node, archive)
        elif command := shlex.split(os.environ.get(LOAD_IMAGE, "")):
            subprocess.run([*command, str(archive)], check=True, env=self.environment())


def existing(kubeconfig: Path, home: Path) -> Cluster:
    """Anybody's cluster, with kubectl and helm as they are on the machine."""
    found = {name: shutil.which(name) for name in ("kubectl", "helm")}
    return Cluster(kubeconfig, home, {name: Path(path) for name, path in found.items() if path is not None})
