"""The images under test, each built once a session, and containers of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.container import REPOSITORY, Container, Image, Store, lacking


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    if reason := lacking():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    opened = Store(REPOSITORY / ".cache" / "images")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def image(store: Store) -> Iterator[Image]:
    with built(store, "Dockerfile.sidecar", "localhost/inference-sidecar:test") as made:
        yield made


@pytest.fixture(scope="session")
def operator_image(store: Store) -> Iterator[Image]:
    with built(store, "Dockerfile.operator", "localhost/inference-operator:test") as made:
        yield made


@contextmanager
def built(store: Store, dockerfile: str, tag: str) -> Iterator[Image]:
    store.build(dockerfile, tag)
    with store.mounted(tag) as rootfs:
        yield Image(tag, store.config(tag), rootfs)


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
