"""The sidecar's image, built and run: what it says of itself, what is not in it, and that it serves confined.

Tested: a build on plain Debian, the answers of a container with a read-only root, a user that nobody knows, no
capability and a network of its own; a mounted config; the clean end. Left out: a base that is an official
Python image (no registry is asked here), and limits of memory and processor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.container import Container, Image, run
from inference_config import __version__

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

STRANGER = (12345, 23456)
API = "http://127.0.0.1:3000"
ADMIN = "http://127.0.0.1:3001"
MIB = 1024 * 1024
COMPILE = Path(__file__).parents[2] / "deploy" / "image" / "compile"


@pytest.fixture(scope="module")
def confined(contain: Callable[..., Container], tmp_path_factory: pytest.TempPathFactory) -> Container:
    """The image as a stranger's process, configured by a mounted folder."""
    config = tmp_path_factory.mktemp("config")
    (config / "production.yaml").write_text("inference: {provider: echo, default_model: mounted-model}\n")
    config.chmod(0o755)  # pytest's folders are its own user's alone; kubelet's are not
    return contain(user=STRANGER, environ={"RUN_ENV": "production"}, mounts={"/app/config": config})


def chat(container: Container, **fields: object) -> str:
    body = {"messages": [{"role": "user", "content": "Hello!"}], **fields}
    return container.curl(
        f"{API}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)
    )


def test_it_answers_with_the_mounted_config(confined: Container) -> None:
    answer = json.loads(chat(confined))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "mounted-model"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["total_tokens"] > 0


def test_it_streams(confined: Container) -> None:
    events = [line for line in chat(confined, stream=True).splitlines() if line]
    assert all(line.startswith("data: ") for line in events)
    assert json.loads(events[0].removeprefix("data: "))["object"] == "chat.completion.chunk"
    assert events[-1] == "data: [DONE]"


def test_both_loopbacks_and_the_admin_port_answer(confined: Container) -> None:
    assert json.loads(confined.curl("http://[::1]:3000/health"))["status"] == "ok"
    assert confined.curl("-o", "/dev/null", "-w", "%{http_code}", f"{ADMIN}/readyz") == "200"


def test_it_runs_as_the_stranger_without_any_privilege(confined: Container) -> None:
    status = confined.status()
    assert status["Uid"].split() == [str(STRANGER[0])] * 4
    assert status["Gid"].split() == [str(STRANGER[1])] * 4
    assert status["Groups"] == ""
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_nothing_can_be_written(confined: Container) -> None:
    attempt = (
        "import errno, sys\n"
        "for folder in sys.argv[1:]:\n"
        "    try:\n"
        "        open(folder + '/written', 'w')\n"
        "        print(folder, 'was written')\n"
        "    except OSError as error:\n"
        "        print(folder, errno.errorcode[error.errno])\n"
    )
    folders = ["/", "/app", "/tmp", "/app/config", "/opt/inference-sidecar", "/var/tmp"]
    outcome = confined.execute("python", "-c", attempt, *folders).splitlines()
    assert outcome == [f"{folder} EROFS" for folder in folders]


def test_its_network_holds_nothing_but_a_loopback(confined: Container) -> None:
    interfaces = Path(f"/proc/{confined.pid}/net/dev").read_text()
    assert re.findall(r"^ *(\w+):", interfaces, re.MULTILINE) == ["lo"]


def test_it_ends_cleanly_as_its_own_user(contain: Callable[..., Container]) -> None:
    container = contain(environ={"INFERENCE_INFERENCE_PROVIDER": "echo"})
    assert container.status()["Uid"].split()[0] == "65532"
    assert json.loads(chat(container, model="gpt-4"))["model"] == "gpt-4"
    assert container.stop() == 0, container.output
    assert not any("Traceback" in line for line in container.output)


def test_what_the_image_says_of_itself(image: Image) -> None:
    assert image.config["Entrypoint"] == ["inference-sidecar"]
    assert image.config["Cmd"] == ["run"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.config["User"])
    assert set(image.config["ExposedPorts"]) == {"3000/tcp", "3001/tcp"}
    assert image.config["StopSignal"] == "SIGTERM"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == __version__


def test_nothing_in_it_builds_or_fetches(image: Image) -> None:
    """No pip, no compiler, no client of Kubernetes, under whatever name a package gives them."""
    unwanted = re.compile(
        r"^(pip[\d.]*|pip-.*(dist-info|whl)|_?ensurepip|setuptools.*|hatch.*|(g?cc|[gc]\+\+|clang)(-[\d.]+)?"
        r"|kopf.*|kubernetes.*|inference_operator|inference-operator)$"
    )
    ignored = {"proc", "sys", "dev", "doc"}
    found = [
        str(path.relative_to(image.rootfs))
        for path in walk(image.rootfs, ignored)
        if unwanted.match(path.name) and "dpkg" not in path.parts and path.parent.name != "share"
    ]
    assert found == []
    assert sorted(path.name for path in (image.rootfs / "opt/inference-sidecar/bin").iterdir()) == sorted(
        ["inference-sidecar", "python", "python3", f"python3.{minor(image)}"]
    )


def test_what_every_request_passes_is_machine_code(confined: Container, image: Image) -> None:
    modules = run(str(COMPILE), "--modules").split()
    (packages,) = (image.rootfs / "opt/inference-sidecar/lib").glob("python3*/site-packages")
    sources = [one for one in modules if not list(packages.glob(f"{one.removesuffix('.py')}.cpython-*.so"))]
    assert modules
    assert sources == []
    told = confined.execute("python", "-c", "import inference_sidecar.relay as one; print(one.__file__)")
    assert told.strip().endswith(".so")


def test_every_module_has_bytecode(image: Image) -> None:
    library = image.rootfs / "opt/inference-sidecar/lib"
    sources = [path for path in library.rglob("*.py") if path.parent.name != "__pycache__"]
    assert len(sources) > 100
    uncompiled = [
        path for path in sources if not list(path.parent.glob(f"__pycache__/{path.stem}.*.opt-2.pyc"))
    ]
    assert uncompiled == []


def test_settings_of_the_build_are_not_in_it(image: Image) -> None:
    environ = dict(entry.split("=", 1) for entry in image.config["Env"])
    assert set(environ) == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "PYTHONUNBUFFERED"}
    secrets = image.rootfs / "run/secrets"
    assert not secrets.exists() or not list(secrets.iterdir())
    assert not (image.rootfs / "etc/pip.conf").exists()


def test_it_stays_small(image: Image) -> None:
    """What the sidecar adds to its base, as it lies on a disk."""
    size = sum(path.lstat().st_size for path in walk(image.rootfs / "opt/inference-sidecar", set()))
    assert size < 48 * MIB, f"{size / MIB:.1f} MiB"


def test_the_python_it_runs_is_the_base_images_own(image: Image) -> None:
    target = run("readlink", str(image.rootfs / "opt/inference-sidecar/bin/python3")).strip()
    assert (image.rootfs / target.lstrip("/")).exists()


def minor(image: Image) -> str:
    (folder,) = (image.rootfs / "opt/inference-sidecar/lib").iterdir()
    return folder.name.removeprefix("python3.")


def walk(folder: Path, ignored: set[str]) -> list[Path]:
    """Every path below `folder`, links not followed, folders called by an ignored name left out."""
    found: list[Path] = []
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name not in ignored:
                found += [path, *walk(path, ignored)]
        else:
            found.append(path)
    return found
