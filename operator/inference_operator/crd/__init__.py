"""InferenceConfig: what people write (spec), what the operator answers (status), and the CRD that says so.

Enters: an object as the API server or a file has it. Leaves: a frozen `InferenceConfig`, or `InvalidObject`.
`spec.inference` has no list of settings of its own: it is the contract's `inference` section in camelCase, so
that a new setting of the sidecar is a new field here. Must not know what becomes of a config.
"""

from __future__ import annotations

from .definition import definition
from .hot import HOT, camel
from .read import head, parse, parse_sidecar, unknown_fields
from .select import oldest_first, selected
from .spec import (
    BUILTIN,
    CaBundle,
    EnvVar,
    InferenceConfig,
    InferenceSpec,
    LabelSelector,
    Metadata,
    Ports,
    Quantities,
    Resources,
    SecretKeyRef,
    Sidecar,
    Spec,
    Telemetry,
)
from .status import CONDITION_TYPES, Condition, ConditionType, PodCounts, Status, Truth

__all__ = [
    "BUILTIN",
    "CONDITION_TYPES",
    "HOT",
    "CaBundle",
    "Condition",
    "ConditionType",
    "EnvVar",
    "InferenceConfig",
    "InferenceSpec",
    "LabelSelector",
    "Metadata",
    "PodCounts",
    "Ports",
    "Quantities",
    "Resources",
    "SecretKeyRef",
    "Sidecar",
    "Spec",
    "Status",
    "Telemetry",
    "Truth",
    "camel",
    "definition",
    "head",
    "oldest_first",
    "parse",
    "parse_sidecar",
    "selected",
    "unknown_fields",
]
