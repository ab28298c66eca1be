"""Writes what follows from the chart and the CRD, so that it cannot say anything else.

    python helm/generate.py [--helm HELM]            write
    python helm/generate.py [--helm HELM] --check    write nothing; exit 1 where a file is out of date

    deploy/crds/            ← the CRD, as `inference-operator crd` prints it
    helm/inference-sidecar/ ← its copy of the CRD; in values.schema.json the part `sidecar`; the tables of README.md
    deploy/operator/        ← the chart's objects, as plain manifests

A target is a function that returns the file's text; the order counts, since the last one reads what the others wrote.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from inference_operator.__main__ import command

REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "helm" / "inference-sidecar"
NAME = NAMESPACE = "inference-sidecar"
OF_THE_CHART = frozenset({"image", "imagePullPolicy"})
"""Fields of spec.sidecar that have values of their own, under `images.sidecar`."""
INSTALL = f"""\
# Written by helm/generate.py from the chart in helm/inference-sidecar, with its default values.
#   kubectl apply --server-side -f deploy/operator/install.yaml
# To delete it all is to delete the CRD, and with it every InferenceConfig of the cluster.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
OF_HELM = re.compile(
    r"^ *(# Source: .*|helm\.sh/chart: .*|app\.kubernetes\.io/managed-by: Helm)\n", re.MULTILINE
)
"""Lines that would say that Helm keeps these objects."""

Schema = dict[str, Any]


def definition() -> str:
    """The CRD, as the command prints it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command(["crd"])
    return printed.getvalue()


def values_schema() -> str:
    """values.schema.json, which is written by hand but for the property `sidecar`."""
    schema: Schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["sidecar"] = strict(sidecar_schema())
    return json.dumps(schema, indent=2) + "\n"


def sidecar_schema() -> Schema:
    """spec.sidecar of the CRD, without what the chart says elsewhere."""
    (version,) = yaml.safe_load(definition())["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["sidecar"]
    fields = {name: below for name, below in schema["properties"].items() if name not in OF_THE_CHART}
    return {**schema, "properties": fields}


def strict(schema: Schema) -> Schema:
    """A structural schema as plain JSON Schema that takes no unknown field, and no defaults."""
    made = {
        word: value
        for word, value in schema.items()
        if word != "default" and not word.startswith("x-kubernetes-")
    }
    if "properties" in made:
        made["properties"] = {name: strict(below) for name, below in made["properties"].items()}
        made["additionalProperties"] = False
    for word in ("items", "additionalProperties"):
        if isinstance(made.get(word), dict):
            made[word] = strict(made[word])
    return made


def readme() -> str:
    """The chart's README, which is written by hand but for its tables."""
    text = (CHART / "README.md").read_text(encoding="utf-8")
    fields = sidecar_schema()["properties"]
    tables = {
        "values": table(("Value", "Default", "What it is"), value_rows()),
        "sidecar": table(
            ("Field", "What it is"),
            ((f"`sidecar.{name}`", below["description"]) for name, below in fields.items()),
        ),
    }
    for name, lines in tables.items():
        text = filled(text, name, lines)
    return text


def filled(text: str, name: str, lines: str) -> str:
    """`text` with `lines` between the marks of that name."""
    found = re.fullmatch(rf"(.*<!-- {name}: [^\n]* -->\n).*(<!-- /{name} -->.*)", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no place for {name}")
    return found[1] + lines + found[2]


def value_rows() -> Iterator[tuple[str, str, str]]:
    """Path, default and description of every value that has a comment with `--` above it."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()

    def within(node: yaml.MappingNode, path: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            here = f"{path}.{key.value}".removeprefix(".")
            if told := comment(lines, key.start_mark.line):
                default = json.dumps(yaml.safe_load(yaml.serialize(value)))
                yield f"`{here}`", f"`{default}`", told
            elif isinstance(value, yaml.MappingNode):
                yield from within(value, here)

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from within(root, "")


def comment(lines: list[str], line: int) -> str:
    """The description that ends right above a line, counted from 0; empty if there is none."""
    told: list[str] = []
    for above in reversed(lines[:line]):
        text = above.strip()
        if not text.startswith("#"):
            break
        told.insert(0, text.removeprefix("#").strip())
        if told[0].startswith("-- "):
            return " ".join(told).removeprefix("-- ")
    return ""


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    cells = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in cells)


def install(helm: str) -> str:
    """All objects of a release with default values, in Helm's order, and their namespace."""
    if shutil.which(helm) is None:
        raise SystemExit(f"no {helm} here; name one by --helm (`make cluster-programs` builds one)")
    given = ["--namespace", NAMESPACE, "--skip-tests", "--set", "crds.keep=false"]
    done = subprocess.run(
        [helm, "template", NAME, str(CHART), *given], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return INSTALL + OF_HELM.sub("", done.stdout)


def targets(helm: str) -> Mapping[Path, Callable[[], str]]:
    """What is written, by file."""
    return {
        REPOSITORY / "deploy" / "crds" / "inferenceconfig.yaml": definition,
        CHART / "files" / "inferenceconfig.yaml": definition,
        CHART / "values.schema.json": values_schema,
        CHART / "README.md": readme,
        REPOSITORY / "deploy" / "operator" / "install.yaml": lambda: install(helm),
    }


def main(arguments: list[str]) -> int:
    """Writes or checks every file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write what follows from the chart and the CRD.")
    parser.add_argument("--helm", default="helm", help="the program (default: that of the PATH)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for file, made in targets(options.helm).items():
        text = made()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(file.relative_to(REPOSITORY))
            if not options.check:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"{name}: {'out of date' if options.check else 'written'}\n")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
