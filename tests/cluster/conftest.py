"""The cluster of a test session: one of ours, or the one whose kubeconfig CLUSTER_KUBECONFIG names.

Settings: CLUSTER_KUBECONFIG (a path), and for such a cluster CLUSTER_LOAD_IMAGE (a command that takes an archive
of images, for example `kind load image-archive`). Without them a cluster is started and removed here.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import images
from cluster.harness.api import Access, Api
from cluster.harness.definition import defined
from cluster.harness.place import Place
from cluster.harness.proxy import Proxy
from cluster.kube import build, start
from cluster.kube.cluster import Cluster, existing
from cluster.release import RESTRICTED, Release
from cluster.stage import Note, Stage
from harness.admin import Admins
from harness.container import lacking as lacking_for_images
from inference_config.names import GROUP
from inference_operator.naming import PLURAL

KUBECONFIG = "CLUSTER_KUBECONFIG"
TIMINGS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TIMINGS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Timings are of interest when all is well, too."""
    if config.stash[TIMINGS]:
        terminalreporter.section("timings on the cluster")
        for line in config.stash[TIMINGS]:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Note:
    """`note("what: 1.2 s")`: a line of the summary at the end."""
    return pytestconfig.stash[TIMINGS].append


def unmet(reason: str | None) -> None:
    """Ends the test where something is missing: as a failure where nothing may be missing."""
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, note: Note) -> Iterator[Cluster]:
    if own := os.environ.get(KUBECONFIG):
        absent = [tool for tool in start.TOOLS if shutil.which(tool) is None]
        unmet(f"missing beside a cluster of one's own: {', '.join(absent)}" if absent else None)
        yield existing(Path(own), tmp_path_factory.mktemp("tools"))
        return
    unmet(build.lacking())
    with start.running() as started:
        yield started
    for what, seconds in started.timings.items():
        note(f"cluster: {what}: {seconds:.1f} s")


@pytest.fixture(scope="session")
def load_image(cluster: Cluster, note: Note) -> Callable[[images.Recipe], str]:
    """`load_image(recipe)`: the tag of an image that is built from this tree and known to the node."""
    unmet(lacking_for_images())

    def load(recipe: images.Recipe) -> str:
        began = time.monotonic()
        archive = images.built(recipe)
        built = time.monotonic()
        cluster.load_image(archive.file)
        size = archive.file.stat().st_size >> 20
        note(
            f"{archive.tag}, {size} MiB: built {built - began:.1f} s, loaded {time.monotonic() - built:.1f} s"
        )
        return archive.tag

    return load


@pytest.fixture(scope="session")
def sidecar_image(load_image: Callable[[images.Recipe], str]) -> str:
    """The tag of the sidecar's image. There is a Python in it."""
    return load_image(images.SIDECAR)


@pytest.fixture(scope="session")
def operator_image(load_image: Callable[[images.Recipe], str]) -> str:
    """The tag of the image of operator and injector."""
    return load_image(images.OPERATOR)


@pytest.fixture(scope="session")
def apps_image(load_image: Callable[[images.Recipe], str]) -> str:
    """The tag of the image with the scripted upstream and the app."""
    return load_image(images.APPS)


@pytest.fixture(scope="session")
def system(cluster: Cluster) -> Iterator[str]:
    """The namespace that releases are installed into. What uninstalling leaves by intention goes with it."""
    with cluster.namespace("inference-system", labels=RESTRICTED) as name:
        yield name
        cluster.kubectl("delete", "crd", f"{PLURAL}.{GROUP}", "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def release(cluster: Cluster, system: str, sidecar_image: str, operator_image: str) -> Iterator[Release]:
    """The chart, not installed yet. Gone after the module."""
    made = Release(cluster, system, sidecar_image, operator_image)
    yield made
    made.uninstall()


@pytest.fixture
def stage(cluster: Cluster, apps_image: str, note: Note) -> Iterator[Stage]:
    """A namespace of its own, as strict as they come."""
    with cluster.namespace("story", labels=RESTRICTED) as name:
        yield Stage(cluster, name, apps_image, note)


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[Api]:
    """The API server by plain HTTP, as the cluster's owner."""
    calls = Api(Access.of(cluster.kubeconfig))
    yield calls
    calls.close()


@pytest.fixture(scope="module")
def definition(api: Api) -> Iterator[None]:
    """InferenceConfigs can be made."""
    with defined(api):
        yield


@pytest.fixture
def place(cluster: Cluster, api: Api, definition: None) -> Iterator[Place]:
    """A namespace of the test's own."""
    with cluster.namespace("place") as name:
        yield Place(api, name)


@pytest.fixture
def proxy(api: Api) -> Iterator[Proxy]:
    """What an operator of the test's own takes for the API server."""
    with Proxy(api.access) as running:
        yield running


@pytest.fixture
def admins() -> Iterator[Admins]:
    """Answers to /status of pods that are objects only."""
    with Admins() as running:
        yield running
