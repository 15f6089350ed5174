# SPDX-License-Identifier: Apache-2.0
"""X.509 certificates and CRLs (RFC 5280), read strictly from DER. Paths are verified in `confide.crypto.x509_path`.

Nothing here asks the clock or the network, and no certificate's text says where to look for anything. `verify_chain` is
offered here as well, so that callers need one module.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from confide.crypto import signing
from confide.crypto.x509_path import verify_chain
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.wire import der

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Certificate",
    "Crl",
    "Extension",
    "parse_certificates",
    "parse_pem",
    "verify_chain",
]

MAX_CERTIFICATE = 16 * 1024
MAX_CRL = 2 * 1024 * 1024
MAX_CERTIFICATES = 64

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"

_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
}
_TEXT_TAGS = {12: "utf-8", 19: "ascii", 20: "latin-1", 22: "ascii", 30: "utf-16-be"}
_HASHES = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_ECDSA = {
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_PKCS1 = {
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_ED25519 = "1.3.101.112"
_LIBRARY_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: whether it is critical, and its raw value (the contents of the OCTET STRING)."""

    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class _Signed:
    """What certificates and CRLs share: the signed bytes and a signature of a family ("ecdsa", "rsa-pss", ...)."""

    tbs: bytes
    family: str
    hash_name: str
    signature: bytes

    def verify(self, public_key_der: bytes) -> None:
        """Check the signature under the issuer's key; raises ``NotGenuine``."""
        if self.family == "ecdsa":
            self._verify_ecdsa(public_key_der)
        elif self.family == "rsa-pss":
            signing.verify_rsa_pss(public_key_der, self.signature, self.tbs, hash_name=self.hash_name)
        elif self.family == "rsa-pkcs1":
            self._verify_pkcs1(public_key_der)
        elif self.family == "ed25519":
            # A SubjectPublicKeyInfo of Ed25519 ends in the raw key.
            if signing.key_kind(public_key_der) != "ed25519":
                raise NotGenuine(
                    "algorithm_mismatch", "the issuer's key is of another kind than the signature"
                )
            signing.verify(public_key_der[-32:], self.signature, self.tbs)
        else:
            raise NotGenuine(
                "unsupported_algorithm", "the signature's algorithm is not accepted", stage="endorsement"
            )

    def _verify_ecdsa(self, public_key_der: bytes) -> None:
        key = signing.load_public_key(public_key_der)
        curve = signing.curve_name(key) if isinstance(key, ec.EllipticCurvePublicKey) else None
        if curve is None:
            raise NotGenuine("algorithm_mismatch", "the issuer's key is of another kind than the signature")
        try:
            r, s = (
                part.integer()
                for part in der.decode(self.signature, what="ECDSA signature", max_size=256)
                .expect(der.SEQUENCE)
                .children()
            )
        except (MalformedError, ValueError):
            raise NotGenuine("bad_signature", "the ECDSA signature is not well formed") from None
        signing.verify_ecdsa(public_key_der, r, s, self.tbs, curve=curve, hash_name=self.hash_name)

    def _verify_pkcs1(self, public_key_der: bytes) -> None:
        key = signing.load_public_key(public_key_der)
        if not isinstance(key, rsa.RSAPublicKey):
            raise NotGenuine("algorithm_mismatch", "the issuer's key is of another kind than the signature")
        try:
            key.verify(self.signature, self.tbs, padding.PKCS1v15(), _LIBRARY_HASHES[self.hash_name])
        except (InvalidSignature, ValueError):
            raise NotGenuine("bad_signature", "the RSA signature does not verify") from None


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
    signed: _Signed = field(repr=False)

    @classmethod
    def from_der(cls, data: bytes) -> Self:
        """The certificate in ``data``; raises ``MalformedError`` for everything that RFC 5280 and DER do not allow."""
        what = "certificate"
        signed, algorithm, parts = _open(data, what, MAX_CERTIFICATE)
        if len(parts) not in {7, 8} or parts[0].tag != 0xA0 or any(part.tag != 0xA3 for part in parts[7:]):
            raise MalformedError("unsupported_version", f"{what}: not an X.509 version 3 certificate")
        if [part.integer() for part in parts[0].children()] != [2]:
            raise MalformedError("unsupported_version", f"{what}: not an X.509 version 3 certificate")
        _expect_algorithm(parts[2], algorithm)
        validity = parts[4].expect(der.SEQUENCE).children()
        if len(validity) != 2:
            raise MalformedError("non_canonical", f"{what}: a validity of other than two times")
        found = _extensions(parts[7], what) if len(parts) == 8 else {}
        is_ca, path_length = _basic_constraints(found.get(BASIC_CONSTRAINTS), what)
        return cls(
            der=bytes(data),
            subject=_name(parts[5], what),
            issuer=_name(parts[3], what),
            subject_der=parts[5].encoded,
            issuer_der=parts[3].encoded,
            serial=_serial(parts[1], what),
            not_before=_time(validity[0], what),
            not_after=_time(validity[1], what),
            public_key_der=parts[6].expect(der.SEQUENCE).encoded,
            extensions=MappingProxyType(found),
            is_ca=is_ca,
            path_length=path_length,
            key_usage=_key_usage(found.get(KEY_USAGE), what),
            signed=signed,
        )

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
    signed: _Signed = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The list in ``data``, DER or one PEM block; raises ``MalformedError``."""
        what = "CRL"
        if data[:1] == b"-":
            blocks = _pem_blocks(data, "X509 CRL", MAX_CRL)
            if len(blocks) != 1:
                raise MalformedError("non_canonical", f"{what}: more than one in a file")
            data = blocks[0]
        signed, algorithm, parts = _open(data, what, MAX_CRL)
        rest = list(parts)
        if len(rest) < 4 or rest[0].tag != der.INTEGER or rest.pop(0).integer() != 1:
            raise MalformedError("unsupported_version", f"{what}: not a version 2 list")
        _expect_algorithm(rest.pop(0), algorithm)
        issuer = rest.pop(0)
        this_update = _time(rest.pop(0), what)
        next_update = _time(rest.pop(0), what) if rest and rest[0].tag in {0x17, 0x18} else None
        revoked: set[int] = set()
        if rest and rest[0].tag == der.SEQUENCE:
            for entry in rest.pop(0).children():
                revoked.add(_revoked(entry, what))
        found = _extensions(rest.pop(0), what) if rest and rest[0].tag == 0xA0 else {}
        if rest:
            raise MalformedError("non_canonical", f"{what}: parts that have no place in a list")
        return cls(
            der=bytes(data),
            issuer=_name(issuer, what),
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


def _open(data: bytes, what: str, max_size: int) -> tuple[_Signed, der.Element, tuple[der.Element, ...]]:
    """The signature, the element that names its algorithm, and the parts of what it covers."""
    parts = der.decode(data, what=what, max_size=max_size).expect(der.SEQUENCE).children()
    if len(parts) != 3:
        raise MalformedError("unknown_format", f"{what}: not a signed structure of three parts")
    family, hash_name = _algorithm(parts[1])
    signed = _Signed(parts[0].encoded, family, hash_name, parts[2].bits())
    return signed, parts[1], parts[0].expect(der.SEQUENCE).children()


def _expect_algorithm(inner: der.Element, outer: der.Element) -> None:
    """The algorithm is named twice, once inside the signed part, and both must agree (RFC 5280, section 4.1.1.2)."""
    if outer.encoded != inner.encoded:
        raise MalformedError("non_canonical", f"{inner.what}: two different signature algorithms")


def _algorithm(element: der.Element) -> tuple[str, str]:
    """Family and hash of an AlgorithmIdentifier; "other" for what is not accepted (SHA-1 among it)."""
    parts = element.expect(der.SEQUENCE).children()
    if not parts:
        raise MalformedError("non_canonical", f"{element.what}: an algorithm without a name")
    oid = parts[0].oid()
    if oid in _ECDSA and len(parts) == 1:
        return "ecdsa", _ECDSA[oid]
    if oid == _ED25519 and len(parts) == 1:
        return "ed25519", ""
    if oid in _PKCS1 and len(parts) == 2 and parts[1].tag == der.NULL:
        return "rsa-pkcs1", _PKCS1[oid]
    if oid == _PSS and len(parts) == 2:
        hash_name = _pss_hash(parts[1])
        if hash_name is not None:
            return "rsa-pss", hash_name
    return "other", ""


def _pss_hash(element: der.Element) -> str | None:
    """The hash of RSASSA-PSS-params in which hash, mask and salt agree; None for any other choice (RFC 4055)."""
    parts = {part.tag: part for part in element.expect(der.SEQUENCE).children()}
    inner = {tag: part.children() for tag, part in parts.items() if tag & 0x20}
    if not {0xA0, 0xA1, 0xA2} <= set(inner) or not set(parts) <= {0xA0, 0xA1, 0xA2, 0xA3}:
        return None
    if any(len(children) != 1 for children in inner.values()):
        return None
    name = _hash_of(inner[0xA0][0])
    mask = inner[0xA1][0].expect(der.SEQUENCE).children()
    if name is None or len(mask) != 2 or mask[0].oid() != _MGF1 or _hash_of(mask[1]) != name:
        return None
    if inner[0xA2][0].integer() != _LIBRARY_HASHES[name].digest_size:
        return None
    if 0xA3 in inner and inner[0xA3][0].integer() != 1:
        return None
    return name


def _hash_of(element: der.Element) -> str | None:
    parts = element.expect(der.SEQUENCE).children()
    if not parts or (len(parts) > 1 and [part.tag for part in parts[1:]] != [der.NULL]):
        return None
    return _HASHES.get(parts[0].oid())


def _serial(element: der.Element, what: str) -> int:
    """Zero is allowed: AMD numbers its VCEKs so."""
    serial = element.expect(der.INTEGER).integer()
    if serial < 0 or len(element.content) > 21 or serial >> 160:
        raise MalformedError("non_canonical", f"{what}: a serial number that is negative or too long")
    return serial


def _time(element: der.Element, what: str) -> datetime:
    """UTCTime up to 2049, GeneralizedTime from 2050, as RFC 5280, section 4.1.2.5, demands."""
    if element.tag not in {0x17, 0x18}:
        raise MalformedError("non_canonical", f"{what}: a time of another type")
    text = element.content.decode("ascii")
    if element.tag == 0x17:
        text = ("20" if text[:2] < "50" else "19") + text
    elif text[:4] < "2050":
        raise MalformedError("non_canonical", f"{what}: a time before 2050 in the long form")
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        pass  # Raised below.
    raise MalformedError("non_canonical", f"{what}: a time that does not exist")


def _name(element: der.Element, what: str) -> str:
    """A name as text, most significant part first as in the bytes; control characters are refused, NUL among them."""
    words: list[str] = []
    for group in element.expect(der.SEQUENCE).children():
        for attribute in group.expect(der.SET).children():
            parts = attribute.expect(der.SEQUENCE).children()
            if len(parts) != 2 or parts[1].tag not in _TEXT_TAGS:
                raise MalformedError("non_canonical", f"{what}: a name with a part that is not text")
            try:
                text = parts[1].content.decode(_TEXT_TAGS[parts[1].tag])
            except UnicodeDecodeError:
                text = "\x00"  # Refused in the next line without keeping the library's exception.
            if not text.isprintable():
                raise MalformedError("non_canonical", f"{what}: a name with characters that do not print")
            oid = parts[0].oid()
            words.append(f"{_NAMES.get(oid, oid)}={text}")
    return ", ".join(words)


def _extensions(element: der.Element, what: str) -> dict[str, Extension]:
    found: dict[str, Extension] = {}
    wrapped = element.children()
    if len(wrapped) != 1 or not wrapped[0].expect(der.SEQUENCE).content:
        raise MalformedError("non_canonical", f"{what}: extensions that are present and empty")
    for item in wrapped[0].children():
        oid, extension = _extension(item, what)
        if oid in found:
            raise MalformedError("non_canonical", f"{what}: the same extension twice")
        found[oid] = extension
    return found


def _extension(item: der.Element, what: str) -> tuple[str, Extension]:
    parts = item.expect(der.SEQUENCE).children()
    if len(parts) == 3:
        if not parts[1].boolean():
            raise MalformedError("non_canonical", f"{what}: an extension that spells its default")
        return parts[0].oid(), Extension(critical=True, value=parts[2].octets())
    if len(parts) == 2:
        return parts[0].oid(), Extension(critical=False, value=parts[1].octets())
    raise MalformedError("non_canonical", f"{what}: an extension of other than two or three parts")


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
    _time(parts[1], what)
    if len(parts) == 3:
        for item in parts[2].expect(der.SEQUENCE).children():
            if _extension(item, what)[1].critical:
                # Such an entry is of another issuer (RFC 5280, section 5.3.3), which is not followed here.
                raise MalformedError("unknown_format", f"{what}: an entry with a critical extension")
    return _serial(parts[0], what)


_PEM = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,32})-----\r?\n((?:[A-Za-z0-9+/]{1,76}={0,2}\r?\n)+)-----END \1-----(?:\r?\n)*"
)


def _pem_blocks(data: bytes, label: str, max_size: int) -> list[bytes]:
    """The contents of the PEM blocks in ``data`` (RFC 7468, strict), which must hold nothing else but empty lines."""
    if len(data) > 2 * max_size * (1 if label == "X509 CRL" else MAX_CERTIFICATES):
        raise MalformedError("limit_exceeded", "the PEM file is too large")
    blocks: list[bytes] = []
    text = bytes(data)
    if not text.endswith(b"\n"):
        text += b"\n"
    offset = 0
    while offset < len(text):
        match = _PEM.match(text, offset)
        if match is None or match.group(1) != label.encode("ascii"):
            raise MalformedError(
                "non_canonical",
                f"something other than blocks of {label} is in the PEM file at offset {offset}",
            )
        encoded = match.group(2).replace(b"\r", b"").replace(b"\n", b"")
        try:
            block = base64.b64decode(encoded, validate=True)
        except ValueError:
            block = b""
        if not block or base64.b64encode(block) != encoded:
            raise MalformedError("non_canonical", "a PEM block is not canonical base64")
        blocks.append(block)
        if len(blocks) > MAX_CERTIFICATES:
            raise MalformedError("limit_exceeded", f"more than {MAX_CERTIFICATES} PEM blocks in one file")
        offset = match.end()
    return blocks


def parse_pem(data: bytes) -> tuple[Certificate, ...]:
    """The certificates in a PEM file of at least one and at most 64; nothing else may be in it but empty lines."""
    blocks = _pem_blocks(data, "CERTIFICATE", MAX_CERTIFICATE)
    if not blocks:
        raise MalformedError("truncated", "the PEM file holds no certificate")
    return tuple(Certificate.from_der(block) for block in blocks)


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """The certificates in ``data``: one in DER, or PEM as for ``parse_pem``."""
    if data[:1] == b"\x30":
        return (Certificate.from_der(data),)
    return parse_pem(data)
