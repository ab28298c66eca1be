"""InferenceConfig objects: what is read of them, what is refused and in which words, selectors, defaults by layer.

Left out: what the contract says of hot settings (test_render), the schema (test_crd_schema).
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.evidence import EVIDENCE
from harness.pods import config, config_object
from inference_operator import crd
from inference_operator.errors import InvalidObject

REF = {"name": "openai", "key": "api-key"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"inference": {"defaultModel": "gpt-4o"}}, "spec.inference: apiKeySecretRef is needed"),
    "no section": ({"inference": None}, "spec.inference: Field required"),
    "key without entry": ({"inference": {"apiKeySecretRef": {"name": "openai"}}}, "apiKeySecretRef.key: Field required"),
    "one port": ({"sidecar": {"ports": {"api": 4000, "admin": 4000}}}, "spec.sidecar.ports: api and admin must be"),
    "port against a default": ({"sidecar": {"ports": {"api": 3001}}}, "spec.sidecar.ports: api and admin must be"),
    "privileged port": ({"sidecar": {"ports": {"api": 80}}}, "spec.sidecar.ports.api: Input should be greater"),
    "port as text": ({"sidecar": {"ports": {"api": "4000"}}}, "spec.sidecar.ports.api: Input should be a valid integer"),
    "hot by variable": (
        {"sidecar": {"env": [{"name": "INFERENCE_INFERENCE_API_KEY", "value": "x"}]}},
        "INFERENCE_INFERENCE_* belongs in spec.inference",
    ),
    "host by variable": ({"sidecar": {"env": [{"name": "INFERENCE_SERVER_HOST", "value": "::"}]}}, "set by the injector"),
    "injector's variable": ({"sidecar": {"env": [{"name": "POD_IP", "value": "::"}]}}, "set by the injector"),
    "value twice": (
        {"sidecar": {"env": [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}},
        "value and valueFrom exclude each other",
    ),
    "two bundles": ({"sidecar": {"caBundle": {"configMapRef": REF, "secretRef": REF}}}, "exactly one of configMapRef"),
    "no bundle": ({"sidecar": {"caBundle": {}}}, "exactly one of configMapRef"),
    "grpc": ({"sidecar": {"telemetry": {"protocol": "grpc"}}}, "spec.sidecar.telemetry.protocol: Input should be 'http/protobuf'"),
    "gRPC's port": ({"sidecar": {"telemetry": {"endpoint": "http://collector:4317"}}}, "over HTTP it is 4318"),
    "share": ({"sidecar": {"telemetry": {"sampling": 1.5}}}, "spec.sidecar.telemetry.sampling: Input should be less"),
    "values missing": ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In and NotIn need values"),
    "values for nothing": (
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}, "In and NotIn need values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    spec, words = REFUSED[name]
    with pytest.raises(InvalidObject) as refused:
        crd.parse(config_object(**spec))
    assert words in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidObject) as refused:
        crd.parse(config_object(sidecar={"ports": {"api": 1}, "logLevel": "loud"}))
    assert len(str(refused.value).splitlines()) == 2


def test_no_value_is_told() -> None:
    secret = EVIDENCE.new_key()
    said = EVIDENCE.channel("an InvalidObject")
    for spec in (
        {
            "inference": {
                "apiKeySecretRef": {"name": secret, "key": secret + "/"},
                "extraHeaders": {"X": secret},
            }
        },
        {"sidecar": {"env": [{"name": "A", "value": secret, "valueFrom": {}}], "image": ["", secret]}},
    ):
        with pytest.raises(InvalidObject) as refused:
            crd.parse(config_object(**spec))
        said.extend(f"{refused.value} {refused.value!r}".encode())


def test_what_is_read() -> None:
    read = crd.parse(
        config_object(inference={"apiKeySecretRef": REF, "http": {"maxRetries": 0}, "allowedModels": ["a"]})
    )
    assert (read.name, read.metadata.namespace, read.metadata.generation) == ("team", "shop", 3)
    assert read.spec.inference.provider == "openai"
    assert read.spec.inference.api_key_secret_ref == crd.SecretKeyRef(name="openai", key="api-key")
    assert read.spec.inference.settings == {
        "inference.allowed_models": ["a"],
        "inference.http.max_retries": 0,
    }


def test_nulls_and_unknown_fields_are_as_if_absent() -> None:
    """The API server prunes both; and an object of a newer version must not stop an older one."""
    read = crd.parse(
        config_object(
            inference={
                "provider": "echo",
                "defaultModel": None,
                "http": None,
                "newer": 1,
                "settings": {"x": 1},
            },
            sidecar={"image": None, "newer": {"a": 1}},
        )
    )
    assert read.spec.inference.settings == {"inference.provider": "echo"}
    assert read.spec.sidecar == crd.Sidecar()


def test_header_values_are_not_in_the_repr() -> None:
    secret = EVIDENCE.new_key()
    read = config(inference={"provider": "echo", "extraHeaders": {"X-Key": secret}})
    EVIDENCE.channel("repr of a config").extend(repr(read).encode())


def test_a_status_that_cannot_be_read_counts_as_none() -> None:
    obj = config_object()
    obj["status"] = {"conditions": "spoilt"}
    assert crd.parse(obj).status == crd.Status()
    obj["status"] = {"observedGeneration": 2, "pods": {"matched": 4}}
    assert crd.parse(obj).status.pods.matched == 4


def test_the_head_can_be_read_where_the_spec_cannot() -> None:
    obj = config_object(inference=None)
    metadata, status = crd.head(obj)
    assert (metadata.name, metadata.generation) == ("team", 3)
    assert status == crd.Status()


SELECTORS: list[tuple[dict[str, Any], dict[str, str], bool]] = [
    ({}, {}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
    ({"matchLabels": {"a": ""}}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    (
        {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]},
        {"a": "1"},
        False,
    ),
]


@pytest.mark.parametrize(("selector", "labels", "matches"), SELECTORS)
def test_selectors(selector: dict[str, Any], labels: dict[str, str], matches: bool) -> None:
    read = config(selector=selector).spec.selector
    assert read is not None
    assert read.matches(labels) is matches


def test_the_oldest_is_first_and_without_a_selector_nobody_is_selected() -> None:
    young = config("a-young", created="2026-03-01T00:00:00Z")
    old = config("z-old", created="2026-01-01T00:00:00Z")
    twin = config("b-twin", created="2026-01-01T00:00:00Z")
    none = config("none", created="2025-01-01T00:00:00Z", selector=None)
    chosen = crd.selected({"app": "web"}, [young, old, none, twin])
    assert [one.name for one in chosen] == ["b-twin", "z-old", "a-young"]


def test_a_config_goes_before_the_chart_field_by_field() -> None:
    chart = crd.parse_sidecar(
        {
            "image": "registry.example/sidecar:2",
            "logLevel": "info",
            "injectEnv": False,
            "env": [{"name": "A", "value": "chart"}, {"name": "B", "value": "chart"}],
            "telemetry": {
                "endpoint": "http://otlp:4318",
                "sampling": 0.5,
                "resourceAttributes": {"x": "1", "y": "1"},
            },
        }
    )
    own = crd.parse_sidecar(
        {
            "logLevel": "debug",
            "env": [{"name": "B", "value": "own"}],
            "telemetry": {"sampling": 0, "resourceAttributes": {"y": "2"}},
        }
    )
    merged = own.over(chart)
    assert (merged.image, merged.log_level, merged.inject_env) == (
        "registry.example/sidecar:2",
        "debug",
        False,
    )
    assert {one.name: one.value for one in merged.env} == {"A": "chart", "B": "own"}
    assert merged.telemetry is not None
    assert (merged.telemetry.endpoint, merged.telemetry.sampling) == ("http://otlp:4318", 0)
    assert merged.telemetry.resource_attributes == {"x": "1", "y": "2"}
    assert crd.Sidecar().over(chart) == chart
    assert chart.over(crd.Sidecar()) == chart


def test_without_anything_there_is_an_image_and_requests() -> None:
    assert crd.BUILTIN.image
    assert crd.BUILTIN.resources is not None
    assert set(crd.BUILTIN.resources.requests) == {"cpu", "memory"}
