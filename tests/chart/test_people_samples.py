"""The samples for people: InferenceConfigs and an app, as the operator and the injector take them.

Tested: each config is whole, named by no field that the CRD does not have, and renders for a sidecar; the app gets a
sidecar by the sample that it says, holds no key, and is let into the strictest namespace. Left out: clusters.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from chart.release import REPOSITORY
from inference_config.codec import parse
from inference_config.names import KEY_FILE, config_file
from inference_operator import crd, inject, naming, render

SAMPLES = REPOSITORY / "deploy" / "samples"
CONFIGS = ("openai", "azure", "vllm")


def config(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((SAMPLES / f"{name}.yaml").read_text()))


def app() -> dict[str, Any]:
    return dict(yaml.safe_load((SAMPLES / "example-app.yaml").read_text()))


def test_all_are_looked_at() -> None:
    assert {file.stem for file in SAMPLES.iterdir()} == {*CONFIGS, "example-app"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_whole(name: str) -> None:
    assert crd.unknown_fields(config(name)) == ()
    parsed = crd.parse(config(name))
    rendered = render.render(parsed.spec.inference, SecretStr("sk-sample"), bytes(render.SALT_BYTES))
    assert isinstance(rendered, render.Rendered)
    inference = parse(rendered.files[config_file(1)]).inference
    assert inference.provider == parsed.spec.inference.provider
    assert rendered.files[KEY_FILE] == "sk-sample"
    assert inference.default_model


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_how_its_key_is_made_and_has_none(name: str) -> None:
    text = (SAMPLES / f"{name}.yaml").read_text()
    reference = crd.parse(config(name)).spec.inference.api_key_secret_ref
    assert reference is not None
    assert f"kubectl create secret generic {reference.name} --from-literal={reference.key}=" in text


def test_the_app_gets_its_sidecar_by_one_label() -> None:
    pod = app()["spec"]["template"]
    assert pod["metadata"]["labels"][naming.INJECT_LABEL] == "true"
    outcome = inject.admit(pod, "default", [crd.parse(config(name)) for name in CONFIGS], crd.Sidecar())
    assert isinstance(outcome, inject.Injected)
    assert outcome.warnings == ()
    assert outcome.pod["metadata"]["annotations"][naming.INJECTED_ANNOTATION] == "openai"
    variables = {one["name"]: one["value"] for one in outcome.pod["spec"]["containers"][0]["env"]}
    assert variables["OPENAI_BASE_URL"] == "http://127.0.0.1:3000/v1"
    script = pod["spec"]["containers"][0]["args"][-1]
    assert all(name in script for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"))
    compile(script, "example-app", "exec")


def test_the_app_may_name_another_config_as_it_says() -> None:
    pod = app()["spec"]["template"]
    (line,) = [
        one.strip(" #")
        for one in (SAMPLES / "example-app.yaml").read_text().splitlines()
        if "annotations:" in one
    ]
    named = yaml.safe_load(line)["annotations"]
    pod["metadata"]["annotations"] = named
    outcome = inject.admit(pod, "default", [crd.parse(config(name)) for name in CONFIGS], crd.Sidecar())
    assert isinstance(outcome, inject.Injected)
    assert (
        outcome.pod["metadata"]["annotations"][naming.INJECTED_ANNOTATION] == named[naming.CONFIG_ANNOTATION]
    )


def test_the_app_has_no_key_and_is_restricted() -> None:
    spec = app()["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    (container,) = spec["containers"]
    assert "env" not in container
    assert "envFrom" not in container
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert app()["spec"]["selector"]["matchLabels"].items() <= app()["metadata"]["labels"].items()


def test_the_notes_of_the_chart_show_a_config_that_works() -> None:
    notes = (REPOSITORY / "helm" / "inference-sidecar" / "templates" / "NOTES.txt").read_text()
    shown = notes.partition("<<END\n")[2].partition("   END\n")[0]
    obj = yaml.safe_load("\n".join(line.removeprefix("   ") for line in shown.splitlines()))
    assert crd.unknown_fields(obj) == ()
    assert crd.parse(obj).spec.selector is not None
