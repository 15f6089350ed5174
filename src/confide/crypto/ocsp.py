# SPDX-License-Identifier: Apache-2.0
"""OCSP responses (RFC 6960), read strictly from DER and judged for one certificate at a given time.

A response is an endorsement like a CRL: it is handed in with the evidence, and nothing here asks a responder. Whether the
responder's own certificate is revoked is not asked, as RFC 6960, section 4.2.2.2.1, leaves to the issuer: NVIDIA's carry
``id-pkix-ocsp-nocheck`` and live three years at most.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from confide.crypto.x509 import Certificate
from confide.crypto.x509_parts import Signed, extensions, serial_number, signature_of, time
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.wire import der
from confide.wire.der_write import integer, oid, sequence, tagged

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Response", "SingleResponse", "request"]

MAX_RESPONSE: Final = 16 * 1024
MAX_ENTRIES: Final = 32
MAX_CERTIFICATES: Final = 4
_WHAT: Final = "OCSP response"
_BASIC: Final = "1.3.6.1.5.5.7.48.1.1"
_OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"
_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
_GENERALIZED_TIME: Final = 0x18
# SHA-1 here only names an issuer; what it names must still have signed. RFC 6960 fixes it for the responder's key hash.
_SHA384: Final = "2.16.840.1.101.3.4.2.2"
_HASHES: Final = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    _SHA384: "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_STAGE: Final = "revocation"
_WORST_FIRST: Final = ("revoked", "unknown", "good")


@dataclass(frozen=True, slots=True)
class SingleResponse:
    """What a response says of one certificate, which it names by its serial number and by hashes of its issuer."""

    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    status: Literal["good", "revoked", "unknown"]
    this_update: datetime
    next_update: datetime | None

    def names(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Whether ``certificate``, which ``issuer`` has signed, is the one that this entry is about."""
        return (
            self.serial == certificate.serial
            and certificate.issuer_der == issuer.subject_der
            and self.issuer_name_hash == _hash(self.hash_name, issuer.subject_der)
            and self.issuer_key_hash == _hash(self.hash_name, _key_bits(issuer))
        )


@dataclass(frozen=True, slots=True)
class Response:
    """A successful basic response as its bytes say; ``check`` verifies it against the issuer of a certificate.

    ``responder`` is the name (DER) or the SHA-1 of the key of whoever signed, ``certificates`` are those that came with it.
    """

    der: bytes
    responder: bytes
    produced_at: datetime
    entries: tuple[SingleResponse, ...]
    certificates: tuple[Certificate, ...]
    signed: Signed = field(repr=False)

    @staticmethod
    def from_der(data: bytes) -> Response:
        """The response in ``data``; raises ``MalformedError``, also for the error that a responder answered with."""
        return _response(bytes(data))

    def about(self, certificate: Certificate, issuer: Certificate) -> SingleResponse | None:
        """The entry about ``certificate``, of several the worst, or None."""
        found = [entry for entry in self.entries if entry.names(certificate, issuer)]
        return min(found, key=lambda entry: _WORST_FIRST.index(entry.status), default=None)

    def check(self, certificate: Certificate, *, issuer: Certificate, at: datetime) -> datetime:
        """Say that ``certificate`` was good at the time ``at``, by the word of ``issuer``, its verified issuer, or of a
        responder that ``issuer`` has certified for OCSP; returns the time until which that holds.

        Raises ``not_genuine.revoked``, also where the response is out of date; ``not_genuine.revocation_unknown`` if the
        responder does not know the certificate; ``not_genuine.bad_signature``, ``wrong_usage``, ``chain_invalid`` and others for
        a response that no entitled responder has signed; ``endorsements_missing.ocsp`` if it is about another certificate;
        ``endorsements_missing.ocsp_expired`` outside this update to next update, also if no next update is named.
        """
        if at.tzinfo is None:
            raise ValueError("the time of verification must be aware")
        entry = self.about(certificate, issuer)
        if entry is None:
            raise EndorsementsMissing("ocsp", "the OCSP response is not about this certificate", stage=_STAGE)
        responders = _signers(self.der, issuer.der)
        if entry.status == "revoked":
            raise NotGenuine("revoked", "the issuer has revoked this certificate", stage=_STAGE)
        if entry.status == "unknown":
            raise NotGenuine(
                "revocation_unknown",
                "the issuer's OCSP responder does not know this certificate",
                stage=_STAGE,
            )
        until = entry.next_update
        if until is None or not entry.this_update <= at <= until:
            raise EndorsementsMissing(
                "ocsp_expired",
                "the OCSP response is not valid at the time of verification",
                hint="fetch a current response",
                stage=_STAGE,
            )
        in_force = [one.not_after for one in responders if one.not_before <= at <= one.not_after]
        if not in_force:
            raise EndorsementsMissing(
                "ocsp_expired",
                "the OCSP responder's certificate is not valid at the time of verification",
                hint="fetch a current response",
                stage=_STAGE,
            )
        return min(until, max(in_force))


def request(certificate: Certificate, issuer: Certificate) -> bytes:
    """The DER of an OCSPRequest about ``certificate``, with SHA-384 and without a nonce: responses are kept and reused."""
    names = (_hash("sha384", value) for value in (issuer.subject_der, _key_bits(issuer)))
    certificate_id = sequence(
        sequence(oid(_SHA384), tagged(der.NULL, b"")),
        *(tagged(der.OCTET_STRING, name) for name in names),
        integer(certificate.serial),
    )
    return sequence(sequence(sequence(sequence(certificate_id))))


def _hash(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data, usedforsecurity=False).digest()


@functools.lru_cache(maxsize=128)
def _spki_bits(public_key_der: bytes) -> bytes:
    parts = der.decode(public_key_der, what="public key", max_size=16 * 1024).expect(der.SEQUENCE).children()
    if len(parts) != 2:
        raise MalformedError("non_canonical", "public key: not of two parts")
    return parts[1].bits()


def _key_bits(certificate: Certificate) -> bytes:
    """The public key without its algorithm, which RFC 6960 hashes."""
    return _spki_bits(certificate.public_key_der)


@functools.lru_cache(maxsize=256)
def _signers(response_der: bytes, issuer_der: bytes) -> tuple[Certificate, ...]:
    """The certificates of the responder whose right to sign and whose signature have been checked: facts without a time.

    A response may carry several that fit the responder's name, ``MAX_CERTIFICATES`` at most, and one that is entitled is enough.
    Raises what the first of them is refused for if none is.
    """
    response = Response.from_der(response_der)
    issuer = Certificate.from_der(issuer_der, long_times=True)
    candidates = [one for one in (issuer, *response.certificates) if _is_responder(one, response.responder)]
    if not candidates:
        raise NotGenuine(
            "chain_invalid", "the certificate of the OCSP responder is not in its response", stage=_STAGE
        )
    entitled: list[Certificate] = []
    refused: list[NotGenuine] = []
    for responder in candidates:
        try:
            _check_signer(response, responder, issuer)
        except NotGenuine as error:
            refused.append(error)
        else:
            entitled.append(responder)
    if not entitled:
        raise refused[0]
    return tuple(entitled)


def _check_signer(response: Response, responder: Certificate, issuer: Certificate) -> None:
    if responder.der != issuer.der:
        _check_delegation(responder, issuer)
    response.signed.verify(responder.public_key_der)
    if not responder.not_before <= response.produced_at <= responder.not_after:
        raise NotGenuine(
            "expired", "the OCSP response was made outside the validity of its responder", stage=_STAGE
        )


def _is_responder(certificate: Certificate, responder: bytes) -> bool:
    return responder in {certificate.subject_der, _hash("sha1", _key_bits(certificate))}


def _check_delegation(responder: Certificate, issuer: Certificate) -> None:
    """RFC 6960, section 4.2.2.2: issued by the very CA that is asked about, and marked for signing OCSP responses."""
    if responder.issuer_der != issuer.subject_der:
        raise NotGenuine("chain_invalid", "the OCSP responder is certified by another issuer", stage=_STAGE)
    responder.signed.verify(issuer.public_key_der)
    usage = responder.extensions.get(_EXTENDED_KEY_USAGE)
    purposes = (
        set()
        if usage is None
        else {
            part.oid()
            for part in der.decode(usage.value, what=_WHAT, max_size=256).expect(der.SEQUENCE).children()
        }
    )
    may_sign = responder.key_usage is None or "digital_signature" in responder.key_usage
    known = {_EXTENDED_KEY_USAGE, "2.5.29.15", "2.5.29.19"}
    critical = {oid for oid, extension in responder.extensions.items() if extension.critical}
    if _OCSP_SIGNING not in purposes or not may_sign or responder.is_ca or critical - known:
        raise NotGenuine(
            "wrong_usage", "the certificate of the OCSP responder is not for signing responses", stage=_STAGE
        )


@functools.lru_cache(maxsize=64)
def _response(data: bytes) -> Response:
    outer = der.decode(data, what=_WHAT, max_size=MAX_RESPONSE).expect(der.SEQUENCE).children()
    if not outer or outer[0].enumerated() != 0 or len(outer) != 2:
        raise MalformedError("unknown_format", f"{_WHAT}: the responder answered with an error")
    wrapped = outer[1].expect(0xA0).children()
    parts = wrapped[0].expect(der.SEQUENCE).children() if len(wrapped) == 1 else ()
    if len(parts) != 2 or parts[0].oid() != _BASIC:
        raise MalformedError("unknown_format", f"{_WHAT}: not a basic response")
    basic = der.decode(parts[1].octets(), what=_WHAT, max_size=MAX_RESPONSE).expect(der.SEQUENCE).children()
    if len(basic) not in {3, 4}:
        raise MalformedError("non_canonical", f"{_WHAT}: a basic response of other than three or four parts")
    responder, produced_at, entries = _response_data(basic[0])
    return Response(
        der=data,
        responder=responder,
        produced_at=produced_at,
        entries=entries,
        certificates=_certificates(basic[3]) if len(basic) == 4 else (),
        signed=signature_of(basic[0], basic[1], basic[2]),
    )


def _certificates(element: der.Element) -> tuple[Certificate, ...]:
    wrapped = element.expect(0xA0).children()
    if len(wrapped) != 1:
        raise MalformedError("non_canonical", f"{_WHAT}: certificates that are not one sequence")
    found = wrapped[0].expect(der.SEQUENCE).children()
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise MalformedError("limit_exceeded", f"{_WHAT}: no certificate, or more than {MAX_CERTIFICATES}")
    return tuple(Certificate.from_der(one.encoded, long_times=True) for one in found)


def _response_data(element: der.Element) -> tuple[bytes, datetime, tuple[SingleResponse, ...]]:
    rest = list(element.expect(der.SEQUENCE).children())
    if rest and rest[0].tag == 0xA0:
        # DER leaves out the one version that there is.
        raise MalformedError("unsupported_version", f"{_WHAT}: of another version than 1")
    if len(rest) not in {3, 4}:
        raise MalformedError("non_canonical", f"{_WHAT}: response data of other than three or four parts")
    entries = rest[2].expect(der.SEQUENCE).children()
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise MalformedError("limit_exceeded", f"{_WHAT}: no entry, or more than {MAX_ENTRIES}")
    if len(rest) == 4:
        _refuse_critical(rest[3])
    return _responder_id(rest[0]), _time(rest[1]), tuple(_single(entry) for entry in entries)


def _responder_id(element: der.Element) -> bytes:
    inner = element.children()
    if len(inner) == 1 and element.tag == 0xA1:
        return inner[0].expect(der.SEQUENCE).encoded
    if len(inner) == 1 and element.tag == 0xA2 and len(inner[0].octets()) == 20:
        return inner[0].octets()
    raise MalformedError("non_canonical", f"{_WHAT}: a responder that is named by neither name nor key")


def _single(entry: der.Element) -> SingleResponse:
    rest = list(entry.expect(der.SEQUENCE).children())
    if len(rest) < 3:
        raise MalformedError("non_canonical", f"{_WHAT}: an entry of fewer than three parts")
    names = rest.pop(0).expect(der.SEQUENCE).children()
    algorithm = names[0].expect(der.SEQUENCE).children() if len(names) == 4 else ()
    hash_name = _HASHES.get(algorithm[0].oid()) if algorithm else None
    if hash_name is None or len(algorithm) > 2 or any(part.tag != der.NULL for part in algorithm[1:]):
        raise MalformedError("non_canonical", f"{_WHAT}: a certificate that is named in an unknown way")
    digests = names[1].octets(), names[2].octets()
    if any(len(digest) != hashlib.new(hash_name, usedforsecurity=False).digest_size for digest in digests):
        raise MalformedError("length_mismatch", f"{_WHAT}: a hash of another length than its algorithm's")
    status = _status(rest.pop(0))
    this_update = _time(rest.pop(0))
    next_update = None
    if rest and rest[0].tag == 0xA0:
        inner = rest.pop(0).children()
        if len(inner) != 1:
            raise MalformedError("non_canonical", f"{_WHAT}: a next update of other than one time")
        next_update = _time(inner[0])
    if rest:
        _refuse_critical(rest.pop(0))
    if rest:
        raise MalformedError("non_canonical", f"{_WHAT}: parts that have no place in an entry")
    serial = serial_number(names[3], _WHAT)
    return SingleResponse(hash_name, *digests, serial, status, this_update, next_update)


def _status(element: der.Element) -> Literal["good", "revoked", "unknown"]:
    if element.tag == 0x80 and not element.content:
        return "good"
    if element.tag == 0x82 and not element.content:
        return "unknown"
    if element.tag == 0xA1:
        parts = element.children()
        if len(parts) in {1, 2}:
            _time(parts[0])
            return "revoked"
    raise MalformedError("non_canonical", f"{_WHAT}: a status that is neither good, revoked nor unknown")


def _time(element: der.Element) -> datetime:
    return time(element.expect(_GENERALIZED_TIME), _WHAT, long_times=True)


def _refuse_critical(element: der.Element) -> None:
    found = extensions(element.expect(0xA1), _WHAT)
    if any(extension.critical for extension in found.values()):
        raise MalformedError("unknown_format", f"{_WHAT}: a critical extension, none of which is known here")
