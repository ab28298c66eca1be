"""What every part of an InferenceConfig is: a frozen model with camelCase names, strict about types.

A field that is not known is passed over: the API server prunes those by its schema, and an object that a newer
version wrote is no error in an older one.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

T = TypeVar("T")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Many = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]


class Part(BaseModel):
    """Base of all models here."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, alias_generator=to_camel, populate_by_name=True
    )
