"""`python -m cluster.kube build | up | down | env`: a cluster for a look by hand.

`build` makes its programs where they are not there yet. `up` starts one that stays, or finds the one that stays, and says how to use it; `env` prints that alone, for a
shell to evaluate; `down` removes it, and whatever dead processes left. Exit code
1 where it can't be done.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from cluster.kube import build, runs, start
from cluster.kube.cluster import Cluster


def environment(cluster: Cluster) -> str:
    """What a shell has to evaluate to use the cluster."""
    own = cluster.environment()
    names = [name for name in own if os.environ.get(name) != own[name]]
    folders = dict.fromkeys(str(tool.parent) for tool in cluster.tools.values())
    lines = [f"export {name}={shlex.quote(own[name])}" for name in names]
    return "\n".join([*lines, f"export PATH={shlex.quote(':'.join(folders))}:$PATH"])


def make() -> int:
    if reason := build.lacking():
        print(reason, file=sys.stderr)
        return 1
    began = time.monotonic()
    programs = build.programs()
    print(f"The cluster's {len(programs)} programs are there ({time.monotonic() - began:.0f} s).")
    return 0


def up() -> int:
    if reason := build.lacking():
        print(reason, file=sys.stderr)
        return 1
    cluster = start.found()
    if cluster is None:
        print("Starting; the first time, or with new versions, its programs are built first (minutes) ...")
        cluster, _ = start.up()
        assert cluster.node is not None
        runs.keep(cluster.node.folder)
        for what, seconds in cluster.timings.items():
            print(f"  {seconds:6.1f} s  {what}")
    assert cluster.node is not None
    print("A cluster is up. To use it from this shell:\n")
    print('  eval "$(make --silent cluster-env)"')
    print("  kubectl get pods --all-namespaces\n")
    print(f"Logs of its parts: {cluster.node.folder}/var/log. A shell in its network:")
    print(f"  {shlex.join(cluster.node.entering('bash'))}\n")
    print("Remove it with: make cluster-down")
    return 0


def down() -> int:
    for name in runs.sweep(also_kept=True):
        print(f"Removed {name}.")
    return 0


def env() -> int:
    cluster = start.found()
    if cluster is None:
        print("no cluster is up; `make cluster` starts one", file=sys.stderr)
        return 1
    print(environment(cluster))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.kube", description="A cluster for a look by hand."
    )
    commands = {"build": make, "up": up, "down": down, "env": env}
    parser.add_argument("command", choices=commands)
    return commands[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
