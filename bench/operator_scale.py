"""200 InferenceConfigs and 1,000 pods in a real API server: how long the operator takes, what it asks, what it holds.

Enters: a kubeconfig (a cluster of one's own), or nothing: then a cluster is started and removed. Leaves: a table, and
bench/results/operator_scale.{md,json}. Pods are objects without containers: their /status is a port of loopback, and
kubelet's part is played where the operator's nudges pass by. Run it as `make bench`, or

    PYTHONPATH=tests .venv/bin/python bench/operator_scale.py [--configs 200] [--pods 1000] [--kubeconfig FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.harness.api import Access, Api
from cluster.harness.definition import defined
from cluster.harness.kubelet import Kubelet
from cluster.harness.place import Place
from cluster.harness.process import Operator
from cluster.harness.proxy import Proxy
from cluster.kube import start
from harness.admin import Admin, Admins
from inference_operator.cluster import CONFIGS, NAMESPACES, PODS, SECRETS

RESULTS = Path(__file__).parent / "results"
WRITERS = 8
REST_SECS = 20.0
NAMESPACE = "scale"
COMMON_KEY = "common"
OWN_KEY = "own"


@dataclass
class Lap:
    """What one part of the run took. Requests are the operator's, counted on their way to the API server."""

    name: str
    seconds: float
    requests: dict[str, int]
    cpu_seconds: float
    memory_mib: float

    @property
    def total(self) -> int:
        return sum(self.requests.values())


class Bench:
    """Objects, and what is measured of the operator among them."""

    def __init__(
        self, api: Api, proxy: Proxy, operator: Operator, configs: int, pods: int, admins: Admins
    ) -> None:
        self.laps: list[Lap] = []
        self._place = Place(api, NAMESPACE)
        self._api = api
        self._proxy = proxy
        self._operator = operator
        self._configs = [f"team-{number}" for number in range(configs)]
        self._pods = pods
        self._admins: dict[str, Admin] = {name: admins.add(revision="older") for name in self._configs}
        self._kubelet = Kubelet()
        proxy.done = self._kubelet

    def make_objects(self) -> None:
        """All but the operator. The first config has a key of its own, the others have one in common."""
        self._place.key(COMMON_KEY)
        self._place.key(OWN_KEY)
        with ThreadPoolExecutor(WRITERS) as writers:
            list(writers.map(self._make_config, self._configs))
            list(writers.map(self._make_pod, range(self._pods)))

    def _make_config(self, name: str) -> None:
        secret = OWN_KEY if name == self._configs[0] else COMMON_KEY
        inference = {"apiKeySecretRef": {"name": secret, "key": "api-key"}, "defaultModel": "gpt-4o"}
        self._place.config(name, inference=inference, selector={"matchLabels": {"app": name}})

    def _make_pod(self, number: int) -> None:
        config = self._configs[number % len(self._configs)]
        name = f"web-{number}"
        self._kubelet.pods[name] = self._admins[config]
        self._place.pod(name, self._admins[config], config=config, labels={"app": config})

    def lap(
        self, name: str, begin: Callable[[], object], done: Callable[[], bool], seconds: float = 300
    ) -> None:
        """Measure from `begin` until `done`, which is asked of the API server."""
        mark = len(self._proxy.calls)
        began = time.monotonic()
        begin()
        cpu = self._operator.cpu_secs()
        self._operator.until(done, name, seconds)
        self._laps_end(name, began, mark, cpu)

    def rest(self) -> None:
        """Nothing changes."""
        mark, began, cpu = len(self._proxy.calls), time.monotonic(), self._operator.cpu_secs()
        time.sleep(REST_SECS)
        self._laps_end(f"at rest for {REST_SECS:.0f} s", began, mark, cpu)

    def _laps_end(self, name: str, began: float, mark: int, cpu: float) -> None:
        lap = Lap(
            name,
            time.monotonic() - began,
            dict(self._proxy.counted(mark).most_common()),
            self._operator.cpu_secs() - cpu,
            self._operator.memory() / (1 << 20),
        )
        self.laps.append(lap)
        print(f"{name}: {lap.seconds:.1f} s, {lap.total} requests, {lap.memory_mib:.0f} MiB", flush=True)

    def run(self) -> None:
        """The story."""
        pods = self._pods
        own = len(range(0, pods, len(self._configs)))
        everybody = lambda: self._current() == pods  # noqa: E731  said five times
        self.lap(f"first sync, {pods} pods stale", lambda: self._operator.start(ready=False), everybody)
        self.rest()
        before = self._revisions()
        of_one = self._configs[0]
        self.lap(
            f"a key rotated that {own} pods have", lambda: self._place.key(OWN_KEY),
            lambda: self._place.status(of_one)["revision"] != before[of_one]
            and self._place.status(of_one)["pods"]["current"] == own,
        )  # fmt: skip
        self.lap(
            f"a key rotated that {pods - own} pods have", lambda: self._place.key(COMMON_KEY),
            lambda: not set(self._revisions().items()) & set(before.items()) and self._current() == pods,
        )  # fmt: skip
        self._operator.stop()
        self.lap(
            "a restart with nothing to do", lambda: self._operator.start(ready=False),
            lambda: self._reconciled() >= len(self._configs),
        )  # fmt: skip

    def _revisions(self) -> dict[str, str]:
        found = self._api.items(CONFIGS, NAMESPACE)
        return {one["metadata"]["name"]: one.get("status", {}).get("revision", "") for one in found}

    def _current(self) -> int:
        found = self._api.items(CONFIGS, NAMESPACE)
        time.sleep(0.2)  # the list is 200 objects: not to be asked for all the time
        return sum(one.get("status", {}).get("pods", {}).get("current", 0) for one in found)

    def _reconciled(self) -> int:
        lines = self._operator.health("/metrics")[1].splitlines()
        return sum(
            int(float(line.split()[-1])) for line in lines if 'reconciles_total{outcome="done"}' in line
        )


def table(laps: list[Lap], configs: int, pods: int) -> str:
    """Markdown."""
    where = f"one machine of {os.cpu_count()} processors, Python {platform.python_version()}"
    rows = [
        f"{configs} InferenceConfigs, {pods} pods (objects without containers), one namespace.",
        f"Operator, API server and pods' answers on {where}.",
        "",
        "| | seconds | API requests | a second | writes | CPU seconds | resident MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for lap in laps:
        writes = sum(
            number for kind, number in lap.requests.items() if kind.split()[0] not in ("GET", "WATCH")
        )
        rows.append(
            f"| {lap.name} | {lap.seconds:.1f} | {lap.total} | {lap.total / lap.seconds:.0f} | {writes} | "
            f"{lap.cpu_seconds:.1f} | {lap.memory_mib:.0f} |"
        )
    rows += ["", "Requests by kind:", ""]
    for lap in laps:
        rows.append(
            f"- {lap.name}: "
            + (", ".join(f"{number} {kind}" for kind, number in lap.requests.items()) or "none")
        )
    return "\n".join(rows) + "\n"


@contextlib.contextmanager
def access(kubeconfig: Path | None) -> Iterator[Access]:
    if kubeconfig is not None:
        yield Access.of(kubeconfig)
        return
    with start.running() as cluster:
        yield Access.of(cluster.kubeconfig)


@contextlib.contextmanager
def namespace(api: Api) -> Iterator[None]:
    api.create(NAMESPACES, None, {"metadata": {"name": NAMESPACE}})
    try:
        accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        while not api.call("GET", accounts)["items"]:
            time.sleep(0.1)
        yield
    finally:
        for kind in (CONFIGS, PODS, SECRETS):
            api.call("DELETE", kind.path(NAMESPACE))
        api.delete(NAMESPACES, None, NAMESPACE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--kubeconfig", type=Path)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        api = Api(stack.enter_context(access(given.kubeconfig)))
        stack.callback(api.close)
        stack.enter_context(defined(api))
        stack.enter_context(namespace(api))
        proxy = stack.enter_context(Proxy(api.access))
        admins = stack.enter_context(Admins())
        operator = Operator(folder, proxy.url, "--namespace", NAMESPACE)
        bench = Bench(api, proxy, operator, given.configs, given.pods, admins)
        began = time.monotonic()
        bench.make_objects()
        print(
            f"{given.configs} configs and {given.pods} pods made in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        try:
            bench.run()
        finally:
            operator.stop()
        operator.assert_clean()
    RESULTS.mkdir(exist_ok=True)
    text = table(bench.laps, given.configs, given.pods)
    (RESULTS / "operator_scale.md").write_text(f"# The operator at scale\n\n{text}")
    facts = {"configs": given.configs, "pods": given.pods, "laps": [asdict(lap) for lap in bench.laps]}
    (RESULTS / "operator_scale.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
