# SPDX-License-Identifier: Apache-2.0
"""Making OCSP responses, for the simulator's local root and for tests. Nothing that decides trust uses this.

Written by hand, since the library's builder takes the time of production from the clock.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from confide.crypto.x509 import Certificate
from confide.wire import der
from confide.wire.der_write import generalized_time, integer, oid, sequence, tagged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from confide.crypto.issue import IssuingKey

__all__ = ["OCSP_SIGNING", "issue_ocsp"]

OCSP_SIGNING: Final = sequence(oid("1.3.6.1.5.5.7.3.9"))
"""The value of extended key usage (2.5.29.37) in the certificate of a responder."""

_ECDSA_SHA384: Final = sequence(oid("1.2.840.10045.4.3.3"))
_HASHES: Final = {
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
}


def issue_ocsp(
    *,
    certificate: bytes,
    issuer: bytes,
    responder: bytes,
    signing_key: IssuingKey,
    this_update: datetime,
    next_update: datetime | None,
    produced_at: datetime | None = None,
    status: str = "good",
    serial: int | None = None,
    hash_name: str = "sha384",
    by_name: bool = False,
    certificates: Iterable[bytes] | None = None,
    status_code: int = 0,
) -> bytes:
    """A response about ``certificate`` of ``issuer``, signed as ``responder`` (all DER) with ECDSA and SHA-384.

    ``status`` is "good", "revoked" or "unknown"; ``produced_at`` is ``this_update`` unless given, ``serial`` the certificate's,
    ``certificates`` the responder's alone, or none if it is the issuer. ``status_code`` other than 0 makes an answer of an error.
    """
    if status_code:
        return sequence(tagged(0x0A, bytes((status_code,))))
    above, signer = Certificate.from_der(issuer), Certificate.from_der(responder)
    number = Certificate.from_der(certificate).serial if serial is None else serial
    name_hash, key_hash = (
        tagged(0x04, hashlib.new(hash_name, value, usedforsecurity=False).digest())
        for value in (above.subject_der, _key_bits(above))
    )
    certificate_id = sequence(
        sequence(oid(_HASHES[hash_name]), tagged(0x05, b"")), name_hash, key_hash, integer(number)
    )
    word = {
        "good": tagged(0x80, b""),
        "revoked": tagged(0xA1, generalized_time(this_update)),
        "unknown": tagged(0x82, b""),
    }[status]
    times = generalized_time(this_update)
    times += b"" if next_update is None else tagged(0xA0, generalized_time(next_update))
    # RFC 6960 names a responder's key by its SHA-1 and by no other hash.
    key_id = tagged(0x04, hashlib.new("sha1", _key_bits(signer), usedforsecurity=False).digest())
    named = tagged(0xA1, signer.subject_der) if by_name else tagged(0xA2, key_id)
    data = sequence(
        named,
        generalized_time(produced_at or this_update),
        sequence(sequence(certificate_id, word, times)),
    )
    r, s = signing_key.sign_ecdsa(data)
    if certificates is None:
        certificates = () if responder == issuer else (responder,)
    carried = b"".join(certificates)
    basic = sequence(
        data,
        _ECDSA_SHA384,
        tagged(0x03, b"\x00" + sequence(integer(r), integer(s))),
        *((tagged(0xA0, sequence(carried)),) if carried else ()),
    )
    typed = sequence(oid("1.3.6.1.5.5.7.48.1.1"), tagged(0x04, basic))
    return sequence(tagged(0x0A, b"\x00"), tagged(0xA0, typed))


def _key_bits(certificate: Certificate) -> bytes:
    return der.decode(certificate.public_key_der, what="public key", max_size=16 * 1024).children()[1].bits()
