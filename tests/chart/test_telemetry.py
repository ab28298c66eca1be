"""The chart's share in telemetry: what operator and injector say of themselves, how they are told to send OTLP, labels
that a scraper leaves alone.

Left out: which ports are scraped (test_objects.py), what is sent (tests/operator/test_operator_otlp.py).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from chart.conftest import Render
from chart.release import VARIANTS, Release
from inference_operator.telemetry import names
from inference_operator.telemetry.setting import Export, export_of
from inference_sidecar.telemetry import names as sidecar_names

pytestmark = pytest.mark.timeout(900)

COMPONENTS = ("operator", "injector")


@pytest.fixture(params=VARIANTS)
def release(request: pytest.FixtureRequest, render: Render) -> Release:
    return render(request.param)


def named(variables: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in variables}


class TestEnvironment:
    def test_says_whose_telemetry_it_is(self, release: Release) -> None:
        for component in COMPONENTS:
            deployment, container = release.deployment(component), release.container(component)
            names = [one["name"] for one in container["env"]]
            assert len(set(names)) == len(names)
            environment = named(container["env"])
            told = dict(
                pair.split("=") for pair in environment["OTEL_RESOURCE_ATTRIBUTES"]["value"].split(",")
            )
            assert told.items() >= {
                "k8s.container.name": container["name"], "k8s.deployment.name": deployment["metadata"]["name"],
                "k8s.workload.kind": "deployment", "k8s.workload.name": deployment["metadata"]["name"],
                "k8s.namespace.name": "$(POD_NAMESPACE)", "k8s.pod.name": "$(POD_NAME)",
            }.items()  # fmt: skip
            referred = {name for value in told.values() for name in re.findall(r"\$\((\w+)\)", value)}
            assert referred == {"POD_NAME", "POD_NAMESPACE", "POD_UID", "NODE_NAME"}
            # Kubelet expands what was declared before, and leaves the rest as it stands.
            assert all(names.index(name) < names.index("OTEL_RESOURCE_ATTRIBUTES") for name in referred)
            assert {
                one["name"]: one for one in release.values[component]["env"]
            }.items() <= environment.items()

    def test_of_the_values_goes_first(self, render: Render) -> None:
        mine = ("operator.env[0].name=POD_NAME", "operator.env[0].value=mine",
                "operator.env[1].name=OTEL_RESOURCE_ATTRIBUTES", "operator.env[1].value=k8s.pod.name=$(POD_NAME)")  # fmt: skip
        found = render("default", *mine).container("operator")["env"]
        names = [one["name"] for one in found]
        assert sorted(names) == [
            "NODE_NAME",
            "OTEL_RESOURCE_ATTRIBUTES",
            "POD_NAME",
            "POD_NAMESPACE",
            "POD_UID",
        ]
        assert named(found)["POD_NAME"] == {"name": "POD_NAME", "value": "mine"}
        assert named(found)["OTEL_RESOURCE_ATTRIBUTES"]["value"] == "k8s.pod.name=$(POD_NAME)"

    def test_that_asks_for_otlp_is_what_the_operator_speaks(self, render: Render) -> None:
        release = render("everything")
        for component in COMPONENTS:
            environment = named(release.container(component)["env"])
            plain = {name: one["value"] for name, one in environment.items() if "value" in one}
            assert export_of(plain) == Export(scraped=True, otlp=True)
            assert "secretKeyRef" in environment["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]
            bare = named(render().container(component)["env"])
            plain = {name: one["value"] for name, one in bare.items() if "value" in one}
            assert export_of(plain) == Export(scraped=True, otlp=False)


@pytest.mark.parametrize("metric", [*names.METRICS, *sidecar_names.METRICS], ids=lambda metric: metric.name)
def test_no_label_is_renamed_by_whoever_scrapes(metric: Any) -> None:
    """A PodMonitor gives each series these labels; one of that name becomes exported_*, and queries miss it."""
    given = {"namespace", "pod", "container", "endpoint", "job", "instance"}
    assert not given & {sidecar_names.label(attribute) for attribute in metric.attributes}
