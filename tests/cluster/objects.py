"""What people apply in the story: an app, its upstream, a key, an InferenceConfig; as plain objects.

Enters: names and what is to be different. Leaves: objects that the strictest Pod Security admits. Must not know how
they are applied, nor what becomes of them.
"""

from __future__ import annotations

from typing import Any

from inference_config.names import GROUP

OPTED_IN = {f"{GROUP}/inject": "true"}
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}


def container(image: str, *command: str, **env: str) -> dict[str, Any]:
    """A container `app`, without an address and without a key."""
    return {
        "name": "app",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        **({"command": list(command)} if command else {}),
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": SMALL,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def template(image: str, *command: str, labels: dict[str, str], **more: Any) -> dict[str, Any]:
    """A pod template. `annotations` are its metadata's, `env` its container's, the rest of `more` its spec's."""
    metadata = {"labels": labels, "annotations": more.pop("annotations", {})}
    env = more.pop("env", {})
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "containers": [container(image, *command, **env)],
        **more,
    }
    return {"metadata": metadata, "spec": spec}


def pod(name: str, image: str, *command: str, labels: dict[str, str], **more: Any) -> dict[str, Any]:
    """A pod that nobody looks after."""
    made = template(image, *command, labels=labels, **more)
    return {"apiVersion": "v1", "kind": "Pod", **made, "metadata": {**made["metadata"], "name": name}}


def workload(kind: str, name: str, made: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Deployment, StatefulSet, DaemonSet or Job `name` of the pod template `made`, selecting it by `app`."""
    spec: dict[str, Any] = {"template": made, **more}
    if kind != "Job":
        spec["selector"] = {"matchLabels": {"app": made["metadata"]["labels"]["app"]}}
    api = "batch/v1" if kind == "Job" else "apps/v1"
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


def upstream(image: str) -> list[dict[str, Any]]:
    """The scripted upstream, `http://upstream`."""
    labels = {"app": "upstream"}
    ready = {"httpGet": {"path": "/v1/models", "port": 8080}, "periodSeconds": 1}
    made = pod("upstream", image, "python", "upstream.py", labels=labels)
    made["spec"]["containers"][0] |= {"readinessProbe": ready}
    spec = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    return [made, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "upstream"}, "spec": spec}]


def secret(key: str) -> dict[str, Any]:
    """The Secret `openai`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "openai"},
        "stringData": {"api-key": key},
    }


def config(name: str = "openai", **spec: Any) -> dict[str, Any]:
    """An InferenceConfig."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "InferenceConfig",
        "metadata": {"name": name},
        "spec": spec,
    }


def echo(name: str = "echo", **spec: Any) -> dict[str, Any]:
    """An InferenceConfig that needs neither key nor upstream; without `selector` it is for all pods that ask."""
    return config(name, **{"selector": {}, "inference": {"provider": "echo"}, **spec})
