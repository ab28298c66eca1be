"""The image under test, built once a session, and containers of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.container import REPOSITORY, Container, Image, Store, lacking


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    if reason := lacking():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    store = Store(REPOSITORY / ".cache" / "images")
    tag = "localhost/inference-sidecar:test"
    store.build("Dockerfile.sidecar", tag)
    try:
        with store.mounted(tag) as rootfs:
            yield Image(tag, store.config(tag), rootfs)
    finally:
        store.close()


@pytest.fixture(scope="module")
def contain(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Container]]:
    """`contain(user=..., environ=..., mounts=...)`: a container that ends with the module at the latest."""
    running: list[Container] = []
    numbers = itertools.count(1)

    def begin(**settings: Any) -> Container:
        folder = tmp_path_factory.mktemp(f"container{next(numbers)}")
        running.append(Container(image, folder, **settings))
        return running[-1]

    yield begin
    codes = [container.stop() for container in running]
    assert codes == [0] * len(running), [container.output[-20:] for container in running]
