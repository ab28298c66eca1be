"""Everything that makes pods, with the sidecar in them; and what asks for none.

Tested: a Job that ends with its sidecar beside it, StatefulSet, DaemonSet, a bare pod, a namespace that asks for all
of its pods and a pod that declines, an init container that calls, a pod that is created again as it came out, what is
refused with the fix named; `kubectl run`, by the lines that `make cluster` prints. Left out: Deployments (test_story).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from cluster import guide, objects
from cluster.kube.cluster import Cluster
from cluster.release import Release
from cluster.stage import Stage, Watch, sidecar
from inference_config.names import GROUP

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CALL = ("python", "app.py")
SHELL = ("bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail")


@pytest.fixture(autouse=True)
def _prepared(release: Release, stage: Stage) -> None:
    """A release, and in the namespace a config for every pod that asks."""
    release.install()
    stage.apply(objects.echo())
    stage.kubectl("wait", "--for=condition=Ready", "inferenceconfig/echo", "--timeout=30s")


def labelled(name: str) -> dict[str, str]:
    return {"app": name, **objects.OPTED_IN}


def asks(image: str, name: str, **more: Any) -> dict[str, Any]:
    """A pod template that asks for a sidecar, and waits."""
    return objects.template(image, "sleep", "600", labels=labelled(name), **more)


def test_a_job_ends_with_its_sidecar(stage: Stage) -> None:
    """It calls from an init container already, and exits with what came of its calls."""
    echoed = {"CALLS": "3", "ANSWER": "You said: Count to three.", "MODEL": "any"}
    made = objects.template(stage.image, *CALL, labels=labelled("job"), env=echoed, restartPolicy="Never")
    made["spec"]["initContainers"] = [{**objects.container(stage.image, *CALL, **echoed), "name": "before"}]
    watch = Watch(stage.note)
    stage.apply(objects.workload("Job", "once", made, backoffLimit=0))
    stage.kubectl("wait", "--for=condition=Complete", "job/once", "--timeout=60s")
    watch.took("Job of six calls, until it is complete", 60)
    (pod,) = stage.pods("job")
    assert [one["name"] for one in pod["spec"]["initContainers"]] == ["inference-sidecar", "before"]
    assert pod["status"]["phase"] == "Succeeded"
    assert [call["ok"] for call in stage.calls(pod["metadata"]["name"])] == [True] * 3


def test_other_workloads_are_injected(stage: Stage) -> None:
    image = stage.image
    stage.apply(
        objects.workload("StatefulSet", "set", asks(image, "set"), serviceName="set"),
        objects.workload("DaemonSet", "daemon", asks(image, "daemon")),
        objects.pod("bare", image, "sleep", "600", labels=labelled("bare")),
    )
    stage.until_rolled_out("statefulset/set")
    stage.until_rolled_out("daemonset/daemon")
    stage.kubectl("wait", "--for=condition=Ready", "pod/bare", "--timeout=60s")
    for name in ("set", "daemon", "bare"):
        pods = stage.pods(name)
        assert pods
        assert all(sidecar(pod) for pod in pods), name
    stage.until_condition("RolledOut", "True", "echo", reason="AllCurrent")
    counts = stage.counts("echo")
    assert counts["matched"] == counts["injected"] == counts["current"] >= 3

    stage.apply(objects.echo(sidecar={"logLevel": "debug"}))
    message = stage.until_condition("RestartRequired", "True", "echo")["message"]
    assert f"kubectl rollout restart statefulset/set -n {stage.namespace}" in message
    assert f"kubectl rollout restart daemonset/daemon -n {stage.namespace}" in message
    assert f"kubectl delete pod/bare -n {stage.namespace}" in message


def test_a_namespace_may_ask_for_all_of_its_pods(stage: Stage) -> None:
    image = stage.image
    silent = objects.pod("silent", image, labels={"app": "silent"})
    declines = objects.pod("declines", image, labels={f"{GROUP}/inject": "false"})
    assert sidecar(stage.dry_run(silent)) is None
    stage.kubectl("label", "namespace", stage.namespace, f"{GROUP}/inject=true")
    assert sidecar(stage.dry_run(silent)) is not None
    assert sidecar(stage.dry_run(declines)) is None


def test_a_dry_run_leaves_nothing_and_an_injected_pod_stays_as_it_is(stage: Stage) -> None:
    once = stage.dry_run(objects.pod("twice", stage.image, labels=labelled("twice")))
    again = stage.dry_run({**once, "metadata": {**once["metadata"], "uid": None, "creationTimestamp": None}})
    assert again["spec"] == once["spec"]
    assert not stage.pods("twice")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hostNetwork": True}, "Remove hostNetwork"),
        ({"annotations": {f"{GROUP}/config": "absent"}}, "names the InferenceConfig absent, which does not exist"),
        ({"annotations": {f"{GROUP}/inject-env": "perhaps"}}, "Valid: force, forbid"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_fix(stage: Stage, changes: dict[str, Any], told: str) -> None:
    assert told in stage.refusal(objects.pod("refused", stage.image, labels=labelled("refused"), **changes))


def test_the_lines_that_make_cluster_prints(cluster: Cluster, apps_image: str, tmp_path: Path) -> None:
    """Run by a shell as they stand: from an empty namespace to a key that is rotated in a running pod."""
    # One of the lines changes the context, and others need theirs.
    kubeconfig = shutil.copy(cluster.kubeconfig, tmp_path / "kubeconfig")
    folders = [str(tool.parent) for tool in cluster.tools.values()]
    path = os.pathsep.join([*folders, os.environ["PATH"]])
    name = f"demo-{uuid.uuid4().hex[:8]}"
    try:
        done = subprocess.run(
            SHELL,
            input=guide.lines(apps_image, name),
            env={**cluster.environment(), "KUBECONFIG": str(kubeconfig), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    assert done.returncode == 0, done.stdout
    assert '"ok": true, "text": "one two three"' in done.stdout
    assert '"key": "sk-second"' in done.stdout
    head, line = (row.split() for row in done.stdout.splitlines()[-2:])
    shown = dict(zip(head, line, strict=True))
    assert (shown["READY"], shown["RESTARTS"]) == ("2/2", "0"), "live, without a restart"
