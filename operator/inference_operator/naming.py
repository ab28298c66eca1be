"""Every name in the cluster: objects, labels, annotations, container and volumes; and names cut to a limit.

Enters: names that people chose. Leaves: names that Kubernetes takes, one for one. Must not look anything up.
A value here is public: objects in clusters were made with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inference_config.names import GROUP

KIND: Final = "InferenceConfig"
PLURAL: Final = "inferenceconfigs"
API_VERSION: Final = f"{GROUP}/v1alpha1"
FIELD_MANAGER: Final = "inference-sidecar-operator"
"""Owner of the fields that the operator applies, and its name in events."""

INJECT_LABEL: Final = f"{GROUP}/inject"
"""On a pod or a namespace, by people: `true` asks for the sidecar, `false` on a pod declines it."""
CONFIG_ANNOTATION: Final = f"{GROUP}/config"
"""On a pod, by people: the InferenceConfig to take, whatever selectors say."""
CONFIG_LABEL: Final = f"{GROUP}/config"
"""On what the operator makes for a config: the config's name as a label value."""
PORT_ANNOTATION: Final = f"{GROUP}/port"
ADMIN_PORT_ANNOTATION: Final = f"{GROUP}/admin-port"
"""On a pod, by people: ports in place of the config's."""
ENV_ANNOTATION: Final = f"{GROUP}/inject-env"
"""On a pod, by people: `force` replaces the app's OPENAI_* variables, `forbid` leaves the app's alone."""

INJECTED_LABEL: Final = f"{GROUP}/injected-config"
"""On a pod, by the injector: which config, as a label value, so that pods can be listed by it."""
INJECTED_ANNOTATION: Final = f"{GROUP}/injected-config"
"""On a pod, by the injector: the same config's whole name."""
SCHEMA_ANNOTATION: Final = f"{GROUP}/schema-version"
SHAPE_ANNOTATION: Final = f"{GROUP}/shape"
"""On a pod, by the injector: newest schema version that its sidecar reads; hash of what needs a restart."""
NUDGE_ANNOTATION: Final = f"{GROUP}/revision"
"""On a pod, by the operator, so that kubelet looks at the pod's volumes at once."""
TOUCH_ANNOTATION: Final = f"{GROUP}/touched-at"
"""On a workload, by the operator, so that its controller tries again at once."""

CONTAINER: Final = "inference-sidecar"
CONFIG_VOLUME: Final = "inference-sidecar-config"
CA_VOLUME: Final = "inference-sidecar-ca"
CA_PATH: Final = "/etc/inference-sidecar-ca"
CA_FILE: Final = "ca.crt"
ADMIN_PORT_NAME: Final = "infc-admin"

RENDERED_TYPE: Final = f"{GROUP}/rendered-config"
"""Type of the rendered Secrets: a watch can leave them out, or take them alone."""
SALT_KEY: Final = "salt"
"""Key of the rendered Secret that `render` mixes into revisions; the sidecar has no use for it."""

MAX_NAME: Final = 253
MAX_LABEL: Final = 63
_HASH: Final = 10


@dataclass(frozen=True, slots=True)
class Workload:
    """What made a pod, in `kubectl`'s words: `deployment`, `web`. `kind` is `pod` for a pod that stands alone."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def fit(name: str, limit: int) -> str:
    """`name`, or if it is longer than `limit` its beginning and a hash of the whole."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: limit - _HASH - 1].rstrip('-._')}-{digest}"


def rendered_secret(config: str) -> str:
    """Name of the Secret that is rendered from the InferenceConfig `config`."""
    return fit(f"inference-sidecar-{config}", MAX_NAME)


def label_value(name: str) -> str:
    """An object's name as the value of a label."""
    return fit(name, MAX_LABEL)


def event(config: str, reason: str, message: str) -> str:
    """Name of the Event that says this of that config: the same story again is the same Event, counted."""
    story = hashlib.sha256(f"{reason}\0{message}".encode()).hexdigest()[:_HASH]
    return f"{fit(config, MAX_NAME - _HASH - 1)}.{story}"


def service_hosts(service: str, namespace: str) -> tuple[str, ...]:
    """DNS names under which a Service is called from inside the cluster; the API server uses the first."""
    return (
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
    )


def workload_of(pod: Mapping[str, Any]) -> Workload:
    """Who made `pod`, as far as the pod itself tells: a ReplicaSet's pod says which Deployment is behind it."""
    metadata = pod.get("metadata") or {}
    owners = metadata.get("ownerReferences") or []
    owner = next((one for one in owners if one.get("controller")), None)
    if owner is None:
        return Workload("pod", metadata.get("name") or metadata.get("generateName") or "")
    kind, name = str(owner.get("kind")).lower(), str(owner.get("name"))
    hashed = "-" + str((metadata.get("labels") or {}).get("pod-template-hash"))
    if kind == "replicaset" and name.endswith(hashed):
        return Workload("deployment", name.removesuffix(hashed))
    return Workload(kind, name)
