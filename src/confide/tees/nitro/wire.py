# SPDX-License-Identifier: Apache-2.0
"""The attestation document of the Nitro Security Module, and the messages by which an enclave asks for one.

Source: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, sections 2.2 and 3 (the document), src/api (the messages);
"AWS Nitro Enclaves User Guide", "Verifying the root of trust". Where these differ, real documents decide: `user_data` and
`nonce` have up to 1024 bytes (section 2.2; section 3.2.2.2 says 512), optional fields that are absent are written as null,
and the payload is a map of definite (until 2024) or of indefinite length (seen in 2025).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confide.crypto import cose, x509
from confide.errors import ConfideError, MalformedError
from confide.wire import cbor
from confide.wire.cursor import Cursor
from confide.wire.fields import Fields
from confide.wire.layout import U64, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PCR_BYTES", "Document", "NsmMessage", "decode_document", "explain", "recognises", "unframe"]

PCR_BYTES: Final = 48
MAX_PAYLOAD: Final = 16 * 1024
MAX_DOCUMENT: Final = MAX_PAYLOAD + 128
MAX_CERTIFICATE: Final = 1024
MAX_CABUNDLE: Final = 16
MAX_FIELD: Final = 1024
MAX_FRAME: Final = 64 * 1024
# 2019-10-28, when the root was made: every time in seconds lies before it. The last one is that of year 9999.
FIRST_TIMESTAMP: Final = 1_572_220_800_000
LAST_TIMESTAMP: Final = 253_402_300_799_999

_PROTECTED: Final = cbor.encode({1: cose.ES384})
# The hypervisor locks registers 0 to 15 at launch, and a document shows every locked one.
_LOCKED: Final = frozenset(range(16))
_INDICES: Final = frozenset(range(32))
_OPTIONAL: Final = ("public_key", "user_data", "nonce")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WHAT: Final = "Nitro attestation document"


@dataclass(frozen=True, slots=True)
class Document:
    """One document as its bytes say; nothing in it is verified.

    ``timestamp`` is in milliseconds since 1970, ``pcrs`` maps 0..31 to 48 bytes each, ``certificate`` and ``cabundle`` are DER.
    ``tagged`` says that the outer CBOR tag 18 was there, ``indefinite`` that the payload is a map of indefinite length.
    """

    module_id: str
    timestamp: int
    digest: str
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    tagged: bool
    indefinite: bool
    sign1: cose.Sign1 = field(repr=False)


def decode_document(data: bytes) -> Document:
    """Read a COSE_Sign1 document: ES384 in a protected header of nothing else, no unprotected header, attached payload.

    Raises ``not_genuine.unsupported_algorithm``; MalformedError for all other forms.
    """
    sign1 = cose.Sign1.decode(
        data,
        algorithms=frozenset({cose.ES384}),
        what=_WHAT,
        max_size=MAX_DOCUMENT,
        vendor=True,
        allow_tag=True,
    )
    if sign1.protected_bytes != _PROTECTED:
        raise MalformedError("non_canonical", f"{_WHAT}: the protected header holds more than the algorithm")
    payload = cbor.decode(
        sign1.payload,
        what=f"{_WHAT} payload",
        max_size=MAX_PAYLOAD,
        max_depth=2,
        deterministic=False,
        open_map=True,
    )
    if not isinstance(payload, dict):
        raise MalformedError("unknown_format", f"{_WHAT}: the payload is not a map")
    if "nitrotpm_pcrs" in payload:
        raise MalformedError(
            "unknown_format",
            "this is the document of an EC2 instance's NitroTPM, not of a Nitro enclave",
            hint="the same CAs sign both; their registers mean different things, and only enclaves are verified here",
        )
    # An optional field that is not there is written as null.
    present = {key: value for key, value in payload.items() if value is not None or key not in _OPTIONAL}
    fields = Fields(present, _WHAT)
    module_id = fields.text("module_id", 256)
    digest = fields.text("digest", 16)
    if not module_id or digest != "SHA384":
        raise MalformedError("non_canonical", f"{_WHAT}: no module id, or another digest than SHA384")
    document = Document(
        module_id=module_id,
        timestamp=fields.integer("timestamp", FIRST_TIMESTAMP, LAST_TIMESTAMP),
        digest=digest,
        pcrs=_pcrs(fields.mapping("pcrs")),
        certificate=_certificate(fields.bytes_("certificate", max_length=MAX_CERTIFICATE)),
        cabundle=_cabundle(fields.list_("cabundle", MAX_CABUNDLE)),
        public_key=fields.bytes_("public_key", max_length=MAX_FIELD, default=None),
        user_data=fields.bytes_("user_data", max_length=MAX_FIELD, default=None),
        nonce=fields.bytes_("nonce", max_length=MAX_FIELD, default=None),
        tagged=data[:1] == b"\xd2",
        indefinite=sign1.payload[:1] == b"\xbf",
        sign1=sign1,
    )
    fields.end()
    if document.public_key == b"":
        raise MalformedError("length_mismatch", f"{_WHAT}: the public key is empty")
    return document


def _pcrs(entries: dict[Any, Any]) -> Mapping[int, bytes]:
    if any(type(index) is not int or index not in _INDICES for index in entries):
        raise MalformedError("non_canonical", f"{_WHAT}: a PCR whose index is not a number from 0 to 31")
    if _LOCKED - set(entries):
        raise MalformedError("non_canonical", f"{_WHAT}: one of the PCRs 0 to 15 is missing")
    if any(not isinstance(value, bytes) or len(value) != PCR_BYTES for value in entries.values()):
        raise MalformedError("length_mismatch", f"{_WHAT}: a PCR is not {PCR_BYTES} bytes")
    return MappingProxyType({index: entries[index] for index in sorted(entries)})


def _certificate(der: object) -> bytes:
    if not isinstance(der, bytes):
        raise MalformedError("non_canonical", f"{_WHAT}: a certificate is not a byte string")
    if not 1 <= len(der) <= MAX_CERTIFICATE:
        raise MalformedError(
            "limit_exceeded", f"{_WHAT}: a certificate is empty or longer than {MAX_CERTIFICATE} bytes"
        )
    return der


def _cabundle(items: list[Any]) -> tuple[bytes, ...]:
    if not items:
        raise MalformedError("non_canonical", f"{_WHAT}: the bundle of CA certificates is empty")
    return tuple(_certificate(item) for item in items)


def recognises(data: bytes) -> bool:
    """Whether a file is meant as a Nitro document, alone or in dstack's frame; nothing is checked."""
    start = data[:5]
    if not (start[:1] == b"\x84" or start[:2] in {b"\xd2\x84", _FRAME_HEAD}):
        return False
    head = data[:MAX_DOCUMENT]
    return b"\x69module_id" in head and b"\x68cabundle" in head


# A frame that real documents come in: dstack's `VersionedAttestation::V0` in SCALE, or its end without its beginning.
_FRAME_HEAD: Final = b"\x00\x02"  # Version 0, variant 2: a Nitro Enclave.


def unframe(data: bytes) -> bytes:
    """The document alone, out of the file that dstack makes of it (whole, or from the document on).

    dstack writes after the document its runtime events, the report data again, and a configuration. No signature covers
    them, and nothing of them is used or kept; they must have exactly that form and repeat the document's `user_data`, so that
    other bytes after a document stay ``malformed.trailing_data``. Every other file is returned as it is.
    """
    if len(data) > MAX_FRAME:
        return data
    body = data
    try:
        if data[:2] == _FRAME_HEAD:
            cursor = Cursor(data, "dstack attestation")
            cursor.take(2)
            length = _compact(cursor)
            body = data[cursor.offset :]
            if length != _document_length(body):
                return data
        end = _document_length(body)
        if end == len(body):
            return data
        document = decode_document(body[:end])
        _read_tail(Cursor(body[end:], "dstack attestation"), document)
    except ConfideError:
        return data
    return body[:end]


def _read_tail(cursor: Cursor, document: Document) -> None:
    for _ in range(_compact(cursor)):
        cursor.take(_compact(cursor))
        cursor.take(_compact(cursor))
    if cursor.take(64) != document.user_data:
        raise MalformedError("non_canonical", "the frame around the document repeats other user data")
    cursor.take(_compact(cursor))
    cursor.expect_end()


def _compact(cursor: Cursor) -> int:
    """An unsigned integer in SCALE's compact form, in its shortest spelling."""
    first = cursor.u8()
    mode = first & 3
    if mode == 0:
        return first >> 2
    if mode == 1:
        value = (first | cursor.u8() << 8) >> 2
        least = 1 << 6
    elif mode == 2:
        value = (first | int.from_bytes(cursor.take(3), "little") << 8) >> 2
        least = 1 << 14
    else:
        raise MalformedError("limit_exceeded", "a length in the frame around the document is too large")
    if value < least:
        raise MalformedError("non_canonical", "a length in the frame is not in its shortest form")
    return value


def _document_length(data: bytes) -> int:
    """Where the COSE_Sign1 at the start of ``data`` ends, by the heads of its four parts."""
    cursor = Cursor(data, _WHAT)
    if cursor.u8() != 0x84:
        raise MalformedError("unknown_format", f"{_WHAT} is not an array of four")
    for part in range(4):
        head = cursor.u8()
        if part == 1:
            if head != 0xA0:
                raise MalformedError("unknown_format", f"{_WHAT}: the unprotected header is not empty")
        elif head >> 5 == 2 and head & 0x1F < 24:
            cursor.take(head & 0x1F)
        elif head in {0x58, 0x59}:
            cursor.take(cursor.u8() if head == 0x58 else cursor.u16())
        else:
            raise MalformedError("unknown_format", f"{_WHAT}: a part has the wrong type")
    return cursor.offset


def explain(data: bytes) -> dict[str, object]:
    """The fields of a document for a person; nothing of it is verified."""
    document = decode_document(data)
    signed_at = _EPOCH + timedelta(milliseconds=document.timestamp)
    tree: dict[str, object] = {
        "kind": "AWS Nitro Enclaves attestation document (COSE_Sign1, ES384)",
        "tagged": document.tagged,
        "module_id": document.module_id,
        "timestamp (ms since 1970)": document.timestamp,
        "timestamp": signed_at.isoformat(),
        "digest": document.digest,
        "pcrs": {f"pcr{index}": value.hex() for index, value in document.pcrs.items()},
        "user_data": _hex(document.user_data),
        "nonce": _hex(document.nonce),
        "public_key": _hex(document.public_key),
        "certificate": _explain_certificate(document.certificate),
        "cabundle": {f"ca{index}": _explain_certificate(der) for index, der in enumerate(document.cabundle)},
        "signature": document.sign1.signature.hex(),
    }
    if never_seen := unproven(document):
        tree["unproven on real bytes"] = "; ".join(never_seen)
    return tree


def _explain_certificate(der: bytes) -> str:
    try:
        read = x509.Certificate.from_der(der)
    except ConfideError:
        return f"not readable as a certificate: {der.hex()}"
    return f"{read.subject}, {read.not_before:%Y-%m-%dT%H:%M:%SZ} to {read.not_after:%Y-%m-%dT%H:%M:%SZ}"


def unproven(document: Document) -> tuple[str, ...]:
    """What is in a document that no sample of real hardware has shown."""
    found = []
    if document.tagged:
        found.append("a Nitro document under CBOR tag 18 has not been seen on real bytes")
    if any(index >= len(_LOCKED) for index in document.pcrs):
        found.append("PCR 16 to 31 of a Nitro document have not been seen on real bytes")
    return tuple(found)


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


class NsmMessage(Layout, size=32):
    """The argument of NSM_IOCTL_RAW: addresses and lengths of request and response (linux/nsm.h, `struct nsm_raw`)."""

    request_address: U64
    request_length: U64
    response_address: U64
    response_length: U64
