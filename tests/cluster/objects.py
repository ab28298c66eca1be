"""What people apply in the story: an app, its upstream, a receiver of OTLP, a key, an InferenceConfig; as plain objects.

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
    return served("upstream", image, "/v1/models", {"port": 80, "targetPort": 8080})


def collector(image: str) -> list[dict[str, Any]]:
    """The receiver of OTLP, `http://collector:4318`."""
    return served("collector", image, "/told", {"port": 4318, "targetPort": 4318})


def served(name: str, image: str, ready: str, port: dict[str, int]) -> list[dict[str, Any]]:
    """One of the image's programs as a pod, ready once it answers at `ready`, and the Service before it."""
    labels = {"app": name}
    made = pod(name, image, "python", f"{name}.py", labels=labels)
    probe = {"httpGet": {"path": ready, "port": port["targetPort"]}, "periodSeconds": 1}
    made["spec"]["containers"][0] |= {"readinessProbe": probe}
    spec = {"selector": labels, "ports": [port]}
    return [made, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}]


def secret(key: str) -> dict[str, Any]:
    """The Secret `openai`."""
    return secret_of("openai", "api-key", key)


def secret_of(name: str, key: str, text: str) -> dict[str, Any]:
    """A Secret of one entry."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: text}}


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
