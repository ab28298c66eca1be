"""What stands around an operator that is tested against a real API server.

    test ──▶ place (objects, by api) ──────────────────────▶ API server
    operator (a process) ──▶ proxy (counts, fails, holds) ──▶    ▲
        └──▶ admin (/status of pods that are objects only)       └── kubeconfig

`api` speaks HTTP as the cluster's owner, `place` is a namespace with words for what is in it, `proxy` is what the
operator takes for the API server, `process` the operator, `rights` the roles that it has in named namespaces.
"""
