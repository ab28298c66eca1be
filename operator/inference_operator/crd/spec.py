"""What people write in an InferenceConfig: frozen models with every bound and description but the hot ones.

Enters: `spec` as the API server has it. Leaves: models, or pydantic's `ValidationError`. A rule that spans
fields stands twice, in CEL for the API server and as a validator for files; a description says what the field
does, for `kubectl explain`. Must not hold a hot setting's bounds: those are the contract's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from inference_config import __version__
from inference_config.names import ADMIN_PORT, API_PORT
from inference_config.settings import SETTINGS

from .hot import leaves
from .part import Many, Part
from .rules import (
    CA_RULE,
    ENV_RULE,
    KEY_RULE,
    PORTS_RULE,
    RECEIVER_RULE,
    RESERVED_PREFIX,
    RESERVED_VARIABLES,
    SELECTOR_RULE,
    VALUE_RULE,
    rules,
)
from .status import Status

ObjectName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]
DataKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[
    str, StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
]
VariableName = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
]
Text = Annotated[str, StringConstraints(max_length=32_768)]
ChosenPort = Annotated[int, Field(ge=1024, le=65_535)]
Quantity = Annotated[
    int | str,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
Quantities = dict[Annotated[str, StringConstraints(max_length=63)], Quantity]


class SecretKeyRef(Part):
    """One entry of a Secret in this namespace."""

    name: ObjectName = Field(description="Name of a Secret in this namespace.")
    key: DataKey = Field(description="Which entry of the Secret's data.")


class ConfigMapKeyRef(Part):
    """One entry of a ConfigMap in this namespace."""

    name: ObjectName = Field(description="Name of a ConfigMap in this namespace.")
    key: DataKey = Field(description="Which entry of its data.")


class InferenceSpec(Part):
    """Hot: live in running pods, without a restart. The contract's `inference` section."""

    model_config = rules(KEY_RULE)

    api_key_secret_ref: SecretKeyRef | None = Field(
        None,
        description="The upstream's key: a Secret in this namespace, and its entry. Needed unless the provider "
        "is echo. Whoever may write this field can use, and by baseUrl send out, any Secret of the namespace.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, repr=False)
    """What is set, by the contract's dotted path. Not judged yet: `render` has the contract do that."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"apiKeySecretRef": value.get("apiKeySecretRef"), "settings": dict(leaves(value))}
        return value

    @property
    def provider(self) -> str:
        """The provider, defaulted."""
        path = "inference.provider"
        return str(self.settings.get(path, SETTINGS[path].default))

    @model_validator(mode="after")
    def _key_is_named(self) -> Self:
        if self.provider != "echo" and self.api_key_secret_ref is None:
            raise ValueError(KEY_RULE.message)
        return self


class Ports(Part):
    """Where the sidecar listens in the pod."""

    model_config = rules(PORTS_RULE)

    api: ChosenPort = Field(API_PORT, description="The OpenAI API, on the pod's loopback.")
    admin: ChosenPort = Field(ADMIN_PORT, description="Probes, status and metrics, on the pod's address.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.api == self.admin:
            raise ValueError(PORTS_RULE.message)
        return self


class Resources(Part):
    """Requests and limits of the sidecar's container."""

    requests: Quantities = Field(
        default_factory=dict, max_length=16, description="What the scheduler reserves, by resource name."
    )
    limits: Quantities = Field(
        default_factory=dict,
        max_length=16,
        description="What the container may not exceed, by resource name.",
    )


class PullSecret(Part):
    """A Secret with a registry's credentials."""

    name: ObjectName = Field(description="Name of a Secret in this namespace.")


class KeyOf(Part):
    """One entry of a Secret or ConfigMap in this namespace."""

    name: ObjectName = Field(description="Name of the object in this namespace.")
    key: DataKey = Field(description="Which entry of its data.")
    optional: bool | None = Field(None, description="Whether pods start without it.")


class FieldRef(Part):
    """A field of the pod."""

    field_path: str = Field(max_length=512, description="Path of the field, such as metadata.name.")


class ValueFrom(Part):
    """Where a variable's value comes from."""

    secret_key_ref: KeyOf | None = Field(None, description="An entry of a Secret.")
    config_map_key_ref: KeyOf | None = Field(None, description="An entry of a ConfigMap.")
    field_ref: FieldRef | None = Field(None, description="A field of the pod.")


class EnvVar(Part):
    """One environment variable of the sidecar."""

    model_config = rules(ENV_RULE, VALUE_RULE)

    name: VariableName = Field(
        description="The variable's name, such as HTTPS_PROXY or INFERENCE_SERVER_MAX_JSON_BYTES."
    )
    value: Text | None = Field(None, description="Its value, in the clear in every pod: not for secrets.")
    value_from: ValueFrom | None = Field(None, description="Where its value comes from instead.")

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if self.name.startswith(RESERVED_PREFIX) or self.name in RESERVED_VARIABLES:
            raise ValueError(ENV_RULE.message)
        if self.value is not None and self.value_from is not None:
            raise ValueError(VALUE_RULE.message)
        return self


class CaBundle(Part):
    """PEM certificates of the authorities that the upstream's certificate is checked against."""

    model_config = rules(CA_RULE)

    config_map_ref: ConfigMapKeyRef | None = Field(None, description="In a ConfigMap of this namespace.")
    secret_ref: SecretKeyRef | None = Field(None, description="In a Secret of this namespace.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError(CA_RULE.message)
        return self


class Telemetry(Part):
    """Where the sidecar sends traces and metrics. Nothing is sent without an endpoint."""

    model_config = rules(RECEIVER_RULE)

    endpoint: str | None = Field(
        None, max_length=2048, pattern=r"^https?://[!-~]+$",
        description="Base URL of an OTLP receiver over HTTP, such as http://collector.observability:4318.",
    )  # fmt: skip
    protocol: Literal["http/protobuf"] | None = Field(
        None, description="How OTLP is spoken. The sidecar knows http/protobuf only."
    )
    headers_secret_ref: SecretKeyRef | None = Field(
        None,
        description="Headers for the receiver: an entry of a Secret in this namespace that holds name=value "
        "pairs, comma-separated. Pods refer to it and start without it.",
    )
    sampling: float | None = Field(
        None, ge=0, le=1, description="Share of new traces that are kept. A caller's own decision goes first."
    )
    resource_attributes: dict[
        Annotated[str, StringConstraints(max_length=255)], Annotated[str, StringConstraints(max_length=255)]
    ] = Field(
        default_factory=dict,
        max_length=64,
        description="Attributes added to the pod's own, such as deployment.environment.",
    )

    @model_validator(mode="after")
    def _over_http(self) -> Self:
        if self.endpoint is not None and re.fullmatch(r"https?://[^/]*:4317(/.*)?", self.endpoint):
            raise ValueError(RECEIVER_RULE.message)
        return self


class Sidecar(Part):
    """Cold: the sidecar's container. New pods take it. What is absent comes from the chart."""

    image: str | None = Field(
        None, min_length=1, max_length=1024, pattern=r"^[!-~]+$", description="The sidecar's image."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When the image is pulled. Absent: as Kubernetes does by the image's tag."
    )
    image_pull_secrets: Many[PullSecret] = Field(
        (), max_length=16, description="Registry credentials, added to the pod's own.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )  # fmt: skip
    ports: Ports | None = Field(None, description="Where the sidecar listens. Annotations of a pod go first.")
    resources: Resources | None = Field(
        None, description="Requests and limits. In a pod of class Guaranteed the two are made equal."
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        None, description="Least level that is logged."
    )
    env: Many[EnvVar] = Field(
        (), max_length=64, description="Environment variables of the sidecar's container.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )  # fmt: skip
    ca_bundle: CaBundle | None = Field(
        None, description="Certificate authorities to trust in place of the image's own."
    )
    telemetry: Telemetry | None = Field(
        None, description="OpenTelemetry export. Single fields may be left to the chart's default."
    )
    inject_env: bool | None = Field(
        None,
        description="Whether apps get OPENAI_BASE_URL and OPENAI_API_KEY (a placeholder) where they have none. "
        "Absent: yes.",
    )

    def over(self, defaults: Sidecar) -> Sidecar:
        """This one, with `defaults` where it is silent: variables by name, telemetry by field."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        merged = {
            name: getattr(defaults, name) if value in (None, ()) else value for name, value in given.items()
        }
        named = {variable.name: variable for variable in (*defaults.env, *self.env)}
        merged["env"] = tuple(named.values())
        if self.telemetry is not None and defaults.telemetry is not None:
            own = self.telemetry
            theirs = {name: getattr(defaults.telemetry, name) for name in Telemetry.model_fields}
            ours = {
                name: getattr(own, name) for name in Telemetry.model_fields if getattr(own, name) is not None
            }
            attributes = {**defaults.telemetry.resource_attributes, **own.resource_attributes}
            merged["telemetry"] = Telemetry(**{**theirs, **ours, "resource_attributes": attributes})
        return Sidecar(**merged)


class Requirement(Part):
    """One condition on labels."""

    model_config = rules(SELECTOR_RULE)

    key: LabelKey = Field(description="The label's key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value relates to the values."
    )
    values: Many[LabelValue] = Field((), max_length=64, description="For In and NotIn; else empty.")

    @model_validator(mode="after")
    def _values_where_needed(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(SELECTOR_RULE.message)
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` fulfil it. NotIn is true for a label that is not there, as everywhere."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
        return self.key not in labels


class LabelSelector(Part):
    """Which pods of this namespace. Empty: all that ask for a sidecar."""

    match_labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=64, description="Labels that a pod must have, with these values."
    )
    match_expressions: Many[Requirement] = Field(
        (), max_length=64, description="Conditions that a pod's labels must fulfil, all of them.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )  # fmt: skip

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with `labels` is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class Spec(Part):
    """What is wanted."""

    inference: InferenceSpec = Field(
        description="Hot: which upstream, with what, and what apps may ask of it. Live in running pods."
    )
    sidecar: Sidecar = Field(
        default_factory=Sidecar,
        description="Cold: the sidecar's container. Taken by new pods; running ones keep theirs.",
    )
    selector: LabelSelector | None = Field(
        None,
        description="Which pods of this namespace get this config, of those that ask for a sidecar. Absent: "
        "those that name it by annotation. Where several match, the oldest config wins.",
    )


class Metadata(Part):
    """What the operator reads of an object's metadata."""

    name: str = Field(min_length=1, max_length=253)
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""


class InferenceConfig(Part):
    """One InferenceConfig."""

    metadata: Metadata
    spec: Spec
    status: Status = Field(default_factory=Status)

    @property
    def name(self) -> str:
        """Its name."""
        return self.metadata.name


BUILTIN: Final = Sidecar(
    image=f"inference-sidecar:{__version__}",
    ports=Ports(),
    resources=Resources(requests={"cpu": "100m", "memory": "96Mi"}, limits={"memory": "256Mi"}),
)
"""What holds where neither a config nor the chart says anything."""
