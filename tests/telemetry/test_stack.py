"""deploy/compose/telemetry.yml and deploy/observability: what is in them fits together, and with the sidecar.

Tested: files that are mounted exist, addresses name services and their ports, images have exact tags; the real programs
take their configuration; what Prometheus promotes is what the sidecar sends; datasources are what dashboards ask for,
and exemplars are linked; the compose's sidecar starts and serves; the cluster's pods are restricted and mount what
there is. Left out: engines and registries (none is to be had), Tempo's and Grafana's own reading of their files; what
an API server says of the manifests (tests/cluster).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.client import call
from harness.evidence import EVIDENCE
from harness.process import Sidecar, chat_body
from inference_config.load import load
from inference_sidecar.telemetry import names
from telemetry.boards import ALERTS, BOARDS, REPOSITORY, board
from telemetry.conftest import Program
from telemetry.stack import COMPOSE, compose, settings

pytestmark = pytest.mark.timeout(900)

OBSERVABILITY = REPOSITORY / "deploy" / "observability"
TAGGED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+")
PORTS = {
    "collector": {4318, 4317},
    "tempo": {3200, 4318},
    "prometheus": {9090},
    "grafana": {3000},
    "sidecar": {3000},
}


def objects() -> list[dict[str, Any]]:
    return [
        one
        for file in sorted(OBSERVABILITY.glob("*.yaml"))
        for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects() if one["kind"] == kind}


def addresses(value: Any) -> Iterator[tuple[str, int]]:
    """Every http://NAME:PORT in a file's values."""
    for host, port in re.findall(r"http://([a-z]+):(\d+)", json.dumps(value)):
        yield host, int(port)


class TestCompose:
    def test_mounts_what_there_is(self) -> None:
        for name, service in compose().items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (COMPOSE / source).exists(), (name, source)
                    assert volume.endswith(":ro"), (name, volume)

    def test_every_flag_names_a_file_that_is_mounted(self) -> None:
        for service in compose().values():
            for flag in service.get("command", []):
                if "config" in flag:
                    file = flag.partition("=")[2]
                    assert file in [volume.split(":")[1] for volume in service["volumes"]]

    def test_images_have_exact_tags_and_ports_are_on_loopback(self) -> None:
        for name, service in compose().items():
            assert ("build" in service) is (name == "sidecar")
            assert "build" in service or TAGGED.fullmatch(service["image"]), service["image"]
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
            assert service["cap_drop"] == ["ALL"]

    def test_everything_is_addressed_where_it_listens(self) -> None:
        files = [settings(name) for name in ("collector.yaml", "datasources.yaml")]
        found = set(addresses([compose()["sidecar"], *files]))
        assert found == {("collector", 4318), ("tempo", 4318), ("tempo", 3200), ("prometheus", 9090)}
        assert all(port in PORTS[host] for host, port in found)

    def test_the_collector_takes_its_configuration(self, program: Program) -> None:
        file = COMPOSE / "telemetry" / "collector.yaml"
        done = subprocess.run(
            [str(program("collector")), "validate", f"--config={file}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_prometheus_takes_its_configuration(self, program: Program, tmp_path: Path) -> None:
        text = (COMPOSE / "telemetry" / "prometheus.yaml").read_text()
        (there,) = re.findall(r"- (/etc/prometheus/rules)/\*\.yaml", text)
        assert f"../grafana/alerts.yaml:{there}/alerts.yaml:ro" in compose()["prometheus"]["volumes"]
        config = tmp_path / "prometheus.yaml"
        config.write_text(text.replace(there, str(ALERTS.parent)))
        command = [str(program("promtool")), "check", "config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "9 rules found" in done.stdout

    def test_prometheus_takes_otlp_and_keeps_what_leads_to_traces(self) -> None:
        assert {"--web.enable-otlp-receiver", "--enable-feature=exemplar-storage"} <= set(
            compose()["prometheus"]["command"]
        )
        prometheus = settings("prometheus.yaml")
        assert tuple(prometheus["otlp"]["promote_resource_attributes"]) == names.PROMOTED
        assert prometheus["otlp"]["translation_strategy"] == "UnderscoreEscapingWithSuffixes"
        assert prometheus["storage"]["tsdb"]["out_of_order_time_window"] == "30m"

    def test_nothing_is_counted_twice(self) -> None:
        """By OTLP alone: who is sent to and scrapes as well sums both."""
        scraped = [
            target
            for job in settings("prometheus.yaml")["scrape_configs"]
            for one in job["static_configs"]
            for target in one["targets"]
        ]
        assert scraped == ["localhost:9090"]

    def test_datasources_are_those_that_dashboards_ask_for(self) -> None:
        found = {one["type"]: one for one in settings("datasources.yaml")["datasources"]}
        asked = {
            variable["query"]
            for file in BOARDS
            for variable in board(file)["templating"]["list"]
            if variable["type"] == "datasource"
        }
        assert asked == set(found)
        (destination,) = found["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
        assert destination == {"name": "trace_id", "datasourceUid": found["tempo"]["uid"]}
        assert found["tempo"]["jsonData"]["tracesToMetrics"]["datasourceUid"] == found["prometheus"]["uid"]

    def test_metrics_come_as_often_as_grafana_believes(self) -> None:
        """`$__rate_interval` is four times that: with fewer samples in it a rate is a gap."""
        environment = dict(entry.split("=", 1) for entry in compose()["sidecar"]["environment"])
        (prometheus,) = [
            one for one in settings("datasources.yaml")["datasources"] if one["type"] == "prometheus"
        ]
        interval = prometheus["jsonData"]["timeInterval"]
        assert f"{int(environment['OTEL_METRIC_EXPORT_INTERVAL']) // 1000}s" == interval

    def test_dashboards_are_where_grafana_looks(self) -> None:
        (provider,) = settings("dashboards.yaml")["providers"]
        path = provider["options"]["path"]
        assert f"../grafana/dashboards:{path}:ro" in compose()["grafana"]["volumes"]
        environment = dict(entry.split("=", 1) for entry in compose()["grafana"]["environment"])
        home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
        assert str(home.parent) == path
        assert (BOARDS[0].parent / home.name).is_file()

    def sidecar_environment(self, **given: str) -> dict[str, str]:
        def put_in(text: str) -> str:
            return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text)

        entries = (entry.split("=", 1) for entry in compose()["sidecar"]["environment"])
        return {name: put_in(value) for name, value in entries}

    def test_its_sidecar_serves_without_a_key(self, tmp_path: Path) -> None:
        sidecar = Sidecar(None, EVIDENCE.new_key(), environ=self.sidecar_environment(), cwd=tmp_path)
        try:
            answer = call(sidecar.port, "POST", "/v1/chat/completions", chat_body())
            assert answer.status == 200, answer
        finally:
            sidecar.terminate()
            code = sidecar.wait()
        assert code == 0, sidecar.output

    def test_its_sidecar_takes_a_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        key = EVIDENCE.new_key()
        loaded = load(None, self.sidecar_environment(INFERENCE_PROVIDER="openai", OPENAI_API_KEY=key))
        assert loaded.config.inference.provider == "openai"
        assert loaded.warnings == ()


class TestCluster:
    def test_every_object_is_labelled_and_in_the_namespace(self) -> None:
        for one in objects():
            assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "observability"
            if one["kind"] != "Namespace":
                assert one["metadata"]["namespace"] == "observability"
        (namespace,) = of_kind("Namespace").values()
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"

    def test_images_and_flags_are_those_of_compose(self) -> None:
        for name, deployment in of_kind("Deployment").items():
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            service = compose()[name]
            assert container["image"] == service["image"]
            named = {flag.partition("=")[0] for flag in container.get("args", [])}
            assert named == {flag.partition("=")[0] for flag in service.get("command", [])}

    def test_pods_mount_what_there_is(self) -> None:
        maps, used = of_kind("ConfigMap"), set()
        for deployment in of_kind("Deployment").values():
            spec = deployment["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            assert set(volumes) == {mount["name"] for mount in container["volumeMounts"]}
            for mount in container["volumeMounts"]:
                if "configMap" in volumes[mount["name"]]:
                    source = maps[volumes[mount["name"]]["configMap"]["name"]]
                    used.add(source["metadata"]["name"])
                    for flag in container.get("args", []):
                        file = flag.partition("=")[2]
                        if file.startswith(f"{mount['mountPath']}/"):
                            assert file.removeprefix(f"{mount['mountPath']}/") in source["data"]
        assert used == set(maps)

    def test_configuration_is_that_of_compose(self) -> None:
        for one in of_kind("ConfigMap").values():
            for name, text in one["data"].items():
                beside = {
                    "alerts.yaml": ALERTS,
                    **{file.name: file for file in BOARDS},
                }.get(name, COMPOSE / "telemetry" / name)
                if name.endswith(".json"):
                    assert json.loads(text) == json.loads(beside.read_text(encoding="utf-8"))
                else:
                    assert text == beside.read_text(encoding="utf-8")
            assert len(json.dumps(one["data"])) < 900_000, "a ConfigMap holds 1 MiB"

    def test_services_lead_to_ports_that_pods_have(self) -> None:
        deployments = of_kind("Deployment")
        services = of_kind("Service")
        assert set(services) == set(deployments)
        for name, service in services.items():
            template = deployments[name]["spec"]["template"]
            assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
            (container,) = template["spec"]["containers"]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for port in service["spec"]["ports"]:
                assert ports[port["targetPort"]] == port["port"]
            assert set(ports.values()) == PORTS[name]

    def test_every_container_is_restricted(self) -> None:
        for deployment in of_kind("Deployment").values():
            spec = deployment["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert spec["automountServiceAccountToken"] is False
            (container,) = spec["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["readinessProbe"]

    def test_only_the_collector_is_reached_from_elsewhere(self) -> None:
        """Nothing else here asks who comes."""
        policies = of_kind("NetworkPolicy")
        assert policies["observability"]["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]
        selector = policies["collector"]["spec"]["podSelector"]["matchLabels"]
        assert selector == {"app.kubernetes.io/name": "collector"}
        (container,) = of_kind("Deployment")["collector"]["spec"]["template"]["spec"]["containers"]
        open_ports = {port["port"] for port in policies["collector"]["spec"]["ingress"][0]["ports"]}
        assert open_ports == {port["name"] for port in container["ports"]}

    def test_grafana_wants_a_password_of_ones_own(self) -> None:
        (container,) = of_kind("Deployment")["grafana"]["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one for one in container["env"]}
        assert variables["GF_SECURITY_ADMIN_PASSWORD"]["valueFrom"]["secretKeyRef"] == {
            "name": "grafana-admin",
            "key": "password",
        }
        assert not any("ANONYMOUS" in name for name in variables)
        assert of_kind("Secret") == {}

    def test_the_readmes_values_are_the_charts(self, program: Program, tmp_path: Path) -> None:
        text = (OBSERVABILITY / "README.md").read_text()
        (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        values = yaml.safe_load(block)
        assert values["sidecar"]["telemetry"]["endpoint"] == "http://collector.observability:4318"
        for component in ("operator", "injector"):
            variables = {one["name"]: one["value"] for one in values[component]["env"]}
            assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.observability:4318"
        file = tmp_path / "telemetry.yaml"
        file.write_text(block)
        chart = REPOSITORY / "helm" / "inference-sidecar"
        done = subprocess.run(
            [str(program("helm")), "template", "house", str(chart), "--values", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("http://collector.observability:4318") >= 3
