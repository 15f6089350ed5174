# SPDX-License-Identifier: Apache-2.0
"""Predict the PCRs of a Nitro enclave from its image file (EIF), and those that follow from where it runs.

A register starts as 48 zeros, and extending it with a value makes it SHA-384(register || value). PCR 0 is extended with the
SHA-384 of kernel, command line and all ramdisks, PCR 1 of kernel, command line and first ramdisk, PCR 2 of the other ramdisks,
PCR 8 of the DER certificate that signed the image; each over the contents of the sections, in the order of the file.

Source: aws-nitro-enclaves-image-format, README (version 4 of the format), src/utils/eif_reader.rs and src/defs/eif_hasher.rs;
"AWS Nitro Enclaves User Guide", "Where to get an enclave's measurements".
"""

from __future__ import annotations

import enum
import hashlib
import struct
import zlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Final

from confide.attestation.reference import ReferenceValues
from confide.crypto import x509
from confide.errors import ConfigurationError, MalformedError
from confide.tees.nitro import wire
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Image", "pcr3_of_role", "pcr4_of_instance", "read_image", "reference_values"]

MAX_SECTIONS: Final = 32
MAX_SECTION: Final = 64 * 1024**3
MAX_SIGNATURE: Final = 256 * 1024
_MAGIC: Final = b".eif"
_ARM64: Final = 1
# Magic, version, flags, default memory and processors, reserved, sections, 32 offsets, 32 sizes, unused, CRC-32; big-endian.
_HEADER: Final = struct.Struct(">4sHHQQHH32Q32QII")
_SECTION_HEADER: Final = struct.Struct(">HHQ")
_CRC_BYTES: Final = 4
_CHUNK: Final = 1024 * 1024
_WHAT: Final = "enclave image"


class _Section(enum.IntEnum):
    """Section types, with the version of the format that brought each."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5

    @property
    def since(self) -> int:
        return {_Section.SIGNATURE: 3, _Section.METADATA: 4}.get(self, 2)


@dataclass(frozen=True, slots=True)
class Image:
    """What an image file measures to.

    ``pcrs`` has ``pcr0``, ``pcr1``, ``pcr2``, and ``pcr8`` for a signed image (48 bytes each). ``signing_certificate`` is DER, None
    without a signature section; that its signature verifies is for the hypervisor to check, which launches no other image.
    """

    version: int
    architecture: str
    pcrs: Mapping[str, bytes]
    signing_certificate: bytes | None


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    flags: int
    sections: tuple[tuple[int, int], ...]
    crc32: int


class _Reader:
    """An image file from front to back in bounded pieces, with the CRC over all that was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = 0
        self.crc32 = 0

    def take(self, count: int, *, checked: bool = True) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise MalformedError("truncated", f"{_WHAT}: cut off after offset {self.offset}")
        self.offset += count
        if checked:
            self.crc32 = zlib.crc32(data, self.crc32)
        return data

    def at_end(self) -> bool:
        return not self._file.read(1)


def read_image(file: BinaryIO) -> Image:
    """The measurements of the image in ``file``, open for reading in binary mode; memory is bounded, whatever its size.

    Raises MalformedError for every file that is not one EIF from its first to its last byte: `unknown_format`,
    `unsupported_version` (2 to 4 are known), `reserved_not_zero`, `length_mismatch` (header and sections disagree), `truncated`,
    `trailing_data`, and `non_canonical` for sections that are missing, repeated or out of place and for a wrong CRC-32.
    """
    reader = _Reader(file)
    header = _read_header(reader)
    everything, boot, application = hashlib.sha384(), hashlib.sha384(), hashlib.sha384()
    kinds: list[_Section] = []
    certificate: bytes | None = None
    for offset, size in header.sections:
        kind = _read_section_header(reader, header, offset, size)
        _check_order(kind, kinds)
        if kind is _Section.SIGNATURE:
            certificate = _signing_certificate(reader, size)
        else:
            first_ramdisk = _Section.RAMDISK not in kinds
            targets = {
                _Section.KERNEL: (everything, boot),
                _Section.CMDLINE: (everything, boot),
                _Section.RAMDISK: (everything, boot if first_ramdisk else application),
            }.get(kind, ())
            for chunk in _chunks(size):
                data = reader.take(chunk)
                for digest in targets:
                    digest.update(data)
        kinds.append(kind)
    if not reader.at_end():
        raise MalformedError("trailing_data", f"{_WHAT}: bytes after its last section")
    if not {_Section.KERNEL, _Section.CMDLINE, _Section.RAMDISK} <= set(kinds):
        raise MalformedError("non_canonical", f"{_WHAT}: without kernel, command line or ramdisk")
    if reader.crc32 != header.crc32:
        raise MalformedError("non_canonical", f"{_WHAT}: its CRC-32 does not match")
    pcrs = {"pcr0": everything.digest(), "pcr1": boot.digest(), "pcr2": application.digest()}
    if certificate is not None:
        pcrs["pcr8"] = hashlib.sha384(certificate).digest()
    return Image(
        version=header.version,
        architecture="aarch64" if header.flags & _ARM64 else "x86_64",
        pcrs=MappingProxyType({name: _extended(value) for name, value in pcrs.items()}),
        signing_certificate=certificate,
    )


def _extended(value: bytes) -> bytes:
    """A register that starts as zeros, extended once."""
    return hashlib.sha384(bytes(wire.PCR_BYTES) + value).digest()


def _chunks(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, _CHUNK)
        size -= _CHUNK


def _read_header(reader: _Reader) -> _Header:
    encoded = reader.take(_HEADER.size - _CRC_BYTES)
    # The CRC covers everything but itself.
    encoded += reader.take(_CRC_BYTES, checked=False)
    magic, version, flags, _memory, _cpus, reserved, count, *rest = _HEADER.unpack(encoded)
    offsets, sizes, (unused, crc32) = rest[:32], rest[32:64], rest[64:]
    if magic != _MAGIC:
        raise MalformedError("unknown_format", f"{_WHAT}: not an EIF file")
    if not 2 <= version <= 4:
        raise MalformedError("unsupported_version", f"{_WHAT}: a version of the format that is not known")
    if reserved or unused or flags & ~_ARM64:
        raise MalformedError("reserved_not_zero", f"{_WHAT}: reserved parts of the header are not zero")
    if not 1 <= count <= MAX_SECTIONS:
        raise MalformedError("limit_exceeded", f"{_WHAT}: not 1 to {MAX_SECTIONS} sections")
    if any(offsets[count:]) or any(sizes[count:]):
        raise MalformedError("reserved_not_zero", f"{_WHAT}: entries for sections that are not there")
    if any(size > MAX_SECTION for size in sizes):
        raise MalformedError("limit_exceeded", f"{_WHAT}: a section is too large")
    return _Header(version, flags, tuple(zip(offsets[:count], sizes[:count], strict=True)), crc32)


def _read_section_header(reader: _Reader, header: _Header, offset: int, size: int) -> _Section:
    """The kind of the next section, whose place and size the file's header must have named."""
    start = reader.offset
    kind, flags, own_size = _SECTION_HEADER.unpack(reader.take(_SECTION_HEADER.size))
    if start != offset or own_size != size:
        raise MalformedError("length_mismatch", f"{_WHAT}: header and section at offset {start} disagree")
    if flags:
        raise MalformedError("reserved_not_zero", f"{_WHAT}: the section at offset {start} has unknown flags")
    try:
        section = _Section(kind)
    except ValueError:
        raise MalformedError("unknown_format", f"{_WHAT}: a section of an unknown type") from None
    if section.since > header.version:
        raise MalformedError("unknown_format", f"{_WHAT}: a section that its version does not have")
    return section


def _check_order(kind: _Section, before: list[_Section]) -> None:
    if kind is not _Section.RAMDISK and kind in before:
        raise MalformedError("non_canonical", f"{_WHAT}: two sections of a type that is there once")
    if kind is _Section.RAMDISK and _Section.KERNEL not in before:
        raise MalformedError("non_canonical", f"{_WHAT}: a ramdisk before the kernel")


def _signing_certificate(reader: _Reader, size: int) -> bytes:
    """The DER certificate of the first entry of the signature section: CBOR, PEM and signature as arrays of small numbers."""
    if size > MAX_SIGNATURE:
        raise MalformedError("limit_exceeded", f"{_WHAT}: the signature section is too large")
    entries = cbor.decode(
        reader.take(size), what="signature section", max_size=MAX_SIGNATURE, max_depth=3, deterministic=False
    )
    if not isinstance(entries, list) or not entries:
        raise MalformedError("unknown_format", "signature section: not a list of signatures")
    fields = Fields(entries[0], "signature section")
    pem = _bytes(fields.list_("signing_certificate", MAX_SIGNATURE))
    _bytes(fields.list_("signature", MAX_SIGNATURE))
    fields.end()
    return x509.parse_pem(pem)[0].der


def _bytes(numbers: list[object]) -> bytes:
    if any(type(number) is not int or not 0 <= number <= 255 for number in numbers):
        raise MalformedError("non_canonical", "signature section: a byte that is not 0 to 255")
    return bytes(number for number in numbers if isinstance(number, int))


def pcr3_of_role(arn: str) -> bytes:
    """PCR 3 of an enclave whose parent instance has the IAM role ``arn``."""
    if not arn.startswith("arn:"):
        raise ConfigurationError(
            "pcr3", "an IAM role is named by its ARN", hint="arn:aws:iam::<account>:role/<name>"
        )
    return _extended(arn.encode())


def pcr4_of_instance(instance_id: str) -> bytes:
    """PCR 4 of an enclave on the parent instance ``instance_id`` (``i-...``)."""
    if not instance_id.startswith("i-"):
        raise ConfigurationError("pcr4", "an instance is named by its id", hint="i-0123456789abcdef0")
    return _extended(instance_id.encode())


def reference_values(image: Image, *, origin: str) -> ReferenceValues:
    """The measurements of an image as reference values; ``origin`` says for a person what they were computed from."""
    return ReferenceValues("nitro", {name: (value,) for name, value in image.pcrs.items()}, origin)
