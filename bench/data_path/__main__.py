"""The data path, measured. Run it as `make bench`, or `make bench ARGS="--only plain --targets nginx,sidecar --reps 3"`.

Enters: what to measure. Leaves: a table on stdout; of a full run also bench/results/data_path.{md,json,png} and
the goals in docs/performance.md. Must not: overwrite the results of a full run with those of a part, unless asked to.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from inference_config import __version__

from . import machine, measure, parts, plot, report, targets
from .figures import DIRECT, LITELLM, NGINX, SIDECAR, TENSORZERO, TLS, Sample
from .report import Setting
from .run import Plan, Run

SCENARIOS = (*measure.SCENARIOS, *(name + TLS for name in measure.OVER_TLS))
USUAL = (DIRECT, NGINX, SIDECAR, targets.QUIET, TENSORZERO)


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--only", default="", help=f"measurements, by comma: {', '.join(SCENARIOS)} (all)")
    add("--targets", default="", help=f"by comma ({', '.join(USUAL)}); direct is always there")
    add("--with", dest="more", action="append", default=[], help=f"one more target, such as {LITELLM}")
    add("--reps", type=int, default=5, help="repetitions (5)")
    add("--seconds", type=int, default=3, help="of each measurement (3)")
    add("--cores", default="0,1", help="the proxy's, the load's (0,1)")
    add("--foreign", type=float, default=0.03, help="part of a core that others may take (0.03)")
    add("--again", type=int, default=2, help="how often a disturbed measurement is done again (2)")
    add("--sidecar", type=Path,
        help="which command to measure (this checkout's, in an environment with what the image has)")  # fmt: skip
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of every sidecar",
    )
    add("--variant", action="append", default=[], metavar="NAME:VARIABLE=VALUE,…",
        help="another sidecar beside, as target sidecar-NAME")  # fmt: skip
    add("--out", type=Path, help="where to write data_path.{md,json,png} (bench/results, of a full run)")
    add("--render", type=Path, metavar="JSON", help="measure nothing: write the table of an earlier run anew")
    return parser.parse_args(words)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _variants(words: Sequence[str]) -> dict[str, dict[str, str]]:
    found = {}
    for word in words:
        name, _, values = word.partition(":")
        found[name] = _pairs(values.split(","))
    return found


def _chosen(asked: argparse.Namespace) -> list[targets.Target]:
    known = targets.known(_pairs(asked.set), _variants(asked.variant))
    names = [*(asked.targets.split(",") if asked.targets else USUAL), *asked.more]
    names += [name for name in known if name.startswith(f"{SIDECAR}-") and name != targets.QUIET]
    if unknown := set(names) - set(known):
        raise SystemExit(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys((DIRECT, *names))]


def _scenarios(asked: argparse.Namespace) -> list[str]:
    names = asked.only.split(",") if asked.only else list(SCENARIOS)
    if unknown := set(names) - set(SCENARIOS):
        raise SystemExit(f"no such measurement: {', '.join(sorted(unknown))}")
    return names


def _versions(chosen: Sequence[targets.Target]) -> dict[str, str]:
    found = {"sidecar": __version__, "Python": parts.python_version(), "nginx": parts.nginx_version()}
    for name in (TENSORZERO, LITELLM):
        if name in {target.name for target in chosen}:
            found[name] = parts.version(parts.peer(name), name)
    return found


def main() -> int:
    asked = options()
    if asked.render:
        _written(*_read(asked.render), asked.out)
        return 0
    chosen, scenarios = _chosen(asked), _scenarios(asked)
    proxy_core, load_core = (int(core) for core in asked.cores.split(","))
    plan = Plan(
        chosen, scenarios, asked.reps, asked.seconds, asked.foreign, asked.again,
        proxy_core, load_core,
    )  # fmt: skip
    parts.debian()
    parts.native()
    parts.certificates()
    versions = _versions(chosen)
    os.sched_setaffinity(0, {load_core})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # and so end what was started
    memory = parts.MEMORY if os.access(parts.MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=memory) as folder,
        targets.upstream() as (upstream, load_pids),
    ):
        command = asked.sidecar.absolute() if asked.sidecar else parts.sidecar()
        starter = targets.Starter(Path(folder), upstream, proxy_core, command)
        measured = Run(plan, starter, upstream, load_pids, Path(folder))
        measured.all()
    whole = not (asked.only or asked.targets or asked.set or asked.variant or asked.sidecar)
    setting = Setting(
        machine.describe(), versions, asked.reps, asked.seconds, asked.foreign, measured.absent, whole
    )
    _written(measured.samples, setting, asked.out)
    return 0


def _written(samples: Sequence[Sample], setting: Setting, out: Path | None) -> None:
    """The table on stdout; of a whole run, or where a place was named, all the rest in files."""
    text = report.markdown(samples, setting)
    print(text)
    place = out or (parts.BENCH / "results" if setting.whole else None)
    if place is None:
        return
    place.mkdir(parents=True, exist_ok=True)
    raw = {"setting": asdict(setting), "samples": [asdict(sample) for sample in samples]}
    (place / "data_path.md").write_text(text)
    (place / "data_path.json").write_text(json.dumps(raw, indent=1) + "\n")
    plot.draw(samples, place / "data_path.png")
    if out is None:
        page = parts.BENCH.parent / "docs" / "performance.md"
        page.write_text(report.included(page.read_text(), samples, setting))


def _read(path: Path) -> tuple[list[Sample], Setting]:
    raw = json.loads(path.read_text())
    return [Sample(**sample) for sample in raw["samples"]], Setting(**raw["setting"])


if __name__ == "__main__":
    raise SystemExit(main())
