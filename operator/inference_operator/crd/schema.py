"""Pydantic's JSON schema → the structural schema that a CRD takes.

Enters: a model. Leaves: OpenAPI v3.0 as Kubernetes restricts it: no references, no null as a type, no closed
objects, exclusive bounds as booleans. Every text, list and map has a bound, or the API server would reckon
CEL rules over them at their worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from inference_config.schema import Inference

from .hot import HOT
from .rules import AZURE_RULE, KEY_RULE, validations
from .spec import InferenceSpec, Spec
from .status import Status

MAX_ITEMS: Final = 256
"""For the contract's lists, which have no bound of their own in a file."""

_KEPT: Final = (
    "type", "description", "format", "enum", "default", "pattern", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "minimum", "maximum", "required",
)  # fmt: skip
_QUANTITY: Final = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"  # fmt: skip
_SAYABLE: Final[Mapping[str, Mapping[str, Any]]] = {"inference.base_url": {"pattern": r"^https?://[!-~]+$"}}
"""What the contract checks by code and a schema can say as well, so that `kubectl apply` already refuses it."""
_NOTES: Final[Mapping[str, str]] = {
    "inference.extra_headers": " Here they stand in the clear, for everyone who may read this object."
}
"""What is true of a setting in the custom resource alone."""


def spec_schema() -> dict[str, Any]:
    """The schema of `spec`."""
    schema = _structural(Spec)
    schema["properties"]["inference"] = _inference(schema["properties"]["inference"]["description"])
    return schema


def status_schema() -> dict[str, Any]:
    """The schema of `status`."""
    return _structural(Status)


def _inference(description: str) -> dict[str, Any]:
    """`spec.inference`: the contract's section with the names of the custom resource."""
    contract = _structural(Inference)
    reference = _structural(InferenceSpec)["properties"]["apiKeySecretRef"]
    properties: dict[str, Any] = {}
    for path, (*sections, name) in HOT.items():
        source, target = contract["properties"], properties
        for section, camel_section in zip(path.split(".")[1:-1], sections, strict=True):
            head = {"type": "object", "description": source[section]["description"], "properties": {}}
            target = target.setdefault(camel_section, head)["properties"]
            source = source[section]["properties"]
        made = {**source[path.rpartition(".")[2]], **_SAYABLE.get(path, {})}
        target[name] = {**made, "description": made["description"] + _NOTES.get(path, "")}
    provider = properties.pop("provider")
    return {
        "type": "object",
        "description": description,
        "properties": {"provider": provider, "apiKeySecretRef": reference, **properties},
        "x-kubernetes-validations": validations(KEY_RULE, AZURE_RULE),
    }


def _structural(model: type[BaseModel]) -> dict[str, Any]:
    whole = model.model_json_schema(by_alias=True)
    return _converted(whole, whole.get("$defs", {}))


def _converted(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    node = _without_null(_inlined(node, defs))
    node = _inlined(node, defs)
    if node.get("x-kubernetes-int-or-string"):
        kept = {"description": node["description"]} if "description" in node else {}
        return {**kept, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": _QUANTITY, "maxLength": 64,
                "x-kubernetes-int-or-string": True}  # fmt: skip
    made: dict[str, Any] = {key: node[key] for key in _KEPT if key in node}
    made |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if made.get("default") in (None, [], {}):
        made.pop("default", None)
    if "const" in node:
        made["enum"] = [node["const"]]
    if made.get("format") == "password":
        del made["format"]
    if made.get("format") == "date-time":
        made.pop("maxLength", None)
    _bounds(node, made)
    if "properties" in node:
        made["properties"] = {name: _converted(below, defs) for name, below in node["properties"].items()}
    elif values := _values(node):
        made["additionalProperties"] = _converted(values, defs)
    if "items" in node:
        made["items"] = _converted(node["items"], defs)
        made.setdefault("maxItems", MAX_ITEMS)
    _in_words(made)
    return made


def _inlined(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """A reference becomes what it refers to; what stands beside it, such as a field's description, goes first."""
    if "$ref" not in node:
        return dict(node)
    target = defs[node["$ref"].rpartition("/")[2]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """`T | None` is an absent field here: the API server drops nulls before it looks."""
    arms = [arm for arm in node.get("anyOf", []) if arm.get("type") != "null"]
    if len(arms) != 1:
        return node
    return {**arms[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def _bounds(node: Mapping[str, Any], made: dict[str, Any]) -> None:
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            made[bound] = node[exclusive]
            made[exclusive] = True


def _values(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a map's values; a pattern of its keys cannot be said in a structural schema."""
    patterns = node.get("patternProperties")
    values = next(iter(patterns.values())) if patterns else node.get("additionalProperties")
    return values if isinstance(values, Mapping) else None


def _in_words(made: dict[str, Any]) -> None:
    """What YAML would misread is said where it would be written."""
    if "off" in made.get("enum", []):
        made["description"] += ' Write "off" in quotes: kubectl takes the bare word for false.'
