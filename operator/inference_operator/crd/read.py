"""Objects of the cluster, or of a file, as models.

Enters: plain mappings. Leaves: models, or `InvalidObject` with a line for each field that is wrong. A message
names fields and what is valid, never a value: `extraHeaders` may hold a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from inference_config.problems import shown_key

from ..errors import InvalidObject
from .schema import spec_schema
from .spec import InferenceConfig, Metadata, Sidecar
from .status import Status

Model = TypeVar("Model", bound=BaseModel)


def parse(obj: Mapping[str, Any]) -> InferenceConfig:
    """An InferenceConfig. A status that cannot be read counts as none: it is written anew. Raises InvalidObject."""
    given = without_nulls(obj)
    given["metadata"], given["status"] = head(obj)
    return _model(lambda: InferenceConfig.model_validate(given))


def head(obj: Mapping[str, Any]) -> tuple[Metadata, Status]:
    """What can be read of an InferenceConfig even if its spec can't: enough to tell people so. Raises
    InvalidObject."""
    given = without_nulls(obj)
    metadata = _model(lambda: Metadata.model_validate(given.get("metadata", {})))
    try:
        return metadata, Status.model_validate(given.get("status", {}))
    except ValidationError:
        return metadata, Status()


def parse_sidecar(obj: Mapping[str, Any]) -> Sidecar:
    """The chart-wide defaults, which have the form of `spec.sidecar`. Raises InvalidObject."""
    return _model(lambda: Sidecar.model_validate(without_nulls(obj)))


def unknown_fields(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths in `spec` that the schema does not know, and that the API server would therefore drop."""
    return tuple(_unknown(obj.get("spec"), spec_schema(), "spec"))


def without_nulls(value: Any) -> Any:
    """`value` as the API server sees it: a null is an absent field."""
    if isinstance(value, Mapping):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _model(read: Callable[[], Model]) -> Model:
    try:
        return read()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        lines = [f"{'.'.join(map(str, one['loc'])) or 'object'}: {one['msg']}" for one in found]
        raise InvalidObject("\n".join(line.replace("Value error, ", "") for line in lines)) from None


def _unknown(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, Mapping) or "properties" not in schema:
        return
    for key, below in value.items():
        if key in schema["properties"]:
            yield from _unknown(below, schema["properties"][key], f"{path}.{key}")
        else:
            yield f"{path}.{shown_key(str(key))}"
