"""What tests share that call a room of the sidecar directly, in their own process and event loop.

`peers` are servers that say exact bytes, `transport` opens a PoolTransport to them on either loop. Tests of
the whole sidecar, as a process, have `harness`.
"""
