# SPDX-License-Identifier: Apache-2.0
"""What certificates and CRLs are made of (RFC 5280): signature, names, times, serial numbers, extensions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from confide.crypto import signing
from confide.errors import MalformedError, NotGenuine
from confide.wire import der

__all__ = [
    "Extension",
    "Signed",
    "expect_algorithm",
    "extension",
    "extensions",
    "name",
    "open_signed",
    "serial_number",
    "signature_of",
    "time",
]

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
class Signed:
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


def signature_of(tbs: der.Element, algorithm: der.Element, signature: der.Element) -> Signed:
    """The signature over ``tbs``, by the element that names its algorithm and the bit string that holds it."""
    family, hash_name = _algorithm(algorithm)
    return Signed(tbs.encoded, family, hash_name, signature.bits())


def open_signed(data: bytes, what: str, max_size: int) -> tuple[Signed, der.Element, tuple[der.Element, ...]]:
    """The signature, the element that names its algorithm, and the parts of what it covers."""
    parts = der.decode(data, what=what, max_size=max_size).expect(der.SEQUENCE).children()
    if len(parts) != 3:
        raise MalformedError("unknown_format", f"{what}: not a signed structure of three parts")
    return signature_of(*parts), parts[1], parts[0].expect(der.SEQUENCE).children()


def expect_algorithm(inner: der.Element, outer: der.Element) -> None:
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


def serial_number(element: der.Element, what: str) -> int:
    """Zero is allowed: AMD numbers its VCEKs so."""
    serial = element.expect(der.INTEGER).integer()
    if serial < 0 or len(element.content) > 21 or serial >> 160:
        raise MalformedError("non_canonical", f"{what}: a serial number that is negative or too long")
    return serial


def time(element: der.Element, what: str, *, long_times: bool = False) -> datetime:
    """UTCTime up to 2049, GeneralizedTime from 2050, as RFC 5280, section 4.1.2.5, demands.

    ``long_times`` admits GeneralizedTime for every year, for the issuers named in ``docs/adr/0009-ocsp-times.md``.
    """
    if element.tag not in {0x17, 0x18}:
        raise MalformedError("non_canonical", f"{what}: a time of another type")
    text = element.content.decode("ascii")
    if element.tag == 0x17:
        text = ("20" if text[:2] < "50" else "19") + text
    elif text[:4] < "2050" and not long_times:
        raise MalformedError("non_canonical", f"{what}: a time before 2050 in the long form")
    year, rest = int(text[:4]), text[4:]
    month, day, hour, minute, second = (int(rest[i : i + 2]) for i in range(0, 10, 2))
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        pass  # Raised below.
    raise MalformedError("non_canonical", f"{what}: a time that does not exist")


def name(element: der.Element, what: str) -> str:
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


def extensions(element: der.Element, what: str) -> dict[str, Extension]:
    """Extensions by their OID; an empty list and the same one twice are refused."""
    found: dict[str, Extension] = {}
    wrapped = element.children()
    if len(wrapped) != 1 or not wrapped[0].expect(der.SEQUENCE).content:
        raise MalformedError("non_canonical", f"{what}: extensions that are present and empty")
    for item in wrapped[0].children():
        oid, made = extension(item, what)
        if oid in found:
            raise MalformedError("non_canonical", f"{what}: the same extension twice")
        found[oid] = made
    return found


def extension(item: der.Element, what: str) -> tuple[str, Extension]:
    """One extension and its OID."""
    parts = item.expect(der.SEQUENCE).children()
    if len(parts) == 3:
        if not parts[1].boolean():
            raise MalformedError("non_canonical", f"{what}: an extension that spells its default")
        return parts[0].oid(), Extension(critical=True, value=parts[2].octets())
    if len(parts) == 2:
        return parts[0].oid(), Extension(critical=False, value=parts[1].octets())
    raise MalformedError("non_canonical", f"{what}: an extension of other than two or three parts")
