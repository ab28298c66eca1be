"""The house in which the sidecar is tested: a scripted upstream, the real process, raw clients.

    clients ──▶ sidecar process ──▶ ScriptedUpstream
       │             │                    │
       └── evidence ─┴─ every byte seen   └── ledger of what really arrived

`upstream` runs scripts and keeps the ledger, `answers` builds what an API of this kind says, `process` owns
the sidecar, `client` speaks HTTP byte by byte, `evidence` holds everything that must not contain a key.
Nothing here may import the sidecar: it is known by its command line and its sockets only.
"""
