"""The dashboards and the alerts, as Python: `queries` makes PromQL, `parts` panels, `layout` a dashboard's JSON.

Enters: the names of the sidecar's telemetry. Leaves: what `generate.py` writes. Must not ask a server anything.
"""
