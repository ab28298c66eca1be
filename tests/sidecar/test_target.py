"""Where a request goes: every form of base_url, Azure's paths, and paths that try to leave it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_config.schema import Inference
from inference_sidecar.records import Endpoint, Reason, Refusal
from inference_sidecar.runtime import Located, target_of


def located(
    base_url: str | None,
    path: str,
    method: str = "POST",
    query: str = "",
    model: str | None = None,
    **more: object,
) -> Located | Refusal:
    target = target_of(Inference.model_validate({"base_url": base_url, **more}))
    return target.locate(method, path.encode(), query.encode(), model)


R = "https://r.openai.azure.com"
D = f"{R}/openai/deployments/d1"
V = "api-version=2024-10-21"


@pytest.mark.parametrize(
    ("base_url", "path", "query", "expected"),
    [
        (None, "/v1/chat/completions", "", "/v1/chat/completions"),
        ("http://vllm:8000/v1", "/v1/embeddings", "", "/v1/embeddings"),
        ("http://vllm:8000", "/v1/embeddings", "", "/embeddings"),
        ("http://gw/team-a/openai", "/v1/files/f1/content", "limit=3&x=%2F", "/team-a/openai/files/f1/content?limit=3&x=%2F"),
        (None, "/v1/models/meta%2Fllama", "", "/v1/models/meta%2Fllama"),
        (None, "/v1//evil.example/x", "", "/v1//evil.example/x"),
        (D, "/v1/chat/completions", "", f"/openai/deployments/d1/chat/completions?{V}"),
        (D, "/v1/audio/speech", "", f"/openai/deployments/d1/audio/speech?{V}"),
        (D, "/v1/files", "purpose=batch", f"/openai/files?purpose=batch&{V}"),
        (D, "/v1/models", "", f"/openai/models?{V}"),
        (f"{D}?api-version=2025-01-01-preview", "/v1/embeddings", "", "/openai/deployments/d1/embeddings?api-version=2025-01-01-preview"),
        (f"{R}/openai/v1", "/v1/chat/completions", "", "/openai/v1/chat/completions"),
        (R, "/v1/chat/completions", "", "/openai/v1/chat/completions"),
        (R, "/openai/v1/responses", "", "/openai/v1/responses"),
        (R, "/openai/deployments/any/chat/completions", "api-version=2024-06-01", "/openai/deployments/any/chat/completions?api-version=2024-06-01"),
        (R, "/openai/deployments/any/chat/completions", "", f"/openai/deployments/any/chat/completions?{V}"),
        (D, "/openai/deployments/d1/chat/completions", "", f"/openai/deployments/d1/chat/completions?{V}"),
        (R, "/openai/files", "", f"/openai/files?{V}"),
    ],
)  # fmt: skip
def test_targets(base_url: str | None, path: str, query: str, expected: str) -> None:
    found = located(base_url, path, query=query)
    assert isinstance(found, Located)
    assert found.target == expected.encode()


def test_azure_with_a_version_takes_the_deployment_from_the_model() -> None:
    found = located(R, "/v1/chat/completions", model="my gpt", api_version="2024-10-21")
    assert isinstance(found, Located)
    assert found.target == f"/openai/deployments/my%20gpt/chat/completions?{V}".encode()


@pytest.mark.parametrize(
    "host",
    ["r.openai.azure.com", "r.openai.azure.us", "r.services.ai.azure.com", "r.cognitiveservices.azure.com"],
)
def test_azure_hosts(host: str) -> None:
    assert target_of(Inference(base_url=f"https://{host}")).azure


@pytest.mark.parametrize(
    "host", ["openai.azure.com.evil.example", "notopenai.azure.com.example", "api.openai.com", "azure.com"]
)
def test_other_hosts(host: str) -> None:
    assert not target_of(Inference(base_url=f"https://{host}/v1")).azure


def test_another_deployment_is_not_found() -> None:
    found = located(D, "/openai/deployments/d2/chat/completions")
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NOT_FOUND
    assert "d2" in found.message


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/chat/completions",
        "/openai/v1/chat/completions",
        "/v1x/models",
        "//v1/models",
        "/%76%31/models",
    ],
)
def test_paths_outside_the_api(path: str) -> None:
    found = located(None, path)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin", "/v1/a/../../b", "/v1/.", "/v1/%2e%2e/admin", "/v1/%2E./admin", "/v1/..%2fadmin", "/v1/%2e%2e%2fadmin",
        "/v1/..%5cadmin", "/v1/%252e%252e/admin", "/v1/a\\..\\b", "/v1/a b", "/v1/a%00b", "/v1/%" + "25" * 12 + "41",
        "/openai/deployments/d1/../d2/chat/completions",
    ],
)  # fmt: skip
@pytest.mark.parametrize("base_url", [None, R, D])
def test_path_tricks_are_refused(base_url: str | None, path: str) -> None:
    assert isinstance(located(base_url, path), Refusal)


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "model"),
    [
        ("POST", "/v1/chat/completions", Endpoint.CHAT, None),
        ("POST", "/v1/chat/completions/", Endpoint.CHAT, None),
        ("POST", "/v1//chat//completions", Endpoint.CHAT, None),
        ("POST", "/v1/ch%61t/completions", Endpoint.CHAT, None),
        ("GET", "/v1/chat/completions", Endpoint.OTHER, None),
        ("POST", "/v1/chat/completions/chatcmpl-1", Endpoint.OTHER, None),
        ("POST", "/v1/completions", Endpoint.COMPLETIONS, None),
        ("POST", "/v1/embeddings", Endpoint.EMBEDDINGS, None),
        ("POST", "/v1/responses", Endpoint.RESPONSES, None),
        ("POST", "/v1/responses/r1/cancel", Endpoint.OTHER, None),
        ("GET", "/v1/models", Endpoint.MODELS, None),
        ("GET", "/v1/models/gpt-4", Endpoint.MODEL, "gpt-4"),
        ("GET", "/v1/models/meta%2Fllama", Endpoint.MODEL, "meta/llama"),
        ("GET", "/v1/models/meta/llama", Endpoint.MODEL, "meta/llama"),
        ("DELETE", "/v1/models/ft:x", Endpoint.OTHER, "ft:x"),
    ],
)
def test_endpoints(method: str, path: str, endpoint: Endpoint, model: str | None) -> None:
    found = located(None, path, method)
    assert isinstance(found, Located)
    assert (found.endpoint, found.model) == (endpoint, model)


def test_a_deployment_in_the_path_is_a_model() -> None:
    found = located(R, "/openai/deployments/gpt-4o/chat/completions")
    assert isinstance(found, Located)
    assert (found.endpoint, found.model) == (Endpoint.CHAT, "gpt-4o")


@given(st.binary(max_size=60), st.sampled_from([None, R, D]))
def test_any_path_stays_below_or_is_refused(tail: bytes, base_url: str | None) -> None:
    found = target_of(Inference(base_url=base_url)).locate("POST", b"/v1/" + tail, b"", None)
    if isinstance(found, Located):
        assert found.target.startswith(b"/v1/" if base_url is None else b"/openai/")
        assert b".." not in found.target.split(b"?")[0].split(b"/")


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("https://h.example/v1", b"h.example"), ("https://h.example:443/v1", b"h.example"),
        ("http://h.example:8080/v1", b"h.example:8080"), ("http://[::1]:8080/v1", b"[::1]:8080"), ("http://[::1]/v1", b"[::1]"),
    ],
)  # fmt: skip
def test_host_header(base_url: str, host: bytes) -> None:
    assert target_of(Inference(base_url=base_url)).host_header == host
