"""What `helm test` runs: asks the API server for a pod that wants a sidecar, and looks whether it has got one.

It is a dry run. The request goes the whole way, from the API server through the webhook configuration, its
certificates and the Service to an injector and back, and no pod is left. Enters: NAMESPACE and CONFIG, the name of an
InferenceConfig there. Leaves: a line that says what came of it, and the exit code.
"""

import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GROUP = "inferencesidecar.dev"
PATIENCE_SECS = 60.0
PAUSE_SECS = 2.0


def pod(config: str, image: str) -> dict[str, Any]:
    """A pod that the strictest namespace takes, as far as it is up to the pod."""
    confined = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    few = {"cpu": "10m", "memory": "16Mi"}
    app = {"name": "app", "image": image, "securityContext": confined}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{config}-",
            "labels": {f"{GROUP}/inject": "true"},
            "annotations": {f"{GROUP}/config": config},
        },
        "spec": {"containers": [{**app, "resources": {"requests": few, "limits": few}}]},
    }


def create(namespace: str, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The API server's status code, and the pod as it would be after every admission, or why it is refused."""
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
    }
    server = http.client.HTTPSConnection(
        os.environ["KUBERNETES_SERVICE_HOST"],
        int(os.environ["KUBERNETES_SERVICE_PORT"]),
        timeout=10,
        context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
    )
    try:
        path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
        server.request("POST", path, json.dumps(wanted), headers)
        response = server.getresponse()
        return response.status, dict(json.loads(response.read()))
    finally:
        server.close()


def attempt(namespace: str, wanted: dict[str, Any]) -> str | None:
    """Why there is no sidecar; None if there is one."""
    try:
        status, answer = create(namespace, wanted)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"the API server cannot be asked: {error}"
    if status != http.client.CREATED:
        return f"{status}: {answer.get('message')}"
    first = (answer["spec"].get("initContainers") or [{}])[0]
    return None if first.get("name") == "inference-sidecar" else "the pod was let in without a sidecar"


def main() -> int:
    """Tries until it is there, as whoever makes pods does."""
    namespace, config = os.environ["NAMESPACE"], os.environ["CONFIG"]
    deadline = time.monotonic() + PATIENCE_SECS
    while (reason := attempt(namespace, pod(config, os.environ["IMAGE"]))) is not None:
        sys.stdout.write(f"{reason}\n")
        if time.monotonic() > deadline:
            return 1
        time.sleep(PAUSE_SECS)
    sys.stdout.write(f"a pod in namespace {namespace} gets the sidecar\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
