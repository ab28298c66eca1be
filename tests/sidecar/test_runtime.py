"""The compiled configuration: the key's header, what is masked, which models are shown, what goes up with every request."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from inference_config.schema import Config
from inference_sidecar.runtime import Runtime, compile_runtime

KEY = SecretStr("sk-runtime-canary")
AZURE = "https://r.openai.azure.com/openai/deployments/d"


def runtime(key: SecretStr | None = KEY, revision: str | None = None, **inference: object) -> Runtime:
    return compile_runtime(Config.model_validate({"inference": inference}), key, revision)


@pytest.mark.parametrize(
    ("inference", "expected"),
    [
        ({}, (b"authorization", b"Bearer sk-runtime-canary")),
        ({"auth": "api-key"}, (b"api-key", b"sk-runtime-canary")),
        ({"base_url": AZURE}, (b"api-key", b"sk-runtime-canary")),
        ({"provider": "azure", "base_url": "https://gateway.example"}, (b"api-key", b"sk-runtime-canary")),
        ({"base_url": AZURE, "auth": "bearer"}, (b"authorization", b"Bearer sk-runtime-canary")),
    ],
)
def test_the_keys_header(inference: dict[str, object], expected: tuple[bytes, bytes]) -> None:
    assert runtime(**inference).auth_header() == expected


def test_without_a_key() -> None:
    bare = runtime(None, provider="echo")
    assert bare.auth_header() is None
    assert bare.mask(b"anything") == b"anything"


def test_the_key_is_masked_and_not_in_the_repr() -> None:
    made = runtime(extra_headers={"x-gateway-key": "gw-canary"})
    assert made.mask(b'{"you sent": "sk-runtime-canary"}') == b'{"you sent": "***"}'
    assert "canary" not in repr(made)
    assert "canary" not in repr(made.config)


@pytest.mark.parametrize(
    ("inference", "shown", "hidden"),
    [
        # The requirement's own filter, and only for OpenAI's own host.
        (
            {},
            ["gpt-4o", "gpt-3.5-turbo", "text-davinci-003", "chatgpt-turbo"],
            ["whisper-1", "o3", "dall-e-3"],
        ),
        ({"base_url": "https://api.openai.com/v1"}, ["gpt-4o"], ["whisper-1"]),
        ({"model_filter": ["o*", "gpt-*"]}, ["o3", "gpt-4o"], ["whisper-1"]),
        ({"allowed_models": ["gpt-4o"]}, ["gpt-4o"], ["gpt-4", "whisper-1"]),
        ({"base_url": "http://vllm:8000/v1", "allowed_models": ["meta/*"]}, ["meta/llama"], ["other"]),
        ({"allowed_models": []}, [], ["gpt-4o"]),
    ],
)
def test_which_models_are_shown(inference: dict[str, object], shown: list[str], hidden: list[str]) -> None:
    listed = runtime(**inference).listed
    assert listed is not None
    assert all(listed(name) for name in shown)
    assert not any(listed(name) for name in hidden)


@pytest.mark.parametrize(
    "inference", [{"base_url": "http://vllm:8000/v1"}, {"model_filter": []}, {"base_url": AZURE}]
)
def test_elsewhere_every_model_is_shown(inference: dict[str, object]) -> None:
    assert runtime(**inference).listed is None


def test_fixed_headers() -> None:
    made = runtime(organization_id="org-1", project_id="proj-1", extra_headers={"X-Team": "blue"})
    assert sorted(made.fixed_headers) == [
        (b"openai-organization", b"org-1"),
        (b"openai-project", b"proj-1"),
        (b"x-team", b"blue"),
    ]


def test_revision_and_digest() -> None:
    assert runtime().revision == runtime().digest
    assert runtime(revision="r1").revision == "r1"
    assert runtime().digest == runtime(SecretStr("another")).digest
    assert runtime().digest != runtime(default_model="gpt-4").digest


def test_globs_mean_what_they_say() -> None:
    allowed = runtime(allowed_models=["gpt-4*", "[abc]-model"]).rules.allowed
    assert allowed is not None
    assert [
        name for name in ("gpt-4", "gpt-4o", "xgpt-4", "GPT-4", "a-model", "d-model") if allowed(name)
    ] == [
        "gpt-4",
        "gpt-4o",
        "a-model",
    ]


def test_models_that_are_named() -> None:
    """Patterns name none; the deployment of the URL is a name as it is called, not as it is written."""
    allowed = ["own", "plain", "free-*", "?", "[ab]"]
    assert runtime(default_model="own", allowed_models=allowed).named_models == {"own", "plain"}
    assert runtime(base_url=f"{AZURE}ep%20one").named_models == {"dep one"}
    assert runtime().named_models == frozenset()
