"""Every fault of the operator's own rooms, by whose fault it was. Knows no kopf and no Kubernetes client.

    OperatorError
    └── InvalidObject       an object's author: it is not of the shape that this version reads

What can be expected (a missing Secret, a config that the contract refuses, a pod that can't be injected) is no
fault but a value: `render.Unresolved`, `render.Invalid`, `inject.Refused`. Messages are public: they name
fields and objects, never what a Secret holds.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Root of the tree. `str()` of it may be shown in an event, a status or an admission answer."""


class InvalidObject(OperatorError):
    """An object cannot be read. The message has a line for each field that is wrong."""
