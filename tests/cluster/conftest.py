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

from cluster.kube import build, start
from cluster.kube.cluster import Cluster, existing
from harness.container import REPOSITORY, Store, run
from harness.container import lacking as lacking_for_images

KUBECONFIG = "CLUSTER_KUBECONFIG"
TIMINGS = pytest.StashKey[list[str]]()

Note = Callable[[str], None]
"""What the fixture `note` is."""


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
def sidecar_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, note: Note) -> str:
    """The tag of the sidecar's image, built from this tree and known to the node. There is a Python in it."""
    unmet(lacking_for_images())
    tag = "localhost/inference-sidecar:test"
    archive = tmp_path_factory.mktemp("images") / "sidecar.tar"
    store = Store(REPOSITORY / ".cache" / "images")
    try:
        store.build("Dockerfile.sidecar", tag)
        run(*store.buildah, "push", tag, f"docker-archive:{archive}:{tag}")
    finally:
        store.close()
    began = time.monotonic()
    cluster.load_image(archive)
    note(f"image of {archive.stat().st_size >> 20} MiB loaded: {time.monotonic() - began:.1f} s")
    archive.unlink()
    return tag
