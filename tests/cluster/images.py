"""The images that pods are made of here: built from this tree by the scripts that people use, named by their content.

Enters: a Dockerfile. Leaves: an archive that a node can take, and the tag that pods name it by. Another content has
another tag: so a release is rolled exactly when an image of its has changed. Archives are kept between runs.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.container import REPOSITORY, Store, run


@dataclass(frozen=True)
class Recipe:
    """What an image is made from, and its name without a tag."""

    dockerfile: str
    name: str


@dataclass(frozen=True)
class Archive:
    """`file` holds one image, under `tag`."""

    tag: str
    file: Path


SIDECAR: Final = Recipe("Dockerfile.sidecar", "localhost/inference-sidecar")
OPERATOR: Final = Recipe("Dockerfile.operator", "localhost/inference-operator")
APPS: Final = Recipe("tests/cluster/apps/Dockerfile", "localhost/inference-sidecar-apps")


def built(recipe: Recipe) -> Archive:
    """The image of the tree as it is now; an AssertionError with the builder's words where it can't be built."""
    store = Store(REPOSITORY / ".cache" / "images")
    try:
        newest = f"{recipe.name}:newest"
        store.build(recipe.dockerfile, newest)
        return _exported(store, newest, recipe)
    finally:
        store.close()


def _exported(store: Store, newest: str, recipe: Recipe) -> Archive:
    """Written once for each content."""
    command = ("inspect", "--type", "image", "--format", "{{.FromImageID}}", newest)
    identity = run(*store.buildah, *command).strip()
    tag = f"{recipe.name}:{identity[:12]}"
    folder = store.folder / "archives" / recipe.name.rpartition("/")[2]
    file = folder / f"{identity[:12]}.tar"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        part = file.with_suffix(f".{os.getpid()}")
        run(*store.buildah, "push", newest, f"docker-archive:{part}:{tag}")
        part.rename(file)
    return Archive(tag, file)
