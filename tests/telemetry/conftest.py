"""What the tests of telemetry share: the real programs, built from their modules where they are not there yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.kube import build

Program = Callable[[str], Path]
"""What the fixture `program` is: `program("promtool")`."""

RECIPES = {"prometheus": "prometheus", "promtool": "prometheus", "collector": "collector", "helm": "helm"}


@pytest.fixture(scope="session")
def program() -> Program:
    """Path of a program by its name. Without Go a contributor goes without."""

    def find(name: str) -> Path:
        if shutil.which("go") is None:
            reason = f"missing: Go 1.26 or newer, from which {name} is built"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return build.programs(RECIPES[name])[name]

    return find
