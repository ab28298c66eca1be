"""deploy/observability before a real API server: it knows every field, and its Pod Security has nothing to warn of.

Left out: pods of it, whose images are in a registry; what is in its files (tests/telemetry).
"""

from __future__ import annotations

import pytest
import yaml

from chart.release import REPOSITORY
from cluster.kube.cluster import Cluster
from cluster.test_chart_objects import RESTRICTED, try_out

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def test_the_api_server_takes_all_of_it(cluster: Cluster) -> None:
    files = sorted((REPOSITORY / "deploy" / "observability").glob("*.yaml"))
    objects = [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    assert len(objects) == 18
    with cluster.namespace(labels=RESTRICTED) as namespace:
        try_out(cluster, objects, namespace)
