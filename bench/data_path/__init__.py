"""The data path, measured: what a proxy between app and upstream adds, beside other proxies on the same machine.

`figures` and `report` are pure; `machine` reads /proc; `parts` makes what is needed; `targets` starts and stops what
is measured; `load` runs the load's programs; `measure` is each measurement; `run` puts them in order.
"""
