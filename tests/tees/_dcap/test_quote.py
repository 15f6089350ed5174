# SPDX-License-Identifier: Apache-2.0
"""Quotes as bytes: versions, lengths, types, padding, keys and signatures out of range."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation.evidence import Endorsements
from confide.crypto.signing import CURVES
from confide.errors import MalformedError
from confide.simulator import dcap as simulator
from confide.tees._dcap import quote
from confide.tees.sgx import wire as sgx_wire
from confide.tees.tdx import wire as tdx_wire
from support import dcap

if TYPE_CHECKING:
    from pathlib import Path

ORDER = CURVES["p256"][2]


def number(value: int) -> bytes:
    return value.to_bytes(32, "big")


def minted(tee: str, **changes: Any) -> bytes:
    return dcap.platform(tee).quote(dcap.REPORT_DATA, **changes)


@pytest.mark.parametrize(("tee", "version"), [("sgx", 3), ("sgx", 4), ("sgx", 5), ("tdx", 4), ("tdx", 5)])
def test_every_version_of_a_tee_is_read_and_layouts_without_a_real_sample_say_so(
    tee: str, version: int
) -> None:
    claims = dcap.accepted(dcap.platform(tee), version=version)

    assert claims.report_data == dcap.REPORT_DATA
    assert claims.details.quote_version == version  # type: ignore[attr-defined]
    assert bool(claims.unproven) == (tee == "sgx" and version > 3)
    assert all("no sample of real hardware has shown" in one for one in claims.unproven)


def test_a_td_of_tdx_1_0_in_a_quote_of_version_5_is_read_and_called_unproven() -> None:
    claims = dcap.accepted(dcap.platform("tdx"), version=5, body={"body": "1.0"})

    assert claims.details.body == "1.0"  # type: ignore[attr-defined]
    assert claims.unproven == (
        "no sample of real hardware has shown a quote of version 5 with a body of type 2",
    )


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("version", [0, 1, 2, 6, 0x300, 0xFFFF])
def test_dcap_01_unknown_versions_are_refused(tee: str, version: int) -> None:
    assert dcap.refused(dcap.platform(tee), header={"version": version}) == ["malformed.unsupported_version"]


def test_dcap_01_ev_05_version_3_is_never_of_tdx() -> None:
    made = dcap.platform("tdx")
    assert dcap.refused(made, header={"version": 3}) == ["malformed.unsupported_version"]


@pytest.mark.parametrize("version", [4, 5])
def test_dcap_01_a_td_quote_that_says_it_is_sgx_is_refused_by_both(version: int) -> None:
    data, endorsements = dcap.platform("tdx").evidence(
        dcap.REPORT_DATA, version=version, header={"tee_type": quote.SGX}
    )

    for tee in dcap.TEES:
        found = dcap.judged(tee, data, endorsements, (dcap.platform(tee).anchor,))
        assert found[0].startswith("malformed."), tee


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("kind", [0, 1, 3, 4, 0xFFFF])
def test_dcap_01_ev_08_other_kinds_of_attestation_keys_are_refused(tee: str, kind: int) -> None:
    found = dcap.refused(dcap.platform(tee), header={"attestation_key_type": kind})

    assert found == ["not_genuine.unsupported_algorithm"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("tee_type", [1, 0x80, 0x82, 0x8100, 0x81000000, 0xFFFFFFFF])
def test_dcap_01_unknown_tee_types_are_no_quotes_of_this_tee(tee: str, tee_type: int) -> None:
    assert dcap.refused(dcap.platform(tee), header={"tee_type": tee_type}) == ["malformed.unknown_format"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_06_a_big_endian_header_is_refused(tee: str) -> None:
    swapped = {"version": dcap.platform(tee).VERSION << 8}

    assert dcap.refused(dcap.platform(tee), header=swapped) == ["malformed.unsupported_version"]


def test_ev_07_the_quote_of_one_tee_is_not_one_of_the_other() -> None:
    for tee, other in (("sgx", "tdx"), ("tdx", "sgx")):
        data, endorsements = dcap.platform(tee).evidence(dcap.REPORT_DATA, version=4)
        found = dcap.judged(other, data, endorsements, (dcap.platform(other).anchor,))
        assert found == ["malformed.unknown_format"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("vendor", [bytes(16), quote.INTEL_QE_VENDOR[:-1] + b"\x00", b"\xff" * 16])
def test_dcap_02_a_quoting_enclave_of_another_vendor_is_refused(tee: str, vendor: bytes) -> None:
    found = dcap.refused(dcap.platform(tee), header={"qe_vendor_id": vendor})

    assert found == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize(
    ("tee", "kind", "size", "code"),
    [
        ("tdx", 3, 584, "malformed.length_mismatch"),
        ("tdx", 2, 648, "malformed.length_mismatch"),
        ("tdx", 3, 647, "malformed.length_mismatch"),
        ("tdx", 3, 0, "malformed.length_mismatch"),
        ("tdx", 3, 0xFFFFFFFF, "malformed.length_mismatch"),
        ("tdx", 1, 384, "malformed.unknown_format"),
        ("tdx", 0, 648, "malformed.unsupported_version"),
        ("tdx", 4, 648, "malformed.unsupported_version"),
        ("sgx", 1, 383, "malformed.length_mismatch"),
        ("sgx", 2, 584, "malformed.unknown_format"),
        ("sgx", 3, 648, "malformed.unknown_format"),
    ],
)
def test_dcap_03_a_descriptor_that_does_not_fit_its_body_is_refused(
    tee: str, kind: int, size: int, code: str
) -> None:
    descriptor = kind.to_bytes(2, "little") + size.to_bytes(4, "little")

    assert dcap.refused(dcap.platform(tee), version=5, descriptor=descriptor) == [code]


def replaced(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def lengths(tee: str) -> dict[str, tuple[int, int]]:
    """Offset and width of every length field of a minted quote."""
    signed = dcap.SIGNED[tee]
    inner = signed + 4 + 128
    if tee == "sgx":
        return {"all": (signed, 4), "auth": (inner + 448, 2), "certification": (inner + 448 + 2 + 32 + 2, 4)}
    return {
        "all": (signed, 4),
        "outer": (inner + 2, 4),
        "auth": (inner + 6 + 448, 2),
        "certification": (inner + 6 + 448 + 2 + 32 + 2, 4),
    }


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("change", [-1, 1, 16, "zero", "half", "all"])
def test_dcap_04_ev_13_every_length_must_be_the_actual_one(tee: str, change: int | str) -> None:
    data = minted(tee)
    _, endorsements = dcap.platform(tee).evidence(dcap.REPORT_DATA)
    for name, (offset, width) in lengths(tee).items():
        own = int.from_bytes(data[offset : offset + width], "little")
        value = {"zero": 0, "half": 1 << (8 * width - 1), "all": (1 << 8 * width) - 1}.get(
            str(change), own + change if isinstance(change, int) else 0
        )
        forged = replaced(data, offset, value.to_bytes(width, "little"))
        tracemalloc.start()
        found = dcap.judged(tee, forged, endorsements, (dcap.platform(tee).anchor,))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found[0].startswith("malformed."), (name, change)
        assert found[0] in {
            "malformed.length_mismatch",
            "malformed.truncated",
            "malformed.trailing_data",
            "malformed.unknown_format",
        }, (name, change, found)
        assert peak < 1 << 20, name


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("size", [0, 1, 31, 33, 1000])
def test_dcap_04_authentication_data_of_any_length_is_covered_by_the_report(tee: str, size: int) -> None:
    """Intel's quoting enclave writes 32 bytes; the format has a length, and all of it is in the digest."""
    assert dcap.accepted(dcap.platform(tee), auth_data=bytes(size)).report_data == dcap.REPORT_DATA
    lie = {"report_data": dcap.platform(tee).qe_report(b"", b"")[-64:]}
    found = dcap.refused(dcap.platform(tee), auth_data=bytes(size), qe_report=lie)
    assert found == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_dcap_05_a_quote_that_only_names_its_platform_asks_for_the_certificate(tee: str, kind: int) -> None:
    found = dcap.refused(dcap.platform(tee), certification=(kind, bytes(404)))

    assert found == ["endorsements_missing.certificate"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_05_the_certificate_may_come_beside_the_quote(tee: str) -> None:
    made = dcap.platform(tee)
    data, own = made.evidence(dcap.REPORT_DATA, certification=(3, bytes(404)))
    pck = Endorsements((made.certificates["pck"],))

    claims = dcap.authenticate(tee, data, own.merge(pck), (made.anchor,))
    assert claims.details.tcb_status == "UpToDate"  # type: ignore[attr-defined]

    other = dcap.platform(tee, seed=2)
    stranger = Endorsements((other.certificates["pck"],))
    found = dcap.judged(tee, data, own.merge(stranger), (made.anchor,))
    assert found[0] == "not_genuine.bad_signature"


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("kind", [0, 7, 8, 0x105, 0xFFFF])
def test_dcap_05_unknown_certification_data_is_refused(tee: str, kind: int) -> None:
    found = dcap.refused(dcap.platform(tee), certification=(kind, simulator.pem(*dcap.platform(tee).chain)))

    assert found == ["malformed.unknown_format"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_05_a_report_within_a_report_is_not_followed(tee: str) -> None:
    assert dcap.refused(dcap.platform(tee), certification=(6, bytes(1000))) == ["malformed.unknown_format"]


@pytest.mark.parametrize("kind", [0, 1, 5, 7, 0x600])
def test_dcap_05_from_version_4_on_the_quoting_enclaves_report_must_be_there(kind: int) -> None:
    assert dcap.refused(dcap.platform("tdx"), outer_type=kind) == ["malformed.unknown_format"]


def test_dcap_22_a_tdreport_is_not_a_quote() -> None:
    for size in (584, 1024):
        report = bytes((0x81, 0, 0, 0)) + bytes(size - 4)
        for tee in dcap.TEES:
            found = dcap.judged(tee, report, Endorsements(), (dcap.platform(tee).anchor,))
            assert found == ["malformed.unknown_format"]
            assert not tdx_wire.recognises(report)
            assert not sgx_wire.recognises(report)


def test_dcap_22_a_report_of_an_enclave_is_not_a_quote() -> None:
    for cpusvn in (bytes(16), b"\x0b\x0c\x02\x18\xff\xff\x04" + bytes(9), b"\xff" * 16):
        report = cpusvn + bytes(432 - 16)
        for tee in dcap.TEES:
            found = dcap.judged(tee, report, Endorsements(), (dcap.platform(tee).anchor,))
            assert found == ["malformed.unknown_format"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_23_one_nul_may_end_the_chain_and_nothing_else(tee: str) -> None:
    made = dcap.platform(tee)
    chain = simulator.pem(*made.chain)
    for ending in (b"", b"\x00", b"\n", b"\n\x00"):
        assert dcap.accepted(made, certification=(5, chain + ending)).tee == tee
    for ending in (b"\x00\x00", b" ", b"\x01", b"\x00\n", b"x", b"\xef\xbb\xbf", b"-----BEGIN"):
        assert dcap.refused(made, certification=(5, chain + ending)) == ["malformed.non_canonical"], ending


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_23_ev_02_zero_padding_is_accepted_and_reported(tee: str) -> None:
    claims = dcap.accepted(dcap.platform(tee), padding=bytes(70))

    check = next(one for one in claims.checks if one.name == "padding")
    assert check.detail == "70 zero bytes follow the quote"
    assert not any(one.name == "padding" for one in dcap.accepted(dcap.platform(tee)).checks)


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("padding", [b"\x01", b"\x00" * 15 + b"\x01", b"\n", b"\x01" + bytes(1000)])
def test_ev_02_any_other_trailing_byte_is_refused(tee: str, padding: bytes) -> None:
    assert dcap.refused(dcap.platform(tee), padding=padding) == ["malformed.trailing_data"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_02_64_kib_of_padding_are_too_much(tee: str) -> None:
    assert dcap.refused(dcap.platform(tee), padding=bytes(64 * 1024)) == ["malformed.limit_exceeded"]


@pytest.mark.parametrize("name", ["sgx/v3-config-and-hardening", "tdx/v4-debug-td", "tdx/v5-uptodate"])
def test_ev_01_a_real_quote_cut_off_anywhere_is_malformed(shared: Path, name: str) -> None:
    data = dcap.quote_bytes(shared, f"{name}.quote.bin")
    reader = sgx_wire.decode if name.startswith("sgx") else tdx_wire.decode
    reader(data)
    for length in range(len(data)):
        with pytest.raises(MalformedError) as caught:
            reader(data[:length])
        assert caught.value.code == "malformed.truncated", length


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    "signature",
    [
        bytes(64),
        number(0) + number(1),
        number(1) + number(0),
        number(ORDER) + number(1),
        number(1) + number(ORDER),
        number(ORDER + 1) + number(1),
        b"\xff" * 64,
    ],
)
def test_ev_09_signatures_out_of_range_are_refused(tee: str, signature: bytes) -> None:
    made = dcap.platform(tee)

    assert dcap.refused(made, signature=signature) == ["not_genuine.bad_signature"]
    assert dcap.refused(made, report_signature=signature) == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_10_the_twin_of_a_signature_verifies_and_vouches_for_the_same(tee: str) -> None:
    """FIPS 186-5 asks for no low s. Whoever keeps replayed evidence apart must not do it by its bytes."""
    made = dcap.platform(tee)
    data = made.quote(dcap.REPORT_DATA)
    start = dcap.SIGNED[tee] + 4
    r, s = data[start : start + 32], int.from_bytes(data[start + 32 : start + 64], "big")

    twin = dcap.accepted(made, signature=r + number(ORDER - s))
    assert twin.report_data == dcap.accepted(made).report_data


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    "point",
    [
        bytes(64),
        b"\xff" * 64,
        number(1) + number(1),
        b"\x02" + bytes(63),
        b"\x04" + bytes(range(63)),
    ],
    ids=["zero", "beyond the field", "off the curve", "compressed", "with a prefix"],
)
def test_ev_11_a_key_that_is_no_point_is_refused(tee: str, point: bytes) -> None:
    assert dcap.refused(dcap.platform(tee), attestation_point=point) == ["not_genuine.weak_key"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_a_body_that_was_changed_after_signing_is_refused(tee: str) -> None:
    data, endorsements = dcap.platform(tee).evidence(dcap.REPORT_DATA)
    forged = replaced(data, dcap.REPORT_DATA_OFFSET[tee], b"\xee" * 64)

    assert dcap.judged(tee, forged, endorsements, (dcap.platform(tee).anchor,)) == [
        "not_genuine.bad_signature"
    ]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_reserved_bytes_of_the_quoting_enclaves_report_must_be_zero(tee: str) -> None:
    data, endorsements = dcap.platform(tee).evidence(dcap.REPORT_DATA)
    start = dcap.SIGNED[tee] + 4 + 128 + (6 if tee == "tdx" else 0)
    for offset in (20, 96, 160, 262):
        forged = replaced(data, start + offset, b"\x01")
        found = dcap.judged(tee, forged, endorsements, (dcap.platform(tee).anchor,))
        assert found == ["malformed.reserved_not_zero"], offset


@pytest.mark.parametrize("tee", dcap.TEES)
@given(
    start=st.integers(0, 6000),
    length=st.integers(0, 700),
    place=st.integers(0, 6000),
    what=st.sampled_from(["delete", "duplicate", "swap", "overwrite"]),
    noise=st.binary(min_size=1, max_size=64),
)
@settings(max_examples=120)
def test_ev_04_spliced_quotes_raise_nothing_but_confides_errors(
    tee: str, start: int, length: int, place: int, what: str, noise: bytes
) -> None:
    made = dcap.platform(tee)
    data, endorsements = made.evidence(dcap.REPORT_DATA)
    piece = data[start : start + length]
    forged = {
        "delete": data[:start] + data[start + length :],
        "duplicate": data[:place] + piece + data[place:],
        "swap": data[:start] + data[place : place + length] + data[start + length :],
        "overwrite": data[:start] + noise + data[start + len(noise) :],
    }[what]
    found = dcap.judged(tee, forged, endorsements, (made.anchor,))
    # A splice that changes nothing, or appends zeros, is still the quote.
    assert (found == ["accepted"]) == (forged[: len(data)] == data and not any(forged[len(data) :]))
