"""`python -m cluster build | up | env | down`: a cluster with the chart, for a look by hand.

`build` makes the programs of a cluster where they are not there yet. `up` starts a cluster that stays, or finds the
one that stays, gives it the images of this tree, installs or upgrades the chart, and says how to go on. `env` prints
what a shell has to evaluate to use it. `down` removes it, and whatever dead processes left. Exit code 1 where it can't
be done; what stands by then stays, and the next `up` goes on from there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from typing import Final

from cluster import guide, images
from cluster.kube import build, runs, start
from cluster.kube import images as of_node
from cluster.kube.cluster import Cluster
from cluster.kube.namespaces import Node
from cluster.release import Release
from harness import container

NAMESPACE: Final = "inference-sidecar"
"""The release's, as in README.md."""


def make() -> int:
    if reason := build.lacking():
        print(reason, file=sys.stderr)
        return 1
    began = time.monotonic()
    programs = build.programs()
    print(f"The cluster's {len(programs)} programs are there ({time.monotonic() - began:.0f} s).")
    return 0


def up() -> int:
    if reason := build.lacking() or container.lacking():
        print(reason, file=sys.stderr)
        return 1
    cluster = start.found() or started()
    assert cluster.node is not None
    print("The images; the first time, and after changes, they are built (minutes, seconds) ...")
    sidecar, operator, apps = (
        loaded(cluster.node, one) for one in (images.SIDECAR, images.OPERATOR, images.APPS)
    )
    began = time.monotonic()
    release = Release(cluster, NAMESPACE, sidecar, operator)
    release.bring_about()
    print(f"  {time.monotonic() - began:6.1f} s  release {release.name} in namespace {NAMESPACE}")
    print(told(cluster.node, release, apps))
    return 0


def started() -> Cluster:
    """A cluster that outlives this process, whatever becomes of the rest."""
    print("Starting; the first time, or with new versions, its programs are built first (minutes) ...")
    cluster, _ = start.up()
    assert cluster.node is not None
    runs.keep(cluster.node.folder)
    for what, seconds in cluster.timings.items():
        print(f"  {seconds:6.1f} s  {what}")
    return cluster


def loaded(node: Node, recipe: images.Recipe) -> str:
    """The tag of the image, once the node has it."""
    began = time.monotonic()
    archive = images.built(recipe)
    if archive.tag not in of_node.known(node):
        of_node.load(node, archive.file)
    print(f"  {time.monotonic() - began:6.1f} s  {archive.tag}", flush=True)
    return archive.tag


def told(node: Node, release: Release, apps: str) -> str:
    """How to go on."""
    where = f"--namespace {release.namespace}"
    return f"""
A cluster is up, and the chart is installed. To use it from this shell:

eval "$(make --silent cluster-env)"
kubectl get pods --all-namespaces
helm test {release.name} {where}

{guide.lines(apps)}
After a change of the code, `make cluster` again brings it there. Values are set as anywhere:
  helm upgrade {release.name} helm/inference-sidecar {where} --reuse-values --set ...
Logs of the cluster's parts: {node.folder}/var/log. A shell in its network:
  {shlex.join(node.entering("bash"))}
Remove all of it with: make cluster-down"""


def environment(cluster: Cluster) -> str:
    """What a shell has to evaluate to use the cluster."""
    own = cluster.environment()
    names = [name for name in own if os.environ.get(name) != own[name]]
    folders = dict.fromkeys(str(tool.parent) for tool in cluster.tools.values())
    lines = [f"export {name}={shlex.quote(own[name])}" for name in names]
    return "\n".join([*lines, f"export PATH={shlex.quote(':'.join(folders))}:$PATH"])


def env() -> int:
    cluster = start.found()
    if cluster is None:
        print("no cluster is up; `make cluster` starts one", file=sys.stderr)
        return 1
    print(environment(cluster))
    return 0


def down() -> int:
    for name in runs.sweep(also_kept=True):
        print(f"Removed {name}.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cluster", description="A cluster with the chart, for a look by hand."
    )
    commands = {"build": make, "up": up, "env": env, "down": down}
    parser.add_argument("command", choices=commands)
    return commands[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
