"""The webhook's certificates in the cluster, against a cluster that keeps versions and can fail at any step.

Tested: made at the first start, left alone, renewed without a moment in which what is served is not trusted (two years,
day by day), caBundle filled in, conflicts, faults, Secrets of others; the loop. Left out: when a certificate is due
(test_certs), a real API server.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import datetime
from typing import Any

import jsonpatch
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from harness.exposition import samples
from inference_operator import certs, rotate
from inference_operator.cluster import WEBHOOKS, ClusterError, Resource
from inference_operator.rotate import Names, NotOurs, keep, once
from inference_operator.telemetry import Metrics

NAMES = Names("system", "certificates", "injector", "webhooks")
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Double:
    """A Secret and a webhook configuration. `faults`: what a call of this name raises, once each."""

    def __init__(self, webhooks: int | None = 2) -> None:
        self.secret: dict[str, Any] | None = None
        self.configuration: dict[str, Any] | None = None
        if webhooks is not None:
            self.configuration = {
                "webhooks": [{"name": f"w{n}", "clientConfig": {}} for n in range(webhooks)]
            }
        self.calls: list[str] = []
        self.faults: dict[str, list[Exception]] = {}
        self.before: dict[str, Any] = {}
        self.version = 0

    def _call(self, verb: str, resource: Resource) -> None:
        call = f"{verb} {resource.plural}"
        self.calls.append(call)
        if call in self.before:
            self.before.pop(call)()
        if self.faults.get(call):
            raise self.faults[call].pop(0)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any] | None:
        self._call("get", resource)
        assert (namespace, name) == (
            (None, "webhooks") if resource == WEBHOOKS else ("system", "certificates")
        )
        return copy.deepcopy(self.configuration if resource == WEBHOOKS else self.secret)

    async def create(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        self._call("create", resource)
        if self.secret is not None:
            raise ClusterError("there already", 409)
        return self._put(obj)

    async def replace(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        self._call("replace", resource)
        assert self.secret is not None
        if obj["metadata"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"]:
            raise ClusterError("changed meanwhile", 409)
        return self._put(obj)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, change: Any
    ) -> dict[str, Any] | None:
        self._call("patch", resource)
        assert resource == WEBHOOKS
        if self.configuration is None:
            return None
        self.configuration = jsonpatch.apply_patch(self.configuration, change)
        return self.configuration

    def _put(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.secret = copy.deepcopy(
            {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        )
        return self.secret

    def file(self, name: str) -> bytes:
        assert self.secret is not None
        return base64.b64decode(self.secret["data"][name])

    def bundles(self) -> list[bytes]:
        assert self.configuration is not None
        return [
            base64.b64decode(one["clientConfig"].get("caBundle", ""))
            for one in self.configuration["webhooks"]
        ]

    def trusts_what_is_served(self) -> bool:
        leaf = x509.load_pem_x509_certificate(self.file("tls.crt"))
        return all(any(_signed(leaf, one) for one in _authorities(bundle)) for bundle in self.bundles())


def _authorities(bundle: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(bundle) if bundle else []


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError):
        return False
    return True


async def do(double: Double, now: datetime.datetime = START, names: Names = NAMES) -> bool:
    return await once(double, names, Metrics("1"), now)


async def test_the_first_start() -> None:
    double = Double()
    assert await do(double)
    assert double.trusts_what_is_served()
    assert len(double.bundles()) == 2
    leaf = x509.load_pem_x509_certificate(double.file("tls.crt"))
    served = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "injector.system.svc" in served.get_values_for_type(x509.DNSName)
    assert double.secret is not None
    assert double.secret["metadata"]["name"] == "certificates"


async def test_nothing_is_written_when_nothing_is_due() -> None:
    double = Double()
    await do(double)
    double.calls.clear()
    assert await do(double, START + datetime.timedelta(days=20))
    assert double.calls == ["get secrets", "get mutatingwebhookconfigurations"]


async def test_two_years_without_a_gap() -> None:
    """Each write is looked at by itself: whatever an injector serves is trusted, before and after the other write."""
    double = Double()
    await do(double)
    served, trusted = {double.file("tls.crt")}, {double.bundles()[0]}
    now = START
    for _ in range(2 * 365 * 4):
        now += datetime.timedelta(hours=6)
        # The injectors serve what the Secret held before: the bundle of now has to do for that as well.
        before = x509.load_pem_x509_certificate(double.file("tls.crt"))
        await do(double, now)
        assert any(_signed(before, one) for one in _authorities(double.bundles()[0]))
        assert double.trusts_what_is_served()
        assert before.not_valid_after_utc > now
        served.add(double.file("tls.crt"))
        trusted.add(double.bundles()[0])
    assert len(served) > 8
    assert len(trusted) > 4


async def test_a_cabundle_that_somebody_emptied_is_filled_in_again() -> None:
    double = Double()
    await do(double)
    assert double.configuration is not None
    del double.configuration["webhooks"][1]["clientConfig"]["caBundle"]
    assert not double.trusts_what_is_served()
    assert await do(double)
    assert double.trusts_what_is_served()
    assert double.calls.count("create secrets") == 1


async def test_a_configuration_that_is_still_to_come() -> None:
    double = Double(webhooks=None)
    assert not await do(double)
    first = double.file("tls.crt")
    double.configuration = Double().configuration
    assert await do(double)
    assert double.file("tls.crt") == first
    assert double.trusts_what_is_served()


async def test_a_configuration_that_goes_meanwhile() -> None:
    double = Double()
    double.before["patch mutatingwebhookconfigurations"] = lambda: setattr(double, "configuration", None)
    assert not await do(double)


async def test_no_configuration_to_look_after() -> None:
    double = Double()
    assert await do(double, names=Names("system", "certificates", "injector"))
    assert double.bundles() == [b"", b""]
    assert double.file("tls.crt")


async def test_where_it_cannot_be_trusted_it_is_not_served() -> None:
    double = Double()
    double.faults["patch mutatingwebhookconfigurations"] = [ClusterError("may not", 403)]
    with pytest.raises(ClusterError):
        await do(double)
    assert double.secret is None
    await do(double)
    assert double.trusts_what_is_served()


async def test_somebody_else_was_first() -> None:
    """Of two that start at once, both end with the same."""
    double, other = Double(), Double()
    await do(other)
    double.before["create secrets"] = lambda: setattr(double, "secret", other.secret)
    assert await do(double)
    assert double.file("ca.crt") == other.file("ca.crt")
    assert double.trusts_what_is_served()


async def test_changed_between_read_and_write() -> None:
    double = Double()
    await do(double)

    def touch() -> None:
        assert double.secret is not None
        double.secret["metadata"]["annotations"] = {"somebody": "else"}
        double.secret["metadata"]["resourceVersion"] = "77"

    double.before["replace secrets"] = touch
    before = double.file("tls.crt")
    await do(double, START + datetime.timedelta(days=61))
    assert double.file("tls.crt") != before
    assert double.secret is not None
    assert double.secret["metadata"]["annotations"] == {"somebody": "else"}
    assert double.trusts_what_is_served()


async def test_conflicts_without_end_are_a_fault() -> None:
    double = Double()
    double.faults["create secrets"] = [ClusterError("there already", 409)] * 20
    with pytest.raises(ClusterError):
        await do(double)
    assert double.calls.count("create secrets") == 4


@pytest.mark.parametrize("spoil", ["cut", "no base64", "lacks a key"])
async def test_a_secret_that_cannot_be_used_is_made_anew(spoil: str) -> None:
    double = Double()
    await do(double)
    assert double.secret is not None
    data = double.secret["data"]
    match spoil:
        case "cut":
            data["ca.crt"] = data["ca.crt"][:40]
        case "no base64":
            data["tls.key"] = "?"
        case "lacks a key":
            del data["ca.key"]
    await do(double)
    assert certs.kept_of({name: double.file(name) for name in double.secret["data"]})
    assert double.trusts_what_is_served()


async def test_a_secret_of_somebody_else_is_not_touched() -> None:
    double = Double()
    double.secret = {
        "metadata": {"name": "certificates", "resourceVersion": "1"},
        "data": {"tls.crt": "eA=="},
    }
    with pytest.raises(NotOurs, match="system/certificates was not made by the operator"):
        await do(double)
    assert double.calls == ["get secrets"]


async def test_ends_are_figures() -> None:
    metrics = Metrics("1")
    await once(Double(), NAMES, metrics, START)
    found = samples(metrics.text())
    ends = {
        of: found[f'certificate_expiry_timestamp_seconds{{certificate="{of}"}}']
        for of in ("leaf", "authority")
    }
    lives = {"leaf": certs.LEAF_LIFE, "authority": certs.AUTHORITY_LIFE}
    assert ends == {of: (START + life).timestamp() for of, life in lives.items()}


class TestLoop:
    @pytest.fixture(autouse=True)
    def _waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("CHECK_SECS", "ABSENT_SECS", "FIRST_RETRY_SECS", "LAST_RETRY_SECS"):
            monkeypatch.setattr(rotate, name, 0.001)

    async def test_it_heals(self) -> None:
        double = Double(webhooks=None)
        double.faults["get secrets"] = [ClusterError("gone")] * 3
        in_place, clock = asyncio.Event(), [START]
        looking = keep(double, NAMES, Metrics("1"), in_place, now=lambda: clock[0])
        task = asyncio.ensure_future(looking)
        try:
            async with asyncio.timeout(10):
                while double.secret is None:
                    await asyncio.sleep(0)
                assert not in_place.is_set()
                double.configuration = Double().configuration
                await in_place.wait()
                assert double.trusts_what_is_served()
                before = double.file("tls.crt")
                clock[0] += datetime.timedelta(days=61)
                while double.file("tls.crt") == before:
                    await asyncio.sleep(0)
                double.configuration = None
                while in_place.is_set():
                    await asyncio.sleep(0)
        finally:
            task.cancel()

    async def test_it_waits_longer_after_each_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rotate, "FIRST_RETRY_SECS", 1.0)
        monkeypatch.setattr(rotate, "LAST_RETRY_SECS", 5.0)
        double, waits = Double(), []
        double.faults["get secrets"] = [ClusterError("gone")] * 4

        async def sleep(secs: float) -> None:
            waits.append(secs)
            if len(waits) == 6:
                raise asyncio.CancelledError

        monkeypatch.setattr(rotate.asyncio, "sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await keep(double, NAMES, Metrics("1"), asyncio.Event())
        assert waits == [1.0, 2.0, 4.0, 5.0, 0.001, 0.001]
