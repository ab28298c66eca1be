"""The CRD: it has every hot setting of the contract, with its bounds; it is structural, bounded, explained, and the
one that is checked in.

Compared mechanically with the contract, so that a new setting cannot be forgotten. Left out: what an API server
says of it, CEL above all (tests/cluster).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from harness.pods import config_object
from inference_config.schema import Inference
from inference_config.settings import SETTINGS, Setting
from inference_operator import crd
from inference_operator.__main__ import command
from inference_operator.crd.hot import ELSEWHERE

REPOSITORY = Path(__file__).parents[2]
DEFINITION = crd.definition()
VERSION = DEFINITION["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
HOT_SETTINGS = [s for s in SETTINGS.values() if s.path.startswith("inference.") and s.path not in ELSEWHERE]


def nodes(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema in `schema`, with its path."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}[]")


NODES = dict(nodes(SCHEMA, ""))


def hot(setting: Setting) -> Mapping[str, Any]:
    """The schema of a setting, found by its name alone."""
    return NODES[".spec." + ".".join(to_camel(part) for part in setting.path.split("."))]


@pytest.mark.parametrize("setting", HOT_SETTINGS, ids=lambda setting: setting.path)
def test_every_setting_of_the_contract_is_there(setting: Setting) -> None:
    schema = hot(setting)
    kinds = {
        "int": "integer",
        "float": "number",
        "text": "string",
        "list": "array",
        "map": "object",
        "bool": "boolean",
    }
    assert schema["type"] == kinds[setting.kind]
    assert setting.description in schema["description"]
    assert tuple(schema.get("enum", ())) == setting.choices
    assert schema.get("default") == (setting.default or None if setting.kind == "map" else setting.default)


def test_there_is_nothing_else() -> None:
    leaves = {path for path in NODES if path.startswith(".spec.inference.") and "[]" not in path}
    expected = {".spec." + ".".join(to_camel(part) for part in one.path.split(".")) for one in HOT_SETTINGS}
    assert leaves - expected == {
        ".spec.inference.http",
        ".spec.inference.apiKeySecretRef",
        ".spec.inference.apiKeySecretRef.name",
        ".spec.inference.apiKeySecretRef.key",
    }


def test_bounds_are_those_of_the_contract() -> None:
    """Probed, not compared: a value at the edge is in, the next one is out, on both sides alike."""
    for setting in HOT_SETTINGS:
        schema = hot(setting)
        for bound, step in (("minimum", -1), ("maximum", 1)):
            if bound not in schema:
                continue
            exclusive = schema.get(f"exclusive{bound.capitalize()}", False)
            edge = schema[bound]
            assert accepts(setting, edge) is not exclusive, (setting.path, bound)
            assert not accepts(setting, edge + step), (setting.path, bound)
        if "maxLength" in schema and "pattern" not in schema:
            assert accepts(setting, "x" * schema["maxLength"])
            assert not accepts(setting, "x" * (schema["maxLength"] + 1))


def accepts(setting: Setting, value: object) -> bool:
    tree: dict[str, Any] = {}
    *sections, name = setting.path.split(".")[1:]
    branch = tree
    for section in sections:
        branch = branch.setdefault(section, {})
    branch[name] = value
    try:
        Inference.model_validate(tree)
    except ValidationError:
        return False
    return True


def test_log_levels_are_those_of_the_contract() -> None:
    assert tuple(NODES[".spec.sidecar.logLevel"]["enum"]) == SETTINGS["logging.level"].choices


def test_it_is_structural_and_bounded() -> None:
    for path, schema in NODES.items():
        assert (
            not {"$ref", "allOf", "title", "const", "nullable", "patternProperties", "$defs"} & schema.keys()
        ), path
        if schema.get("x-kubernetes-int-or-string"):
            assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}]
            continue
        kind = schema["type"]
        assert not ("properties" in schema and "additionalProperties" in schema), path
        if kind == "string":
            assert (
                "maxLength" in schema
                or "enum" in schema
                or "format" in schema
                or path in (".apiVersion", ".kind")
            )
        if kind == "array":
            assert schema["maxItems"] <= 256, path
        if "additionalProperties" in schema:
            assert schema["maxProperties"] <= 64, path
        if kind == "object" and path != ".metadata":
            assert "properties" in schema or "additionalProperties" in schema, path
        for exclusive in ("exclusiveMinimum", "exclusiveMaximum"):
            assert schema.get(exclusive, True) is True, path


def test_every_field_is_explained() -> None:
    unexplained = [
        path
        for path, schema in NODES.items()
        if "[]" not in path.split(".")[-1] and not schema.get("description")
    ]
    assert unexplained == [".metadata"]


def test_a_bare_off_is_warned_of() -> None:
    """YAML 1.1, as kubectl reads it, takes the bare word for false."""
    with_off = [schema for schema in NODES.values() if "off" in schema.get("enum", [])]
    assert len(with_off) == 2
    assert all('"off" in quotes' in schema["description"] for schema in with_off)


def test_conditions_are_a_map_by_type() -> None:
    conditions = NODES[".status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) >= {"type", "status", "reason", "lastTransitionTime"}


def test_names_columns_and_subresource() -> None:
    assert DEFINITION["metadata"]["name"] == "inferenceconfigs.inferencesidecar.dev"
    assert DEFINITION["spec"]["scope"] == "Namespaced"
    assert DEFINITION["spec"]["names"]["shortNames"] == ["infc"]
    assert VERSION["name"] == "v1alpha1"
    assert VERSION["subresources"] == {"status": {}}
    shown = [column["name"] for column in VERSION["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["Provider", "Model", "Pods", "Current", "Ready", "Age"]
    for column in VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"]
        assert path.startswith((".metadata.", ".status.conditions[")) or path in NODES


def test_rules_span_fields_that_exist() -> None:
    found = {
        path: schema["x-kubernetes-validations"]
        for path, schema in NODES.items()
        if "x-kubernetes-validations" in schema
    }
    assert {
        ".spec.inference",
        ".spec.sidecar.ports",
        ".spec.sidecar.caBundle",
        ".spec.sidecar.env[]",
    } <= found.keys()
    for path, rules in found.items():
        for rule in rules:
            assert rule["message"]
            for word in rule["rule"].replace("(", " ").replace(")", " ").replace("!", " ").split():
                if word.startswith("self."):
                    assert word.split(".")[1] in NODES[path]["properties"], rule


def test_it_is_the_one_that_is_checked_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["crd"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == DEFINITION
    checked_in = REPOSITORY / "deploy" / "crds" / "inferenceconfig.yaml"
    assert checked_in.read_text() == printed, "run: inference-operator crd > deploy/crds/inferenceconfig.yaml"


def test_unknown_fields_are_found_wherever_they_are() -> None:
    obj = config_object(
        inference={
            "provider": "echo",
            "defaultModell": "x",
            "http": {"maxRetry": 1},
            "extraHeaders": {"X-Free": "y"},
        },
        sidecar={"env": [{"name": "A", "vaule": "b"}], "resources": {"limits": {"cpu": "1"}}},
        selector={"matchLabels": {"any": "thing"}},
    )
    assert crd.unknown_fields(obj) == (
        "spec.inference.defaultModell",
        "spec.inference.http.maxRetry",
        "spec.sidecar.env[0].vaule",
    )
