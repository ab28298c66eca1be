"""The sidecar's container and the volumes that it mounts.

Enters: the effective `Sidecar`, the ports, what the pod says of itself. Leaves: dicts for the pod's spec. The
container runs under Pod Security's "restricted", whatever the pod beside it does. There is no readiness probe:
it would count towards the pod's own readiness, and an upstream's trouble would take apps out of Services.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from inference_config.names import MOUNT_PATH

from .. import naming
from ..crd import BUILTIN, CaBundle, EnvVar, Ports, Quantities, Resources, Sidecar, Telemetry
from .quantity import amount

DOWNWARD: Final[Mapping[str, str]] = {
    "POD_IP": "status.podIP",
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "NODE_NAME": "spec.nodeName",
}
ATTRIBUTES: Final[Mapping[str, str]] = {
    "k8s.pod.name": "$(POD_NAME)",
    "k8s.namespace.name": "$(POD_NAMESPACE)",
    "k8s.pod.uid": "$(POD_UID)",
    "k8s.node.name": "$(NODE_NAME)",
    "k8s.container.name": naming.CONTAINER,
    # As OpenTelemetry's conventions for Kubernetes derive them; `service.name` is the sidecar's own.
    "service.namespace": "$(POD_NAMESPACE)",
    "service.instance.id": f"$(POD_NAMESPACE).$(POD_NAME).{naming.CONTAINER}",
}
WORKLOADS: Final = frozenset({"deployment", "statefulset", "daemonset", "replicaset", "job", "cronjob"})
"""Kinds of owners that OpenTelemetry has an attribute for."""
READABLE: Final = 0o444
"""A Secret's files belong to root; the sidecar is not root."""
USER: Final = 65_532


def volumes(config: str, sidecar: Sidecar) -> list[dict[str, Any]]:
    """The rendered Secret as a whole, and the CA bundle if there is one."""
    made: list[dict[str, Any]] = [
        {
            "name": naming.CONFIG_VOLUME,
            "secret": {
                "secretName": naming.rendered_secret(config),
                "defaultMode": READABLE,
                "optional": False,
            },
        }
    ]
    if sidecar.ca_bundle is not None:
        made.append({"name": naming.CA_VOLUME, **_ca_source(sidecar.ca_bundle)})
    return made


def _ca_source(bundle: CaBundle) -> dict[str, Any]:
    if bundle.secret_ref is not None:
        reference, kind, name = bundle.secret_ref, "secret", "secretName"
        key, found = reference.key, reference.name
    else:
        assert bundle.config_map_ref is not None
        kind, name, key, found = "configMap", "name", bundle.config_map_ref.key, bundle.config_map_ref.name
    return {kind: {name: found, "items": [{"key": key, "path": naming.CA_FILE}], "defaultMode": READABLE}}


def container(
    sidecar: Sidecar, ports: Ports, workload: naming.Workload, *, guaranteed: bool, pod_is_root: bool
) -> dict[str, Any]:
    """The native sidecar. `sidecar` must have an image. `pod_is_root`: the pod's own runAsUser is 0."""
    made: dict[str, Any] = {
        "name": naming.CONTAINER,
        "image": sidecar.image,
        "restartPolicy": "Always",
        "args": [
            *("run", "-c", MOUNT_PATH, "--port", str(ports.api)),
            *("--admin-host", "$(POD_IP)", "--admin-port", str(ports.admin)),
        ],
        "env": _variables(sidecar, workload),
        "ports": [{"name": naming.ADMIN_PORT_NAME, "containerPort": ports.admin, "protocol": "TCP"}],
        "startupProbe": _probe("/readyz", ports, period=1, failures=120),
        "livenessProbe": _probe("/livez", ports, period=10, failures=3),
        "resources": resources(sidecar.resources or Resources(), guaranteed=guaranteed),
        "securityContext": _security(pod_is_root=pod_is_root),
        "volumeMounts": [{"name": naming.CONFIG_VOLUME, "mountPath": MOUNT_PATH, "readOnly": True}],
    }
    if sidecar.image_pull_policy is not None:
        made["imagePullPolicy"] = sidecar.image_pull_policy
    if sidecar.ca_bundle is not None:
        made["volumeMounts"].append({"name": naming.CA_VOLUME, "mountPath": naming.CA_PATH, "readOnly": True})
    return made


def _probe(path: str, ports: Ports, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": ports.admin, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _security(*, pod_is_root: bool) -> dict[str, Any]:
    """The image's user is a number already, and some clusters give every pod one of its own: named only where
    the pod would otherwise make the sidecar root."""
    made: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {**made, "runAsUser": USER} if pod_is_root else made


def resources(wanted: Resources, *, guaranteed: bool) -> dict[str, Any]:
    """Requests always; in a pod of class Guaranteed cpu and memory get limits, equal to requests, at the larger."""
    fallback = BUILTIN.resources.requests if BUILTIN.resources else {}
    requests: Quantities = {**fallback, **wanted.limits, **wanted.requests}
    limits = dict(wanted.limits)
    if guaranteed:
        for name in requests:
            both = [value for value in (requests[name], limits.get(name)) if value is not None]
            requests[name] = limits[name] = max(both, key=lambda value: amount(value) or 0)
    made = {"requests": requests, "limits": limits}
    return {kind: {name: str(value) for name, value in each.items()} for kind, each in made.items() if each}


def _variables(sidecar: Sidecar, workload: naming.Workload) -> list[dict[str, Any]]:
    """The container's environment. A variable that the config itself gives goes before one that is made here."""
    made: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in DOWNWARD.items()
    ]
    if sidecar.log_level is not None:
        made.append({"name": "INFERENCE_LOGGING_LEVEL", "value": sidecar.log_level})
    if sidecar.ca_bundle is not None:
        file = f"{naming.CA_PATH}/{naming.CA_FILE}"
        made.append({"name": "INFERENCE_INFERENCE_HTTP_CA_FILE", "value": file})
    made += _telemetry(sidecar.telemetry or Telemetry(), workload)
    given = {variable.name for variable in sidecar.env}
    return [*(one for one in made if one["name"] not in given), *map(_given, sidecar.env)]


def _given(variable: EnvVar) -> dict[str, Any]:
    return variable.model_dump(by_alias=True, exclude_none=True)


def _telemetry(telemetry: Telemetry, workload: naming.Workload) -> list[dict[str, Any]]:
    """The standard variables. Resource attributes stand in any case: an endpoint may come by a variable."""
    attributes = {**ATTRIBUTES, **_made_by(workload)}
    attributes |= {_attribute(name): _attribute(text) for name, text in telemetry.resource_attributes.items()}
    made: list[dict[str, Any]] = [
        {
            "name": "OTEL_RESOURCE_ATTRIBUTES",
            "value": ",".join(f"{name}={text}" for name, text in sorted(attributes.items())),
        }
    ]
    plain = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": telemetry.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": telemetry.protocol,
    }
    if telemetry.sampling is not None:
        plain["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
        plain["OTEL_TRACES_SAMPLER_ARG"] = f"{telemetry.sampling:g}"
    made += [{"name": name, "value": _literal(value)} for name, value in plain.items() if value is not None]
    if telemetry.headers_secret_ref is not None:
        reference = {**telemetry.headers_secret_ref.model_dump(by_alias=True), "optional": True}
        made.append({"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": reference}})
    return made


def _made_by(workload: naming.Workload) -> dict[str, str]:
    """One pair of names for every kind, so that a query need not know it, and the conventions' own beside it."""
    # A pod that stands alone has no name yet where the API server is still to make one.
    name = "$(POD_NAME)" if workload.kind == "pod" else _attribute(workload.name)
    made = {"k8s.workload.kind": _attribute(workload.kind), "k8s.workload.name": name}
    return {**made, f"k8s.{workload.kind}.name": name} if workload.kind in WORKLOADS else made


def _attribute(text: str) -> str:
    """As OpenTelemetry reads it back: what would end a pair is encoded, and with it kubelet's `$(`."""
    return quote(text, safe="-._~/:@")


def _literal(text: str) -> str:
    """`text` as kubelet gives it to the process unchanged."""
    return text.replace("$(", "$$(")
