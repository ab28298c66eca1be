"""Whole objects, read by people: data/render and data/inject hold pairs of what goes in and what comes out.

NAME.in.yaml has an InferenceConfig; for inject a Pod as well, and the chart's defaults as `kind: Sidecar`.
NAME.out.yaml has the rendered Secret with its data in the clear, or the outcome of the injection. After a change
that is meant, `UPDATE_GOLDEN=1 pytest tests/operator/test_golden.py` writes the outs anew, for review.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from inference_operator import crd, manifests, naming, render
from inference_operator.__main__ import _objects, _yaml
from inference_operator.inject import Injected, admit

DATA = Path(__file__).parent / "data"
CASES = sorted(path for kind in ("render", "inject") for path in (DATA / kind).glob("*.in.yaml"))
VERSION_OF_IMAGE = crd.BUILTIN.image or ""


def rendered(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (obj,) = objects
    config = crd.parse(obj)
    key = SecretStr("sk-golden") if config.spec.inference.api_key_secret_ref else None
    made = render.render(config.spec.inference, key, bytes(range(render.SALT_BYTES)))
    assert isinstance(made, render.Rendered)
    secret = manifests.rendered_secret(config, made.files)
    clear = {name: base64.b64decode(text).decode() for name, text in secret.pop("data").items()}
    return {**secret, "stringData": clear}


def injected(objects: list[dict[str, Any]]) -> dict[str, Any]:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for obj in objects:
        by_kind.setdefault(obj["kind"], []).append(obj)
    (pod,) = by_kind["Pod"]
    configs = [crd.parse(obj) for obj in by_kind.get("InferenceConfig", [])]
    (defaults,) = [crd.parse_sidecar(obj) for obj in by_kind.get("Sidecar", [{}])]
    found = admit(pod, "shop", configs, defaults)
    told: dict[str, Any] = {"outcome": type(found).__name__}
    if isinstance(found, Injected):
        # Of the image's version too, so not for a file; test_inject has it.
        found.pod["metadata"]["annotations"][naming.SHAPE_ANNOTATION] = "SHAPE"
        return {**told, "warnings": list(found.warnings), "pod": found.pod}
    return {**told, "reason": found.reason, "message": found.message}


@pytest.mark.parametrize(
    "case", CASES, ids=lambda path: f"{path.parent.name}-{path.name.removesuffix('.in.yaml')}"
)
def test_pair(case: Path) -> None:
    make = rendered if case.parent.name == "render" else injected
    made = _yaml(make(_objects(case))).replace(VERSION_OF_IMAGE, "inference-sidecar:VERSION")
    out = case.with_name(case.name.replace(".in.", ".out."))
    if os.environ.get("UPDATE_GOLDEN"):
        out.write_text(made)
    assert yaml.safe_load(made) == yaml.safe_load(out.read_text())


def test_there_are_pairs() -> None:
    assert len(CASES) >= 8
    outs = {path.name.replace(".out.", ".in.") for path in DATA.glob("*/*.out.yaml")}
    assert outs == {path.name for path in CASES}
