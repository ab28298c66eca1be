"""The chart, rendered by a real Helm: the one that the tests of the cluster use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from chart.release import Release, rendered
from cluster.kube import build

Render = Callable[..., Release]
"""What the fixture `render` is: `render("everything", "webhook.port=9")`."""


@pytest.fixture(scope="session")
def helm() -> Path:
    """Built from its modules where it is not there yet. Without Go a contributor goes without."""
    if shutil.which("go") is None:
        reason = "missing: Go 1.26 or newer, from which Helm is built"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return build.programs("helm")["helm"]


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """`render(variant, *sets)`: the release with one of `values/`, and with single values changed."""

    @cache
    def one(variant: str = "default", *sets: str) -> Release:
        return rendered(helm, variant, *sets)

    return one
