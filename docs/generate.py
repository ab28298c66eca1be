"""Writes what of docs/ is made from the code, so that it cannot say anything else.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 where one of them is not what the code says

A page is a function without arguments that returns Markdown; `PAGES` has them by file name. Of a page that is
written by hand in part, what stands between the two marks is made here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from inference_config.settings import SECTIONS, SETTINGS, Setting
from inference_sidecar.telemetry import names
from inference_sidecar.telemetry.prometheus import bound

HERE = Path(__file__).parent

CONFIGURATION = """\
# Configuration

<!-- Written by docs/generate.py from sidecar/inference_config/schema.py. Change the schema, not this page. -->

Every setting has a default; the sidecar starts with a key and nothing else. `inference-sidecar check` prints the
configuration that is in effect, with secrets masked, and for each value where it came from.

## Where values come from

Later ones win:

1. the defaults below;
2. one YAML file: `-c FILE`, else `config/$RUN_ENV.yaml` below the working directory (`RUN_ENV` is `development` if
   unset). That file may be absent; one named by `-c` may not. `-c` also takes a directory with a `config.v1.yaml`;
3. environment variables: `INFERENCE_` and the setting's path in capitals, joined by `_`;
4. the flags `--host`, `--port`, `--admin-host`, `--admin-port`.

A list or a mapping is replaced as a whole. What is replaced is not looked at, so a file's `${OPENAI_API_KEY}` need
not be set where `INFERENCE_INFERENCE_API_KEY` is.

A provider other than `echo` needs a key, in one of `INFERENCE_INFERENCE_API_KEY`, `inference.api_key` and
`inference.api_key_file`. A key file is read again when it changes, and may be a pod's mounted Secret. To give both
`api_key` and `api_key_file` is an error.

## The file

- `${NAME}` in a value is replaced by that environment variable; `$${` stands for `${`. A variable that is not set is
  an error. A value made from variables is read as a variable's text is, so `timeout_secs: "${SECONDS}"` works.
- Types are strict: `"30"` is a text and no number. Only `true` and `false` are booleans, so that `validation: off`
  needs no quotes.
- A key that is not below, a key given twice, aliases (`&`, `*`), tags (`!`) and a second document are errors, and so
  is an empty file.
- `version: 1` names the version of the schema, and may be left out.

## Environment variables

- Lists are comma-separated or JSON, mappings are JSON, booleans are `true`, `1`, `yes`, `on` or `false`, `0`, `no`,
  `off`. `null` takes a file's value away. Blanks around a value are dropped, and an empty variable counts as absent.
- A variable that begins with `INFERENCE_` and sets nothing is reported at start, with the nearest name that does.
- Kubernetes gives pods variables for each Service of their namespace: a Service named `inference-server` makes
  `INFERENCE_SERVER_PORT=tcp://10.0.0.1:3000`. Those are recognised by their values and passed over.

## Mistakes

A mistake stops the start, or keeps the last good configuration where the file changed under a running sidecar. Each
one gets a line: the path, where the value came from, what was found, what is valid, the nearest known key.

    inference.http.timeout_sec (file config/production.yaml): found an unknown key; valid: one of timeout_secs, …; \
nearest known key: inference.http.timeout_secs
    server.port (environment INFERENCE_SERVER_PORT): found 70000; valid: a whole number from 0 to 65535

A key, the value of an extra header and what came out of `${NAME}` are never shown, only how long they are.

## Settings
"""


def configuration() -> str:
    """docs/configuration.md: every setting of the schema, one table for each section."""
    parts = [CONFIGURATION]
    for section, model in SECTIONS.items():
        settings = [
            setting for setting in SETTINGS.values() if _section(setting) == section and setting.variable
        ]
        if settings:
            parts += [f"### {section}\n", f"{' '.join((model.__doc__ or '').split())}\n", _table(settings)]
    return "\n".join(parts)


def _section(setting: Setting) -> str:
    return setting.path.rpartition(".")[0]


def _table(settings: list[Setting]) -> str:
    rows = [("Setting", "Environment variable", "Valid", "Default", "What it does"), ("---",) * 5]
    for setting in settings:
        default = "" if setting.default is None else f"`{_value(setting.default)}`"
        names = (f"`{setting.path}`", f"`{setting.variable}`")
        rows.append((*names, setting.valid, default, setting.description))
    return _rows(rows)


def _value(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


BEGIN = "<!-- Metrics: written by docs/generate.py from sidecar/inference_sidecar/telemetry/names.py. -->"
END = "<!-- End of what is generated. -->"

METRICS = """\
The name in OpenTelemetry, and in brackets the one in Prometheus, whether it was scraped or came by OTLP (a histogram's
has `_bucket`, `_sum` and `_count` behind it). A label is an attribute's name with `_` for each `.`.
"""


def telemetry() -> str:
    """docs/telemetry.md: its prose as it stands, and every metric and attribute of `telemetry.names`."""
    file = HERE / "telemetry.md"
    text = file.read_text(encoding="utf-8") if file.exists() else f"# Telemetry\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{_metrics()}\n{END}{after}"


def _metrics() -> str:
    rows = [("Metric", "Kind", "Unit", "Attributes", "What it is"), ("---",) * 5]
    for metric in names.METRICS:
        attributes = ", ".join(f"`{name}`" for name in metric.attributes)
        name = f"`{metric.name}` (`{metric.prometheus}`)"
        rows.append((name, str(metric.kind), metric.unit, attributes, metric.description))
    attributes = [("Attribute", "What it says"), ("---",) * 2]
    attributes += [(f"`{name}`", text) for name, text in names.ATTRIBUTES.items()]
    bounds: dict[tuple[float, ...], list[str]] = {}
    for metric in names.METRICS:
        if metric.bounds:
            bounds.setdefault(metric.bounds, []).append(f"`{metric.name}`")
    buckets = [("Histograms", "Upper bounds of their buckets"), ("---",) * 2]
    buckets += [(", ".join(of), ", ".join(map(bound, upper))) for upper, of in bounds.items()]
    operations = ", ".join(f"`{name}`" for name in names.OPERATIONS)
    promoted = ", ".join(f"`{name}`" for name in names.PROMOTED)
    return "\n".join(
        [
            METRICS,
            _rows(rows),
            "### Attributes\n",
            _rows(attributes),
            f"Operations: {operations}.\n",
            f"Resource attributes that are labels of every series, where they are set: {promoted}.\n",
            "### Buckets\n",
            _rows(buckets),
        ]
    )


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in rows)


PAGES: Mapping[str, Callable[[], str]] = {"configuration.md": configuration, "telemetry.md": telemetry}


def main(arguments: list[str]) -> int:
    """Writes or checks every page; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write what is generated of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    only_check = parser.parse_args(arguments).check
    stale = []
    for name, page in PAGES.items():
        file, text = HERE / name, page()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not only_check:
                file.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"{name}: {'out of date' if only_check else 'written'}\n")
    return 1 if stale and only_check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
