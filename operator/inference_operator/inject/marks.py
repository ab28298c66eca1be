"""Labels and annotations of an injected pod: stamps for the operator, and words to meshes and kubectl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from inference_config.names import SCHEMA_VERSIONS

from .. import naming

MESHES: Final = ("traffic.sidecar.istio.io/excludeInboundPorts", "config.linkerd.io/skip-inbound-ports")
"""Lists of ports that a mesh leaves alone: a probe or a scrape has no mesh's certificate."""
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


def marked(
    metadata: Mapping[str, Any], config: str, shape: str, admin_port: int, app: str | None
) -> dict[str, Any]:
    """`metadata` with everything that an injected pod says of itself. `app`: its first container."""
    labels = {**(metadata.get("labels") or {}), naming.INJECTED_LABEL: naming.label_value(config)}
    annotations = dict(metadata.get("annotations") or {})
    annotations |= {
        naming.INJECTED_ANNOTATION: config,
        naming.SCHEMA_ANNOTATION: str(SCHEMA_VERSIONS[0]),
        naming.SHAPE_ANNOTATION: shape,
    }
    for mesh in MESHES:
        annotations[mesh] = _with_port(annotations.get(mesh, ""), admin_port)
    if app is not None:
        annotations.setdefault(DEFAULT_CONTAINER, app)
    return {**metadata, "labels": labels, "annotations": annotations}


def _with_port(ports: str, port: int) -> str:
    """The comma-separated list with `port` in it; a range such as 3000-3010 has every port between."""
    parts = [part.strip() for part in ports.split(",") if part.strip()]
    for part in parts:
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit() and int(first) <= port <= int(last or first):
            return ports
    return ",".join([*parts, str(port)])
