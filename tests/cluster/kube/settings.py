"""What the parts of the cluster are told: their files, as text.

Pure: addresses and paths in, content out. Every path here is one that the node sees, where /run and /var are its
own. What differs from a part's defaults does so for a small machine or for the lack of an outside, and says why.
"""

from __future__ import annotations

import json
from typing import Any

NODE = "node"
NODE_ADDRESS = "10.245.0.1"
PODS = "10.244.0.0/24"
SERVICES = "10.246.0.0/16"
FIRST_SERVICE = "10.246.0.1"
DNS_SERVICE = "10.246.0.10"
API_PORT = 6443

ETC = "/var/lib/kubernetes"
PROGRAMS = "/run/programs"
CONTAINERD = "/run/containerd/containerd.sock"
PAUSE = "localhost/pause:tests"


def containerd(cni_plugins: str) -> str:
    # restrict_oom_score_adj: where the machine withholds CAP_SYS_RESOURCE, no score may be lowered.
    # Of the plugins switched off, one would make a folder in /opt, the others look for file systems nobody has.
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{CONTAINERD}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{ETC}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "runc"
"""


def network() -> str:
    """Pods by `ptp`: each has a link to the node, and everything is routed. On a bridge, the answer of a Service
    in the same node would bypass the translation of its address, unless the kernel filters bridges."""
    link = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    host_ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return dumped({"cniVersion": "1.0.0", "name": "pods", "plugins": [link, host_ports]})


def kubelet(control_group: str) -> str:
    return dumped(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": f"{ETC}/resolv.conf",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{ETC}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{ETC}/kubelet.crt",
            "tlsPrivateKeyFile": f"{ETC}/kubelet.key",
            # Everything of this cluster lies under one group, so that one subtree is to be removed.
            "cgroupRoot": f"/{control_group}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "volumePluginDir": "/var/lib/kubelet/plugins-flexvolume",
            # The machine is others' too: its full disk is not this node's pressure, and its limits not this node's.
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "50Mi"},
            # Nothing filters bridges here, and no iptables rule of kubelet's is needed.
            "makeIPTablesUtilChains": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "maxPods": 200,
        }
    )


def proxy() -> str:
    return dumped(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{ETC}/kube-proxy.kubeconfig"},
            "hostnameOverride": NODE,
            "mode": "nftables",
            "clusterCIDR": PODS,
            "oomScoreAdj": 0,
            # The table of connections is the machine's: its size can't be set from here.
            "conntrack": {"maxPerCore": 0},
            # Its own default of once a second at most would delay every Service that a test makes.
            "nftables": {"minSyncPeriod": "100ms"},
        }
    )


def dns() -> str:
    return f"""
.:53 {{
    bind {NODE_ADDRESS}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local {{
        kubeconfig {ETC}/coredns.kubeconfig
    }}
}}
"""


def objects() -> str:
    """The Service of the DNS server, which is no pod, and what it may read."""
    label = {"kubernetes.io/service-name": "kube-dns"}
    service = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": protocol.lower(), "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    reads = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"name": "coredns"}
    items: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"clusterIP": DNS_SERVICE, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**service, "labels": label},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": role,
            "rules": reads,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": role,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "coredns"}],
        },
    ]
    return dumped({"apiVersion": "v1", "kind": "List", "items": items})


def dumped(settings: dict[str, Any]) -> str:
    """As JSON, which every part reads for YAML."""
    return json.dumps(settings, indent=2)
