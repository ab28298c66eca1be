"""The injector's certificates: an authority, a leaf, and when each is due for renewal.

Enters: what is kept, the names to serve, the time. Leaves: what to keep from now on. Pure but for randomness:
must not read a clock, a file or the cluster.

Renewal without a gap. The API server trusts whatever caBundle holds, and each injector serves a leaf that it
read a while ago. So a new authority is made known first and signs only after `SETTLE`; an old one stays known
until the leaf that it signed has been out of use for as long.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = datetime.timedelta(days=365)
LEAF_LIFE: Final = datetime.timedelta(days=90)
SETTLE: Final = datetime.timedelta(hours=1)
SKEW: Final = datetime.timedelta(minutes=5)
"""Clocks of a cluster differ: a certificate is valid from a little before it was made."""

LEAF_FILE: Final = "tls.crt"
LEAF_KEY_FILE: Final = "tls.key"
_AUTHORITIES: Final = ("ca", "ca-previous")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept: authorities, newest first, at least one and at most two; and the leaf that is served."""

    authorities: tuple[Pair, ...]
    leaf: Pair

    @property
    def bundle(self) -> bytes:
        """caBundle: every authority whose leaf may still be met."""
        return b"".join(pair.certificate for pair in self.authorities)

    def files(self) -> dict[str, bytes]:
        """As the data of a Secret of the usual names."""
        made = {LEAF_FILE: self.leaf.certificate, LEAF_KEY_FILE: self.leaf.key}
        for name, pair in zip(_AUTHORITIES, self.authorities, strict=False):
            made |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
        return made


def kept_of(files: Mapping[str, bytes]) -> Kept | None:
    """What `Kept.files` wrote, None where that is not whole or cannot be read: then all is made anew."""
    try:
        pairs = [
            Pair(files[f"{name}.crt"], files[f"{name}.key"])
            for name in _AUTHORITIES
            if f"{name}.crt" in files
        ]
        leaf = Pair(files[LEAF_FILE], files[LEAF_KEY_FILE])
        for pair in [*pairs, leaf]:
            _key(pair)
            _certificate(pair)
    except (KeyError, ValueError, TypeError):
        return None
    return Kept(tuple(pairs), leaf) if pairs else None


def renewed(kept: Kept | None, hosts: Sequence[str], now: datetime.datetime) -> Kept:
    """What to keep from `now` on; `kept` itself where nothing is due. `hosts`: DNS names, the first is the subject."""
    if kept is None or _expiry(kept.authorities[0]) <= now:
        authority = issue_authority(now)
        return Kept((authority,), issue_leaf(authority, hosts, now))
    authorities = kept.authorities
    if is_due(authorities[0].certificate, now):
        authorities = (issue_authority(now), authorities[0])
    signer = next((one for one in authorities if now - _made(one) >= SETTLE), authorities[-1])
    leaf = kept.leaf
    if is_due(leaf.certificate, now) or not _serves(leaf, hosts) or not _signed(leaf, signer):
        leaf = issue_leaf(signer, hosts, now)
    authorities = tuple(one for one in authorities if one is authorities[0] or _is_in_use(one, leaf, now))
    return kept if (authorities, leaf) == (kept.authorities, kept.leaf) else Kept(authorities, leaf)


def issue_authority(now: datetime.datetime) -> Pair:
    """A new authority that may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inference-sidecar webhook CA")])
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue_leaf(authority: Pair, hosts: Sequence[str], now: datetime.datetime) -> Pair:
    """A certificate for a server that is called by these DNS names. It does not outlive its authority."""
    issuer, issuer_key = _certificate(authority), _key(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name holds 64 characters at most; those who check look at the alternative names.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    life = min(LEAF_LIFE, _expiry(authority) - now)
    builder = (
        _builder(name, issuer.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def is_due(certificate: bytes, now: datetime.datetime) -> bool:
    """Whether two thirds of its life are over: there is time for a few failures until it ends."""
    read = x509.load_pem_x509_certificate(certificate)
    life = read.not_valid_after_utc - read.not_valid_before_utc
    return now >= read.not_valid_before_utc + life * 2 / 3


def expiry(certificate: bytes) -> datetime.datetime:
    """When it ends, in UTC."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def _expiry(pair: Pair) -> datetime.datetime:
    return expiry(pair.certificate)


def _made(pair: Pair) -> datetime.datetime:
    return _certificate(pair).not_valid_before_utc + SKEW


def _serves(leaf: Pair, hosts: Sequence[str]) -> bool:
    names = _certificate(leaf).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(hosts) <= set(names.value.get_values_for_type(x509.DNSName))


def _signed(leaf: Pair, authority: Pair) -> bool:
    try:
        _certificate(leaf).verify_directly_issued_by(_certificate(authority))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _is_in_use(authority: Pair, leaf: Pair, now: datetime.datetime) -> bool:
    """Whether an injector may still serve a leaf of `authority`, which is not the newest."""
    return _expiry(authority) > now and (_signed(leaf, authority) or now - _made(leaf) < SETTLE)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _certificate(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def _key(pair: Pair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a key of another kind than this module makes")
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), private)
