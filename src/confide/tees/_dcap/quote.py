# SPDX-License-Identifier: Apache-2.0
"""ECDSA quotes of versions 3, 4 and 5, taken apart; nothing is verified here.

Source: Intel, "SGX ECDSA QuoteLibReference DCAP API", appendix A.4 (version 3); "TDX DCAP Quoting Library API", appendix A.3
(versions 4 and 5); Intel SDM, volume 3D, section 36.16 (REPORT).

    version 3        header  enclave report            length  signature  key  QE report  its signature  auth  certification
    versions 4, 5    header  [descriptor]  report body  length  signature  key  6  length  the same four
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from confide.errors import MalformedError, NotGenuine
from confide.wire.cursor import Cursor
from confide.wire.layout import U16, U32, U64, Layout, Raw, Zero

__all__ = [
    "INTEL_QE_VENDOR",
    "MAX_QUOTE",
    "QE_SIGNED",
    "SGX",
    "TDX",
    "EnclaveReport",
    "Header",
    "Quote",
    "decode",
    "looks_like_quote",
]

SGX: Final = 0x00
TDX: Final = 0x81
MAX_QUOTE: Final = 64 * 1024

INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_VERSIONS: Final = frozenset({3, 4, 5})
_ECDSA_P256: Final = 2
_POINT_BYTES: Final = 64
_SIGNATURE_BYTES: Final = 64

_BODY_SGX, _BODY_TD10, _BODY_TD15 = 1, 2, 3
# By type of the body: whose body it is, and how long it is in bytes.
_BODIES: Final = {_BODY_SGX: (SGX, 384), _BODY_TD10: (TDX, 584), _BODY_TD15: (TDX, 648)}
_TEES: Final = {SGX: "SGX", TDX: "TDX"}
_PCK_CHAIN: Final = 5
_QE_REPORT: Final = 6
_NO_CHAIN: Final = frozenset({1, 2, 3, 4})


class Header(Layout, size=48):
    """The header of a quote. ``qe_svn`` and ``pce_svn`` are reserved in versions 4 and 5."""

    version: U16
    attestation_key_type: U16
    tee_type: U32
    qe_svn: U16
    pce_svn: U16
    qe_vendor_id: Annotated[bytes, Raw(16)]
    user_data: Annotated[bytes, Raw(20)]


class EnclaveReport(Layout, size=384):
    """The body of an enclave's REPORT: that of the quoting enclave, and of an SGX enclave that was quoted."""

    cpusvn: Annotated[bytes, Raw(16)]
    miscselect: U32
    reserved_14: Annotated[bytes, Zero(12)] = bytes(12)
    isvextprodid: Annotated[bytes, Raw(16)]
    flags: U64
    xfrm: U64
    mrenclave: Annotated[bytes, Raw(32)]
    reserved_60: Annotated[bytes, Zero(32)] = bytes(32)
    mrsigner: Annotated[bytes, Raw(32)]
    reserved_a0: Annotated[bytes, Zero(32)] = bytes(32)
    configid: Annotated[bytes, Raw(64)]
    isvprodid: U16
    isvsvn: U16
    configsvn: U16
    reserved_106: Annotated[bytes, Zero(42)] = bytes(42)
    isvfamilyid: Annotated[bytes, Raw(16)]
    report_data: Annotated[bytes, Raw(64)]

    @property
    def attributes(self) -> bytes:
        """ATTRIBUTES, 16 bytes: flags and XFRM."""
        return self.flags.to_bytes(8, "little") + self.xfrm.to_bytes(8, "little")


QE_SIGNED: Final = EnclaveReport.SIZE


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote in its parts. Signatures are r || s and points x || y, 64 bytes each, big-endian.

    ``body`` is the report of the enclave or TD, ``body_type`` 1 for SGX, 2 for TDX 1.0, 3 for TDX 1.5; ``signed`` is what the
    attestation key signs. ``certification_data`` is the PCK chain for type 5, else an identifier of the platform.
    ``padding`` counts the zero bytes after the end.
    """

    header: Header
    body_type: int
    body: bytes
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_bytes: bytes
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_type: int
    certification_data: bytes
    padding: int

    @property
    def unproven(self) -> tuple[str, ...]:
        """What of this layout no sample of real hardware has shown."""
        layout = (self.header.version, self.body_type)
        if layout in _PROVEN:
            return ()
        return (
            f"no sample of real hardware has shown a quote of version {layout[0]} with a body of type {layout[1]}",
        )


# The layouts among the samples of real hardware: version and type of the body.
_PROVEN: Final = frozenset({(3, _BODY_SGX), (4, _BODY_TD10), (5, _BODY_TD15)})


def looks_like_quote(data: bytes, tee_type: int) -> bool:
    """Whether a file begins like a quote of this TEE: a known version, its TEE type, and the vendor id of Intel's QE.

    With another vendor's id or an unknown version it is still a quote by its length and key type, so that ``decode`` can
    say what is wrong with it.
    """
    if not 48 < len(data) <= MAX_QUOTE:
        return False
    header = Header.decode(data[:48])
    if header.tee_type != tee_type:
        return False
    if header.qe_vendor_id == INTEL_QE_VENDOR:
        return True
    return header.version in _VERSIONS and header.attestation_key_type == _ECDSA_P256


def decode(data: bytes, tee_type: int) -> Quote:
    """The quote in ``data``, which must be of ``tee_type``: ``SGX`` or ``TDX``.

    Every length must be exact, the rest of the data zero. Raises ``malformed`` (``unknown_format`` for what is no quote or
    one of the other TEE, ``unsupported_version``, ``truncated``, ``length_mismatch``, ``reserved_not_zero``,
    ``trailing_data``, ``limit_exceeded``), ``not_genuine.unsupported_algorithm`` for other attestation keys than ECDSA
    P-256, ``not_genuine.identity_mismatch`` for another vendor's quoting enclave.
    """
    name = _TEES[tee_type]
    if len(data) > MAX_QUOTE:
        raise MalformedError("limit_exceeded", f"a quote is at most {MAX_QUOTE} bytes long")
    cursor = Cursor(data, f"{name} quote")
    header = _header(Header.decode(cursor.take(Header.SIZE)), tee_type, name)
    body_type, size = _body(cursor, header, tee_type, name)
    body = cursor.take(size)
    signed = data[: cursor.offset]
    length = cursor.u32_le()
    if length > cursor.remaining:
        raise MalformedError("truncated", f"the {name} quote ends before its signature data does")
    inner = Cursor(cursor.take(length), f"signature data of the {name} quote")
    rest = data[cursor.offset :]
    if rest.count(0) != len(rest):
        raise MalformedError(
            "trailing_data",
            f"bytes other than zero follow the {name} quote",
            hint="only the zero padding of a fixed buffer may follow a quote",
        )
    signature, key = inner.take(_SIGNATURE_BYTES), inner.take(_POINT_BYTES)
    if header.version > 3:
        inner = _nested(inner, name)
    report_bytes = inner.take(EnclaveReport.SIZE)
    report_signature = inner.take(_SIGNATURE_BYTES)
    auth_data = inner.take(inner.u16_le())
    certification_type = inner.u16_le()
    certification = _certification(inner, certification_type, name)
    return Quote(
        header=header,
        body_type=body_type,
        body=body,
        signed=bytes(signed),
        signature=signature,
        attestation_key=key,
        qe_report=EnclaveReport.decode(report_bytes),
        qe_report_bytes=report_bytes,
        qe_report_signature=report_signature,
        qe_auth_data=auth_data,
        certification_type=certification_type,
        certification_data=certification,
        padding=len(rest),
    )


def _header(header: Header, tee_type: int, name: str) -> Header:
    known = header.version in _VERSIONS
    if not known and header.qe_vendor_id != INTEL_QE_VENDOR:
        # A TDREPORT, an enclave's REPORT and the evidence of other TEEs come here.
        raise MalformedError(
            "unknown_format",
            "this is not a quote",
            hint="a TDREPORT or REPORT is local to its machine; ask the quoting enclave for a quote",
        )
    if not known or (header.version == 3 and header.tee_type == TDX):
        raise MalformedError(
            "unsupported_version",
            "the quote has a version other than 3, 4 or 5, or one that its TEE never has",
        )
    if header.tee_type != tee_type:
        raise MalformedError("unknown_format", f"this is a quote, but not one of {name}")
    if header.attestation_key_type != _ECDSA_P256:
        raise NotGenuine(
            "unsupported_algorithm",
            f"the {name} quote is signed by another kind of attestation key than ECDSA P-256",
        )
    if header.qe_vendor_id != INTEL_QE_VENDOR:
        raise NotGenuine(
            "identity_mismatch", "the quoting enclave is of another vendor than Intel", stage="identity"
        )
    return header


def _body(cursor: Cursor, header: Header, tee_type: int, name: str) -> tuple[int, int]:
    """Type and size of the body: by the TEE up to version 4, from version 5 on as a descriptor says."""
    if header.version < 5:
        body_type = _BODY_SGX if tee_type == SGX else _BODY_TD10
        return body_type, _BODIES[body_type][1]
    body_type, size = cursor.u16_le(), cursor.u32_le()
    owner, expected = _BODIES.get(body_type, (None, 0))
    if owner is None:
        raise MalformedError("unsupported_version", f"the {name} quote has a body of an unknown type")
    if owner != tee_type:
        raise MalformedError("unknown_format", f"the {name} quote has a body of the other TEE")
    if size != expected:
        raise MalformedError(
            "length_mismatch", f"the {name} quote has a body of another size than its type has"
        )
    return body_type, size


def _nested(outer: Cursor, name: str) -> Cursor:
    """The contents of the certification data of type 6, which holds the QE's report from version 4 on."""
    if outer.u16_le() != _QE_REPORT:
        raise MalformedError("unknown_format", f"the {name} quote does not hold the quoting enclave's report")
    if outer.u32_le() != outer.remaining:
        raise MalformedError(
            "length_mismatch", f"the certification data of the {name} quote has another length than it says"
        )
    return Cursor(outer.take(outer.remaining), f"certification data of the {name} quote")


def _certification(inner: Cursor, kind: int, name: str) -> bytes:
    if kind != _PCK_CHAIN and kind not in _NO_CHAIN:
        raise MalformedError(
            "unknown_format", f"the {name} quote has certification data of a type that has no place there"
        )
    if inner.u32_le() != inner.remaining:
        raise MalformedError(
            "length_mismatch", f"the PCK data of the {name} quote has another length than it says"
        )
    return inner.take(inner.remaining)
