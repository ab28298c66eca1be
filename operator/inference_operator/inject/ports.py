"""The sidecar's two ports in one pod, and what stands in their way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import naming
from ..crd import Ports
from .outcome import Refused
from .pods import annotations_of, containers_of


def ports_of(pod: Mapping[str, Any], configured: Ports) -> Ports | Refused:
    """The ports that the pod's annotations choose, else those of the config; a refusal where they can't be had."""
    chosen = {"api": configured.api, "admin": configured.admin}
    for name, annotation in (("api", naming.PORT_ANNOTATION), ("admin", naming.ADMIN_PORT_ANNOTATION)):
        text = annotations_of(pod).get(annotation)
        if text is None:
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1024 <= int(text) <= 65_535):
            return Refused(
                "BadAnnotation", f"the annotation {annotation} is no port. Valid: 1024 to 65535, in quotes."
            )
        chosen[name] = int(text)
    if chosen["api"] == chosen["admin"]:
        return Refused(
            "PortConflict",
            f"the API and the admin port are both {chosen['api']}. Choose another by the annotation "
            f"{naming.PORT_ANNOTATION} or {naming.ADMIN_PORT_ANNOTATION}.",
        )
    ports = Ports(**chosen)
    return _clash(pod, ports) or ports


def _clash(pod: Mapping[str, Any], ports: Ports) -> Refused | None:
    ours = {
        ports.api: ("API port", naming.PORT_ANNOTATION),
        ports.admin: ("admin port", naming.ADMIN_PORT_ANNOTATION),
    }
    for container in containers_of(pod):
        for declared in container.get("ports") or []:
            number = declared.get("containerPort")
            if number in ours and declared.get("protocol", "TCP") == "TCP":
                what, annotation = ours[number]
                free = _free(pod, ports)
                return Refused(
                    "PortConflict",
                    f"container {container.get('name')} declares port {number}, which is the sidecar's {what}. "
                    f'Choose another on the pod template: annotation {annotation}: "{free}".',
                )
    return None


def _free(pod: Mapping[str, Any], ports: Ports) -> int:
    taken = {ports.api, ports.admin}
    for container in containers_of(pod):
        taken |= {declared.get("containerPort") for declared in container.get("ports") or []}
    return next(port for port in range(3100, 65_536) if port not in taken)
