# SPDX-License-Identifier: Apache-2.0
"""The formats: what is cut, lengthened, flipped or of another spelling is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.errors import ConfideError
from confide.tees.tpm import azure, hcl, public, wire
from confide.wire import cbor
from support import tpm
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from confide.attestation.evidence import Endorsements

SAMPLE = 17
HARDWARE = range(hcl.Header.SIZE, hcl.Header.SIZE + hcl.HARDWARE_REPORT)


def case() -> tuple[bytes, Endorsements]:
    return tpm.platform().evidence(tpm.REPORT_DATA)


def test_a_part_survives_its_encoding() -> None:
    part, _ = case()
    evidence = wire.TpmEvidence.decode(part)
    assert evidence.encode() == part
    attest = wire.decode_attest(evidence.attest)
    assert attest.encode() == evidence.attest
    assert wire.decode_signature(evidence.signature).encode() == evidence.signature
    assert evidence.ak is not None
    assert public.decode_public(evidence.ak).spki() == tpm.platform().ak_key.public_key_der


def test_ev_01_a_part_cut_anywhere_is_malformed() -> None:
    part, endorsements = case()
    for size in range(len(part)):
        assert tpm.refusal(part[:size], endorsements)[0].startswith("malformed."), size


def test_ev_01_the_structures_inside_cut_anywhere_are_malformed() -> None:
    evidence = wire.TpmEvidence.decode(case()[0])
    assert evidence.ak is not None
    for decode, data in (
        (wire.decode_attest, evidence.attest),
        (wire.decode_signature, evidence.signature),
        (public.decode_public, evidence.ak),
    ):
        for size in range(len(data)):
            assert code_of(decode, data[:size]) in {"malformed.truncated", "malformed.length_mismatch"}, size
        for more in (b"\x00", bytes(16)):
            assert code_of(decode, data + more) == "malformed.trailing_data"


@pytest.mark.parametrize("more", [1, 16, 64 * 1024])
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_ev_02_bytes_after_a_part_are_refused(more: int, byte: int) -> None:
    part, endorsements = case()
    assert tpm.refusal(part + bytes([byte]) * more, endorsements)[0] in {
        "malformed.trailing_data",
        "malformed.limit_exceeded",
    }


def accepted_flips(data: bytes, bits: Iterable[int], check: Callable[[bytes], object]) -> list[int]:
    """The bits whose flip is accepted; anything but a typed refusal fails the test."""
    found = []
    for bit in bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            check(bytes(flipped))
        except ConfideError:
            continue
        found.append(bit)
    return found


def flips_of_a_lone_part(step: int) -> list[int]:
    part, endorsements = case()
    bits = range(0, 8 * len(part), step)
    return accepted_flips(part, bits, lambda data: tpm.authenticate(data, endorsements))


def test_ev_03_no_sampled_bit_of_a_part_is_malleable() -> None:
    assert flips_of_a_lone_part(SAMPLE) == []


@pytest.mark.slow
def test_ev_03_no_bit_of_a_part_is_malleable() -> None:
    assert flips_of_a_lone_part(1) == []


def flips_of_an_azure_part(step: int) -> tuple[list[int], list[int]]:
    """Flips that were accepted, and those that are on the list of bits that say nothing.

    The list: the copy of the hardware report in the HCL report, but for its report data and measurement. The platform's own
    report is what is verified and read; the copy is only compared with it, in what makes it this report.
    """
    azure_case = tpm.azure()
    part = azure_case.evidence.encode()
    assert azure_case.evidence.hcl is not None
    start = part.index(azure_case.evidence.hcl)
    compared = range(0x50, 0xC0)
    ignored = {start + at for at in HARDWARE if at - HARDWARE.start not in compared}
    bits = range(0, 8 * len(part), step)
    accepted = accepted_flips(
        part, bits, lambda data: tpm.authenticate(data, anchors=(), beside=azure_case.platform)
    )
    return accepted, [bit for bit in bits if bit // 8 in ignored]


def test_ev_03_sampled_bits_of_an_azure_part_are_malleable_only_where_nothing_is_read() -> None:
    accepted, ignored = flips_of_an_azure_part(SAMPLE)
    assert accepted == ignored


@pytest.mark.slow
def test_ev_03_bits_of_an_azure_part_are_malleable_only_where_nothing_is_read() -> None:
    accepted, ignored = flips_of_an_azure_part(1)
    assert accepted == ignored


def test_ev_03_no_sampled_bit_of_a_real_azure_file_goes_unnoticed(shared: Path) -> None:
    """A flip in the JSON is refused in reading, or leads to other evidence than the file's."""
    data = (shared / "evidence" / "azure-vtpm" / "snp-v1.json").read_bytes()
    right = azure.read_azure(data)
    same = accepted_flips(
        data, range(0, 8 * len(data), 101), lambda flipped: _differs(azure.read_azure(flipped), right)
    )
    # White space between the tokens may become other white space, and nothing else.
    assert all(data[bit // 8] in b" \n\t\r" for bit in same)


def _differs(found: object, right: object) -> None:
    if found != right:
        raise ConfideError("other", "evidence of other content")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 0}, "malformed.unsupported_version"),
        ({"version": 2}, "malformed.unsupported_version"),
        ({"version": (1 << 64) - 1}, "malformed.unsupported_version"),
        ({"version": None}, "malformed.non_canonical"),
        ({"unknown": 1}, "malformed.non_canonical"),
        ({"attest": "text"}, "malformed.non_canonical"),
        ({"attest": bytes(4096)}, "malformed.limit_exceeded"),
        ({"pcrs": {}}, "malformed.non_canonical"),
        ({"pcrs": {0x0012: {0: bytes(32)}}}, "malformed.non_canonical"),
        ({"pcrs": {0x000B: {}}}, "malformed.non_canonical"),
        ({"pcrs": {0x000B: {0: bytes(31)}}}, "malformed.length_mismatch"),
        ({"pcrs": {0x000B: {0: "00" * 32}}}, "malformed.length_mismatch"),
        ({"pcrs": {0x000B: {-1: bytes(32)}}}, "malformed.limit_exceeded"),
        ({"pcrs": {0x000B: {"0": bytes(32)}}}, "malformed.limit_exceeded"),
        ({"spki": bytes(10)}, "malformed.non_canonical"),
        ({"ak": None, "parent": bytes(4)}, "malformed.non_canonical"),
    ],
)
def test_ev_05_parts_of_another_form_are_malformed(change: dict[str, Any], code: str) -> None:
    part, endorsements = case()
    content = cbor.decode(part, what="part", max_size=1 << 16) | change
    content = {name: value for name, value in content.items() if value is not None}
    assert tpm.refusal(cbor.encode(content), endorsements) == [code]


def test_ev_06_integers_in_the_other_byte_order_are_refused() -> None:
    attest = bytearray(wire.TpmEvidence.decode(case()[0]).attest)
    attest[:4] = attest[3::-1]
    assert code_of(wire.decode_attest, bytes(attest)) == "malformed.unknown_format"
    attest = bytearray(wire.TpmEvidence.decode(case()[0]).attest)
    attest[4:6] = attest[5:3:-1]
    assert code_of(wire.decode_attest, bytes(attest)) == "malformed.unknown_format"


@pytest.mark.parametrize("length", [0, 33, 0x7FFF, 0xFFFF])
def test_ev_13_lengths_inside_that_do_not_hold_are_refused(length: int) -> None:
    attest = bytearray(wire.TpmEvidence.decode(case()[0]).attest)
    attest[6:8] = length.to_bytes(2, "big")
    assert code_of(wire.decode_attest, bytes(attest)).startswith("malformed.")


def test_ev_14_large_garbage_is_refused_by_its_length() -> None:
    for data in (bytes(1 << 20), b"\x81" * (1 << 20), b"\xa1" * (1 << 20)):
        assert tpm.refusal(data) == ["malformed.limit_exceeded"]
    assert code_of(azure.read_azure, b"[" * (1 << 20)) == "malformed.limit_exceeded"
    assert code_of(azure.read_azure, b"[" * (1 << 16)) == "malformed.limit_exceeded"


def test_reserved_attributes_of_a_key_are_refused() -> None:
    known = set(public.ATTRIBUTES.values())
    for bit in set(range(32)) - known:
        area = tpm.platform().area(attributes=public.attributes("sign") | 1 << bit)
        assert code_of(public.decode_public, area) == "malformed.reserved_not_zero", bit


@pytest.mark.parametrize(
    ("area", "code"),
    [
        ("0008000b00000000000000100010", "not_genuine.unsupported_algorithm"),  # a keyed hash
        ("0023000400000000000000100010", "not_genuine.unsupported_algorithm"),  # a name of SHA-1
        (
            "0023000b00050472000000100018000b0020001000000000",
            "not_genuine.unsupported_algorithm",
        ),  # SM2's curve
        (
            "0023000b000504720000001000180004000300100000",
            "not_genuine.unsupported_algorithm",
        ),  # scheme with SHA-1
        ("0023000b00050472000000100018000b0003000b00000000", "malformed.non_canonical"),  # with a KDF
        (
            "0001000b00050472000000100014000b08000000000000027fff",
            "malformed.length_mismatch",
        ),  # a short modulus
    ],
)
def test_public_areas_of_other_kinds_are_refused(area: str, code: str) -> None:
    assert code_of(public.decode_public, bytes.fromhex(area)) == code


def test_ev_11_points_that_are_no_keys_are_refused() -> None:
    for unique in (bytes(64), b"\xff" * 64, bytes(63) + b"\x01"):
        area = public.decode_public(tpm.platform().area(unique=unique))
        assert code_of(area.spki) == "not_genuine.weak_key"


@given(st.binary(max_size=600))
def test_ev_04_any_bytes_meet_typed_errors_only(data: bytes) -> None:
    for decode in (
        wire.TpmEvidence.decode,
        wire.decode_attest,
        wire.decode_signature,
        public.decode_public,
        hcl.decode_hcl,
        hcl.decode_claims,
        azure.read_azure,
        wire.explain,
    ):
        only_typed_errors(decode, data)
    assert not wire.recognises(data) or b"attest" in data
    azure.recognises(data)


def test_explain_shows_the_fields_of_a_part(shared: Path) -> None:
    evidence = azure.read_azure((shared / "evidence" / "azure-vtpm" / "tdx-v1.json").read_bytes())
    tree: Any = wire.explain(evidence.devices[0].data)
    assert tree["TPMS_ATTEST"]["extraData"] == b"challenge".hex()
    assert tree["HCL report"]["vmUniqueId"] == "6332533D-5649-4D02-8AA7-8F64B7C3EE21"
    assert tree["signature"] == {"scheme": "rsassa", "hash": "sha256"}
    assert "unproven on real bytes" not in tree
    lone: Any = wire.explain(case()[0])
    assert lone["ak"]["attributes"][-2:] == ["restricted", "sign"]
    assert "unproven on real bytes" in lone
