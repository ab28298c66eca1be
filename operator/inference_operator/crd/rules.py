"""The rules that span fields, in CEL, each with the message that the API server and a file's reader give.

Holds rules only. A rule here has a validator of the same meaning beside the model that carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import ConfigDict

RESERVED_PREFIX: Final = "INFERENCE_INFERENCE_"
RESERVED_VARIABLES: Final = (
    "INFERENCE_SERVER_HOST",
    "INFERENCE_SERVER_PORT",
    "INFERENCE_SERVER_ADMIN_HOST",
    "INFERENCE_SERVER_ADMIN_PORT",
    "POD_IP",
    "POD_NAME",
    "POD_NAMESPACE",
    "POD_UID",
    "NODE_NAME",
)
"""Variables of the sidecar's container that the injector sets, or that would bypass what it sets."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression over `self`, true for what is allowed."""

    rule: str
    message: str


KEY_RULE: Final = Rule(
    "self.provider == 'echo' || has(self.apiKeySecretRef)",
    "apiKeySecretRef is needed unless provider is echo: name a Secret of this namespace, and its entry",
)
AZURE_RULE: Final = Rule(
    "self.provider != 'azure' || has(self.baseUrl)",
    "baseUrl is needed for provider azure: the resource's URL, such as https://RESOURCE.openai.azure.com",
)
PORTS_RULE: Final = Rule("self.api != self.admin", "api and admin must be different ports")
ENV_RULE: Final = Rule(
    f"!self.name.startsWith('{RESERVED_PREFIX}') && "
    f"!(self.name in [{', '.join(repr(name) for name in RESERVED_VARIABLES)}])",
    f"{RESERVED_PREFIX}* belongs in spec.inference, where it is live; POD_*, NODE_NAME and the sidecar's hosts "
    "and ports are set by the injector (spec.sidecar.ports, or a pod's annotations)",
)
VALUE_RULE: Final = Rule(
    "!(has(self.value) && has(self.valueFrom))", "value and valueFrom exclude each other"
)
RECEIVER_RULE: Final = Rule(
    "!has(self.endpoint) || !self.endpoint.matches('^https?://[^/]*:4317(/.*)?$')",
    "endpoint: 4317 is OTLP's port for gRPC, which the sidecar does not speak; over HTTP it is 4318",
)
CA_RULE: Final = Rule(
    "has(self.configMapRef) != has(self.secretRef)", "exactly one of configMapRef and secretRef is needed"
)
SELECTOR_RULE: Final = Rule(
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
    "In and NotIn need values; Exists and DoesNotExist have none",
)


def rules(*each: Rule) -> ConfigDict:
    """The configuration of a model that carries these rules into its schema."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": validations(*each)})


def validations(*each: Rule) -> list[Any]:
    """Rules as the CRD has them."""
    return [{"rule": one.rule, "message": one.message} for one in each]
