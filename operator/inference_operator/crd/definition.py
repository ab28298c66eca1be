"""The CustomResourceDefinition, as the API server takes it: schema, printer columns, names."""

from __future__ import annotations

from typing import Any

from inference_config.names import GROUP

from .. import naming
from .schema import spec_schema, status_schema


def definition() -> dict[str, Any]:
    """The whole object, made anew at each call."""
    schema = {
        "type": "object",
        "description": "Which model provider the sidecars of this namespace's pods call, and with what.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this schema."},
            "kind": {"type": "string", "description": naming.KIND},
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": status_schema(),
        },
    }
    version = {
        "name": naming.API_VERSION.rpartition("/")[2],
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(),
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{naming.PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": naming.KIND,
                "listKind": f"{naming.KIND}List",
                "plural": naming.PLURAL,
                "singular": naming.KIND.lower(),
                "shortNames": ["infc"],
                "categories": ["inference"],
            },
            "versions": [version],
        },
    }


def _columns() -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        {"name": "Provider", "type": "string", "jsonPath": ".spec.inference.provider"},
        {"name": "Model", "type": "string", "jsonPath": ".spec.inference.defaultModel"},
        {"name": "Pods", "type": "integer", "jsonPath": ".status.pods.matched",
         "description": "Pods that ask for a sidecar with this config."},
        {"name": "Current", "type": "integer", "jsonPath": ".status.pods.current",
         "description": "Pods that have loaded what was rendered last."},
        {"name": "Ready", "type": "string", "jsonPath": f"{ready}.status"},
        {"name": "Reason", "type": "string", "jsonPath": f"{ready}.reason", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]  # fmt: skip
