"""The CustomResourceDefinition, there for as long as a file of tests needs it, unless somebody else brought it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from cluster.harness.api import Api
from inference_operator import crd
from inference_operator.cluster import CONFIGS, Resource

DEFINITIONS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")


@contextlib.contextmanager
def defined(api: Api) -> Iterator[None]:
    definition = crd.definition()
    name = definition["metadata"]["name"]
    if api.find(DEFINITIONS, None, name) is not None:
        yield
        return
    api.create(DEFINITIONS, None, definition)
    try:
        _until_served(api, name)
        yield
    finally:
        api.delete(DEFINITIONS, None, name)
        deadline = time.monotonic() + 60
        while api.find(DEFINITIONS, None, name) is not None:
            assert time.monotonic() < deadline, "the definition does not go"
            time.sleep(0.1)


def _until_served(api: Api, name: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        told = api.get(DEFINITIONS, None, name)["status"].get("conditions") or []
        if any(one["type"] == "Established" and one["status"] == "True" for one in told):
            with contextlib.suppress(AssertionError):
                api.items(CONFIGS, "default")
                return
        assert time.monotonic() < deadline, "the definition is not served"
        time.sleep(0.1)
