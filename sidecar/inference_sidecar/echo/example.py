"""A JSON schema → a small value that fits it, as far as types, enums, minima and required members say.

Bounded whatever the schema: references can make a small one stand for an endless value.
"""

from __future__ import annotations

import json
from typing import Any, Final

_MAX_CHARS: Final = 8 * 1024
_MAX_DEPTH: Final = 16
_MAX_ITEMS: Final = 8


def example(schema: Any) -> Any:
    """A value for `schema`; what cannot be told, or goes beyond the bounds, is None or left out."""
    return _Writer(schema).value(schema, 0)


class _Writer:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _MAX_CHARS

    def value(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or not self._spend(8):
            return None
        for word in ("const", "default"):
            if word in schema:
                return self._given(schema[word])
        for word in ("enum", "anyOf", "oneOf", "allOf"):
            options = schema.get(word)
            if isinstance(options, list) and options:
                return self._given(options[0]) if word == "enum" else self.value(options[0], depth + 1)
        if isinstance(schema.get("$ref"), str):
            return self.value(self._resolve(schema["$ref"]), depth + 1)
        return self._by_type(schema, depth)

    def _by_type(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "null")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "object":
            return self._members(schema.get("properties"), schema.get("required"), depth)
        if kind == "array":
            least = schema.get("minItems")
            count = min(least, _MAX_ITEMS) if type(least) is int else 0
            return [self.value(schema.get("items"), depth + 1) for _ in range(count)]
        if kind in ("integer", "number"):
            least = schema.get("minimum")
            return self._given(least) if type(least) in (int, float) else 0
        return {"string": "example", "boolean": True}.get(kind) if isinstance(kind, str) else None

    def _members(self, properties: Any, required: Any, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if isinstance(properties, dict) and isinstance(required, list):
            for name in required:
                # Each turn costs something, or a long list met again and again would cost the loop its time.
                if not isinstance(name, str) or not self._spend(len(name) + 4):
                    break
                made[name] = self.value(properties.get(name), depth + 1)
        return made

    def _given(self, value: Any) -> Any:
        return value if self._spend(len(json.dumps(value))) else None

    def _spend(self, chars: int) -> bool:
        self._left -= chars
        return self._left >= 0

    def _resolve(self, reference: str) -> Any:
        found = self._root
        for name in reference.removeprefix("#").split("/")[1:]:
            found = found.get(name) if isinstance(found, dict) else None
        return found
