# SPDX-License-Identifier: Apache-2.0
"""Making certificates and CRLs, for the simulator's local root and for tests. Nothing that decides trust uses this.

Every input is an argument: names, serial numbers, times, keys. RSA keys of 4096 bits take seconds to make, so callers keep
them (``to_pem``, ``from_pem``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from confide.crypto.signing import CURVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from confide.crypto.x509 import Extension

__all__ = ["IssuingKey", "issue", "issue_crl"]

_HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_NAME_OIDS = {
    "CN": x509.NameOID.COMMON_NAME,
    "C": x509.NameOID.COUNTRY_NAME,
    "L": x509.NameOID.LOCALITY_NAME,
    "ST": x509.NameOID.STATE_OR_PROVINCE_NAME,
    "O": x509.NameOID.ORGANIZATION_NAME,
    "OU": x509.NameOID.ORGANIZATIONAL_UNIT_NAME,
}
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class IssuingKey:
    """A private key that signs certificates, CRLs and messages: ECDSA on P-256 or P-384, or RSA."""

    __slots__ = ("_key", "public_key_der")

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = key
        self.public_key_der: bytes = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @classmethod
    def generate_p384(cls) -> Self:
        """A new key on P-384."""
        return cls(ec.generate_private_key(ec.SECP384R1()))

    @classmethod
    def generate_p256(cls) -> Self:
        """A new key on P-256."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def generate_rsa(cls, bits: int = 4096) -> Self:
        """A new RSA key; 4096 bits take seconds."""
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=bits))

    @classmethod
    def from_scalar(cls, scalar: int, *, curve: str = "p384") -> Self:
        """The key of a known scalar, 1 to n-1, for reproducible fixtures."""
        return cls(ec.derive_private_key(scalar, CURVES[curve][0]))

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """The key that ``to_pem`` wrote; TypeError or ValueError for anything else."""
        key = serialization.load_pem_private_key(data, password=None)
        if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            raise TypeError("not a key that issues certificates")
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS#8 without encryption, to be stored with mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign_ecdsa(self, message: bytes, *, hash_name: str = "sha384") -> tuple[int, int]:
        """The two integers of an ECDSA signature of ``message``."""
        if not isinstance(self._key, ec.EllipticCurvePrivateKey):
            raise TypeError("only keys on a curve make ECDSA signatures")
        return decode_dss_signature(self._key.sign(message, ec.ECDSA(_HASHES[hash_name])))

    def sign_rsa_pss(self, message: bytes, *, hash_name: str = "sha384") -> bytes:
        """An RSA-PSS signature whose salt is as long as the hash."""
        if not isinstance(self._key, rsa.RSAPrivateKey):
            raise TypeError("only RSA keys make RSA-PSS signatures")
        chosen = _HASHES[hash_name]
        return self._key.sign(message, padding.PSS(padding.MGF1(chosen), chosen.digest_size), chosen)

    def sign_rsa_pkcs1(self, message: bytes, *, hash_name: str = "sha256") -> bytes:
        """An RSASSA-PKCS1-v1_5 signature, as TPMs make them."""
        if not isinstance(self._key, rsa.RSAPrivateKey):
            raise TypeError("only RSA keys make RSA signatures")
        return self._key.sign(message, padding.PKCS1v15(), _HASHES[hash_name])

    def __repr__(self) -> str:
        return "IssuingKey(redacted)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a private key is neither copied nor serialised")


def _name(parts: str | Sequence[tuple[str, str]]) -> x509.Name:
    pairs = [("CN", parts)] if isinstance(parts, str) else list(parts)
    return x509.Name([x509.NameAttribute(_NAME_OIDS[short], text) for short, text in pairs])


def _key_usage(usages: frozenset[str]) -> x509.KeyUsage:
    if not usages <= set(_USAGES):
        raise ValueError("an unknown key usage")
    chosen = {usage: usage in usages for usage in _USAGES}
    return x509.KeyUsage(**chosen)


def _padding(key: IssuingKey, hash_name: str, *, pkcs1: bool) -> padding.PSS | padding.PKCS1v15 | None:
    if not isinstance(key._key, rsa.RSAPrivateKey):  # noqa: SLF001
        return None
    if pkcs1:
        return padding.PKCS1v15()
    chosen = _HASHES[hash_name]
    return padding.PSS(padding.MGF1(chosen), chosen.digest_size)


def issue(
    *,
    subject: str | Sequence[tuple[str, str]],
    issuer: str | Sequence[tuple[str, str]],
    public_key: bytes,
    signing_key: IssuingKey,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    is_ca: bool,
    path_length: int | None = None,
    basic_constraints: bool = True,
    key_usage: frozenset[str] | None = None,
    extensions: Mapping[str, Extension] | None = None,
    hash_name: str = "sha384",
    pkcs1: bool = False,
) -> bytes:
    """A certificate in DER.

    Names are a common name, or pairs like ("O", "...") in the order of the bytes. ``public_key`` is a DER
    SubjectPublicKeyInfo. ``serial`` is at least 1. A CA gets critical basic constraints, a leaf none; ``basic_constraints=False``
    leaves them out for a CA too, to make bad examples. ``key_usage=None`` leaves key usage out. ``extensions`` maps dotted OIDs to raw
    values. RSA keys sign with PSS, salt as long as the hash, unless ``pkcs1``.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(_public_key(public_key))
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if is_ca and basic_constraints:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=path_length), critical=True
        )
    if key_usage is not None:
        builder = builder.add_extension(_key_usage(key_usage), critical=True)
    for oid, extension in (extensions or {}).items():
        raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), extension.value)
        builder = builder.add_extension(raw, critical=extension.critical)
    made = builder.sign(
        signing_key._key,  # noqa: SLF001
        _HASHES[hash_name],
        rsa_padding=_padding(signing_key, hash_name, pkcs1=pkcs1),
        ecdsa_deterministic=_deterministic(signing_key),
    )
    return made.public_bytes(serialization.Encoding.DER)


def _deterministic(key: IssuingKey) -> bool | None:
    # RFC 6979: the same inputs give the same certificate, so that a simulated root need not be stored.
    return True if isinstance(key._key, ec.EllipticCurvePrivateKey) else None  # noqa: SLF001


def _public_key(public_key: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    key = serialization.load_der_public_key(public_key)
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise TypeError("not a key that is put into certificates here")
    return key


def issue_crl(
    *,
    issuer: str | Sequence[tuple[str, str]],
    signing_key: IssuingKey,
    this_update: datetime,
    next_update: datetime,
    revoked: Iterable[int] = (),
    extensions: Mapping[str, Extension] | None = None,
    hash_name: str = "sha384",
) -> bytes:
    """A CRL in DER that revokes the serial numbers ``revoked`` (each at least 1) at ``this_update``."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_name(issuer))
        .last_update(this_update)
        .next_update(next_update)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update).build()
        builder = builder.add_revoked_certificate(entry)
    for oid, extension in (extensions or {}).items():
        raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), extension.value)
        builder = builder.add_extension(raw, critical=extension.critical)
    made = builder.sign(
        signing_key._key,  # noqa: SLF001
        _HASHES[hash_name],
        rsa_padding=_padding(signing_key, hash_name, pkcs1=False),
    )
    return made.public_bytes(serialization.Encoding.DER)
