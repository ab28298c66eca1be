"""The injector's certificate: served by name and without one, changed while calls go on, kept where a newer one is of
no use; read from a Secret and from files.

Tested under load: a changed leaf, a changed authority, a key of another kind. Left out: who makes certificates
(test_rotate), when they are due (test_certs).
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from harness.exposition import samples
from harness.pods import config_object, pod_object
from harness.webhook import HOSTS, Webhook, now, serving
from inference_operator import certs
from inference_operator.cluster import SECRETS, ClusterError
from inference_operator.telemetry import Metrics
from inference_operator.webhook.certificate import Served, Unusable, of_files, of_secret


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving(config_object()) as running:
        yield running


def expiry(text: str) -> float:
    """When the leaf ends, says /metrics."""
    return samples(text)['certificate_expiry_timestamp_seconds{certificate="leaf"}']


def der(pair: certs.Pair) -> bytes:
    first, end, _ = pair.certificate.decode().partition("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(first + end)


def of_rsa(webhook: Webhook) -> certs.Pair:
    authority = trustme.CA()
    issued = authority.issue_cert(HOSTS[0], key_type=trustme.KeyType.RSA)
    webhook.trusted.append(certs.Pair(authority.cert_pem.bytes(), b""))
    return certs.Pair(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())


def take(webhook: Webhook, pair: certs.Pair) -> None:
    webhook.pair = pair
    webhook.look()


def test_the_leaf_is_shown_with_and_without_a_name(webhook: Webhook) -> None:
    assert webhook.pair is not None
    assert webhook.handshake() == webhook.handshake(None) == der(webhook.pair)


def test_another_name_is_not_served(webhook: Webhook) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        webhook.handshake("other.system.svc")


def test_changed_under_load_without_a_failed_handshake(webhook: Webhook) -> None:
    """Each call is a handshake of its own, but for those of one client that keeps its connection throughout."""
    newer = certs.issue_authority(now())
    webhook.trusted.append(newer)
    following = [
        certs.issue_leaf(webhook.authority, HOSTS, now()),
        certs.issue_leaf(newer, HOSTS, now()),
        of_rsa(webhook),
        certs.issue_leaf(newer, HOSTS, now()),
    ]
    over = threading.Event()
    calls = []

    def ask() -> int:
        done = 0
        while not over.is_set():
            assert webhook.ask(pod_object())["allowed"]
            done += 1
            calls.append(done)
        return done

    def ask_on_one_connection() -> int:
        done = 0
        with webhook.client() as client:
            while not over.is_set():
                assert webhook.ask(pod_object(), client)["allowed"]
                done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask), pool.submit(ask), pool.submit(ask), pool.submit(ask_on_one_connection)]
        try:
            for pair in following:
                before = len(calls)
                take(webhook, pair)
                assert webhook.handshake() == der(pair)
                webhook.until(
                    lambda wanted=before + 6: len(calls) >= wanted or any(one.done() for one in asking)
                )
        finally:
            over.set()
        assert all(one.result() > 0 for one in asking)
    assert webhook.lines("admission")[-1]["outcome"] == "injected"


def test_a_key_of_another_kind_takes_over(webhook: Webhook) -> None:
    """OpenSSL keeps a certificate for each kind of key, and would go on preferring the one that it had."""
    pair = of_rsa(webhook)
    take(webhook, pair)
    assert webhook.handshake() == webhook.handshake(None) == der(pair)


@pytest.mark.parametrize("broken", ["no PEM", "another key", "a key with a password", "empty"])
def test_one_that_is_of_no_use_changes_nothing(webhook: Webhook, broken: str) -> None:
    old = webhook.pair
    assert old is not None
    fresh = certs.issue_leaf(webhook.authority, HOSTS, now())
    locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
    pair = {
        "no PEM": certs.Pair(b"text", b"text"),
        "another key": certs.Pair(fresh.certificate, old.key),
        "a key with a password": certs.Pair(fresh.certificate, locked),
        "empty": certs.Pair(b"", b""),
    }[broken]
    take(webhook, pair)
    take(webhook, pair)
    assert webhook.handshake() == der(old)
    (line,) = webhook.lines("no newer certificate")
    assert "cannot be used together" in line["message"]
    assert "PRIVATE KEY" not in webhook.log.getvalue()
    take(webhook, fresh)
    assert webhook.handshake() == der(fresh)


def test_no_descriptor_is_left(webhook: Webhook) -> None:
    take(webhook, certs.issue_leaf(webhook.authority, HOSTS, now()))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        take(webhook, certs.issue_leaf(webhook.authority, HOSTS, now()))
        take(webhook, certs.Pair(b"", b""))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_its_end_is_a_figure(webhook: Webhook) -> None:
    assert webhook.pair is not None
    ends = certs.expiry(webhook.pair.certificate)
    assert expiry(webhook.health("/metrics").text) == ends.timestamp()
    early = certs.issue_leaf(webhook.authority, HOSTS, now() - datetime.timedelta(days=30))
    take(webhook, early)
    assert expiry(webhook.health("/metrics").text) == certs.expiry(early.certificate).timestamp()


class Secrets:
    """Of a cluster, the Secrets of one namespace."""

    def __init__(self) -> None:
        self.secret: dict[str, Any] | None = None
        self.fault: ClusterError | None = None

    async def get(self, resource: Any, namespace: str | None, name: str) -> dict[str, Any] | None:
        assert (resource, namespace, name) == (SECRETS, "system", "certificates")
        if self.fault is not None:
            raise self.fault
        return self.secret


def pair_of(number: int) -> certs.Pair:
    return certs.issue_leaf(certs.issue_authority(now()), HOSTS, now() - datetime.timedelta(days=number))


def data(pair: certs.Pair) -> dict[str, Any]:
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": b"more"}
    return {"data": {name: base64.b64encode(content).decode() for name, content in files.items()}}


async def test_from_a_secret() -> None:
    secrets = Secrets()
    read = of_secret(secrets, "system", "certificates")
    with pytest.raises(Unusable, match="system/certificates does not exist yet"):
        await read()
    for lacking in (
        {},
        {"data": None},
        {"data": {"tls.crt": "eA=="}},
        {"data": {"tls.crt": "?", "tls.key": "?"}},
    ):
        secrets.secret = lacking
        with pytest.raises(Unusable, match="lacks"):
            await read()
    secrets.secret = data(pair_of(0))
    assert (await read()).certificate.startswith(b"-----BEGIN CERTIFICATE")
    secrets.fault = ClusterError("gone")
    with pytest.raises(ClusterError):
        await read()


async def test_from_files_that_change(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    metrics = Metrics("1")
    served = Served(of_files(certificate, key), metrics)
    await served.look()
    assert not served.first.is_set()
    for pair in (pair_of(0), pair_of(1)):
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        await served.look()
        assert served.first.is_set()
        assert expiry(metrics.text()) == certs.expiry(pair.certificate).timestamp()


async def test_it_looks_again_and_again_and_waits_for_the_first() -> None:
    answers: list[certs.Pair | Exception] = [
        Unusable("not yet"),
        ClusterError("gone"),
        pair_of(0),
        ClusterError("gone"),
        pair_of(1),
    ]
    seen = asyncio.Event()

    async def read() -> certs.Pair:
        answer = answers.pop(0)
        if not answers:
            seen.set()
            answers.append(answer)
        if isinstance(answer, Exception):
            assert served.first.is_set() == (len(answers) == 1)
            raise answer
        return answer

    served = Served(read, Metrics("1"), poll_secs=0.001)
    task = asyncio.ensure_future(served.keep())
    try:
        await asyncio.wait_for(seen.wait(), 10)
        assert served.first.is_set()
    finally:
        task.cancel()
