"""The image of operator and injector, built and run: what it says of itself, what is not in it, that its commands work
confined, and that it serves the webhook.

Tested: a read-only root, a user that nobody knows, no capability, a network of nothing but a loopback; the clean end.
Left out: what a sidecar's image has in common with it (test_container), a cluster.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.container import Container, Image, runtime_spec
from harness.pods import config_object, pod_object
from harness.webhook import kubeconfig, review
from inference_config import __version__
from inference_operator import certs, crd, naming

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

STRANGER = (12345, 23456)
SERVICE = "injector.system.svc"
MIB = 1024 * 1024


def command(image: Image, folder: Path, *arguments: str, mounts: dict[str, Path] | None = None) -> str:
    """What a command of the image prints, run as a stranger to its end."""
    bundle = folder / "bundle"
    bundle.mkdir()
    name = f"operator-{folder.name}"
    spec = runtime_spec(_with(image, *arguments), name, STRANGER, {}, mounts or {})
    (bundle / "config.json").write_text(json.dumps(spec))
    done = subprocess.run(
        ["runc", "--root", str(folder / "state"), "run", "--bundle", str(bundle), name],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _with(image: Image, *arguments: str) -> Image:
    return dataclasses.replace(image, config={**image.config, "Cmd": list(arguments)})


class Serving(Container):
    """A webhook, with the authority that its callers trust."""

    ca_file: Path

    def ask(self, pod: dict[str, Any]) -> dict[str, Any]:
        """The response to a review."""
        answer = self.curl(
            f"https://{SERVICE}:8443/inject", "--resolve", f"{SERVICE}:8443:127.0.0.1",
            "--cacert", str(self.ca_file), "-d", json.dumps(review(pod)),
        )  # fmt: skip
        response: dict[str, Any] = json.loads(answer)["response"]
        return response


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder that every user may read, as kubelet's are."""
    folder = tmp_path / "files"
    folder.mkdir(mode=0o755)
    return folder


def test_it_says_its_version(operator_image: Image, tmp_path: Path) -> None:
    assert command(operator_image, tmp_path, "--version") == f"inference-operator {__version__}\n"


def test_it_renders(operator_image: Image, tmp_path: Path, files: Path) -> None:
    (files / "config.yaml").write_text(yaml.safe_dump(config_object()))
    (files / "pod.yaml").write_text(yaml.safe_dump(pod_object()))
    options = ("-f", "/files/config.yaml", "--pod", "/files/pod.yaml")
    printed = command(operator_image, tmp_path, "render", *options, mounts={"/files": files})
    secret, pod = yaml.safe_load_all(printed)
    assert secret["metadata"]["name"] == naming.rendered_secret("team")
    assert pod["spec"]["initContainers"][0]["name"] == naming.CONTAINER


def test_its_crd_is_the_one_of_this_tree(operator_image: Image, tmp_path: Path) -> None:
    assert yaml.safe_load(command(operator_image, tmp_path, "crd")) == crd.definition()


@pytest.fixture(scope="module")
def webhook(operator_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """With a certificate of files, and an API server that nobody reaches from within."""
    folder = tmp_path_factory.mktemp("webhook")
    mounted = folder / "files"
    mounted.mkdir(mode=0o755)
    now = datetime.datetime.now(datetime.UTC)
    authority = certs.issue_authority(now)
    leaf = certs.issue_leaf(authority, [SERVICE], now)
    (mounted / "tls.crt").write_bytes(leaf.certificate)
    (mounted / "tls.key").write_bytes(leaf.key)
    (mounted / "kubeconfig").write_text(json.dumps(kubeconfig(port=1)))
    (folder / "ca.crt").write_bytes(authority.certificate)
    image = _with(
        operator_image, "webhook", "--tls-cert", "/files/tls.crt", "--tls-key", "/files/tls.key",
        "--drain-secs", "0.1",
    )  # fmt: skip
    environ = {"KUBECONFIG": "/files/kubeconfig"}
    container = Serving(image, folder, user=STRANGER, environ=environ, mounts={"/files": mounted})
    container.ca_file = folder / "ca.crt"
    yield container
    assert container.stop() == 0, container.output
    assert not any("Traceback" in line for line in container.output)


def test_it_serves_the_webhook(webhook: Serving) -> None:
    response = webhook.ask(pod_object(labels={naming.INJECT_LABEL: "false"}))
    assert response == {"uid": "uid-1", "allowed": True}
    status = webhook.ask(pod_object())["status"]
    assert (status["code"], status["reason"]) == (503, "ServiceUnavailable")


def test_it_tells_of_its_health(webhook: Serving) -> None:
    for path in ("livez", "readyz"):
        assert webhook.curl(f"http://127.0.0.1:8081/{path}") == "ok\n"
    assert "inference_operator_build_info" in webhook.curl("http://127.0.0.1:8081/metrics")


def test_it_runs_as_the_stranger_without_any_privilege(webhook: Serving) -> None:
    status = webhook.status()
    assert status["Uid"].split() == [str(STRANGER[0])] * 4
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_what_the_image_says_of_itself(operator_image: Image) -> None:
    config = operator_image.config
    assert config["Entrypoint"] == ["inference-operator"]
    assert config["Cmd"] == ["run"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert set(config["ExposedPorts"]) == {"8081/tcp", "8443/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    environ = dict(entry.split("=", 1) for entry in config["Env"])
    assert set(environ) == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def test_nothing_in_it_builds_or_fetches_or_is_the_sidecars(operator_image: Image) -> None:
    unwanted = re.compile(
        r"^(pip[\d.]*|pip-.*(dist-info|whl)|_?ensurepip|setuptools(-.*)?|hatch.*|(g?cc|[gc]\+\+|clang)(-[\d.]+)?"
        r"|inference_sidecar|inference-sidecar)$"
    )
    found = [
        str(path.relative_to(operator_image.rootfs))
        for path in operator_image.rootfs.rglob("*")
        if unwanted.match(path.name)
        and not {"proc", "sys", "dev", "doc", "dpkg"} & set(path.parts)
        and path.parent.name != "share"
    ]
    assert found == []
    (library,) = (operator_image.rootfs / "opt/inference-operator/lib").iterdir()
    programs = [path.name for path in (operator_image.rootfs / "opt/inference-operator/bin").iterdir()]
    assert sorted(programs) == sorted(["inference-operator", "python", "python3", library.name])


def test_every_module_that_is_used_is_compiled(operator_image: Image) -> None:
    """All but models and APIs of the Kubernetes client, of which nothing is loaded."""
    library = operator_image.rootfs / "opt/inference-operator/lib"
    left_out = re.compile(r"/kubernetes/(aio/)?client/(models|api)/(?!__init__)")
    sources = [path for path in library.rglob("*.py") if not left_out.search(str(path))]
    assert len(sources) > 500
    assert [path for path in sources if not list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc"))] == []


def test_it_stays_small(operator_image: Image) -> None:
    """What it adds to its base, as it lies on a disk; half of that is the Kubernetes client's source."""
    paths = (operator_image.rootfs / "opt/inference-operator").rglob("*")
    size = sum(path.lstat().st_size for path in paths)
    assert size < 160 * MIB, f"{size / MIB:.1f} MiB"
