# SPDX-License-Identifier: Apache-2.0
"""Predict the launch measurement of an SEV-SNP guest from its firmware, kernel and virtual processors.

The measurement is a running SHA-384 over the pages that the hypervisor donates, in the order in which it donates them: the
firmware volume, the sections that the firmware's metadata asks for, and one save area for each virtual processor.
Source: "SEV Secure Nested Paging Firmware ABI Specification" (56860), PAGE_INFO and SNP_LAUNCH_UPDATE; "AMD64 Architecture
Programmer's Manual", volume 2 (24593), table B-4 (VMSA); EDK II, OvmfPkg/ResetVector (GUIDed table, SEV metadata).
"""

from __future__ import annotations

import enum
import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from confide.attestation.reference import ReferenceValues
from confide.errors import ConfigurationError, MalformedError
from confide.wire.layout import U8, U16, U32, U64, Layout, Raw, Zero

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CPU_TYPES", "Firmware", "Vmm", "cpu_signature", "launch_digest", "reference_values"]

PAGE: Final = 4096
FOUR_GIB: Final = 1 << 32
MAX_FIRMWARE: Final = 64 * 1024 * 1024
MAX_SECTIONS: Final = 64
MAX_SECTION: Final = 256 * 1024 * 1024
MAX_VCPUS: Final = 512
DIGEST_BYTES: Final = 48
_VMSA_ADDRESS: Final = 0xFFFF_FFFF_F000
_RESET_VECTOR: Final = 0xFFFF_FFF0
_RESET_CODE_BYTES: Final = 32


class Vmm(enum.Enum):
    """The hypervisors whose way of launching is known: they differ in the processors' first state and in page order."""

    QEMU = "qemu"
    EC2 = "ec2"


def cpu_signature(family: int, model: int, stepping: int) -> int:
    """EAX of CPUID leaf 1 for combined family, model and stepping."""
    base, extended = (family, 0) if family <= 0xF else (0xF, family - 0xF)
    return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 0xF) << 4 | stepping


CPU_TYPES: Final[Mapping[str, int]] = {
    "EPYC-v4": cpu_signature(23, 1, 2),
    "EPYC-Rome": cpu_signature(23, 49, 0),
    "EPYC-Milan": cpu_signature(25, 1, 1),
    "EPYC-Genoa": cpu_signature(25, 17, 0),
    "EPYC-Turin": cpu_signature(26, 0, 0),
}
"""QEMU's processor models by name."""


class _PageType(enum.IntEnum):
    """PAGE_TYPE of 56860, SNP_LAUNCH_UPDATE."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    SECRETS = 5
    CPUID = 6


class _PageInfo(Layout, size=0x70):
    """PAGE_INFO: what is hashed for each page."""

    digest_cur: Annotated[bytes, Raw(48)]
    contents: Annotated[bytes, Raw(48)]
    length: U16
    page_type: U8
    imi_page: U8
    reserved_64: Annotated[bytes, Zero(1)] = bytes(1)
    vmpl1_perms: U8
    vmpl2_perms: U8
    vmpl3_perms: U8
    gpa: U64


class _Digest:
    """The launch digest as it grows page by page."""

    def __init__(self, start: bytes = bytes(DIGEST_BYTES)) -> None:
        self.value = start

    def _page(self, kind: _PageType, address: int, contents: bytes = bytes(DIGEST_BYTES)) -> None:
        info = _PageInfo(
            digest_cur=self.value,
            contents=contents,
            length=_PageInfo.SIZE,
            page_type=int(kind),
            imi_page=0,
            vmpl1_perms=0,
            vmpl2_perms=0,
            vmpl3_perms=0,
            gpa=address,
        )
        self.value = hashlib.sha384(info.encode()).digest()

    def data(self, address: int, data: bytes) -> None:
        """Pages with contents."""
        for offset in range(0, len(data), PAGE):
            self._page(
                _PageType.NORMAL, address + offset, hashlib.sha384(data[offset : offset + PAGE]).digest()
            )

    def pages(self, kind: _PageType, address: int, length: int) -> None:
        """Pages of which only the address counts."""
        for offset in range(0, length, PAGE):
            self._page(kind, address + offset)

    def vmsa(self, data: bytes) -> None:
        """The save area of one virtual processor."""
        self._page(_PageType.VMSA, _VMSA_ADDRESS, hashlib.sha384(data).digest())


class _Section(enum.IntEnum):
    """Kinds of sections in the firmware's SEV metadata."""

    SEC_MEMORY = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CALLING_AREA = 4
    KERNEL_HASHES = 0x10


class _MetadataHeader(Layout, size=16):
    signature: Annotated[bytes, Raw(4)]
    size: U32
    version: U32
    items: U32


class _MetadataSection(Layout, size=12):
    gpa: U32
    size: U32
    kind: U32


_TABLE_GUID: Final = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_METADATA_GUID: Final = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_HASH_TABLE_GUID: Final = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_RESET_BLOCK_GUID: Final = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")


@dataclass(frozen=True, slots=True)
class Firmware:
    """A firmware volume that ends at 4 GiB: its bytes, its metadata sections, and where its tables say things are.

    ``hash_table`` is the guest address for the hashes of kernel, initrd and command line, or None if the firmware checks
    none; ``ap_start`` is the address at which the second and later processors start.
    """

    data: bytes
    sections: tuple[tuple[int, int, int], ...]
    hash_table: int | None
    ap_start: int

    @classmethod
    def parse(cls, data: bytes) -> Firmware:
        """Read the tables at the end of an OVMF image. Raises MalformedError."""
        if not 0 < len(data) <= MAX_FIRMWARE or len(data) % PAGE:
            raise MalformedError(
                "length_mismatch", "the firmware is not a whole number of pages, at most 64 MiB"
            )
        table = _guided_table(data)
        if _METADATA_GUID not in table or _RESET_BLOCK_GUID not in table:
            raise MalformedError("unknown_format", "the firmware has no tables for SEV-SNP")
        hashes = table.get(_HASH_TABLE_GUID)
        return cls(
            data=data,
            sections=_sections(data, _word(table[_METADATA_GUID], 4)),
            # An address of zero says that the firmware has no place for hashes.
            hash_table=None if hashes is None else _word(hashes, 8) or None,
            ap_start=_word(table[_RESET_BLOCK_GUID], 4),
        )

    @property
    def address(self) -> int:
        """The guest address of its first byte."""
        return FOUR_GIB - len(self.data)


def _word(data: bytes, length: int) -> int:
    if len(data) != length:
        raise MalformedError("length_mismatch", "an entry of the firmware's table has another length")
    return int.from_bytes(data[:4], "little")


def _guided_table(data: bytes) -> dict[uuid.UUID, bytes]:
    """The entries of the table that ends 32 bytes before the end: each is data, length (u16) and GUID, read backwards."""
    end = len(data) - _RESET_CODE_BYTES
    guid, length = _table_entry(data, end)
    if guid != _TABLE_GUID:
        raise MalformedError("unknown_format", "the firmware has no GUIDed table")
    start, place = end - length, end - 18
    if start < 0:
        raise MalformedError("length_mismatch", "the firmware's table is longer than the firmware")
    found: dict[uuid.UUID, bytes] = {}
    while place > start:
        guid, length = _table_entry(data, place)
        if length > place - start or guid in found:
            raise MalformedError(
                "length_mismatch", "an entry of the firmware's table overlaps another or is there twice"
            )
        found[guid] = data[place - length : place - 18]
        place -= length
    return found


def _table_entry(data: bytes, end: int) -> tuple[uuid.UUID, int]:
    if end < 18:
        raise MalformedError("truncated", "the firmware ends in its table")
    length = int.from_bytes(data[end - 18 : end - 16], "little")
    if length < 18:
        raise MalformedError("length_mismatch", "an entry of the firmware's table is shorter than its header")
    return uuid.UUID(bytes_le=data[end - 16 : end]), length


def _sections(data: bytes, offset_from_end: int) -> tuple[tuple[int, int, int], ...]:
    start = len(data) - offset_from_end
    if not 0 <= start <= len(data) - _MetadataHeader.SIZE:
        raise MalformedError("length_mismatch", "the firmware's SEV metadata lies outside it")
    header = _MetadataHeader.decode(data[start : start + _MetadataHeader.SIZE])
    if header.signature != b"ASEV" or header.version != 1:
        raise MalformedError("unsupported_version", "the firmware's SEV metadata is of another version")
    size = _MetadataHeader.SIZE + header.items * _MetadataSection.SIZE
    if header.items > MAX_SECTIONS or header.size != size or start + size > len(data):
        raise MalformedError("length_mismatch", "the firmware's SEV metadata has another size than its items")
    found = []
    for index in range(header.items):
        place = start + _MetadataHeader.SIZE + index * _MetadataSection.SIZE
        section = _MetadataSection.decode(data[place : place + _MetadataSection.SIZE])
        if section.size % PAGE or section.gpa % PAGE or section.size > MAX_SECTION:
            raise MalformedError(
                "length_mismatch", "a section of the firmware's SEV metadata is not made of whole pages"
            )
        found.append((section.gpa, section.size, section.kind))
    return tuple(found)


class _HashEntry(Layout, size=50):
    guid: Annotated[bytes, Raw(16)]
    length: U16
    digest: Annotated[bytes, Raw(32)]


class _HashTable(Layout, size=176):
    guid: Annotated[bytes, Raw(16)]
    length: U16
    command_line: _HashEntry
    initrd: _HashEntry
    kernel: _HashEntry
    padding: Annotated[bytes, Zero(8)] = bytes(8)


_HASHES_GUID: Final = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_COMMAND_LINE_GUID: Final = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD_GUID: Final = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL_GUID: Final = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b")


def _hashes_page(address: int, kernel: bytes, initrd: bytes, command_line: str) -> bytes:
    """The page with the hashes that QEMU hands to the firmware, the table at its place within the page."""

    def entry(guid: uuid.UUID, content: bytes) -> _HashEntry:
        return _HashEntry(guid=guid.bytes_le, length=_HashEntry.SIZE, digest=hashlib.sha256(content).digest())

    table = _HashTable(
        guid=_HASHES_GUID.bytes_le,
        length=_HashTable.SIZE - 8,
        command_line=entry(_COMMAND_LINE_GUID, command_line.encode() + b"\0"),
        initrd=entry(_INITRD_GUID, initrd),
        kernel=entry(_KERNEL_GUID, kernel),
    ).encode()
    offset = address % PAGE
    if offset + len(table) > PAGE:
        raise MalformedError("length_mismatch", "the firmware's place for hashes crosses a page")
    return bytes(offset) + table + bytes(PAGE - offset - len(table))


class _Segment(Layout, size=16):
    selector: U16
    attributes: U16
    limit: U32
    base: U64


class _SaveArea(Layout, size=PAGE):
    """VMSA: the encrypted state of a virtual processor. Fields that are zero at reset are reserved here."""

    es: _Segment
    cs: _Segment
    ss: _Segment
    ds: _Segment
    fs: _Segment
    gs: _Segment
    gdtr: _Segment
    ldtr: _Segment
    idtr: _Segment
    tr: _Segment
    reserved_0a0: Annotated[bytes, Zero(0x30)] = bytes(0x30)
    efer: U64
    reserved_0d8: Annotated[bytes, Zero(0x70)] = bytes(0x70)
    cr4: U64
    reserved_150: Annotated[bytes, Zero(8)] = bytes(8)
    cr0: U64
    dr7: U64
    dr6: U64
    rflags: U64
    rip: U64
    reserved_180: Annotated[bytes, Zero(0xE8)] = bytes(0xE8)
    g_pat: U64
    reserved_270: Annotated[bytes, Zero(0xA0)] = bytes(0xA0)
    rdx: U64
    reserved_318: Annotated[bytes, Zero(0x98)] = bytes(0x98)
    sev_features: U64
    reserved_3b8: Annotated[bytes, Zero(0x30)] = bytes(0x30)
    xcr0: U64
    reserved_3f0: Annotated[bytes, Zero(0x18)] = bytes(0x18)
    mxcsr: U32
    reserved_40c: Annotated[bytes, Zero(4)] = bytes(4)
    x87_fcw: U16
    reserved_412: Annotated[bytes, Zero(0xBEE)] = bytes(0xBEE)


@dataclass(frozen=True, slots=True)
class _ResetState:
    """What hypervisors set differently in a processor's first state: segment attributes, and what it finds in registers."""

    cs: int
    ss: int
    tr: int
    rdx: int
    mxcsr: int
    fcw: int
    g_pat: int


_PAT: Final = 0x0007_0406_0007_0406


def _reset_state(vmm: Vmm, start: int, signature: int) -> _ResetState:
    if vmm is Vmm.EC2:
        # The second and later processors come out of a reset with the code segment accessed.
        return _ResetState(0x9A if start == _RESET_VECTOR else 0x9B, 0x92, 0x83, 0x600, 0, 0, _PAT)
    return _ResetState(0x9B, 0x93, 0x8B, signature, 0x1F80, 0x37F, _PAT)


def _save_area(vmm: Vmm, start: int, signature: int, features: int) -> bytes:
    """The save area of a processor that starts at ``start``, in 16-bit mode with its code segment just below 4 GiB."""
    state = _reset_state(vmm, start, signature)

    def segment(attributes: int, *, selector: int = 0, base: int = 0) -> _Segment:
        return _Segment(selector=selector, attributes=attributes, limit=0xFFFF, base=base)

    return _SaveArea(
        es=segment(0x93),
        cs=segment(state.cs, selector=0xF000, base=start & 0xFFFF_0000),
        ss=segment(state.ss),
        ds=segment(0x93),
        fs=segment(0x93),
        gs=segment(0x93),
        gdtr=segment(0),
        ldtr=segment(0x82),
        idtr=segment(0),
        tr=segment(state.tr),
        efer=0x1000,
        cr4=0x40,
        cr0=0x10,
        dr7=0x400,
        dr6=0xFFFF_0FF0,
        rflags=2,
        rip=start & 0xFFFF,
        g_pat=state.g_pat,
        rdx=state.rdx,
        sev_features=features,
        xcr0=1,
        mxcsr=state.mxcsr,
        x87_fcw=state.fcw,
    ).encode()


def launch_digest(
    firmware: Firmware,
    *,
    vcpus: int,
    cpu_signature: int,
    vmm: Vmm = Vmm.QEMU,
    guest_features: int = 1,
    kernel: bytes | None = None,
    initrd: bytes = b"",
    command_line: str = "",
    firmware_digest: bytes | None = None,
) -> bytes:
    """The 48 bytes that the report's MEASUREMENT will hold.

    ``cpu_signature`` is EAX of CPUID leaf 1 of the virtual processors (``CPU_TYPES`` for QEMU's), ``guest_features`` the
    SEV_FEATURES of the guest. With ``kernel`` the hypervisor hands kernel, initrd and command line over by their hashes;
    a firmware that checks none is refused. ``firmware_digest`` is the digest after the firmware volume alone, for a
    firmware of which only the last pages are at hand.
    """
    if not 1 <= vcpus <= MAX_VCPUS:
        raise ConfigurationError("vcpus", f"a guest has 1 to {MAX_VCPUS} virtual processors")
    if firmware_digest is not None and len(firmware_digest) != DIGEST_BYTES:
        raise ConfigurationError("firmware_digest", "a launch digest is 48 bytes")
    digest = _Digest() if firmware_digest is None else _Digest(firmware_digest)
    if firmware_digest is None:
        digest.data(firmware.address, firmware.data)
    kinds = {kind for _, _, kind in firmware.sections}
    if kernel is not None and (firmware.hash_table is None or _Section.KERNEL_HASHES not in kinds):
        raise ConfigurationError(
            "firmware",
            "this firmware does not check the hashes of a kernel, so that anything could be booted",
            hint="use the firmware built from OvmfPkg/AmdSev",
        )
    for address, size, kind in firmware.sections:
        if kind in {_Section.SEC_MEMORY, _Section.SVSM_CALLING_AREA}:
            digest.pages(_PageType.ZERO, address, size)
        elif kind == _Section.SECRETS:
            digest.pages(_PageType.SECRETS, address, size)
        elif kind == _Section.CPUID:
            if vmm is not Vmm.EC2:  # There the page comes last.
                digest.pages(_PageType.CPUID, address, size)
        elif kind == _Section.KERNEL_HASHES:
            if kernel is None or firmware.hash_table is None:
                digest.pages(_PageType.ZERO, address, size)
            else:
                page = _hashes_page(firmware.hash_table, kernel, initrd, command_line)
                digest.data(address, page.ljust(size, b"\0"))
        else:
            raise MalformedError(
                "unknown_format", "the firmware's SEV metadata has a section of an unknown kind"
            )
    if vmm is Vmm.EC2:
        for address, size, kind in firmware.sections:
            if kind == _Section.CPUID:
                digest.pages(_PageType.CPUID, address, size)
    for start in _starts(firmware, vcpus):
        digest.vmsa(_save_area(vmm, start, cpu_signature, guest_features))
    return digest.value


def _starts(firmware: Firmware, vcpus: int) -> Iterable[int]:
    """Where each processor starts: the first at the reset vector, the others where the firmware says."""
    yield _RESET_VECTOR
    for _ in range(vcpus - 1):
        yield firmware.ap_start


def reference_values(digests: Iterable[bytes], *, origin: str) -> ReferenceValues:
    """Predicted measurements as reference values; ``origin`` says for a person what they were computed from."""
    return ReferenceValues("snp", {"measurement": tuple(digests)}, origin)
