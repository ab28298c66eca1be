"""The operator's command line: `render` prints what the rooms make, with nothing secret in it, and says what is wrong
with a file; exit codes.

Left out: `crd` (test_crd_schema).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.evidence import EVIDENCE
from harness.pods import config_object, pod_object
from inference_config import __version__
from inference_operator import naming
from inference_operator.__main__ import MASK, command


def file(folder: Path, name: str, *objects: dict[str, Any]) -> str:
    path = folder / name
    path.write_text("---\n".join(yaml.safe_dump(obj) for obj in objects))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    code = command(["render", *arguments])
    out, err = capsys.readouterr()
    EVIDENCE.channel("output of render").extend((out + err).encode())
    return code, list(yaml.safe_load_all(out)), err


def test_the_rendered_secret_in_readable_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obj = config_object()
    obj["spec"]["inference"]["extraHeaders"] = {"X-Key": EVIDENCE.new_key()}
    code, (secret,), err = run(capsys, "-f", file(tmp_path, "c.yaml", {"kind": "Namespace"}, obj))
    assert (code, err) == (0, "")
    assert secret["metadata"]["name"] == naming.rendered_secret("team")
    assert secret["stringData"]["api-key"] == MASK
    config = yaml.safe_load(secret["stringData"]["config.v1.yaml"])
    assert config["inference"]["default_model"] == "gpt-4o"
    assert config["inference"]["extra_headers"] == {"X-Key": MASK}


def test_the_pod_of_a_workload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = pod_object(app={"envFrom": [{"configMapRef": {"name": "x"}}]})
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]}
    workloads = {
        "Deployment": {"template": template},
        "CronJob": {"jobTemplate": {"spec": {"template": template}}},
    }
    for kind, spec in workloads.items():
        workload = {"kind": kind, "metadata": {"name": "web", "namespace": "shop"}, "spec": spec}
        code, (_, made), err = run(
            capsys,
            "-f",
            file(tmp_path, "c.yaml", config_object()),
            "--pod",
            file(tmp_path, "w.yaml", workload),
        )
        assert code == 0
        assert made["kind"] == "Pod"
        assert made["spec"]["initContainers"][0]["name"] == naming.CONTAINER
        assert err.startswith("warning: container app has envFrom")


def test_a_pod_is_as_in_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart = file(tmp_path, "d.yaml", {"image": "r.example/sidecar:7"})
    config, pod = file(tmp_path, "c.yaml", config_object()), file(tmp_path, "p.yaml", pod_object())
    code, (_, made), _ = run(capsys, "-f", config, "--pod", pod, "--defaults", chart)
    assert code == 0
    assert made["spec"]["initContainers"][0]["image"] == "r.example/sidecar:7"


def test_a_pod_that_does_not_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = pod_object()
    del pod["metadata"]["labels"][naming.INJECT_LABEL]
    arguments = ("-f", file(tmp_path, "c.yaml", config_object()), "--pod", file(tmp_path, "p.yaml", pod))
    code, (_, made), err = run(capsys, *arguments)
    assert (code, made) == (0, pod)
    assert err.startswith("left as it is (NotOptedIn)")
    _, (_, made), err = run(capsys, *arguments, "--namespace-opted-in")
    assert "initContainers" in made["spec"]
    assert err == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"hostNetwork": True}, "HostNetwork"), ({"labels": {"app": "other"}}, "NoConfig")],
)
def test_a_pod_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], reason: str
) -> None:
    pod = file(tmp_path, "p.yaml", pod_object(**change))
    code, printed, err = run(capsys, "-f", file(tmp_path, "c.yaml", config_object()), "--pod", pod)
    assert (code, printed) == (1, [])
    assert err.startswith(f"refused ({reason}): ")


def test_a_pod_of_another_namespace_finds_no_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pod = pod_object()
    pod["metadata"]["namespace"] = "other"
    code, _, err = run(
        capsys, "-f", file(tmp_path, "c.yaml", config_object()), "--pod", file(tmp_path, "p.yaml", pod)
    )
    assert code == 1
    assert "no InferenceConfig in namespace other" in err


def test_dates_are_texts_and_a_bare_off_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is read as kubectl reads it."""
    path = tmp_path / "c.yaml"
    head = "kind: InferenceConfig\nmetadata: {name: team, creationTimestamp: 2026-01-01T00:00:00Z}\n"
    path.write_text(head + "spec: {inference: {provider: echo, apiVersion: 2024-10-21}}\n")
    code, (secret,), _ = run(capsys, "-f", str(path))
    assert code == 0
    assert "2024-10-21" in secret["stringData"]["config.v1.yaml"]
    path.write_text(head + "spec: {inference: {provider: echo, validation: off}}\n")
    code, _, err = run(capsys, "-f", str(path))
    assert code == 2
    assert "spec.inference.validation: found false; valid: one of strict, off" in err


def test_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = config_object()
    unknown["spec"]["inference"]["defaultModell"] = "x"
    spoilt = tmp_path / "spoilt.yaml"
    spoilt.write_text("a: [")
    good = file(tmp_path, "good.yaml", config_object())
    for arguments, words in (
        (("-f", str(tmp_path / "absent.yaml")), "absent.yaml: no such file or directory"),
        (("-f", str(spoilt)), "spoilt.yaml: no valid YAML"),
        (("-f", file(tmp_path, "a.yaml", {"kind": "Secret"})), "a.yaml: no InferenceConfig in it"),
        (("-f", file(tmp_path, "b.yaml", unknown)), "b.yaml: spec.inference.defaultModell: an unknown field"),
        (
            ("-f", file(tmp_path, "e.yaml", config_object(inference={}))),
            "e.yaml: spec.inference: apiKeySecretRef is needed",
        ),
        (("-f", good, "--pod", good), "good.yaml: no Pod and no pod template in it"),
        (
            ("-f", good, "--pod", good, "--defaults", file(tmp_path, "d.yaml", {"imag": "x"})),
            "d.yaml: imag: an unknown field",
        ),
    ):
        code, printed, err = run(capsys, *arguments)
        assert (code, printed) == (2, []), words
        assert words in err
        assert "Traceback" not in err


def test_it_is_a_program() -> None:
    """And a quick one: neither kopf nor a Kubernetes client is loaded for it."""
    script = "import sys; from inference_operator.__main__ import command; command(['crd']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "'kopf'" not in done.stderr
    assert "'kubernetes'" not in done.stderr
    said = subprocess.run(
        [sys.executable, "-m", "inference_operator", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout == f"inference-operator {__version__}\n"
