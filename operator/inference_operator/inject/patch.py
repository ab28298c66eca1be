"""The difference between two JSON values as a JSON patch (RFC 6902): few operations, none of them a guess."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Operation = dict[str, Any]


def json_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    """Operations that turn `before` into `after`, to be applied in order."""
    return list(_mapping(before, after, ""))


def _value(before: Any, after: Any, path: str) -> Iterator[Operation]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _mapping(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _list(before, after, path)
    elif not _is_same(before, after):
        yield {"op": "replace", "path": path, "value": after}


def _mapping(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[Operation]:
    for key in before:
        if key not in after:
            yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
    for key, value in after.items():
        below = f"{path}/{_escaped(key)}"
        if key in before:
            yield from _value(before[key], value, below)
        else:
            yield {"op": "add", "path": below, "value": value}


def _list(before: Sequence[Any], after: Sequence[Any], path: str) -> Iterator[Operation]:
    """Items are told apart by name where they have one, so that one that is put in front moves no other."""
    old, new = [_identity(item) for item in before], [_identity(item) for item in after]
    kept = [identity for identity in old if identity in new]
    if len(set(old)) < len(old) or len(set(new)) < len(new) or kept != [one for one in new if one in old]:
        if not _is_same(before, after):
            yield {"op": "replace", "path": path, "value": list(after)}
        return
    for index in range(len(old) - 1, -1, -1):
        if old[index] not in new:
            yield {"op": "remove", "path": f"{path}/{index}"}
    by_identity = dict(zip(old, before, strict=True))
    for index, (identity, item) in enumerate(zip(new, after, strict=True)):
        if identity in by_identity:
            yield from _value(by_identity[identity], item, f"{path}/{index}")
        else:
            yield {"op": "add", "path": f"{path}/{index}", "value": item}


def _is_same(before: Any, after: Any) -> bool:
    """Equality as JSON has it, where true is no 1."""
    return json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)


def _identity(item: Any) -> str:
    name = item.get("name") if isinstance(item, Mapping) else None
    return f"name:{name}" if isinstance(name, str) else f"value:{json.dumps(item, sort_keys=True)}"


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
