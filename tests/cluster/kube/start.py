"""The story of a cluster of ours: up, down, and found again by another process.

Enters: the wish for one, to stay or to go with its process. Leaves: a cluster whose node is Ready, whose Services
and names work, in a few seconds; or, where that did not come about, nothing but the reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trustme

from cluster.kube import build, components, door, images, runs, settings
from cluster.kube.certs import ADMINISTRATORS, Authority
from cluster.kube.cluster import Cluster, CommandFailed
from cluster.kube.namespaces import Node

TOOLS = ("kubectl", "helm")


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster for as long as the context lasts."""
    cluster, owner = up()
    try:
        yield cluster
    finally:
        down(cluster)
        os.close(owner)


def up() -> tuple[Cluster, int]:
    """A cluster, and the lock that says whose it is."""
    runs.sweep()
    watch = Stopwatch()
    programs = build.programs()
    watch.took("programs built or found")
    folder, owner = runs.create()
    node = None
    try:
        within = [program for name, program in programs.items() if name not in TOOLS]
        node = Node.create(folder, within)
        cluster = Cluster(folder / "kubeconfig", folder / "home", tools(programs), node, watch.laps)
        begin(cluster, node, programs["pause"], watch)
    except BaseException:  # an interrupt too must leave nothing behind
        remove(folder, node)
        raise
    cluster.timings["up"] = sum(watch.laps.values()) - watch.laps["programs built or found"]
    return cluster, owner


def down(cluster: Cluster) -> None:
    assert cluster.node is not None, "not a cluster that was started here"
    began = time.monotonic()
    remove(cluster.node.folder, cluster.node)
    cluster.timings["down"] = time.monotonic() - began


def restart_api_server(cluster: Cluster) -> None:
    """Killed in the midst of its work and started again; returns when it answers and its controllers follow it.

    They are begun anew too: one whose watches broke tries again after pauses that double up to a minute, and whatever
    is made meanwhile would wait for it.
    """
    assert cluster.node is not None, "not a cluster that was started here"
    cluster.node.restart("kube-apiserver", signal.SIGKILL)
    cluster.node.until(lambda: answers(cluster), "API server after its restart")
    for part in ("kube-controller-manager", "kube-scheduler"):
        cluster.node.restart(part, signal.SIGKILL)


def remove(folder: Path, node: Node | None) -> None:
    runs.remove(folder)
    if node is not None:
        node.forget()


def found() -> Cluster | None:
    """The cluster that was started to stay, if it lives."""
    folder = next((each for each in runs.existing() if runs.kept(each)), None)
    if folder is None:
        return None
    return Cluster(folder / "kubeconfig", folder / "home", tools(build.programs()), Node(folder))


def tools(programs: dict[str, Path]) -> dict[str, Path]:
    return {name: programs[name] for name in TOOLS}


def begin(cluster: Cluster, node: Node, pause: Path, watch: Stopwatch) -> None:
    """From empty namespaces to a node that is Ready."""
    port = open_door(node)
    configure(node, f"https://127.0.0.1:{port}")
    watch.took("namespaces, certificates, settings")

    node.start("etcd", *components.etcd())
    node.start("kube-apiserver", *components.apiserver())
    node.start("containerd", *components.containerd())
    load_pause(node, pause)
    node.until(lambda: answers(cluster), "answer of the API server")
    watch.took("etcd, containerd, API server")

    cluster.kubectl("create", "--filename=-", stdin=settings.objects())
    node.start("kube-controller-manager", *components.controller_manager())
    node.start("kube-scheduler", *components.scheduler())
    node.start("kubelet", *components.kubelet())
    node.start("kube-proxy", *components.proxy())
    node.start("coredns", *components.dns())
    node.until(lambda: registered(cluster), "node that is Ready")
    node.until(lambda: "CoreDNS-" in node.log("coredns").read_text(), "DNS")
    watch.took("node Ready, DNS")


def open_door(node: Node) -> int:
    """The port of the machine's loopback that leads to the API server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Not in the node's mounts: Python lies wherever it lies on the machine.
        node.start(
            "door",
            *(sys.executable, "-I", door.__file__, str(listener.fileno()), str(settings.API_PORT)),
            namespaces=("--net", "--pid"),
            keep=(listener.fileno(),),
        )
        return int(listener.getsockname()[1])


def configure(node: Node, outside: str) -> None:
    """Writes every file that the parts are told by, and the kubeconfig of those outside."""
    etc = settings.ETC
    folder = node.folder / etc.lstrip("/")
    folder.mkdir(parents=True)
    authority = Authority.create(folder)
    authority.pair("apiserver", *components.API_NAMES, user="kube-apiserver")
    authority.pair("apiserver-kubelet", user="kube-apiserver-kubelet-client", group=ADMINISTRATORS)
    authority.pair("kubelet", settings.NODE_ADDRESS, settings.NODE, user="kubelet")
    trustme.CA().private_key_pem.write_to_path(folder / "tokens.key")
    for part, (user, group) in components.CLIENTS.items():
        node.write(f"{etc}/{part}.kubeconfig", authority.kubeconfig(components.API, user, group))
    node.write(f"{etc}/containerd.toml", settings.containerd(str(build.CNI_PLUGINS)))
    node.write(f"{etc}/cni/pods.conflist", settings.network())
    node.write(f"{etc}/kubelet.json", settings.kubelet(node.folder.name))
    node.write(f"{etc}/kube-proxy.json", settings.proxy())
    node.write(f"{etc}/Corefile", settings.dns())
    node.write(f"{etc}/resolv.conf", "")
    runs.create_control_groups(node.folder.name)
    (node.folder / "kubeconfig").write_text(authority.kubeconfig(outside, "admin", ADMINISTRATORS))


def load_pause(node: Node, program: Path) -> None:
    """What holds a pod's namespaces; as soon as containerd listens."""
    archive = node.folder / "pause.tar"
    images.of_program(program, settings.PAUSE, archive)
    # The node's files, seen from outside.
    socket_file = Path(f"/proc/{node.pid}/root{settings.CONTAINERD}")
    node.until(lambda: listens(socket_file), "containerd")
    images.load(node, archive)


def listens(socket_file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(socket_file)) == 0


def answers(cluster: Cluster) -> bool:
    with contextlib.suppress(CommandFailed):
        return cluster.kubectl("get", "--raw=/readyz") == "ok"
    return False


def registered(cluster: Cluster) -> bool:
    """Whether pods can be scheduled: the node is there, Ready, and free of the taint that it was born with."""
    with contextlib.suppress(CommandFailed):
        node = cluster.get("node", settings.NODE)
        ready = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}.get("Ready")
        cluster.get("serviceaccount", "default", "--namespace=default")
        return ready == "True" and not node["spec"].get("taints")
    return False


class Stopwatch:
    """Seconds by what took them."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.monotonic()

    def took(self, what: str) -> None:
        now = time.monotonic()
        self.laps[what] = now - self._since
        self._since = now
