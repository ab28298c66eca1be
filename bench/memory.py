"""What the sidecar's memory and the time of its start are made of. Run it as `make bench-memory`.

Enters: this checkout. Leaves: a table on stdout, and with --write in bench/results/memory.md. Must not: run anything
but what the image would run (see `data_path.parts.sidecar`).
Imports are walked in fresh processes, in about the order of `run`; what two packages share counts for the first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_path import check, machine, measure, parts, targets
from data_path.figures import SIDECAR

RESULTS = Path(__file__).parent / "results" / "memory.md"

STEPS = {
    "Python": "",
    "argparse, ssl, asyncio": "import argparse, pathlib, ssl, asyncio",
    "uvloop": "import uvloop",
    "pydantic": "from pydantic import BaseModel, Field, SecretStr, model_validator",
    "inference_config": "import inference_config.load, inference_config.codec",
    "Starlette": "import starlette.applications, starlette.requests, starlette.responses, starlette.routing",
    "uvicorn": "import uvicorn, uvicorn.protocols.http.httptools_impl",
    "httpx": "import httpx",
    "the sidecar's rooms": "import inference_sidecar.__main__, inference_sidecar.serve\n"
    "import inference_sidecar.upstream.asyncio_transport",
    "PyYAML, where a file is read": "import inference_config.text",
    "export of traces and metrics": "import inference_sidecar.telemetry as telemetry\ntelemetry.set_up({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})",
}

WALK = """
import json, os, sys, time
steps, told = json.loads(sys.argv[1]), []
for name, code in steps.items():
    began = time.process_time()
    exec(code)
    took = time.process_time() - began if code else began
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    told.append((resident, took * 1000, len(sys.modules)))
print(json.dumps(told), flush=True)
os._exit(0)  # nothing of what was set up is ended in order
"""

Row = tuple[float, ...]


def main() -> None:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--cores", default="0,1", help="the sidecar's, the load's (0,1)")
    parser.add_argument("--write", action="store_true", help="keep the table in bench/results/memory.md")
    asked = parser.parse_args()
    parts.debian()
    parts.native()
    parts.certificates()
    sidecar = parts.sidecar()
    core, load_core = (int(number) for number in asked.cores.split(","))
    walked = [_walk(sidecar.with_name("python"), core) for _ in range(asked.reps)]
    os.sched_setaffinity(0, {load_core})
    running = {name: list(_running(name, sidecar, core, asked.reps)) for name in (targets.QUIET, SIDECAR)}
    text = "\n".join(_table(asked.reps, _medians(walked), running)) + "\n"
    print(text)
    if asked.write:
        RESULTS.write_text(text)


def _walk(python: Path, core: int) -> list[Row]:
    """Each step's resident memory in MiB, CPU time in ms, and number of modules: at its end, of itself, at its end."""
    environment = os.environ | parts.image_environment() | {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
    words = ["taskset", "-c", str(core), str(python), "-c", WALK, json.dumps(STEPS)]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, env=environment).stdout
    return [tuple(row) for row in json.loads(told)]


def _running(name: str, sidecar: Path, core: int, repetitions: int) -> Iterator[Row]:
    """Of processes: resident memory idle, PSS idle, resident memory at 200 streams, all in MiB; seconds of the start."""
    target = targets.known({}, {})[name]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, targets.upstream() as (upstream, _):
        starter = targets.Starter(Path(folder), upstream, core, sidecar)
        for _ in range(repetitions):
            with starter.running(target, tls=False) as process:
                loads = check.prepare(process, upstream.port, Path(folder))
                subject = measure.Subject(process, loads, seconds=3)
                idle = measure.idle(subject)
                busy, _fault = measure.paced(subject)
                yield idle["rss_mib"], idle["pss_mib"], busy["rss_mib"], idle["start_s"]


def _medians(repetitions: Sequence[Sequence[Row]]) -> list[Row]:
    return [
        tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for rows in zip(*repetitions, strict=True)
    ]


def _table(reps: int, walked: Sequence[Row], running: dict[str, list[Row]]) -> Iterator[str]:
    about = machine.describe()
    yield from (
        "# Memory and start", "",
        f"Medians of {reps} fresh processes, Python {parts.python_version()}, {about['processor']}, Linux {about['kernel']}.",
        "Written by `make bench-memory`. In the environment and with the variables of the image.", "",
        "| import, one after the other | RSS, MiB | more, MiB | CPU, ms | modules |",
        "|---|---:|---:|---:|---:|",
    )  # fmt: skip
    before = 0.0
    for name, (resident, took, modules) in zip(STEPS, walked, strict=True):
        yield f"| {name} | {resident:.1f} | {resident - before:.1f} | {took:.0f} | {modules:.0f} |"
        before = resident
    yield from (
        "", "RSS counts pages of shared libraries that other processes of the node may share; PSS counts those in part.",
        "", "| running | RSS idle, MiB | PSS idle, MiB | RSS at 200 streams, MiB | start to first answer, s |",
        "|---|---:|---:|---:|---:|",
    )  # fmt: skip
    names = {targets.QUIET: "quiet (`OTEL_SDK_DISABLED`)", SIDECAR: "exporting traces and metrics"}
    for target, rows in running.items():
        idle, shared, busy, start = _medians([[row] for row in rows])[0]
        yield f"| {names[target]} | {idle:.1f} | {shared:.1f} | {busy:.1f} | {start:.2f} |"


if __name__ == "__main__":
    main()
