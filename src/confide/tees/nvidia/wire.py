# SPDX-License-Identifier: Apache-2.0
"""The attestation report of NVIDIA GPUs and NVSwitches: an SPDM exchange with NVIDIA's fields inside.

Source: DMTF DSP0274, "Security Protocol and Data Model" 1.1, GET_MEASUREMENTS and MEASUREMENTS; the names and numbers of
the opaque fields are those of NVIDIA's attestation SDK. Integers are little-endian. The report is the 37 bytes of the
request, with the verifier's nonce, followed by the response, which ends in the signature over everything before it.
Decoding here judges form only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from confide.errors import MalformedError
from confide.wire.cursor import Cursor
from confide.wire.layout import U8, U16, Layout, Raw

__all__ = [
    "FIELDS",
    "MAX_REPORT",
    "SIGNATURE_BYTES",
    "Measurement",
    "OpaqueField",
    "Report",
    "Request",
    "ResponseHeader",
    "decode_report",
    "encode_record",
    "explain",
    "recognises",
]

MAX_REPORT: Final = 0x2000  # The buffer that NVML has for one.
SIGNATURE_BYTES: Final = 96
SPDM_1_1: Final = 0x11
GET_MEASUREMENTS: Final = 0xE0
MEASUREMENTS: Final = 0x60
WITH_SIGNATURE: Final = 0x01
ALL_MEASUREMENTS: Final = 0xFF
DMTF: Final = 0x01
MAX_DIGEST: Final = 64
NEWEST_OPAQUE_VERSION: Final = 1

_ON, _OFF = b"\xaa", b"\x55"

FIELDS: Final = {
    1: "cert_issuer_name",
    2: "cert_authority_key_identifier",
    3: "driver_version",
    4: "gpu_info",
    5: "sku",
    6: "vbios_version",
    7: "manufacturer_id",
    8: "tamper_detection",
    9: "smc",
    10: "vpr",
    11: "nvdec0_status",
    12: "msrscnt",
    13: "cprinfo",
    14: "board_id",
    15: "chip_sku",
    16: "chip_sku_mod",
    17: "project",
    18: "project_sku",
    19: "project_sku_mod",
    20: "fwid",
    21: "protected_pcie_status",
    22: "switch_pdi",
    23: "floorswept_ports",
    24: "position_id",
    25: "lock_switch_status",
    26: "switch_gpu_pdis",
    27: "switch_ports",
    32: "gpu_link_conn",
    33: "sys_enable_status",
    34: "opaque_data_version",
    35: "chip_info",
    36: "feature_flag",
}
"""The opaque fields by their numbers."""

_NUMBERS: Final = {name: number for number, name in FIELDS.items()}
_WORD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9._-]{0,31})\x00{0,16}")
_SWITCH_VBIOS = re.compile(rb"([0-9A-F]{2}(?:\.[0-9A-F]{2}){4})\x00?")
_MODES: Final = {0: "spt", 1: "mpt", 2: "ppcie"}


class Request(Layout, size=37):
    """GET_MEASUREMENTS as it was sent to the device."""

    version: U8 = SPDM_1_1
    code: U8 = GET_MEASUREMENTS
    attributes: U8 = WITH_SIGNATURE
    operation: U8 = ALL_MEASUREMENTS
    nonce: Annotated[bytes, Raw(32)]
    slot: U8 = 0


class ResponseHeader(Layout, size=8):
    """The head of MEASUREMENTS; the length of the measurement record has 24 bits."""

    version: U8 = SPDM_1_1
    code: U8 = MEASUREMENTS
    param1: U8 = 0
    slot: U8 = 0
    blocks: U8
    record_length: Annotated[bytes, Raw(3)]


class BlockHeader(Layout, size=7):
    """A measurement block up to its value: DMTF's form, whose own size stands inside the block's."""

    index: U8
    specification: U8 = DMTF
    size: U16
    value_type: U8
    value_size: U16


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement block; SPDM counts from 1, the RIM documents and everything above this module from 0."""

    index: int
    value_type: int
    value: bytes


@dataclass(frozen=True, slots=True)
class OpaqueField:
    """One of NVIDIA's fields: its number in ``FIELDS`` and its bytes."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """A decoded report. ``nonce`` of the response is the device's own random value; the verifier's is in ``request``.

    ``signed_bytes`` is the length of what the signature covers, ``padding`` the number of zero bytes after the signature.
    """

    request: Request
    header: ResponseHeader
    measurements: tuple[Measurement, ...]
    nonce: bytes
    opaque: tuple[OpaqueField, ...]
    signature: bytes
    signed_bytes: int
    padding: int

    def field(self, name: str) -> bytes | None:
        """The bytes of a field by its name in ``FIELDS``; None if the report does not have it."""
        number = _NUMBERS[name]
        return next((one.data for one in self.opaque if one.number == number), None)

    def text(self, name: str) -> str | None:
        """A field that is a word of ASCII with zeros after it; ``malformed.non_canonical`` if it is something else."""
        data = self.field(name)
        if data is None:
            return None
        found = _WORD.fullmatch(data)
        if found is None:
            raise MalformedError("non_canonical", f"the GPU report's field {name} is not a word of ASCII")
        return found[1].decode("ascii")

    def flag(self, name: str) -> bool | None:
        """A field of one byte that is 0xAA for on and 0x55 for off; None if it is absent or another value."""
        return {_ON: True, _OFF: False}.get(self.field(name) or b"")

    @property
    def kind(self) -> str:
        """``gpu``, whose driver the report names, or ``switch``, which has none but says whether it is locked."""
        return "switch" if self.field("driver_version") is None else "gpu"

    @property
    def vbios_version(self) -> str | None:
        """The version as RIM documents write it, ``96.00.9F.00.01``; None if the report does not have it."""
        data = self.field("vbios_version")
        if data is None:
            return None
        if self.kind == "switch":
            found = _SWITCH_VBIOS.fullmatch(data)
            if found is not None:
                return found[1].decode("ascii")
        elif len(data) == 8 and not any(data[5:]):
            # A word of four bytes, most significant last, and the byte of the OEM's version.
            return ".".join(f"{part:02X}" for part in (*data[3::-1], data[4]))
        raise MalformedError("non_canonical", "the GPU report's VBIOS version is not in a known form")

    @property
    def mode(self) -> str | None:
        """``spt`` (one GPU), ``mpt`` (several) or ``ppcie`` (protected PCIe); None where the firmware does not say."""
        data = self.field("feature_flag")
        if data is None:
            return None
        found = _MODES.get(int.from_bytes(data, "little")) if 1 <= len(data) <= 8 else None
        if found is None:
            raise MalformedError("non_canonical", "the GPU report's feature flag has an unknown value")
        return found


def recognises(data: bytes) -> bool:
    """Whether these bytes begin like a report: a request of SPDM 1.1 with a response to it right after."""
    return (
        len(data) > Request.SIZE + ResponseHeader.SIZE
        and data[:2] == bytes((SPDM_1_1, GET_MEASUREMENTS))
        and data[Request.SIZE : Request.SIZE + 2] == bytes((SPDM_1_1, MEASUREMENTS))
    )


def decode_report(data: bytes) -> Report:
    """The report in ``data``, at most 8 KiB, with nothing but zero bytes after it.

    Raises ``malformed``: ``unsupported_version`` for another version of SPDM or of NVIDIA's fields, ``unknown_format`` for other
    messages, ``length_mismatch``, ``trailing_data``, ``non_canonical`` for a field or an index that is there twice.
    """
    if len(data) > MAX_REPORT:
        raise MalformedError("limit_exceeded", f"a GPU report is at most {MAX_REPORT} bytes")
    cursor = Cursor(data, "GPU report")
    request = Request.decode(cursor.take(Request.SIZE))
    header = ResponseHeader.decode(cursor.take(ResponseHeader.SIZE))
    _check_messages(request, header)
    record = cursor.take(int.from_bytes(header.record_length, "little"))
    measurements = _read_record(record, header.blocks)
    nonce = cursor.take(32)
    opaque = _read_opaque(cursor.take(cursor.u16_le()))
    signed_bytes = cursor.offset
    signature = cursor.take(SIGNATURE_BYTES)
    padding = cursor.remaining
    if any(cursor.take(padding)):
        raise MalformedError("trailing_data", "the GPU report has bytes after its signature")
    report = Report(request, header, measurements, nonce, opaque, signature, signed_bytes, padding)
    _check_fields(report)
    return report


def _check_messages(request: Request, header: ResponseHeader) -> None:
    if request.version != SPDM_1_1 or header.version != SPDM_1_1:
        raise MalformedError("unsupported_version", "the GPU report is of another version of SPDM than 1.1")
    if request.code != GET_MEASUREMENTS or header.code != MEASUREMENTS:
        raise MalformedError("unknown_format", "this is no answer of SPDM to a request for measurements")
    if request.attributes != WITH_SIGNATURE or request.operation != ALL_MEASUREMENTS:
        raise MalformedError(
            "unknown_format", "the GPU was not asked for all of its measurements with a signature"
        )
    if request.slot > 7 or header.slot != request.slot or header.param1:
        raise MalformedError(
            "reserved_not_zero", "the GPU report has reserved bits set, or is from another slot"
        )


def _read_record(data: bytes, blocks: int) -> tuple[Measurement, ...]:
    cursor = Cursor(data, "GPU measurement record")
    found: list[Measurement] = []
    for _ in range(blocks):
        block = BlockHeader.decode(cursor.take(BlockHeader.SIZE))
        if block.specification != DMTF:
            raise MalformedError(
                "unknown_format", "a measurement of the GPU is not in the form that DMTF specifies"
            )
        if block.size != block.value_size + 3 or not 1 <= block.value_size <= MAX_DIGEST:
            raise MalformedError("length_mismatch", "a measurement of the GPU has contradictory lengths")
        if not block.index or (found and block.index <= found[-1].index):
            raise MalformedError("non_canonical", "the measurements of the GPU are not in order")
        found.append(Measurement(block.index, block.value_type, cursor.take(block.value_size)))
    cursor.expect_end()
    if not found:
        raise MalformedError("truncated", "the GPU report has no measurement")
    return tuple(found)


def _read_opaque(data: bytes) -> tuple[OpaqueField, ...]:
    cursor = Cursor(data, "opaque data of the GPU report")
    found: dict[int, OpaqueField] = {}
    while cursor.remaining:
        number = cursor.u16_le()
        field = OpaqueField(number, cursor.take(cursor.u16_le()))
        if number not in FIELDS:
            raise MalformedError(
                "unsupported_version",
                "the GPU report has a field that is not known here",
                hint="a newer version of confide may know it",
            )
        if number in found:
            raise MalformedError("non_canonical", "the GPU report has a field twice")
        found[number] = field
    return tuple(found.values())


def _check_fields(report: Report) -> None:
    """What every reader of the report relies on: versions in their one form, lengths, and one kind of device."""
    version = report.field("opaque_data_version") or b"\x00"
    if len(version) > 8 or int.from_bytes(version, "little") > NEWEST_OPAQUE_VERSION:
        raise MalformedError(
            "unsupported_version",
            "the GPU report's fields are of a newer version than is known here",
            hint="a newer version of confide may know it",
        )
    for name in ("driver_version", "chip_sku", "project", "project_sku", "chip_info"):
        report.text(name)
    for name, size in (("fwid", 48), ("board_id", 4), ("nvdec0_status", 1), ("protected_pcie_status", 1)):
        data = report.field(name)
        if data is not None and len(data) != size:
            raise MalformedError("length_mismatch", f"the GPU report's field {name} is not {size} bytes")
    for name, unit in (("msrscnt", 4), ("switch_pdi", 8)):
        if len(report.field(name) or b"") % unit:
            raise MalformedError(
                "length_mismatch", f"the GPU report's field {name} is not whole words of {unit} bytes"
            )
    if (report.field("driver_version") is None) == (report.field("lock_switch_status") is None):
        raise MalformedError("unknown_format", "the report is neither a GPU's nor an NVSwitch's")
    if report.vbios_version is None:
        raise MalformedError("truncated", "the GPU report does not name its VBIOS")
    _ = report.mode


def encode_record(measurements: tuple[Measurement, ...]) -> bytes:
    """The measurement record that ``decode_report`` reads."""
    return b"".join(
        BlockHeader(
            index=one.index, size=len(one.value) + 3, value_type=one.value_type, value_size=len(one.value)
        ).encode()
        + one.value
        for one in measurements
    )


def explain(data: bytes) -> dict[str, object]:
    """The fields of a report for a person. Nothing of it is checked: whoever made the bytes may have written anything."""
    report = decode_report(data)
    fields: dict[str, object] = {}
    for one in report.opaque:
        name = FIELDS[one.number]
        if name in {"driver_version", "chip_sku", "chip_sku_mod", "project", "project_sku", "chip_info"}:
            fields[name] = report.text(name)
        elif name == "msrscnt":
            words = [one.data[start : start + 4] for start in range(0, len(one.data), 4)]
            fields[name] = [int.from_bytes(word, "little") for word in words]
        elif name == "switch_pdi":
            fields[name] = [one.data[start : start + 8].hex() for start in range(0, len(one.data), 8)]
        else:
            fields[name] = one.data.hex()
    fields["vbios_version"] = report.vbios_version
    explained: dict[str, object] = {
        "device": report.kind,
        "SPDM": "1.1",
        "slot": report.request.slot,
        "nonce": report.request.nonce.hex(),
        "nonce of the device": report.nonce.hex(),
        "mode": report.mode or "not said",
        "fields": fields,
        "measurements": {str(one.index - 1): one.value.hex() for one in report.measurements},
        "signature": report.signature.hex(),
    }
    if report.padding:
        explained["zero bytes after the report"] = report.padding
    return explained
