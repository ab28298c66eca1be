"""The webhook with a certificate that is not the operator's: people's own Secret, and somebody else's caBundle.

Tested: the installation; no pod is let in past the webhook before there is a caBundle; injection after; another
certificate of another authority in the Secret, served by every replica without a restart and without one admission
lost; the operator leaves the caBundle alone. The part of cert-manager's cainjector is played by `inject_authority`,
which follows the same annotation: the authority out of the Secret that it names, into every webhook. Left out:
cert-manager itself, and the objects that the chart makes for it (tests/chart).
"""

from __future__ import annotations

import base64
import itertools
import json
import ssl
from collections.abc import Iterator
from typing import Any, Final

import pytest
import trustme

from cluster import objects
from cluster.harness.admissions import Admissions
from cluster.harness.api import Api
from cluster.kube.cluster import Cluster
from cluster.release import Release
from cluster.stage import Stage, Watch, restarts, sidecar, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SECRET: Final = "webhook-certificate"
ANNOTATION: Final = "cert-manager.io/inject-ca-from-secret"
NUMBERS: Final = itertools.count()
SERVED: Final = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], 8443)))"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def _installed(release: Release, authority: trustme.CA) -> Iterator[None]:
    put(release, issued(release, authority), authority)
    name = ANNOTATION.replace(".", r"\.")
    release.install(
        "webhook.certificates.mode=secret",
        f"webhook.certificates.secretName={SECRET}",
        f"webhook.annotations.{name}={release.namespace}/{SECRET}",
    )
    yield
    release.cluster.kubectl("delete", "secret", SECRET, f"--namespace={release.namespace}")


def test_a_certificate_of_ones_own(
    cluster: Cluster, release: Release, stage: Stage, api: Api, authority: trustme.CA
) -> None:
    stage.apply(objects.echo())
    asks = objects.pod("asks", stage.image, labels=objects.OPTED_IN)
    assert "x509" in stage.refusal(asks)
    inject_authority(cluster, release)
    assert sidecar(stage.dry_run(asks))

    before = release.pods("injector")
    newer = trustme.CA()
    leaf = issued(release, newer)
    with Admissions(api.access, stage.namespace, asks) as admissions:
        # In this order, as anybody has to: who asks trusts both before anyone serves the newer.
        put(release, issued(release, authority), authority, newer)
        inject_authority(cluster, release)
        watch = Watch(stage.note)
        put(release, leaf, authority, newer)
        until("every injector serves the newer certificate", lambda: all_serve(release, before, leaf))
        watch.took("a certificate of one's own replaced, until all injectors serve it", 45)
        put(release, leaf, newer)
        inject_authority(cluster, release)
        told = len(admissions.made)
        until("admissions since", lambda: len(admissions.made) >= told + 50)
    stage.note(f"its {len(admissions.made)} admissions: {len(admissions.failed())} failed")
    assert not admissions.failed(), admissions.failed()[0].failure
    after = release.pods("injector")
    assert {pod["metadata"]["uid"] for pod in after} == {pod["metadata"]["uid"] for pod in before}
    assert restarts(after) == 0
    assert bundles(cluster, release) == {newer.cert_pem.bytes()}


def issued(release: Release, authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert(f"{release.name}-injector.{release.namespace}.svc")


def put(release: Release, leaf: trustme.LeafCert, *trusted: trustme.CA) -> None:
    """The Secret, as cert-manager writes it."""
    files = {
        "tls.crt": b"".join(blob.bytes() for blob in leaf.cert_chain_pems),
        "tls.key": leaf.private_key_pem.bytes(),
        "ca.crt": b"".join(one.cert_pem.bytes() for one in trusted),
    }
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }
    release.cluster.apply(made, namespace=release.namespace)


def inject_authority(cluster: Cluster, release: Release) -> None:
    """cainjector's part."""
    found = cluster.get("mutatingwebhookconfiguration", release.webhook)
    namespace, _, name = found["metadata"]["annotations"][ANNOTATION].partition("/")
    bundle = cluster.get("secret", name, f"--namespace={namespace}")["data"]["ca.crt"]
    patch = [
        {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": bundle}
        for index in range(len(found["webhooks"]))
    ]
    cluster.kubectl(
        "patch",
        "mutatingwebhookconfiguration",
        release.webhook,
        "--type=json",
        f"--patch={json.dumps(patch)}",
    )


def bundles(cluster: Cluster, release: Release) -> set[bytes]:
    found = cluster.get("mutatingwebhookconfiguration", release.webhook)["webhooks"]
    return {base64.b64decode(one["clientConfig"].get("caBundle", "")) for one in found}


def all_serve(release: Release, pods: list[dict[str, Any]], leaf: trustme.LeafCert) -> bool:
    """Whether each of `pods` hands out `leaf`, seen from a pod. Their files are renewed meanwhile: left to itself,
    kubelet would take a minute."""
    where = f"--namespace={release.namespace}"
    names = [pod["metadata"]["name"] for pod in pods]
    release.cluster.kubectl(
        "annotate", "--overwrite", "pod", *names, f"example.com/look={next(NUMBERS)}", where
    )
    wanted = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    for pod in pods:
        calling = ("exec", f"deployment/{release.name}", where, "--", "python", "-c", SERVED)
        served = release.cluster.kubectl(*calling, pod["status"]["podIP"])
        if ssl.PEM_cert_to_DER_cert(served) != wanted:
            return False
    return True
