"""Writes the dashboards and the alert rules, from `boards/`, the names of the telemetry and the chart's thresholds.

python deploy/grafana/generate.py            write
python deploy/grafana/generate.py --check    write nothing; exit 1 where a file is out of date

deploy/grafana/dashboards/  ← the dashboards, for Grafana's import and for provisioning
deploy/grafana/alerts.yaml  ← the rules, for Prometheus' rule_files
deploy/observability/       ← both, and the configuration of deploy/compose/telemetry/, as ConfigMaps
helm/inference-sidecar/     ← the chart's copies; thresholds of the rules are left to its values
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from boards import alerts, platform_teams, workload

HERE: Final = Path(__file__).parent
DEPLOY: Final = HERE.parent
CHART: Final = DEPLOY.parent / "helm" / "inference-sidecar"
TELEMETRY: Final = DEPLOY / "compose" / "telemetry"
OBSERVABILITY: Final = DEPLOY / "observability"
HEAD: Final = "# Written by deploy/grafana/generate.py from deploy/grafana/boards.\n"


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that a reader can read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dumped(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=116)


def dense(text: str) -> str:
    """A dashboard without the white space that a reader wants and a ConfigMap has no room for."""
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) + "\n"


def config_map(name: str, files: Mapping[str, str]) -> str:
    labels = {"app.kubernetes.io/name": name.partition("-")[0], "app.kubernetes.io/part-of": "observability"}
    return dumped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "observability", "labels": labels},
            "data": dict(files),
        }
    )


def files() -> dict[Path, str]:
    """What is written, by file."""
    boards = {"platform.json": platform_teams.made(), "workload.json": workload.made()}
    rules = dumped(alerts.rules())
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    plain = HEAD + alerts.filled(rules, values["prometheusRule"]["thresholds"])
    settings = {
        name: (TELEMETRY / name).read_text(encoding="utf-8")
        for name in ("collector.yaml", "tempo.yaml", "prometheus.yaml", "datasources.yaml", "dashboards.yaml")
    }
    made = {HERE / "dashboards" / name: text for name, text in boards.items()}
    made |= {CHART / "files" / "dashboards" / name: dense(text) for name, text in boards.items()}
    made[CHART / "files" / "alerts.yaml"] = HEAD + rules
    made[HERE / "alerts.yaml"] = plain
    made[OBSERVABILITY / "configuration.yaml"] = HEAD + "---\n".join(
        (
            config_map("collector", {"collector.yaml": settings["collector.yaml"]}),
            config_map("tempo", {"tempo.yaml": settings["tempo.yaml"]}),
            config_map("prometheus", {"prometheus.yaml": settings["prometheus.yaml"]}),
            config_map("prometheus-rules", {"alerts.yaml": plain}),
            config_map("grafana-datasources", {"datasources.yaml": settings["datasources.yaml"]}),
            config_map("grafana-providers", {"dashboards.yaml": settings["dashboards.yaml"]}),
            config_map("grafana-dashboards", {name: dense(text) for name, text in boards.items()}),
        )
    )
    return made


def main(arguments: list[str]) -> int:
    """Writes or checks every file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write dashboards and alert rules.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for file, text in files().items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(file.relative_to(DEPLOY.parent))
            if not options.check:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"{name}: {'out of date' if options.check else 'written'}\n")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
