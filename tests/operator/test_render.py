"""From spec and Secret to what a sidecar mounts: keys resolved or not, the contract's words in the resource's names,
revisions that tell nothing, a sidecar that reads the result.

Left out: which object it becomes (test_manifests), what the contract itself accepts (tests/sidecar).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from harness.evidence import EVIDENCE
from harness.pods import config
from inference_config import codec
from inference_config.load import load, read_key
from inference_config.names import KEY_FILE, MOUNT_PATH, REVISION_FILE, SCHEMA_VERSIONS, config_file
from inference_config.schema import Inference
from inference_config.settings import SETTINGS
from inference_operator import naming, render
from inference_operator.crd import HOT, SecretKeyRef, camel

REF = SecretKeyRef(name="openai", key="api-key")
SALT = bytes(range(render.SALT_BYTES))


def secret(content: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "Opaque", "data": {"api-key": base64.b64encode(content).decode()}, **more}


def rendered(key: str = "sk-one", salt: bytes = SALT, **spec: Any) -> render.Rendered:
    made = render.render(config(**spec).spec.inference, SecretStr(key), salt)
    assert isinstance(made, render.Rendered)
    return made


class TestKeys:
    def test_a_key_is_taken_without_the_blanks_around_it(self) -> None:
        found = render.resolve_key(REF, secret(b"  sk-one\n"))
        assert isinstance(found, SecretStr)
        assert found.get_secret_value() == "sk-one"

    def test_no_reference_no_key(self) -> None:
        assert render.resolve_key(None, None) is None

    @pytest.mark.parametrize(
        ("found", "reason", "words"),
        [
            (None, "SecretNotFound", "kubectl create secret generic openai --from-file=api-key=FILE"),
            (secret(b"x", data={"other": "eA=="}), "KeyNotFound", "has no entry api-key. It has other."),
            (secret(b"x", data=None), "KeyNotFound", "It is empty."),
            (secret(b""), "KeyEmpty", "Put the upstream's key into it."),
            (secret(b" \n"), "KeyEmpty", "Put the upstream's key into it."),
            (secret(b"two words"), "KeyInvalid", "without blanks"),
            (secret("schlüssel".encode()), "KeyInvalid", "ASCII"),
            (secret(b"\xff\xfe"), "KeyInvalid", "ASCII"),
            (secret(b"k" * 65_537), "KeyInvalid", "at most 65536 bytes"),
            (secret(b"x", data={"api-key": "no base64!"}), "KeyInvalid", "ASCII"),
            (
                secret(b"x", type="kubernetes.io/service-account-token"),
                "WrongSecretType",
                "Name one of type Opaque",
            ),
            (secret(b"x", type="helm.sh/release.v1"), "WrongSecretType", "Name one of type Opaque"),
            (secret(b"x", type=naming.RENDERED_TYPE), "WrongSecretType", "Name one of type Opaque"),
        ],
    )
    def test_unresolved(self, found: dict[str, Any] | None, reason: str, words: str) -> None:
        unresolved = render.resolve_key(REF, found)
        assert isinstance(unresolved, render.Unresolved)
        assert unresolved.reason == reason
        assert unresolved.message.startswith("Secret openai")
        assert words in unresolved.message

    def test_no_message_has_a_piece_of_the_key(self) -> None:
        said = EVIDENCE.channel("messages about keys")
        for text in ("{} x", "x\n{}", "{}ü"):
            found = render.resolve_key(REF, secret(text.format(EVIDENCE.new_key()).encode()))
            assert isinstance(found, render.Unresolved)
            said.extend(found.message.encode())


class TestContract:
    def test_every_hot_setting_arrives(self) -> None:
        """Each with a value that is not its default, so that none can be left out of the way there."""
        values: dict[str, Any] = {
            "provider": "azure", "auth": "bearer", "organizationId": "o", "projectId": "p", "apiVersion": "2025-01-01",
            "baseUrl": "https://x.example/v1", "defaultModel": "m", "allowedModels": ["m"], "modelFilter": [],
            "extraHeaders": {"X-Team": "t"}, "validation": "off", "usageInjection": "off", "keepaliveCommentSecs": 1.5,
            "healthCheckIntervalSecs": 0,
            "http": {
                "timeoutSecs": 1, "connectTimeoutSecs": 2, "streamIdleTimeoutSecs": 3, "streamTimeoutSecs": 4,
                "keepAliveSecs": 5, "maxIdleConnections": 6, "maxConnections": 7, "maxRetries": 8, "retryBackoffMs": 9,
                "transport": "httpcore",
            },
        }  # fmt: skip
        spec = config(inference={"apiKeySecretRef": {"name": "a", "key": "b"}, **values}).spec.inference
        assert spec.settings.keys() == HOT.keys(), "the sample above must have every setting"
        found = render.contract(spec)
        assert not isinstance(found, render.Invalid)
        for path in HOT:
            assert SETTINGS[path].of(found) != SETTINGS[path].default, path
        assert found.inference.http.retry_backoff_ms == 9
        assert found.inference.model_filter == ()
        assert found.inference.api_key_file == f"{MOUNT_PATH}/{KEY_FILE}"

    def test_nothing_given_is_the_contract_s_own_default(self) -> None:
        found = render.contract(config(inference={"provider": "echo"}).spec.inference)
        assert not isinstance(found, render.Invalid)
        assert found.inference == Inference(provider="echo")

    def test_a_variable_s_form_is_a_text_like_any(self) -> None:
        made = rendered(
            inference={"apiKeySecretRef": {"name": "a", "key": "b"}, "extraHeaders": {"X-T": "${HOME}"}}
        )
        read = codec.parse(made.files["config.v1.yaml"])
        assert read.inference.extra_headers["X-T"].get_secret_value() == "${HOME}"

    @pytest.mark.parametrize(
        ("inference", "line"),
        [
            ({"baseUrl": "https://x.example/v1/chat/completions"}, "spec.inference.baseUrl: found "),
            ({"provider": "azure"}, "spec.inference.baseUrl: found none, with provider azure"),
            (
                {"http": {"maxRetries": 99}},
                "spec.inference.http.maxRetries: found 99; valid: a whole number from 0 to 10",
            ),
            ({"validation": False}, "spec.inference.validation: found false; valid: one of strict, off"),
            (
                {"extraHeaders": {"Authorization": "x"}},
                "spec.inference.extraHeaders.Authorization: found this name",
            ),
            ({"allowedModels": ["ok", ""]}, 'spec.inference.allowedModels[1]: found ""'),
        ],
    )
    def test_what_the_contract_refuses(self, inference: dict[str, Any], line: str) -> None:
        spec = config(inference={"apiKeySecretRef": {"name": "a", "key": "b"}, **inference}).spec.inference
        found = render.contract(spec)
        assert isinstance(found, render.Invalid)
        assert found.message.startswith(line)
        assert "\n" not in found.message

    def test_a_header_s_value_is_not_told(self) -> None:
        value = EVIDENCE.new_key() + "\n"
        headers = {"provider": "echo", "extraHeaders": {"X-Key": value}}
        found = render.render(config(inference=headers).spec.inference, None, SALT)
        assert isinstance(found, render.Invalid)
        EVIDENCE.channel("a refused header").extend(found.message.encode())

    def test_every_hot_path_has_a_name(self) -> None:
        for path in SETTINGS:
            if path.startswith("inference."):
                assert camel(path).startswith("spec."), path
                assert "_" not in camel(path)


class TestFiles:
    def test_a_sidecar_reads_them(self, tmp_path: Path) -> None:
        made = rendered()
        for name, text in made.files.items():
            (tmp_path / name).write_text(text)
        loaded = load(tmp_path, {})
        assert loaded.warnings == ()
        assert loaded.config.inference.default_model == "gpt-4o"
        assert codec.digest(loaded.config) == made.digest
        assert read_key(tmp_path / KEY_FILE).get_secret_value() == "sk-one"
        assert (tmp_path / REVISION_FILE).read_text() == made.revision

    def test_there_is_one_for_each_schema_version_in_use(self) -> None:
        assert set(render.DUMPS) == set(SCHEMA_VERSIONS)
        expected = {config_file(version) for version in SCHEMA_VERSIONS} | {
            KEY_FILE,
            REVISION_FILE,
            naming.SALT_KEY,
        }
        assert rendered().files.keys() == expected

    def test_without_a_key_there_is_no_file_of_it(self) -> None:
        made = render.render(config(inference={"provider": "echo"}).spec.inference, None, SALT)
        assert isinstance(made, render.Rendered)
        assert KEY_FILE not in made.files

    def test_what_a_secret_cannot_hold_is_refused(self) -> None:
        headers = {f"X-{number}": "h" * 8192 for number in range(64)}
        spec = config(inference={"provider": "echo", "extraHeaders": headers}).spec.inference
        assert isinstance(render.render(spec, None, SALT), render.Rendered)
        models = {"inference.allowed_models": ["m" * 256] * 2000}
        found = render.render(spec.model_copy(update={"settings": spec.settings | models}), None, SALT)
        assert isinstance(found, render.Invalid)
        assert "shorter extraHeaders" in found.message

    def test_the_repr_tells_no_key(self) -> None:
        EVIDENCE.channel("repr of Rendered").extend(repr(rendered(key=EVIDENCE.new_key())).encode())


class TestRevision:
    def test_equal_for_equal_input_and_the_salt_that_stands(self) -> None:
        first = rendered()
        standing = {
            "data": {name: base64.b64encode(text.encode()).decode() for name, text in first.files.items()}
        }
        salt = render.salt_of(standing)
        assert salt == SALT
        assert rendered(salt=salt) == first

    def test_it_changes_with_the_key_and_with_the_config(self) -> None:
        other = {"apiKeySecretRef": {"name": "a", "key": "b"}, "defaultModel": "gpt-5"}
        headers = [{**other, "extraHeaders": {"X-T": value}} for value in ("one", "two")]
        revisions = [
            rendered().revision,
            rendered(key="sk-two").revision,
            *(rendered(inference=inference).revision for inference in (other, *headers)),
        ]
        assert len(set(revisions)) == len(revisions)
        digests = [rendered(inference=one).digest for one in headers]
        assert digests[0] == digests[1], "a digest is public: no header's value goes into it"

    def test_it_cannot_be_had_without_the_salt(self) -> None:
        """Whoever knows the config and guesses the key still has no way to check the guess."""
        assert rendered(salt=b"\0" * render.SALT_BYTES).revision != rendered().revision

    @given(st.binary(max_size=80))
    def test_it_is_short_and_of_letters_that_fit_everywhere(self, salt: bytes) -> None:
        revision = rendered(salt=salt).revision
        assert len(revision) == 32
        assert set(revision) <= set("0123456789abcdef")

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            {"salt": ""},
            {"salt": "?"},
            {"salt": base64.b64encode(b"zz").decode()},
            {"salt": "MDA="},
            {"salt": 1},
        ],
        ids=json.dumps,
    )
    def test_a_salt_that_is_none_is_not_used(self, data: dict[str, Any] | None) -> None:
        assert render.salt_of(None) is None
        assert render.salt_of({"data": data}) is None
