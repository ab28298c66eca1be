"""The command lines of everything that runs in the node, in the order in which they start.

Pure: what differs from the defaults serves one node without an outside. Clients come with certificates, each part
with the rights of its own role; only etcd is open, within the node.
"""

from __future__ import annotations

from cluster.kube.settings import (
    API_PORT,
    ETC,
    FIRST_SERVICE,
    NODE,
    NODE_ADDRESS,
    PROGRAMS,
    SERVICES,
)

ETCD = "http://127.0.0.1:2379"
API = f"https://127.0.0.1:{API_PORT}"
API_NAMES = ("127.0.0.1", NODE_ADDRESS, FIRST_SERVICE, "localhost", "kubernetes.default.svc")

CLIENTS = {
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "kube-proxy": ("system:kube-proxy", None),
    "coredns": ("coredns", None),
}
"""User and group of each part that calls the API server."""


def etcd() -> list[str]:
    peers = "http://127.0.0.1:2380"
    return [
        "etcd",
        "--data-dir=/var/lib/etcd",
        "--unsafe-no-fsync",  # the data are gone with the cluster anyway
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--logger=zap",
        "--log-level=warn",
    ]


def containerd() -> list[str]:
    return ["containerd", f"--config={ETC}/containerd.toml"]


def apiserver() -> list[str]:
    return [
        f"{PROGRAMS}/kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={ETC}/apiserver.crt",
        f"--tls-private-key-file={ETC}/apiserver.key",
        f"--client-ca-file={ETC}/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={ETC}/tokens.key",
        f"--service-account-signing-key-file={ETC}/tokens.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={ETC}/ca.crt",
        f"--kubelet-client-certificate={ETC}/apiserver-kubelet.crt",
        f"--kubelet-client-key={ETC}/apiserver-kubelet.key",
    ]


def controller_manager() -> list[str]:
    return [
        f"{PROGRAMS}/kube-controller-manager",
        f"--kubeconfig={ETC}/kube-controller-manager.kubeconfig",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={ETC}/tokens.key",
        f"--root-ca-file={ETC}/ca.crt",
        f"--cluster-signing-cert-file={ETC}/ca.crt",
        f"--cluster-signing-key-file={ETC}/ca.key",
        # With the default of 20 a second it spends its first four seconds on tokens for its own controllers.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--secure-port=0",
    ]


def scheduler() -> list[str]:
    return [
        f"{PROGRAMS}/kube-scheduler",
        f"--kubeconfig={ETC}/kube-scheduler.kubeconfig",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def kubelet() -> list[str]:
    return [
        f"{PROGRAMS}/kubelet",
        f"--config={ETC}/kubelet.json",
        f"--kubeconfig={ETC}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy() -> list[str]:
    return [f"{PROGRAMS}/kube-proxy", f"--config={ETC}/kube-proxy.json"]


def dns() -> list[str]:
    return [f"{PROGRAMS}/coredns", f"-conf={ETC}/Corefile"]
