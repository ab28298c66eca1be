"""The samples under deploy/, read the way Docker Compose and kubelet read them, and started for real.

Tested: the files parse and name what exists; the configuration that each gives a sidecar is the one it is meant
to be; the very command, environment and mounted files of each serve the API in front of a scripted upstream,
with the sample's key. Left out: engines and clusters themselves (tests/image has the container).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import answers
from harness.client import call
from harness.evidence import EVIDENCE
from harness.process import chat_body, clean_environment
from harness.upstream import SCENARIO, ScriptedUpstream
from inference_config import __version__
from inference_config.load import load
from inference_config.schema import Config

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "deploy" / "compose" / "docker-compose.yml"
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
POD_IP = "127.0.0.1"
"""Stands for the pod's address; kubelet puts in the real one."""


def service() -> dict[str, Any]:
    (found,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    return dict(found)


def compose_environment(key: str) -> dict[str, str]:
    entries = [entry.replace("${OPENAI_API_KEY}", key) for entry in service()["environment"]]
    return dict(entry.split("=", 1) for entry in entries)


def objects() -> dict[str, dict[str, Any]]:
    """Every object of the sample by its kind."""
    found = [
        one for file in sorted(KUBERNETES.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())
    ]
    return {one["kind"]: one for one in found}


def pod() -> dict[str, Any]:
    return dict(objects()["Deployment"]["spec"]["template"]["spec"])


def beside() -> dict[str, Any]:
    (found,) = pod()["initContainers"]
    return dict(found)


def volumes(folder: Path, key: str) -> dict[str, Path]:
    """The pod's volumes as kubelet lays them out, by name; `key` in place of the sample's."""
    config, secret = objects()["ConfigMap"], objects()["Secret"]
    laid = {}
    for volume in pod()["volumes"]:
        laid[volume["name"]] = folder / volume["name"]
        laid[volume["name"]].mkdir()
        if "configMap" in volume:
            assert volume["configMap"]["name"] == config["metadata"]["name"]
            files = config["data"]
        else:
            assert volume["secret"]["secretName"] == secret["metadata"]["name"]
            assert {item["key"] for item in volume["secret"]["items"]} == set(secret["stringData"])
            files = {item["path"]: key for item in volume["secret"]["items"]}
        for name, content in files.items():
            (laid[volume["name"]] / name).write_text(content)
    return laid


def sidecar_environment(laid: Mapping[str, Path]) -> dict[str, str]:
    """The container's variables, with paths of its mounts as they are here."""
    environ = {}
    for variable in beside()["env"]:
        value = variable.get("value", POD_IP)
        for mount in beside()["volumeMounts"]:
            value = value.replace(mount["mountPath"], str(laid[mount["name"]]))
        environ[variable["name"]] = value
    return environ


@contextmanager
def running(arguments: list[str], environ: Mapping[str, str], folder: Path) -> Iterator[tuple[int, int]]:
    """The sidecar as the image starts it, but on free ports: that of the API, that of the admin."""
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_sidecar", *arguments, "--port", "0", "--admin-port", "0"],
        cwd=folder,
        env={**clean_environment(), **environ, "INFERENCE_INFERENCE_HEALTH_CHECK_INTERVAL_SECS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = EVIDENCE.channel("output of a sample")
    try:
        for raw in process.stdout:
            output.extend(raw)
            if b'"listening"' in raw:
                ready = json.loads(raw)
                break
        else:
            pytest.fail(f"did not begin to listen:\n{output.decode()}")
        yield tuple(int(where.rpartition(":")[2]) for where in (ready["api"][0], ready["admin"]))
    finally:
        process.send_signal(signal.SIGTERM)
        output.extend(process.communicate(timeout=30)[0])
    assert process.returncode == 0, output.decode()


def serves(upstream: ScriptedUpstream, ports: tuple[int, int], key: str) -> dict[str, Any]:
    """Asserts that it lives, and that a request without a model goes up with the key. The body that went up."""
    api, admin = ports
    assert call(admin, "GET", "/livez").status == 200
    assert call(admin, "GET", "/readyz").status == 200
    scenario = upstream.plan([answers.json_answer(answers.completion())])
    answer = call(api, "POST", "/v1/chat/completions", chat_body(model=None), {SCENARIO: scenario})
    assert answer.status == 200, answer
    exchange = upstream.only(scenario)
    assert exchange.header("authorization") == f"Bearer {key}"
    return dict(exchange.json)


class TestCompose:
    def test_what_it_builds_exists(self) -> None:
        build = service()["build"]
        assert (COMPOSE.parent / build["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / build["dockerfile"]).is_file()

    def test_its_port_is_on_loopback_alone(self) -> None:
        assert service()["ports"] == ["127.0.0.1:3000:3000"]

    def test_its_configuration(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        loaded = load(None, compose_environment("sk-sample"))
        assert loaded.warnings == ()
        assert loaded.file is None
        assert loaded.config.inference.provider == "openai"
        assert loaded.config.inference.default_model == "gpt-3.5-turbo"
        assert loaded.config.server.host == "0.0.0.0"

    def test_it_serves(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        key = EVIDENCE.new_key()
        environ = {**compose_environment(key), "INFERENCE_INFERENCE_BASE_URL": f"{upstream.url}/v1"}
        with running(["run"], environ, tmp_path) as ports:
            assert serves(upstream, ports, key)["model"] == "gpt-3.5-turbo"

    def test_it_stops_later_than_the_sidecar_drains(self) -> None:
        assert seconds(service()["stop_grace_period"]) > Config().server.drain_timeout_secs

    def test_its_health_check_asks_the_admin_port(self) -> None:
        kind, *command = service()["healthcheck"]["test"]
        assert kind == "CMD"
        assert f"http://127.0.0.1:{Config().server.admin_port}/livez" in command[-1]


class TestKubernetes:
    def test_its_configuration(self, tmp_path: Path) -> None:
        laid = volumes(tmp_path, "sk-sample")
        environ = sidecar_environment(laid)
        file = laid["config"] / f"{environ['RUN_ENV']}.yaml"
        loaded = load(file, environ, {"server.admin_host": POD_IP})
        assert loaded.warnings == ()
        inference = loaded.config.inference
        assert (inference.provider, inference.default_model) == ("openai", "gpt-4")
        assert (inference.http.timeout_secs, inference.http.max_idle_connections) == (60, 20)
        assert inference.api_key_file == str(laid["key"] / "api-key")
        assert loaded.config.server.host is None

    def test_it_serves(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        key = EVIDENCE.new_key()
        laid = volumes(tmp_path, key)
        assert mount_of("config") == workdir() / "config"
        environ = {**sidecar_environment(laid), "INFERENCE_INFERENCE_BASE_URL": f"{upstream.url}/v1"}
        arguments = [argument.replace("$(POD_IP)", POD_IP) for argument in beside()["args"]]
        with running(arguments, environ, laid["config"].parent) as ports:
            assert serves(upstream, ports, key)["model"] == "gpt-4"

    def test_the_api_stays_on_loopback_and_probes_reach_the_pods_address(self) -> None:
        assert beside()["args"] == ["run", "--admin-host", "$(POD_IP)"]
        assert [port["containerPort"] for port in beside()["ports"]] == [Config().server.admin_port]
        probes = {name: probe for name, probe in beside().items() if name.endswith("Probe")}
        # A native sidecar's readiness would count for the pod's: a draining one would take the app out too.
        assert set(probes) == {"startupProbe", "livenessProbe"}
        assert {probe["httpGet"]["port"] for probe in probes.values()} == {"admin"}
        assert {probe["httpGet"]["path"] for probe in probes.values()} == {"/livez", "/readyz"}

    def test_it_is_the_image_of_this_version_and_outlives_the_app(self) -> None:
        assert beside()["image"] == f"inference-sidecar:{__version__}"
        assert beside()["restartPolicy"] == "Always"
        assert pod()["terminationGracePeriodSeconds"] > Config().server.drain_timeout_secs

    def test_every_container_is_restricted(self) -> None:
        assert pod()["securityContext"]["runAsNonRoot"] is True
        assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod()["automountServiceAccountToken"] is False
        for container in [*pod()["initContainers"], *pod()["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}

    def test_only_the_sidecar_has_the_key(self) -> None:
        (app,) = pod()["containers"]
        assert not app.get("volumeMounts")
        assert all("valueFrom" not in variable for variable in app["env"])

    def test_mounts_are_whole_folders(self) -> None:
        """A subPath would never see new content."""
        assert all("subPath" not in mount for mount in beside()["volumeMounts"])


def mount_of(volume: str) -> Path:
    (found,) = [Path(one["mountPath"]) for one in beside()["volumeMounts"] if one["name"] == volume]
    return found


def workdir() -> Path:
    """Where the image starts the sidecar, which looks for its configuration in ./config."""
    dockerfile = (REPOSITORY / "Dockerfile.sidecar").read_text()
    return Path(re.findall(r"^WORKDIR (\S+)$", dockerfile, re.MULTILINE)[-1])


def seconds(text: str) -> int:
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def test_scripts_can_be_executed() -> None:
    scripts = [*(REPOSITORY / "deploy" / "image").iterdir(), *(REPOSITORY / ".ci").iterdir()]
    assert len(scripts) >= 4
    assert all(os.access(script, os.X_OK) for script in scripts)
