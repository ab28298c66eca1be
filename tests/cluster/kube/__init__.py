"""A real Kubernetes of one node, on one Linux machine, without a registry, an engine or a trace.

    build ──▶ programs ─┐
                        ▼
    namespaces ──▶ node ──▶ etcd, apiserver ──▶ controllers, scheduler, kubelet, proxy, DNS ──▶ Ready
                        ▲                                                                     │
    archives ──▶ images ┘                    kubeconfig ◀── door (a port of 127.0.0.1) ◀──────┘

The node is a set of namespaces (network, mounts, processes, names) with `pause` as its first process. What runs
in it reaches nothing outside and is not reached, but through the door: a forwarder that listens on the machine's
loopback and calls the API server within. So everybody speaks to this cluster as to any other, by a kubeconfig.
Ending the first process ends them all; mounts, interfaces and firewall rules go with the namespaces, and what
is left to remove are one folder and the control groups.

`build` makes the programs, `settings` holds what they are told, `certs` who they are, `namespaces` the node,
`components` their command lines, `images` what pods are made of, `door` the way in, `runs` the folders of
clusters and the removal of dead ones, `cluster` the story.
"""
