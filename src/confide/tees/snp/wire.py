# SPDX-License-Identifier: Apache-2.0
"""The byte structures of AMD SEV-SNP. Names and offsets are AMD's.

Source: "SEV Secure Nested Paging Firmware ABI Specification" (56860), ATTESTATION_REPORT, TCB_VERSION and MSG_REPORT_RSP;
"GHCB Specification" (56421), certificate table of the extended guest request. Decoding here judges form only: versions
and reserved bytes, not whether a report is genuine or wanted.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated, Final

from confide.errors import MalformedError, NotGenuine
from confide.wire.cursor import Cursor
from confide.wire.layout import U8, U32, U64, Layout, Raw, Zero

__all__ = [
    "REPORT_BYTES",
    "SIGNED_BYTES",
    "UNPROVEN_V4",
    "Bits",
    "CertificateTableEntry",
    "GuestPolicy",
    "KeyInfo",
    "PlatformInfo",
    "Report",
    "ReportV2",
    "ReportV3",
    "ReportV5",
    "Signature",
    "TcbVersion",
    "TcbVersionTurin",
    "VersionNumber",
    "decode_report",
    "decode_report_response",
    "encode_certificate_table",
    "read_certificate_table",
    "recognises",
]

REPORT_BYTES: Final = 0x4A0
SIGNED_BYTES: Final = 0x2A0
RESPONSE_HEADER_BYTES: Final = 0x20
RESPONSE_BYTES: Final = 4000
MAX_CERTIFICATE_TABLE: Final = 64 * 1024
MAX_CERTIFICATE_ENTRIES: Final = 32
ECDSA_P384_SHA384: Final = 1
VMPL_HOST: Final = 0xFFFF_FFFF  # A report that the host asked for; no guest is behind it.


class TcbVersion(Layout, size=8):
    """TCB_VERSION of Milan and Genoa: security patch levels of the parts of the firmware."""

    boot_loader: U8
    tee: U8
    reserved_02: Annotated[bytes, Zero(4)] = bytes(4)
    snp: U8
    microcode: U8


class TcbVersionTurin(Layout, size=8):
    """TCB_VERSION of Turin, which begins with the level of the FMC."""

    fmc: U8
    boot_loader: U8
    tee: U8
    snp: U8
    reserved_04: Annotated[bytes, Zero(3)] = bytes(3)
    microcode: U8


class VersionNumber(Layout, size=4):
    """The version of the SNP firmware."""

    build: U8
    minor: U8
    major: U8
    reserved_03: Annotated[bytes, Zero(1)] = bytes(1)


class Signature(Layout, size=512):
    """An ECDSA P-384 signature: r and s are little-endian and zero-extended from 48 to 72 bytes."""

    r: Annotated[bytes, Raw(72)]
    s: Annotated[bytes, Raw(72)]
    reserved_90: Annotated[bytes, Zero(368)] = bytes(368)


class ReportV2(Layout, size=REPORT_BYTES):
    """ATTESTATION_REPORT, version 2."""

    version: U32
    guest_svn: U32
    policy: U64
    family_id: Annotated[bytes, Raw(16)]
    image_id: Annotated[bytes, Raw(16)]
    vmpl: U32
    signature_algo: U32
    current_tcb: Annotated[bytes, Raw(8)]
    platform_info: U64
    key_info: U32
    reserved_4c: Annotated[bytes, Zero(4)] = bytes(4)
    report_data: Annotated[bytes, Raw(64)]
    measurement: Annotated[bytes, Raw(48)]
    host_data: Annotated[bytes, Raw(32)]
    id_key_digest: Annotated[bytes, Raw(48)]
    author_key_digest: Annotated[bytes, Raw(48)]
    report_id: Annotated[bytes, Raw(32)]
    report_id_ma: Annotated[bytes, Raw(32)]
    reported_tcb: Annotated[bytes, Raw(8)]
    reserved_188: Annotated[bytes, Zero(24)] = bytes(24)
    chip_id: Annotated[bytes, Raw(64)]
    committed_tcb: Annotated[bytes, Raw(8)]
    current_version: VersionNumber
    committed_version: VersionNumber
    launch_tcb: Annotated[bytes, Raw(8)]
    reserved_1f8: Annotated[bytes, Zero(168)] = bytes(168)
    signature: Signature


class ReportV3(Layout, size=REPORT_BYTES):
    """ATTESTATION_REPORT, versions 3 and 4: version 2 with the family, model and stepping of the processor."""

    version: U32
    guest_svn: U32
    policy: U64
    family_id: Annotated[bytes, Raw(16)]
    image_id: Annotated[bytes, Raw(16)]
    vmpl: U32
    signature_algo: U32
    current_tcb: Annotated[bytes, Raw(8)]
    platform_info: U64
    key_info: U32
    reserved_4c: Annotated[bytes, Zero(4)] = bytes(4)
    report_data: Annotated[bytes, Raw(64)]
    measurement: Annotated[bytes, Raw(48)]
    host_data: Annotated[bytes, Raw(32)]
    id_key_digest: Annotated[bytes, Raw(48)]
    author_key_digest: Annotated[bytes, Raw(48)]
    report_id: Annotated[bytes, Raw(32)]
    report_id_ma: Annotated[bytes, Raw(32)]
    reported_tcb: Annotated[bytes, Raw(8)]
    cpuid_fam_id: U8
    cpuid_mod_id: U8
    cpuid_step: U8
    reserved_18b: Annotated[bytes, Zero(21)] = bytes(21)
    chip_id: Annotated[bytes, Raw(64)]
    committed_tcb: Annotated[bytes, Raw(8)]
    current_version: VersionNumber
    committed_version: VersionNumber
    launch_tcb: Annotated[bytes, Raw(8)]
    reserved_1f8: Annotated[bytes, Zero(168)] = bytes(168)
    signature: Signature


class ReportV5(Layout, size=REPORT_BYTES):
    """ATTESTATION_REPORT, version 5: version 3 with the vectors of mitigations that are in force."""

    version: U32
    guest_svn: U32
    policy: U64
    family_id: Annotated[bytes, Raw(16)]
    image_id: Annotated[bytes, Raw(16)]
    vmpl: U32
    signature_algo: U32
    current_tcb: Annotated[bytes, Raw(8)]
    platform_info: U64
    key_info: U32
    reserved_4c: Annotated[bytes, Zero(4)] = bytes(4)
    report_data: Annotated[bytes, Raw(64)]
    measurement: Annotated[bytes, Raw(48)]
    host_data: Annotated[bytes, Raw(32)]
    id_key_digest: Annotated[bytes, Raw(48)]
    author_key_digest: Annotated[bytes, Raw(48)]
    report_id: Annotated[bytes, Raw(32)]
    report_id_ma: Annotated[bytes, Raw(32)]
    reported_tcb: Annotated[bytes, Raw(8)]
    cpuid_fam_id: U8
    cpuid_mod_id: U8
    cpuid_step: U8
    reserved_18b: Annotated[bytes, Zero(21)] = bytes(21)
    chip_id: Annotated[bytes, Raw(64)]
    committed_tcb: Annotated[bytes, Raw(8)]
    current_version: VersionNumber
    committed_version: VersionNumber
    launch_tcb: Annotated[bytes, Raw(8)]
    launch_mit_vector: U64
    current_mit_vector: U64
    reserved_208: Annotated[bytes, Zero(152)] = bytes(152)
    signature: Signature


Report = ReportV2 | ReportV3 | ReportV5

UNPROVEN_V4: Final = (
    "no sample of an SNP report of version 4 has been seen; it is read in the layout of version 3"
)

_LAYOUTS: Final[dict[int, type[ReportV2 | ReportV3 | ReportV5]]] = {
    2: ReportV2,
    3: ReportV3,
    4: ReportV3,
    5: ReportV5,
}


@dataclass(frozen=True, slots=True)
class Bits:
    """One named bit of a register."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """POLICY: what the guest's owner admitted at launch."""

    value: int

    BITS = (
        Bits("smt", 16),
        Bits("migrate_ma", 18),
        Bits("debug", 19),
        Bits("single_socket", 20),
        Bits("cxl_allow", 21),
        Bits("mem_aes_256_xts", 22),
        Bits("rapl_dis", 23),
        Bits("ciphertext_hiding", 24),
        Bits("page_swap_disable", 25),
    )
    RESERVED_MUST_BE_ONE = 1 << 17

    @property
    def abi_minor(self) -> int:
        """The lowest minor version of the firmware's ABI that the owner admitted."""
        return self.value & 0xFF

    @property
    def abi_major(self) -> int:
        """The major version of the firmware's ABI that the owner admitted."""
        return (self.value >> 8) & 0xFF

    def has(self, name: str) -> bool:
        """Whether the named bit is set."""
        return bool(self.value & _POLICY_MASKS[name])


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """PLATFORM_INFO: how the machine is configured."""

    value: int

    BITS = (
        Bits("smt_en", 0),
        Bits("tsme_en", 1),
        Bits("ecc_en", 2),
        Bits("rapl_dis", 3),
        Bits("ciphertext_hiding_dram_en", 4),
        Bits("alias_check_complete", 5),
        # Reserved in older revisions of 56860; Turin's firmware sets it in reports that its VCEK signs.
        Bits("iommu_write_safe", 6),
        Bits("tio_en", 7),
    )

    def has(self, name: str) -> bool:
        """Whether the named bit is set."""
        return bool(self.value & _PLATFORM_MASKS[name])


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The word at 0x48: which key signed, and whether an author key signed the identity block."""

    value: int

    VCEK = 0
    VLEK = 1
    NONE = 7

    @property
    def author_key_enabled(self) -> bool:
        """Whether AUTHOR_KEY_DIGEST holds the digest of an author key."""
        return bool(self.value & 1)

    @property
    def mask_chip_key(self) -> bool:
        """Whether the host has masked the chip's key, so that reports are not signed by it."""
        return bool(self.value & 2)

    @property
    def signing_key(self) -> int:
        """SIGNING_KEY: 0 for the VCEK, 1 for the VLEK, 7 for none."""
        return (self.value >> 2) & 7


_POLICY_MASKS: Final = {bit.name: 1 << bit.position for bit in GuestPolicy.BITS}
_PLATFORM_MASKS: Final = {bit.name: 1 << bit.position for bit in PlatformInfo.BITS}
_POLICY_KNOWN: Final = 0xFFFF | GuestPolicy.RESERVED_MUST_BE_ONE | sum(_POLICY_MASKS.values())
_PLATFORM_KNOWN: Final = sum(_PLATFORM_MASKS.values())
_KEY_INFO_KNOWN: Final = 0x1F


def recognises(data: bytes) -> bool:
    """Whether bytes begin like a report: its version as a little-endian word. The response begins with its status, which is 0."""
    return data[1:4] == bytes(3) and data[:1] in {b"\x02", b"\x03", b"\x04", b"\x05"}


def decode_report(data: bytes) -> Report:
    """The report in exactly 1184 bytes, by the layout of its own version (2 to 5).

    Raises ``malformed`` for another length or version, for reserved bytes or bits that are not zero and for r or s of
    more than 384 bits, ``not_genuine.unsupported_algorithm`` for another signature algorithm than ECDSA P-384.
    """
    if len(data) != REPORT_BYTES:
        leaf = "truncated" if len(data) < REPORT_BYTES else "trailing_data"
        raise MalformedError(
            leaf,
            f"an SNP report is {REPORT_BYTES} bytes, not {len(data)}",
            hint="the response of the ioctl has a header of 32 bytes before the report",
        )
    version = int.from_bytes(data[:4], "little")
    layout = _LAYOUTS.get(version)
    if layout is None:
        raise MalformedError("unsupported_version", "the SNP report has a version other than 2 to 5")
    report = layout.decode(data)
    for value, known, name in (
        (report.policy, _POLICY_KNOWN, "POLICY"),
        (report.platform_info, _PLATFORM_KNOWN, "PLATFORM_INFO"),
        (report.key_info, _KEY_INFO_KNOWN, "the word at 0x48"),
    ):
        if value & ~known:
            raise MalformedError("reserved_not_zero", f"the SNP report has reserved bits set in {name}")
    if report.signature_algo != ECDSA_P384_SHA384:
        raise NotGenuine(
            "unsupported_algorithm", "the SNP report is signed by another algorithm than ECDSA P-384"
        )
    if report.signature.r[48:].count(0) != 24 or report.signature.s[48:].count(0) != 24:
        raise MalformedError("non_canonical", "r or s in the SNP report has more than 384 bits")
    return report


def decode_report_response(data: bytes) -> bytes:
    """The 1184 bytes of the report inside a MSG_REPORT_RSP, as the ioctl of /dev/sev-guest returns it.

    The response is a status (u32), a size (u32), 24 reserved bytes and the report, alone or in the driver's buffer of 4000
    bytes, whose rest must be zero. A status other than 0 is ``malformed.unknown_format``: there is no report.
    """
    cursor = Cursor(data, "SNP report response")
    status = cursor.u32_le()
    size = cursor.u32_le()
    cursor.zero(24)
    if status != 0:
        raise MalformedError(
            "unknown_format", "the SNP report response carries an error of the firmware, not a report"
        )
    if size != REPORT_BYTES:
        raise MalformedError(
            "length_mismatch", "the SNP report response names another size than a report has"
        )
    report = cursor.take(REPORT_BYTES)
    if len(data) not in {RESPONSE_HEADER_BYTES + REPORT_BYTES, RESPONSE_BYTES}:
        raise MalformedError(
            "trailing_data", "the SNP report response is neither alone nor in a buffer of 4000 bytes"
        )
    cursor.zero(cursor.remaining)
    return report


@dataclass(frozen=True, slots=True)
class CertificateTableEntry:
    """One certificate that the host put beside the report: its kind and its bytes, both only the host's word."""

    guid: uuid.UUID
    data: bytes


VCEK_GUID: Final = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK_GUID: Final = uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK_GUID: Final = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK_GUID: Final = uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL_GUID: Final = uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")

_ENTRY_BYTES: Final = 24


def read_certificate_table(data: bytes) -> tuple[CertificateTableEntry, ...]:
    """The entries of a certificate table: {GUID, offset u32, length u32} ..., a zero entry, then the certificates.

    Raises ``malformed`` for more than 32 entries, a missing end, and certificates that lie outside, in the table itself, or
    over each other. Zero bytes between and after certificates are the pages' padding; other bytes there are refused.
    """
    if len(data) > MAX_CERTIFICATE_TABLE:
        raise MalformedError("limit_exceeded", "the SNP certificate table is longer than 64 KiB")
    cursor = Cursor(data, "SNP certificate table")
    headers: list[tuple[uuid.UUID, int, int]] = []
    while True:
        entry = cursor.take(_ENTRY_BYTES)
        if not any(entry):
            break
        if len(headers) == MAX_CERTIFICATE_ENTRIES:
            raise MalformedError(
                "limit_exceeded", f"the SNP certificate table has more than {MAX_CERTIFICATE_ENTRIES}"
            )
        offset, length = int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:24], "little")
        headers.append((uuid.UUID(bytes=entry[:16]), offset, length))
    covered = cursor.offset
    for _, offset, length in sorted(headers, key=lambda header: header[1]):
        if offset < covered or length == 0 or offset + length > len(data):
            raise MalformedError(
                "length_mismatch", "a certificate lies outside its place in the SNP certificate table"
            )
        _padding(data[covered:offset])
        covered = offset + length
    _padding(data[covered:])
    return tuple(
        CertificateTableEntry(guid, data[offset : offset + length]) for guid, offset, length in headers
    )


def encode_certificate_table(entries: tuple[CertificateTableEntry, ...]) -> bytes:
    """The table that ``read_certificate_table`` reads, without padding."""
    offset = _ENTRY_BYTES * (len(entries) + 1)
    headers, body = b"", b""
    for entry in entries:
        place = (offset + len(body)).to_bytes(4, "little") + len(entry.data).to_bytes(4, "little")
        headers += entry.guid.bytes + place
        body += entry.data
    return headers + bytes(_ENTRY_BYTES) + body


def _padding(gap: bytes) -> None:
    if any(gap):
        raise MalformedError("trailing_data", "the SNP certificate table has bytes that no entry covers")


class ReportRequest(Layout, size=96):
    """What /dev/sev-guest is asked for a report (linux/sev-guest.h, snp_report_req)."""

    user_data: Annotated[bytes, Raw(64)]
    vmpl: U32
    reserved_44: Annotated[bytes, Zero(28)] = bytes(28)


class ExtendedReportRequest(Layout, size=112):
    """The same with a place for the host's certificates (snp_ext_report_req)."""

    data: ReportRequest
    certs_address: U64
    certs_len: U32
    reserved_6c: Annotated[bytes, Zero(4)] = bytes(4)


class DerivedKeyRequest(Layout, size=32):
    """What /dev/sev-guest is asked for a key (snp_derived_key_req)."""

    root_key_select: U32
    reserved_04: Annotated[bytes, Zero(4)] = bytes(4)
    guest_field_select: U64
    vmpl: U32
    guest_svn: U32
    tcb_version: U64


class DerivedKeyResponse(Layout, size=64):
    """MSG_KEY_RSP: a status and 32 bytes of key."""

    status: U32
    reserved_04: Annotated[bytes, Zero(28)] = bytes(28)
    data: Annotated[bytes, Raw(32)]


class GuestRequest(Layout, size=32):
    """The argument of every ioctl of /dev/sev-guest (snp_guest_request_ioctl)."""

    msg_version: U8
    reserved_01: Annotated[bytes, Zero(7)] = bytes(7)
    req_data: U64
    resp_data: U64
    fw_error: U32
    vmm_error: U32
