"""The injector's certificates: OpenSSL accepts the leaf for its names, and on any day of years a server with any leaf
that is still about is trusted by any bundle that is still about.

Left out: the cluster's part (rotate).
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from inference_operator import certs, naming

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HOSTS = naming.service_hosts("inference-sidecar-injector", "system")
DAY = datetime.timedelta(days=1)


def days(number: float) -> datetime.datetime:
    return START + number * DAY


def trusted(leaf: certs.Pair, bundle: bytes, now: datetime.datetime, host: str = HOSTS[0]) -> bool:
    """As Go and Python judge it, at any time: chain, dates, name."""
    roots = x509.load_pem_x509_certificates(bundle)
    verifier = (
        x509.verification.PolicyBuilder()
        .store(x509.verification.Store(roots))
        .time(now)
        .build_server_verifier(x509.DNSName(host))
    )
    try:
        verifier.verify(x509.load_pem_x509_certificate(leaf.certificate), [])
    except x509.verification.VerificationError:
        return False
    return True


def test_a_first_set() -> None:
    kept = certs.renewed(None, HOSTS, START)
    assert len(kept.authorities) == 1
    for host in HOSTS:
        assert trusted(kept.leaf, kept.bundle, START, host)
    assert not trusted(kept.leaf, kept.bundle, START, "other.system.svc")
    assert not trusted(kept.leaf, certs.issue_authority(START).certificate, START)
    assert certs.expiry(kept.leaf.certificate) - START == certs.LEAF_LIFE
    assert certs.expiry(kept.authorities[0].certificate) - START == certs.AUTHORITY_LIFE


def test_a_clock_that_is_a_little_behind() -> None:
    kept = certs.renewed(None, HOSTS, START)
    assert trusted(kept.leaf, kept.bundle, START - certs.SKEW / 2)


def test_python_s_own_tls_takes_it(tmp_path: Path) -> None:
    kept = certs.renewed(None, HOSTS, datetime.datetime.now(datetime.UTC))
    for name, content in kept.files().items():
        (tmp_path / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / certs.LEAF_FILE, tmp_path / certs.LEAF_KEY_FILE)
    client = ssl.create_default_context(cadata=kept.bundle.decode())
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO())]
    (up, down) = ends[0]
    there = server.wrap_bio(up, down, server_side=True)
    here = client.wrap_bio(down, up, server_hostname=HOSTS[0])
    done = [False, False]
    while not all(done):
        for index, end in enumerate((here, there)):
            try:
                end.do_handshake()
                done[index] = True
            except ssl.SSLWantReadError:
                continue
    assert here.version() == "TLSv1.3"


def test_nothing_due_is_the_very_same() -> None:
    kept = certs.renewed(None, HOSTS, START)
    assert certs.renewed(kept, HOSTS, days(30)) is kept


def test_a_leaf_is_renewed_at_two_thirds() -> None:
    kept = certs.renewed(None, HOSTS, START)
    later = certs.renewed(kept, HOSTS, days(61))
    assert later.authorities == kept.authorities
    assert later.leaf != kept.leaf
    assert trusted(later.leaf, kept.bundle, days(61))


def test_another_name_needs_another_leaf() -> None:
    kept = certs.renewed(None, HOSTS, START)
    other = naming.service_hosts("inference-sidecar-injector", "elsewhere")
    later = certs.renewed(kept, other, days(1))
    assert later.authorities == kept.authorities
    assert trusted(later.leaf, later.bundle, days(1), other[0])


def test_a_new_authority_is_known_before_it_signs_and_an_old_one_after() -> None:
    first = certs.renewed(None, HOSTS, START)
    # A leaf that is not due itself, so that only the authority's turn is seen.
    first = certs.renewed(first, HOSTS, days(240))
    turn = days(245)
    known = certs.renewed(first, HOSTS, turn)
    assert known.authorities[1:] == first.authorities
    assert known.leaf == first.leaf
    assert certs.renewed(known, HOSTS, turn + certs.SETTLE / 2) is known
    signs = certs.renewed(known, HOSTS, turn + certs.SETTLE)
    assert signs.authorities == known.authorities
    assert trusted(signs.leaf, signs.authorities[0].certificate, turn + certs.SETTLE)
    alone = certs.renewed(signs, HOSTS, turn + 2 * certs.SETTLE)
    assert alone.authorities == signs.authorities[:1]
    assert alone.leaf == signs.leaf


def test_no_gap_on_any_day() -> None:
    """Bundles and leaves reach their users some time after they were made: whatever is up to half SETTLE old works
    with whatever else is."""
    recent: list[certs.Kept] = []
    kept: certs.Kept | None = None
    step, now = certs.SETTLE / 2, START
    turns = leaves = 0
    while now < days(800):
        before = kept
        kept = certs.renewed(kept, HOSTS, now)
        if before is not None and kept is not before:
            turns += kept.authorities[0] != before.authorities[0]
            leaves += kept.leaf != before.leaf
        recent = [*recent[-1:], kept]
        if kept is not before:
            for one in recent:
                for other in recent:
                    assert trusted(one.leaf, other.bundle, now)
        # Whole days but where something has just happened: that is when steps matter.
        now += step if len(set(map(id, recent))) > 1 or len(kept.authorities) > 1 else DAY
    assert turns >= 3
    assert leaves >= 12


@pytest.mark.parametrize("pause", [100, 300, 400, 1000])
def test_an_operator_that_was_away(pause: float) -> None:
    kept = certs.renewed(None, HOSTS, START)
    later = certs.renewed(kept, HOSTS, days(pause))
    assert trusted(later.leaf, later.bundle, days(pause))
    assert certs.expiry(later.leaf.certificate) > days(pause)


def test_a_leaf_does_not_outlive_its_authority() -> None:
    authority = certs.issue_authority(START)
    leaf = certs.issue_leaf(authority, HOSTS, days(360))
    assert certs.expiry(leaf.certificate) == certs.expiry(authority.certificate)


class TestKept:
    def test_there_and_back(self) -> None:
        kept = certs.renewed(None, HOSTS, START)
        assert certs.kept_of(kept.files()) == kept
        two = certs.Kept((certs.issue_authority(days(1)), *kept.authorities), kept.leaf)
        assert certs.kept_of(two.files()) == two

    @pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt", "ca.key"])
    @pytest.mark.parametrize("content", [None, b"", b"no PEM"])
    def test_what_is_not_whole_is_made_anew(self, name: str, content: bytes | None) -> None:
        files = certs.renewed(None, HOSTS, START).files()
        spoilt = {key: value for key, value in files.items() if key != name}
        assert certs.kept_of(spoilt if content is None else {**spoilt, name: content}) is None

    def test_the_usual_names(self) -> None:
        assert certs.renewed(None, HOSTS, START).files().keys() == {"tls.crt", "tls.key", "ca.crt", "ca.key"}

    def test_a_repr_has_no_private_key(self) -> None:
        assert "PRIVATE" not in repr(certs.renewed(None, HOSTS, START))


def test_a_long_name_is_no_trouble() -> None:
    hosts: Sequence[str] = naming.service_hosts("s" * 63, "n" * 63)
    kept = certs.renewed(None, hosts, START)
    assert trusted(kept.leaf, kept.bundle, START, hosts[0])
