"""The chart's values: what is refused and why, that all are described, and what is generated from them.

Tested: mistakes by table; values.yaml and values.schema.json name the same; README, schema, the copy of the CRD and
the plain manifests are what the generator makes; the plain manifests are the chart's. Left out: what values do
(test_objects.py).
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from chart.conftest import Render
from chart.release import CHART, NAME, NAMESPACE, REPOSITORY, VARIANTS, template

pytestmark = pytest.mark.timeout(900)

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
FOR_PARENTS = {"global", "enabled"}
"""Charts that have this one as a part may set these; it looks at neither."""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("helm_generate", REPOSITORY / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("imges.operator.tag=1", "imges"),
        ("images.operator.tg=1", "/images/operator"),
        ("images.operator.tag=a b", "/images/operator/tag"),
        ("images.operator.digest=sha256:12", "/images/operator/digest"),
        ("images.operator.registry=registry.example/", "/images/operator/registry"),
        ("images.sidecar.pullPolicy=Sometimes", "/images/sidecar/pullPolicy"),
        ("scope.namespaces=team-a", "/scope/namespaces"),
        ("scope.namespaces={Team}", "/scope/namespaces/0"),
        ("scope.namespaces={a,a}", "/scope/namespaces"),
        ("injector.replicas=0", "/injector/replicas"),
        ("injector.replicas=two", "/injector/replicas"),
        ("operator.replicas=2", "/operator"),
        ("webhook.port=70000", "/webhook/port"),
        ("webhook.failurePolicy=fail", "/webhook/failurePolicy"),
        ("webhook.timeoutSeconds=31", "/webhook/timeoutSeconds"),
        ("webhook.certificates.mode=none", "/webhook/certificates/mode"),
        ("webhook.certificates.mode=secret", "/webhook/certificates/secretName"),
        ("webhook.certificates.secretName=mine", "/webhook/certificates/secretName"),
        ("webhook.certificates.caBundle=YQ==", "/webhook/certificates/caBundle"),
        ("networkPolicy.apiServerPorts={}", "/networkPolicy/apiServerPorts"),
        ("podMonitor.interval=often", "/podMonitor/interval"),
        ("fullnameOverride=" + "a" * 51, "/fullnameOverride"),
        ("sidecar.image=mine", "/sidecar"),
        ("sidecar.logLevel=loud", "/sidecar/logLevel"),
        ("sidecar.telemetry.endpoint=collector:4318", "/sidecar/telemetry/endpoint"),
        ("sidecar.telemetry.sampling=2", "/sidecar/telemetry/sampling"),
        ("sidecar.ports.api=80", "/sidecar/ports/api"),
    ],
)
def test_a_mistake_is_refused_by_its_name(helm: Path, change: str, named: str) -> None:
    done = template(helm, "default", change)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert named in done.stderr


def test_an_older_kubernetes_is_refused(helm: Path) -> None:
    done = template(helm, "default", version="1.28.9")
    assert done.returncode != 0
    assert "1.29" in done.stderr
    assert template(helm, "default", version="1.29.0").returncode == 0


@pytest.mark.parametrize("change", ["global.registry=x", "enabled=true", "sidecar.resources.limits=null"])
def test_what_other_charts_and_people_set_is_taken(helm: Path, change: str) -> None:
    done = template(helm, "default", change)
    assert done.returncode == 0, done.stderr


def test_values_and_their_schema_name_the_same() -> None:
    def compare(schema: dict[str, Any], values: Any, path: str) -> None:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if "properties" not in schema or path.endswith(("/sidecar", "/resources", "/issuerRef")):
            return  # what is in it is left to people
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - (FOR_PARENTS if not path else set()) == set(values), path
        for name, below in values.items():
            compare(schema["properties"][name], below, f"{path}/{name}")

    compare(SCHEMA, VALUES, "")


def test_every_value_is_described(generator: ModuleType) -> None:
    described = {path.strip("`") for path, _, _ in generator.value_rows()}

    def undescribed(values: dict[str, Any], path: str) -> Iterator[str]:
        for name, below in values.items():
            here = f"{path}.{name}".removeprefix(".")
            if here in described:
                continue
            if isinstance(below, dict) and below:
                yield from undescribed(below, here)
            else:
                yield here

    assert list(undescribed(VALUES, "")) == []


def test_every_value_of_the_variants_is_known_to_the_chart() -> None:
    """A test that turns everything on turns on everything."""
    everything = yaml.safe_load((Path(__file__).parent / "values" / "everything.yaml").read_text())

    def absent(values: dict[str, Any], given: dict[str, Any], path: str) -> Iterator[str]:
        for name, below in values.items():
            if name not in given:
                yield f"{path}.{name}"
            elif isinstance(below, dict) and isinstance(given[name], dict) and path != ".sidecar":
                yield from absent(below, given[name], f"{path}.{name}")

    excluded = {".webhook.hostNetwork", ".webhook.certificates.caBundle", ".images.sidecar.digest"}
    excluded |= {".serviceAccounts.injector.annotations"}
    excluded |= {f".{component}.nodeSelector.kubernetes.io/os" for component in ("operator", "injector")}
    assert set(absent(VALUES, everything, "")) == excluded
    assert set(everything["sidecar"]) == set(SCHEMA["properties"]["sidecar"]["properties"])
    assert len(VARIANTS) == 6


def test_generated_files_are_what_the_generator_makes(generator: ModuleType, helm: Path) -> None:
    for file, made in generator.targets(str(helm)).items():
        name = file.relative_to(REPOSITORY)
        assert file.read_text(encoding="utf-8") == made(), f"run: make manifests HELM=... ({name})"


def test_plain_manifests_are_the_charts(generator: ModuleType, render: Render) -> None:
    """But for the namespace, and what says that Helm keeps them."""
    plain = list(yaml.safe_load_all((REPOSITORY / "deploy" / "operator" / "install.yaml").read_text()))
    assert plain[0]["kind"] == "Namespace"
    release = render("default", "crds.keep=false")
    text = json.dumps(release.objects())
    text = re.sub(rf"\b{NAMESPACE}\b", generator.NAMESPACE, text)
    for one in json.loads(re.sub(rf"\b{NAME}-inference-sidecar\b|\b{NAME}\b", generator.NAME, text)):
        (same,) = [
            other
            for other in plain
            if other["kind"] == one["kind"]
            and other["metadata"]["name"] == one["metadata"]["name"]
            and other["metadata"].get("namespace") == one["metadata"].get("namespace")
        ]
        plain.remove(same)
        labels = [one["metadata"]["labels"]]
        if one["kind"] == "Deployment":
            labels.append(one["spec"]["template"]["metadata"]["labels"])
        for each in labels:
            del each["helm.sh/chart"], each["app.kubernetes.io/managed-by"]
        assert same == one
    assert len(plain) == 1
