"""What the operator answers in `status`: frozen models, and the schema that they give the CRD.

Enters and leaves: the status as the API server has it. Holds no data of a Secret, and no rule of when what is
said: `inference_operator.status` has those.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, StringConstraints, WithJsonSchema

from .part import Many, Part

Truth = Literal["True", "False", "Unknown"]
ConditionType = Literal["Ready", "SecretsResolved", "Rendered", "RolledOut", "RestartRequired", "Conflict"]
CONDITION_TYPES: Final[tuple[ConditionType, ...]] = get_args(ConditionType)

MAX_MESSAGE: Final = 4096

Reason = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$")]
Version = Annotated[str, StringConstraints(max_length=128)]
ObjectName = Annotated[str, StringConstraints(max_length=253)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Condition(Part):
    """One condition, as Kubernetes has them."""

    type: Annotated[ConditionType, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64})] = (
        Field(description="What the condition is about.")
    )
    status: Truth = Field(description="True, False, or Unknown where it cannot be told.")
    reason: Reason = Field(description="Why, in one word for machines.")
    message: str = Field("", max_length=MAX_MESSAGE, description="Why, and what to do about it, for people.")
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}, max_length=64
    )
    observed_generation: int = Field(
        0, ge=0, description="The metadata.generation that the condition was found for.",
        json_schema_extra={"format": "int64"},
    )  # fmt: skip


class PodCounts(Part):
    """Pods of this config. Those that are injected and not counted further are still starting."""

    matched: Count = Field(0, description="Pods that ask for a sidecar with this config.")
    injected: Count = Field(0, description="Of these, pods that have the sidecar.")
    current: Count = Field(0, description="Injected pods that have loaded what was rendered last.")
    stale: Count = Field(0, description="Injected pods that still serve with something older.")
    refused: Count = Field(0, description="Injected pods that refused what was rendered last.")
    unreachable: Count = Field(0, description="Injected pods that could not be asked.")


class Status(Part):
    """What the operator has seen."""

    observed_generation: int | None = Field(
        None, ge=0, description="The metadata.generation that this status is about.",
        json_schema_extra={"format": "int64"},
    )  # fmt: skip
    config_digest: Version | None = Field(
        None, description="Digest of the rendered config, without keys and header values."
    )
    revision: Version | None = Field(
        None, description="Opaque name of config and keys as rendered last; a sidecar's /status repeats it."
    )
    secret_resource_versions: dict[ObjectName, Version] = Field(
        default_factory=dict, max_length=8, description="Secrets that were read, with the versions read."
    )
    pods: PodCounts = Field(default_factory=PodCounts, description="Pods of this config, counted.")
    conditions: Many[Condition] = Field(
        (), max_length=16, description="Where things stand, and what to do.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )  # fmt: skip

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of that type, if it was ever set."""
        return next((one for one in self.conditions if one.type == kind), None)
