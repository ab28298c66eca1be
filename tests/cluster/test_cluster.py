"""The cluster itself: that it is a real Kubernetes, before anything is proven on it.

Tested: a node that is Ready; a Deployment with a native sidecar, reached by its Service's name; tokens, logs, exec;
a Secret's new content in a running pod at once after a patch of the pod's annotation; rights that were not
granted; Helm; a restart of the API server; that the machine shows nothing of it, and that what a killed process
left of one is removed. Left out: several nodes, storage, ingress, anything that would
pull an image.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.kube import runs, start
from cluster.kube.cluster import Cluster, CommandFailed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

WATCHER = """
import pathlib, time
path, seen = pathlib.Path("/etc/watched/value"), None
while True:
    value = path.read_text()
    if value != seen:
        print(f"{value} {time.time():.3f}", flush=True)
        seen = value
    time.sleep(0.01)
"""
ASK = """
import json, urllib.request
body = json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": "Hello!"}]}).encode()
request = urllib.request.Request(
    "http://127.0.0.1:3000/v1/chat/completions", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""
ABANDON = """
import sys
from cluster.kube import build, runs
from cluster.kube.namespaces import Node
folder, _ = runs.create()
node = Node.create(folder, [build.programs()["pause"]])
runs.create_control_groups(folder.name)
node.start("sleeper", "sleep", "600")
print(folder, flush=True)
sys.stdin.read()
"""
FETCH = """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=10).status)
"""
SERVE = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8080)"


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """One that enforces what the strictest clusters do."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    with cluster.namespace(labels=restricted) as name:
        yield name


def container(name: str, image: str, command: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A container that the strictest Pod Security admits."""
    confined = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    base = {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "securityContext": confined}
    return {**base, **({"command": command} if command else {}), **more}


@pytest.fixture(scope="module")
def deployed(cluster: Cluster, namespace: str, sidecar_image: str, note: Callable[[str], None]) -> str:
    """A Deployment `app` of two pods with a native sidecar, and its Service; the name of a pod."""
    sidecar = container(
        "sidecar",
        sidecar_image,
        restartPolicy="Always",
        args=["run", "--admin-host", "0.0.0.0"],
        env=[{"name": "INFERENCE_INFERENCE_PROVIDER", "value": "echo"}],
        startupProbe={
            "httpGet": {"path": "/livez", "port": 3001},
            "periodSeconds": 1,
            "failureThreshold": 30,
        },
    )
    app = container(
        "app",
        sidecar_image,
        ["python", "-c", SERVE],
        readinessProbe={"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    )
    labels = {"app": "app"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"initContainers": [sidecar], "containers": [app], "terminationGracePeriodSeconds": 1},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "app"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    began = time.monotonic()
    cluster.apply(deployment, service, namespace=namespace)
    cluster.kubectl("rollout", "status", "deployment/app", f"--namespace={namespace}", "--timeout=120s")
    note(f"Deployment of two pods with a native sidecar: {time.monotonic() - began:.1f} s")
    pods = cluster.get("pods", "--selector=app=app", f"--namespace={namespace}")["items"]
    return str(pods[0]["metadata"]["name"])


def execute(cluster: Cluster, namespace: str, pod: str, *command: str, within: str = "app") -> str:
    return cluster.kubectl("exec", pod, f"--namespace={namespace}", f"--container={within}", "--", *command)


def test_the_node_is_ready_and_of_the_version_that_was_built(cluster: Cluster) -> None:
    (node,) = cluster.get("nodes")["items"] if cluster.node else cluster.get("nodes")["items"][:1]
    conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    versions = json.loads(cluster.kubectl("version", "--output=json"))
    assert versions["serverVersion"]["gitVersion"] == node["status"]["nodeInfo"]["kubeletVersion"]
    minor = int(versions["serverVersion"]["minor"].rstrip("+"))
    assert minor >= 29, "native sidecars are not there"


def test_an_app_reaches_its_native_sidecar(cluster: Cluster, namespace: str, deployed: str) -> None:
    answer = json.loads(execute(cluster, namespace, deployed, "python", "-c", ASK))
    assert answer["object"] == "chat.completion"
    status = cluster.get("pod", deployed, f"--namespace={namespace}")["status"]
    (sidecar,) = status["initContainerStatuses"]
    assert "running" in sidecar["state"]
    assert sidecar["started"] is True


def test_a_pod_reaches_a_service_by_its_name(cluster: Cluster, namespace: str, deployed: str) -> None:
    for name in ("app", f"app.{namespace}.svc.cluster.local"):
        # Several times, so that one of them meets the pod that asks.
        answers = execute(cluster, namespace, deployed, "python", "-c", FETCH, *[f"http://{name}/"] * 8)
        assert answers.split() == ["200"] * 8


def test_the_node_reaches_a_service_by_its_address(cluster: Cluster, namespace: str, deployed: str) -> None:
    """As the API server calls a webhook."""
    if cluster.node is None:
        pytest.skip("nobody looks into the node of a cluster of one's own")
    address = cluster.get("service", "app", f"--namespace={namespace}")["spec"]["clusterIP"]
    calling = cluster.node.entering(sys.executable, "-c", FETCH, f"http://{address}/", namespaces=("--net",))
    assert subprocess.check_output(calling, env={}, text=True).split() == ["200"]


def test_nothing_outside_is_reached(cluster: Cluster, namespace: str, deployed: str) -> None:
    if cluster.node is None:
        pytest.skip("a cluster of one's own may have a way out")
    attempt = (
        "import socket\n"
        "for host in ('192.0.2.1', 'name.invalid'):\n"
        "    try: socket.create_connection((host, 443), 2); print('reached')\n"
        "    except OSError as error: print(type(error).__name__)\n"
    )
    address, name = execute(cluster, namespace, deployed, "python", "-c", attempt).split()
    assert address in (
        "OSError",
        "TimeoutError",
    )  # the kernel's answer may come while the socket does not listen
    assert name == "gaierror"


def test_a_pod_has_a_token_and_no_more_rights_than_were_granted(
    cluster: Cluster, namespace: str, deployed: str
) -> None:
    """The token is the namespace's own ServiceAccount's; the API server knows it, and denies it what it may not."""
    ask = (
        "import json, pathlib, ssl, urllib.error, urllib.request\n"
        "mount = pathlib.Path('/var/run/secrets/kubernetes.io/serviceaccount')\n"
        "trust = ssl.create_default_context(cafile=str(mount / 'ca.crt'))\n"
        "token = {'Authorization': 'Bearer ' + (mount / 'token').read_text()}\n"
        "space = (mount / 'namespace').read_text()\n"
        "for path in ('/version', f'/api/v1/namespaces/{space}/secrets'):\n"
        "    request = urllib.request.Request('https://kubernetes.default.svc' + path, headers=token)\n"
        "    try: print(urllib.request.urlopen(request, context=trust, timeout=10).status)\n"
        "    except urllib.error.HTTPError as error: print(error.code, json.load(error)['message'])\n"
    )
    allowed, denied = execute(cluster, namespace, deployed, "python", "-c", ask).splitlines()
    assert allowed == "200"
    assert denied.startswith("403 ")
    assert f"system:serviceaccount:{namespace}:default" in denied


def test_a_right_that_is_granted_is_had(cluster: Cluster, namespace: str) -> None:
    account = f"system:serviceaccount:{namespace}:default"

    def may(*what: str) -> bool:
        try:
            return "yes" in cluster.kubectl(
                "auth", "can-i", *what, f"--as={account}", f"--namespace={namespace}"
            )
        except CommandFailed:
            return False

    assert not may("list", "configmaps")
    cluster.kubectl(
        "create", "role", "reader", "--verb=list", "--resource=configmaps", f"--namespace={namespace}"
    )
    cluster.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:default",
        f"--namespace={namespace}",
    )  # fmt: skip
    assert may("list", "configmaps")
    assert not may("list", "secrets")


def test_logs_of_both_containers_are_read(cluster: Cluster, namespace: str, deployed: str) -> None:
    for container_name, said in (("sidecar", '"listening"'), ("app", '"GET / HTTP/1.1" 200')):
        logs = cluster.kubectl("logs", deployed, f"--container={container_name}", f"--namespace={namespace}")
        assert said in logs


def test_a_secret_is_fresh_in_a_pod_at_once_when_its_annotation_changes(
    cluster: Cluster, namespace: str, sidecar_image: str, note: Callable[[str], None]
) -> None:
    """The patch goes through pods/status, as the operator's does, which has no right to change a pod's spec."""
    where = f"--namespace={namespace}"
    meta = {"name": "watched"}

    def put(value: str) -> None:
        data = {"value": base64.b64encode(value.encode()).decode()}
        cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}, namespace=namespace
        )

    def nudge() -> float:
        patch = {"metadata": {"annotations": {"tests/nudged": str(time.time())}}}
        cluster.kubectl(
            "patch", "pod", "watched", "--subresource=status", f"--patch={json.dumps(patch)}", where
        )  # fmt: skip
        return time.time()

    def seen(value: str) -> float:
        """When the pod saw it; nudged again where a patch outran kubelet's own watch of the Secret."""
        deadline = time.monotonic() + 60
        again = time.monotonic() + 3
        while time.monotonic() < deadline:
            for line in cluster.kubectl("logs", "watched", where).splitlines():
                found, at = line.split()
                if found == value:
                    return float(at)
            if time.monotonic() > again:
                nudge()
                again = deadline
        raise AssertionError(f"{value} was never seen")

    put("v0")
    mount = {"name": "watched", "mountPath": "/etc/watched"}
    watcher = container("watcher", sidecar_image, ["python", "-c", WATCHER], volumeMounts=[mount])
    volume = {"name": "watched", "secret": {"secretName": "watched", "defaultMode": 0o444}}
    spec = {"containers": [watcher], "volumes": [volume], "terminationGracePeriodSeconds": 1}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, namespace=namespace)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/watched", where, "--timeout=60s")
    seen("v0")
    delays = []
    for number in range(1, 8):
        put(f"v{number}")
        nudged = nudge()
        delays.append(seen(f"v{number}") - nudged)
    note(
        "Secret's content in the pod, after the patch: " + ", ".join(f"{each:.2f}" for each in delays) + " s"
    )
    # A pod that was looked after within the last second waits for kubelet's next round, which comes every second.
    assert sorted(delays)[len(delays) // 2] < 1.5


def test_helm_installs_and_removes_a_chart(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    chart = tmp_path / "trivial"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: trivial, version: 1.2.3}")
    (chart / "values.yaml").write_text("{word: unset}")
    (chart / "templates" / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n"
        "  word: {{ .Values.word }}\n  minor: {{ .Capabilities.KubeVersion.Minor | quote }}\n"
    )
    where = f"--namespace={namespace}"
    cluster.helm("install", "made", str(chart), where, "--set", "word=given", "--wait", "--timeout", "60s")
    found = cluster.get("configmap", "made", where)["data"]
    assert found["word"] == "given"
    assert int(found["minor"]) >= 29
    cluster.helm("uninstall", "made", where, "--wait", "--timeout", "60s")
    with pytest.raises(CommandFailed, match="not found"):
        cluster.get("configmap", "made", where)


def test_the_api_server_can_be_restarted(cluster: Cluster) -> None:
    if cluster.node is None:
        pytest.skip("a cluster of one's own is not to be disturbed")
    start.restart_api_server(cluster)
    assert cluster.get("node", "node")["metadata"]["name"] == "node"
    with cluster.namespace() as name:
        assert (
            cluster.get("serviceaccount", "default", f"--namespace={name}")["metadata"]["name"] == "default"
        )


def test_the_machine_shows_nothing_of_it(cluster: Cluster) -> None:
    if cluster.node is None:
        pytest.skip("a cluster of one's own is looked into by its API alone")
    folder = cluster.node.folder
    assert runs.first_process(folder) == cluster.node.pid
    assert folder.name not in Path("/proc/self/mountinfo").read_text()
    assert "node0" not in Path("/proc/self/net/dev").read_text()
    assert runs.claim(folder) is None, "the next session would take it for a dead process's"


def test_what_a_killed_process_left_is_removed_by_the_next(cluster: Cluster) -> None:
    """Namespaces, a process in them, control groups: without a whole cluster, which would be ended the same way."""
    if cluster.node is None:
        pytest.skip("nothing of ours is started beside a cluster of one's own")
    with subprocess.Popen(
        [sys.executable, "-c", ABANDON],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        first = runs.first_process(folder)
        assert first is not None
        runs.sweep()
        assert runs.first_process(folder) == first, "its process lives"
        process.kill()
    groups = list(Path("/sys/fs/cgroup").glob(f"**/{folder.name}"))
    assert groups
    assert folder.name in runs.sweep()
    assert not folder.exists()
    assert not Path(f"/proc/{first}").exists()
    assert not any(group.exists() for group in groups)
    assert runs.first_process(cluster.node.folder) == cluster.node.pid, "another's was taken for it"
