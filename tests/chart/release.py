"""A rendered chart as tests look at it.

Enters: a Helm, a file of values, changes. Leaves: objects by kind and name, and what Helm says of values that it
refuses. Selectors are read as the API server reads them. Must not know what is expected of the chart.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "helm" / "inference-sidecar"
VARIANTS = ("default", *sorted(file.stem for file in (Path(__file__).parent / "values").iterdir()))
NAME, NAMESPACE = "house", "platform"

Object = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """`made` is what Helm printed, `values` what it was given, the chart's own included."""

    made: tuple[Object, ...]
    values: Object

    def objects(self, kind: str | None = None, *, tests: bool = False) -> list[Object]:
        """Those of a kind, or all; with those of `helm test` or without."""
        return [
            one
            for one in self.made
            if kind in (None, one["kind"])
            and (tests or "helm.sh/hook" not in (one["metadata"].get("annotations") or {}))
        ]

    def one(self, kind: str, name: str | None = None) -> Object:
        found = [one for one in self.objects(kind) if name in (None, one["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
        return found[0]

    def defaults(self) -> Object:
        """The ConfigMap of the chart-wide defaults; others hold dashboards."""
        (found,) = [one for one in self.objects("ConfigMap") if "sidecar.yaml" in one["data"]]
        return found

    def deployment(self, component: str) -> Object:
        (found,) = [
            one
            for one in self.objects("Deployment")
            if one["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        return found

    def pod(self, component: str) -> Object:
        """Metadata and spec of the component's pods."""
        return dict(self.deployment(component)["spec"]["template"])

    def pods(self) -> Iterator[Object]:
        """Every pod that the chart leads to, that of `helm test` included."""
        yield self.pod("operator")
        yield self.pod("injector")
        yield from self.objects("Pod", tests=True)

    def container(self, component: str) -> Object:
        (found,) = self.pod(component)["spec"]["containers"]
        return dict(found)


def rendered(helm: Path, variant: str, *sets: str) -> Release:
    """The release, or an AssertionError with Helm's words."""
    done = template(helm, variant, *sets)
    assert done.returncode == 0, done.stderr
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    if variant != "default":
        values = merged(values, yaml.safe_load(file_of(variant).read_text()))
    # The one in C: the CRD alone is a thousand lines.
    made = yaml.load_all(done.stdout, yaml.CSafeLoader)
    return Release(tuple(one for one in made if one is not None), values)


def template(helm: Path, variant: str, *sets: str, version: str = "") -> subprocess.CompletedProcess[str]:
    """`version`: of a Kubernetes that the release is for."""
    command = [str(helm), "template", NAME, str(CHART), "--namespace", NAMESPACE]
    if version:
        command += ["--kube-version", version]
    if variant != "default":
        command += ["--values", str(file_of(variant))]
    for one in sets:
        command += ["--set", one]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def file_of(variant: str) -> Path:
    return Path(__file__).parent / "values" / f"{variant}.yaml"


def merged(base: Object, over: Mapping[str, Any]) -> Object:
    """As Helm lays one file of values over another."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels. An empty one takes all."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        value = labels.get(expression["key"])
        match expression["operator"]:
            case "In":
                taken = value in expression["values"]
            case "NotIn":
                taken = value not in expression["values"]
            case "Exists":
                taken = value is not None
            case _:
                taken = value is None
        if not taken:
            return False
    return True
