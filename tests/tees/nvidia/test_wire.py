# SPDX-License-Identifier: Apache-2.0
"""The report's bytes: one form, no slack, and nothing that is not known."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.errors import MalformedError
from confide.tees import formats
from confide.tees.nvidia import wire
from support import nvidia
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from pathlib import Path

REPORT = nvidia.case().report
RECORD = wire.Request.SIZE + wire.ResponseHeader.SIZE
BLOCK = wire.BlockHeader.SIZE + 48
OPAQUE = RECORD + 64 * BLOCK + 32


def patched(offset: int, value: bytes) -> bytes:
    changed = bytearray(REPORT)
    changed[offset : offset + len(value)] = value
    return bytes(changed)


@pytest.mark.parametrize("model", ["GH100", "GB100", "LS_10"])
def test_a_minted_report_says_what_it_was_made_of(model: str) -> None:
    device = nvidia.device(model)
    report = wire.decode_report(nvidia.case(device).report)

    assert report.kind == device.model.kind
    assert report.vbios_version == device.vbios
    assert report.request.nonce == nvidia.NONCE
    assert {one.index - 1: one.value for one in report.measurements} == device.measurements
    assert report.padding == 0


@pytest.mark.parametrize("name", sorted(nvidia.SAMPLES))
def test_a_real_report_encodes_to_the_bytes_it_was_decoded_from(shared: Path, name: str) -> None:
    data = (nvidia.folder(shared) / f"{name}.report.bin").read_bytes()
    report = wire.decode_report(data)

    opaque = b"".join(
        one.number.to_bytes(2, "little") + len(one.data).to_bytes(2, "little") + one.data
        for one in report.opaque
    )
    made = (
        report.request.encode()
        + report.header.encode()
        + wire.encode_record(report.measurements)
        + report.nonce
        + len(opaque).to_bytes(2, "little")
        + opaque
        + report.signature
    )
    assert made == data


def test_ev_01_a_report_cut_at_any_byte_is_refused() -> None:
    for length in range(len(REPORT)):
        assert code_of(wire.decode_report, REPORT[:length]) in {
            "malformed.truncated",
            "malformed.length_mismatch",
        }, length


@pytest.mark.parametrize("name", sorted(nvidia.SAMPLES))
def test_ev_01_a_real_report_cut_at_any_byte_is_refused(shared: Path, name: str) -> None:
    data = (nvidia.folder(shared) / f"{name}.report.bin").read_bytes()

    for length in range(len(data)):
        assert code_of(wire.decode_report, data[:length]) == "malformed.truncated", length


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b"\x01", "malformed.trailing_data"),
        (bytes(15) + b"\x01", "malformed.trailing_data"),
        (b"\x01" + bytes(15), "malformed.trailing_data"),
        (bytes(65536), "malformed.limit_exceeded"),
        (bytes(wire.MAX_REPORT + 1 - len(REPORT)), "malformed.limit_exceeded"),
    ],
)
def test_ev_02_bytes_after_the_report_are_refused(tail: bytes, code: str) -> None:
    assert code_of(wire.decode_report, REPORT + tail) == code


def test_ev_02_zero_bytes_up_to_the_driver_s_buffer_are_padding() -> None:
    assert wire.decode_report(REPORT + b"\x00").padding == 1
    full = REPORT.ljust(wire.MAX_REPORT, b"\x00")
    assert wire.decode_report(full).padding == wire.MAX_REPORT - len(REPORT)


@pytest.mark.parametrize("version", [0, 0x10, 0x12, 0x13, 0xFF])
@pytest.mark.parametrize("message", ["request", "header"])
def test_ev_05_another_version_of_spdm_is_refused(message: str, version: int) -> None:
    given: Any = {message: {"version": version}}

    assert code_of(wire.decode_report, nvidia.case(**given).report) == "malformed.unsupported_version"


@pytest.mark.parametrize("version", [b"\x02\x00", b"\xff\xff", b"\x00\x01", bytes(7) + b"\x01", bytes(9)])
def test_ev_05_newer_fields_of_the_vendor_are_refused(version: bytes) -> None:
    report = nvidia.case(fields={"opaque_data_version": version}).report

    assert code_of(wire.decode_report, report) == "malformed.unsupported_version"


@pytest.mark.parametrize("number", [0, 28, 31, 37, 255, 0xFFFF])
def test_ev_05_a_field_that_is_not_known_is_refused(number: int) -> None:
    known = {name: number for number, name in wire.FIELDS.items()}
    opaque = b"".join(
        known[name].to_bytes(2, "little") + len(data).to_bytes(2, "little") + data
        for name, data in nvidia.device().fields().items()
    )
    report = nvidia.case(opaque=opaque + number.to_bytes(2, "little") + b"\x01\x00\x00").report

    assert code_of(wire.decode_report, report) == "malformed.unsupported_version"
    assert wire.decode_report(nvidia.case(opaque=opaque).report).kind == "gpu"


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (
            5 + wire.Request.SIZE,
            b"\x00\x0d\xc0",
            "malformed.truncated",
        ),  # Of the record: 00 0d c0 for c0 0d 00.
        (RECORD + 2, b"\x00\x33", "malformed.length_mismatch"),
        (RECORD + 5, b"\x00\x30", "malformed.length_mismatch"),
    ],
)
def test_ev_06_the_big_endian_twin_is_refused(offset: int, value: bytes, code: str) -> None:
    assert code_of(wire.decode_report, patched(offset, value)) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"request": {"code": 0xE1}}, "malformed.unknown_format"),
        ({"header": {"code": 0x7F}}, "malformed.unknown_format"),
        ({"request": {"attributes": 0}}, "malformed.unknown_format"),
        ({"request": {"operation": 1}}, "malformed.unknown_format"),
        ({"request": {"slot": 8}, "header": {"slot": 8}}, "malformed.reserved_not_zero"),
        ({"request": {"slot": 1}}, "malformed.reserved_not_zero"),
        ({"header": {"slot": 0x10}}, "malformed.reserved_not_zero"),
        ({"header": {"param1": 1}}, "malformed.reserved_not_zero"),
    ],
)
def test_another_message_than_the_answer_with_a_signature_is_refused(
    changes: dict[str, Any], code: str
) -> None:
    assert code_of(wire.decode_report, nvidia.case(**changes).report) == code


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (wire.Request.SIZE + 4, b"\x00", "malformed.trailing_data"),  # The number of blocks.
        (wire.Request.SIZE + 4, b"\x3f", "malformed.trailing_data"),
        (wire.Request.SIZE + 4, b"\x41", "malformed.truncated"),
        (wire.Request.SIZE + 5, b"\x00\x00\x00", "malformed.truncated"),
        (wire.Request.SIZE + 5, b"\xff\xff\xff", "malformed.truncated"),
        (RECORD + 1, b"\x02", "malformed.unknown_format"),  # The form of a measurement.
        (RECORD + 2, b"\x00\x00", "malformed.length_mismatch"),
        (RECORD + 2, b"\xff\xff", "malformed.length_mismatch"),
        (RECORD + 5, b"\x00\x00", "malformed.length_mismatch"),
        (RECORD, b"\x00", "malformed.non_canonical"),
        (RECORD, b"\x02", "malformed.non_canonical"),
        (RECORD + BLOCK, b"\x01", "malformed.non_canonical"),
        (OPAQUE, b"\x00\x00", "malformed.trailing_data"),
        (OPAQUE, b"\xff\xff", "malformed.truncated"),
        (OPAQUE + 4, b"\xff\xff", "malformed.truncated"),  # The length of the first field.
    ],
)
def test_ev_13_inner_lengths_and_counts_that_do_not_fit_are_refused(
    offset: int, value: bytes, code: str
) -> None:
    tracemalloc.start()
    try:
        assert code_of(wire.decode_report, patched(offset, value)) == code
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"fwid": bytes(47)}, "malformed.length_mismatch"),
        ({"fwid": b""}, "malformed.length_mismatch"),
        ({"board_id": bytes(5)}, "malformed.length_mismatch"),
        ({"nvdec0_status": b"\x55\x55"}, "malformed.length_mismatch"),
        ({"protected_pcie_status": b""}, "malformed.length_mismatch"),
        ({"msrscnt": bytes(255)}, "malformed.length_mismatch"),
        ({"switch_pdi": bytes(7)}, "malformed.length_mismatch"),
        ({"driver_version": b""}, "malformed.non_canonical"),
        ({"driver_version": b"\x00"}, "malformed.non_canonical"),
        ({"driver_version": b"575.57\x00.08\x00"}, "malformed.non_canonical"),
        ({"driver_version": b"575.57.08\n\x00"}, "malformed.non_canonical"),
        ({"driver_version": b"575/57"}, "malformed.non_canonical"),
        ({"driver_version": b"1" * 33}, "malformed.non_canonical"),
        ({"project": b"\xff\xff"}, "malformed.non_canonical"),
        ({"vbios_version": bytes(7)}, "malformed.non_canonical"),
        ({"vbios_version": bytes(7) + b"\x01"}, "malformed.non_canonical"),
        ({"vbios_version": None}, "malformed.truncated"),
        ({"feature_flag": b"\x03\x00"}, "malformed.non_canonical"),
        ({"feature_flag": b""}, "malformed.non_canonical"),
        ({"feature_flag": bytes(9)}, "malformed.non_canonical"),
        ({"driver_version": None}, "malformed.unknown_format"),
        ({"lock_switch_status": b"\x01\x00"}, "malformed.unknown_format"),
    ],
)
def test_a_field_in_another_form_is_refused(fields: dict[str, bytes | None], code: str) -> None:
    assert code_of(wire.decode_report, nvidia.case(fields=fields).report) == code


@pytest.mark.parametrize(
    "version", [b"96.10.55.00", b"96.10.55.00.0g", b"96.10.55.00.01\x00\x00", b"96-10-55-00-01"]
)
def test_a_switch_s_vbios_version_in_another_form_is_refused(version: bytes) -> None:
    report = nvidia.case(nvidia.device("LS_10"), fields={"vbios_version": version}).report

    assert code_of(wire.decode_report, report) == "malformed.non_canonical"


def test_a_field_that_is_there_twice_is_refused() -> None:
    field = b"\x0b\x00\x01\x00\x55"

    assert code_of(wire.decode_report, nvidia.case(opaque=field * 2).report) == "malformed.non_canonical"


@pytest.mark.parametrize(
    ("value", "mode"), [(b"\x00", "spt"), (b"\x01\x00", "mpt"), (b"\x02\x00\x00\x00", "ppcie")]
)
def test_the_mode_is_read_where_the_firmware_says_it(value: bytes, mode: str) -> None:
    assert wire.decode_report(nvidia.case(fields={"feature_flag": value}).report).mode == mode
    assert wire.decode_report(nvidia.case(fields={"feature_flag": None}).report).mode is None


@given(st.binary(max_size=300), st.integers(0, len(REPORT)), st.integers(0, 300))
@settings(max_examples=200)
def test_ev_04_spliced_reports_raise_nothing_but_errors_of_confide(junk: bytes, at: int, gone: int) -> None:
    only_typed_errors(wire.decode_report, REPORT[:at] + junk + REPORT[at + gone :])


@given(st.binary(max_size=600))
@settings(max_examples=200)
def test_ev_04_random_opaque_data_raises_nothing_but_errors_of_confide(opaque: bytes) -> None:
    report = nvidia.device().report(nvidia.NONCE, opaque=opaque)

    if only_typed_errors(wire.decode_report, report) is not None:
        assert only_typed_errors(wire.explain, report) is not None


def test_ev_14_a_large_file_is_refused_before_it_is_read() -> None:
    data = b"\x11\xe0" + bytes(100_000_000)

    tracemalloc.start()
    try:
        assert code_of(wire.decode_report, data) == "malformed.limit_exceeded"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("model", ["GH100", "GB100", "LS_10"])
def test_inspect_shows_every_field_as_json_values(model: str) -> None:
    shown = wire.explain(nvidia.case(nvidia.device(model)).report + bytes(3))

    fields: Any = shown["fields"]
    assert set(nvidia.device(model).fields()) <= set(fields)
    assert (shown["nonce"], shown["zero bytes after the report"]) == (nvidia.NONCE.hex(), 3)
    assert fields["vbios_version"] == nvidia.device(model).vbios


def test_a_report_is_recognised_without_being_named() -> None:
    assert formats.read(REPORT).platform.format == "nvidia"
    assert wire.recognises(REPORT[:100])
    for other in (b"", b"\x11\xe0", REPORT[:45], b"\x12" + REPORT[1:], REPORT[37:], patched(38, b"\x61")):
        assert not wire.recognises(other)
    with pytest.raises(MalformedError):
        formats.read(REPORT[:100])
