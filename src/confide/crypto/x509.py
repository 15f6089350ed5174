# SPDX-License-Identifier: Apache-2.0
"""X.509 certificates and CRLs (RFC 5280), read strictly from DER. Paths are verified in `confide.crypto.x509_path`.

Nothing here asks the clock or the network, and no certificate's text says where to look for anything. `verify_chain` is
offered here as well, so that callers need one module.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from confide.crypto import pem, signing
from confide.crypto.x509_parts import (
    Extension,
    Signed,
    expect_algorithm,
    extension,
    extensions,
    name,
    open_signed,
    serial_number,
    time,
)
from confide.crypto.x509_path import verify_chain
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.wire import der

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "Certificate",
    "Crl",
    "Extension",
    "parse_certificates",
    "parse_documents",
    "parse_pem",
    "verify_chain",
]

MAX_CERTIFICATE = 16 * 1024
MAX_CRL = 2 * 1024 * 1024
MAX_CERTIFICATES = 64

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A version 3 certificate as its bytes say; nothing is verified by reading it.

    ``subject`` and ``issuer`` are text for people; ``subject_der`` and ``issuer_der`` are what names are compared by. Times are
    aware and in UTC. ``extensions`` maps dotted OIDs to raw values.
    """

    der: bytes
    subject: str
    issuer: str
    subject_der: bytes
    issuer_der: bytes
    serial: int
    not_before: datetime
    not_after: datetime
    public_key_der: bytes
    extensions: Mapping[str, Extension]
    is_ca: bool
    path_length: int | None
    key_usage: frozenset[str] | None
    signed: Signed = field(repr=False)

    @staticmethod
    def from_der(data: bytes, *, long_times: bool = False) -> Certificate:
        """The certificate in ``data``; raises ``MalformedError`` for everything that RFC 5280 and DER do not allow.

        ``long_times`` admits one deviation, times before 2050 in the long form (``docs/adr/0009-ocsp-times.md``).
        """
        return _certificate(bytes(data), long_times)

    @property
    def spki_sha256(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes."""
        return hashlib.sha256(self.public_key_der).digest()

    @property
    def key_kind(self) -> str:
        """One of "p256", "p384", "rsa2048" and so on, "ed25519"; raises ``NotGenuine`` for weak, invalid and unknown keys."""
        return signing.key_kind(self.public_key_der)

    def verify_signature(
        self, message: bytes, r: int, s: int, *, curve: str = "p384", hash_name: str = "sha384"
    ) -> None:
        """Check an ECDSA signature that this certificate's key made; see ``signing.verify_ecdsa``."""
        signing.verify_ecdsa(self.public_key_der, r, s, message, curve=curve, hash_name=hash_name)


@dataclass(frozen=True, slots=True)
class Crl:
    """A certificate revocation list as its bytes say; ``check`` verifies it against its issuer."""

    der: bytes
    issuer: str
    issuer_der: bytes
    this_update: datetime
    next_update: datetime | None
    revoked: frozenset[int] = field(repr=False)
    extensions: Mapping[str, Extension] = field(repr=False)
    signed: Signed = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The list in ``data``, DER or one PEM block; raises ``MalformedError``."""
        what = "CRL"
        if data[:1] == b"-":
            blocks = pem.blocks(data, "X509 CRL", max_size=MAX_CRL, max_count=1)
            if len(blocks) != 1:
                raise MalformedError("non_canonical", f"{what}: a file that does not hold one")
            data = blocks[0]
        signed, algorithm, parts = open_signed(data, what, MAX_CRL)
        rest = list(parts)
        if len(rest) < 4 or rest[0].tag != der.INTEGER or rest.pop(0).integer() != 1:
            raise MalformedError("unsupported_version", f"{what}: not a version 2 list")
        expect_algorithm(rest.pop(0), algorithm)
        issuer = rest.pop(0)
        this_update = time(rest.pop(0), what)
        next_update = time(rest.pop(0), what) if rest and rest[0].tag in {0x17, 0x18} else None
        revoked: set[int] = set()
        if rest and rest[0].tag == der.SEQUENCE:
            for entry in rest.pop(0).children():
                revoked.add(_revoked(entry, what))
        found = extensions(rest.pop(0), what) if rest and rest[0].tag == 0xA0 else {}
        if rest:
            raise MalformedError("non_canonical", f"{what}: parts that have no place in a list")
        return cls(
            der=bytes(data),
            issuer=name(issuer, what),
            issuer_der=issuer.encoded,
            this_update=this_update,
            next_update=next_update,
            revoked=frozenset(revoked),
            extensions=MappingProxyType(found),
            signed=signed,
        )

    def check(self, certificate: Certificate, *, issuer: Certificate, at: datetime) -> None:
        """Say that ``certificate`` was not revoked by ``issuer``, its verified issuer, at the time ``at``.

        Raises ``not_genuine.revoked``; ``not_genuine.bad_signature`` or ``wrong_usage`` if ``issuer`` did not or may not sign
        this list; ``endorsements_missing.crl`` if it is another issuer's or covers only part of the certificates;
        ``endorsements_missing.crl_expired`` outside this update to next update, also if no next update is named.
        """
        if at.tzinfo is None:
            raise ValueError("the time of verification must be aware")
        if self.issuer_der != issuer.subject_der or certificate.issuer_der != issuer.subject_der:
            raise EndorsementsMissing("crl", "the CRL is not of the certificate's issuer")
        if issuer.key_usage is not None and "crl_sign" not in issuer.key_usage:
            raise NotGenuine("wrong_usage", "the issuer's key is not for signing CRLs", stage="endorsement")
        self.signed.verify(issuer.public_key_der)
        if any(extension.critical for extension in self.extensions.values()):
            raise EndorsementsMissing(
                "crl", "the CRL says in a critical extension that it is not a whole list"
            )
        if at < self.this_update or self.next_update is None or at > self.next_update:
            raise EndorsementsMissing(
                "crl_expired",
                "the CRL is not valid at the time of verification",
                hint="fetch the vendor's current CRL",
            )
        if certificate.serial in self.revoked:
            raise NotGenuine("revoked", "the issuer has revoked this certificate", stage="endorsement")


@functools.lru_cache(maxsize=64)
def _certificate(data: bytes, long_times: bool) -> Certificate:  # noqa: FBT001 - a key of the cache
    """Read one certificate; the same roots and intermediates come with every piece of evidence, so some are kept."""
    what = "certificate"
    signed, algorithm, parts = open_signed(data, what, MAX_CERTIFICATE)
    if len(parts) not in {7, 8} or parts[0].tag != 0xA0 or any(part.tag != 0xA3 for part in parts[7:]):
        raise MalformedError("unsupported_version", f"{what}: not an X.509 version 3 certificate")
    if [part.integer() for part in parts[0].children()] != [2]:
        raise MalformedError("unsupported_version", f"{what}: not an X.509 version 3 certificate")
    expect_algorithm(parts[2], algorithm)
    validity = parts[4].expect(der.SEQUENCE).children()
    if len(validity) != 2:
        raise MalformedError("non_canonical", f"{what}: a validity of other than two times")
    found = extensions(parts[7], what) if len(parts) == 8 else {}
    is_ca, path_length = _basic_constraints(found.get(BASIC_CONSTRAINTS), what)
    return Certificate(
        der=data,
        subject=name(parts[5], what),
        issuer=name(parts[3], what),
        subject_der=parts[5].encoded,
        issuer_der=parts[3].encoded,
        serial=serial_number(parts[1], what),
        not_before=time(validity[0], what, long_times=long_times),
        not_after=time(validity[1], what, long_times=long_times),
        public_key_der=parts[6].expect(der.SEQUENCE).encoded,
        extensions=MappingProxyType(found),
        is_ca=is_ca,
        path_length=path_length,
        key_usage=_key_usage(found.get(KEY_USAGE), what),
        signed=signed,
    )


def _basic_constraints(extension: Extension | None, what: str) -> tuple[bool, int | None]:
    if extension is None:
        return False, None
    parts = list(der.decode(extension.value, what=what, max_size=32).expect(der.SEQUENCE).children())
    is_ca = bool(parts) and parts[0].tag == der.BOOLEAN
    if is_ca and not parts.pop(0).boolean():
        raise MalformedError("non_canonical", f"{what}: basic constraints that spell their default")
    path_length = parts.pop(0).integer() if parts and parts[0].tag == der.INTEGER else None
    if parts or (path_length is not None and (path_length < 0 or not is_ca)):
        raise MalformedError("non_canonical", f"{what}: basic constraints that contradict themselves")
    return is_ca, path_length


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


def _key_usage(extension: Extension | None, what: str) -> frozenset[str] | None:
    if extension is None:
        return None
    content = der.decode(extension.value, what=what, max_size=8).expect(der.BIT_STRING).content
    bits = int.from_bytes(content[1:], "big")
    width = 8 * (len(content) - 1)
    if not bits:
        raise MalformedError("non_canonical", f"{what}: key usage without a use")
    if width > 16:
        raise MalformedError("non_canonical", f"{what}: key usage with unknown bits")
    return frozenset(usage for i, usage in enumerate(_USAGES) if i < width and bits >> (width - 1 - i) & 1)


def _revoked(entry: der.Element, what: str) -> int:
    parts = entry.expect(der.SEQUENCE).children()
    if len(parts) not in {2, 3}:
        raise MalformedError("non_canonical", f"{what}: an entry of other than two or three parts")
    time(parts[1], what)
    if len(parts) == 3:
        for item in parts[2].expect(der.SEQUENCE).children():
            if extension(item, what)[1].critical:
                # Such an entry is of another issuer (RFC 5280, section 5.3.3), which is not followed here.
                raise MalformedError("unknown_format", f"{what}: an entry with a critical extension")
    return serial_number(parts[0], what)


def parse_pem(data: bytes) -> tuple[Certificate, ...]:
    """The certificates in a PEM file of at least one and at most 64; nothing else may be in it but empty lines."""
    found = pem.blocks(data, "CERTIFICATE", max_size=MAX_CERTIFICATE, max_count=MAX_CERTIFICATES)
    if not found:
        raise MalformedError("truncated", "the PEM file holds no certificate")
    return tuple(Certificate.from_der(block) for block in found)


def parse_documents(data: bytes) -> tuple[tuple[Certificate, ...], tuple[Crl, ...]]:
    """The certificates and the CRLs in a PEM file that may hold both, at least one and at most 64 of them altogether."""
    found = pem.labelled_blocks(
        data, ("CERTIFICATE", "X509 CRL"), max_size=MAX_CRL, max_count=MAX_CERTIFICATES
    )
    if not found:
        raise MalformedError("truncated", "the PEM file holds neither a certificate nor a CRL")
    return (
        tuple(Certificate.from_der(block) for label, block in found if label == "CERTIFICATE"),
        tuple(Crl.from_bytes(block) for label, block in found if label != "CERTIFICATE"),
    )


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """The certificates in ``data``: one in DER, or PEM as for ``parse_pem``."""
    if data[:1] == b"\x30":
        return (Certificate.from_der(data),)
    return parse_pem(data)
