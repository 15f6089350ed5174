# SPDX-License-Identifier: Apache-2.0
"""The quoting enclave must be Intel's, on this platform, and vouch for the key; the TDX module must be Intel's, too."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from confide.crypto.issue import IssuingKey
from confide.simulator import dcap as simulator
from support import dcap

TAIL = bytes(31) + b"\x01"


def digest(tee: str, auth_data: bytes = bytes(range(32))) -> bytes:
    key = dcap.platform(tee).keys["attestation"]
    return hashlib.sha256(simulator.point(key) + auth_data).digest()


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_06_the_report_must_name_the_key_and_end_in_zeros(tee: str) -> None:
    right = digest(tee) + bytes(32)
    assert dcap.accepted(dcap.platform(tee), qe_report={"report_data": right}).tee == tee
    for wrong in (
        bytes(64),
        digest(tee) + TAIL,
        bytes(32) + digest(tee),
        digest(tee, b"") + bytes(32),
        hashlib.sha512(b"").digest(),
        bytes((right[0] ^ 1,)) + right[1:],
    ):
        found = dcap.refused(dcap.platform(tee), qe_report={"report_data": wrong})
        assert found == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_06_a_quote_signed_by_a_key_that_nobody_vouches_for_is_refused(tee: str) -> None:
    stranger = IssuingKey.from_scalar(77, curve="p256")
    made = dcap.platform(tee)

    found = dcap.refused(made, sign_quote=stranger)
    assert found == ["not_genuine.bad_signature"]
    found = dcap.refused(
        made,
        sign_quote=stranger,
        attestation_point=simulator.point(stranger),
        qe_report={"report_data": digest(tee) + bytes(32)},
    )
    assert found == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_07_a_report_signed_by_another_platforms_key_is_refused(tee: str) -> None:
    found = dcap.refused(dcap.platform(tee), sign_report=dcap.platform(tee, seed=2).keys["pck"])

    assert found == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_07_the_chain_of_another_platform_of_the_same_authority_is_refused(tee: str) -> None:
    key = IssuingKey.from_scalar(4711, curve="p256")
    other = dcap.changed(tee, certificates={"pck": {"public_key": key.public_key_der, "serial": 9}})

    assert dcap.refused(dcap.platform(tee), chain=other.chain) == ["not_genuine.bad_signature"]


IDENTITY_CASES: list[tuple[dict[str, Any], str]] = [
    ({"mrsigner": bytes(32)}, "not_genuine.identity_mismatch"),
    ({"mrsigner": simulator.QE_SIGNER[:-1] + b"\x00"}, "not_genuine.identity_mismatch"),
    ({"isvprodid": 3}, "not_genuine.identity_mismatch"),
    ({"isvprodid": 0x102}, "not_genuine.identity_mismatch"),
    ({"miscselect": 1}, "not_genuine.identity_mismatch"),
    ({"miscselect": 0x80000000}, "not_genuine.identity_mismatch"),
    ({"flags": 0x01}, "not_genuine.identity_mismatch"),
    ({"flags": 0x8000000000000011}, "not_genuine.identity_mismatch"),
    ({"isvsvn": 5}, "not_genuine.unknown_status"),
    ({"isvsvn": 0}, "not_genuine.unknown_status"),
]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(("report", "code"), IDENTITY_CASES)
def test_dcap_08_any_other_enclave_in_the_quoting_enclaves_place_is_refused(
    tee: str, report: dict[str, Any], code: str
) -> None:
    assert dcap.refused(dcap.platform(tee), qe_report=report) == [code]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_08_a_quoting_enclave_in_debug_mode_is_refused_whatever_the_mask_says(tee: str) -> None:
    flags = 0x13 if tee == "tdx" else 0x07
    open_mask = {"attributesMask": "FD" + "FF" * 7 + "00" * 8}

    found = dcap.refused(dcap.platform(tee), qe_report={"flags": flags})
    assert found == ["not_genuine.debug"]
    found = dcap.refused(dcap.platform(tee), qe_report={"flags": flags}, collateral={"identity": open_mask})
    assert found == ["not_genuine.debug"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_08_what_the_masks_leave_out_may_differ(tee: str) -> None:
    made = dcap.platform(tee)
    assert dcap.accepted(made, qe_report={"xfrm": 0x3}).tee == tee
    masks = {"miscselectMask": "FEFFFFFF"}
    assert dcap.accepted(made, qe_report={"miscselect": 1}, collateral={"identity": masks}).tee == tee
    found = dcap.refused(made, qe_report={"miscselect": 0x01000000}, collateral={"identity": masks})
    assert found == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize(("tee", "kind"), [("sgx", "TD_QE"), ("tdx", "QE"), ("sgx", "QVE"), ("tdx", "td_qe")])
def test_dcap_08_the_identity_of_another_enclave_says_nothing_of_this_one(tee: str, kind: str) -> None:
    found = dcap.refused(dcap.platform(tee), collateral={"identity": {"id": kind}})

    assert found == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_08_the_level_of_the_quoting_enclave_counts(tee: str) -> None:
    claims = dcap.accepted(dcap.platform(tee), qe_report={"isvsvn": 7})

    details: Any = claims.details
    assert (details.qe.status, details.platform.status, details.tcb_status) == (
        "OutOfDate",
        "UpToDate",
        "OutOfDate",
    )
    assert details.advisory_ids == ("INTEL-SA-00477",)


def module(**seam: Any) -> list[str]:
    return dcap.refused(dcap.platform("tdx"), body=seam)


def test_dcap_13_the_module_must_be_signed_by_intel() -> None:
    assert module(mrsignerseam=b"\x01" + bytes(47)) == ["not_genuine.identity_mismatch"]
    assert module(mrsignerseam=bytes(47) + b"\x01") == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize("bit", [0, 7, 63])
def test_dcap_13_the_modules_attributes_must_be_those_of_its_identity(bit: int) -> None:
    attributes = (1 << bit).to_bytes(8, "little")
    assert module(seam_attributes=attributes) == ["not_genuine.identity_mismatch"]


def identities(**changes: Any) -> dict[str, Any]:
    info = dcap.platform("tdx").tcb_info()
    return {"tcb_info": {"tdxModuleIdentities": [one | changes for one in info["tdxModuleIdentities"]]}}


def test_dcap_13_bits_outside_the_mask_must_be_zero() -> None:
    masked = identities(attributesMask="FE" + "FF" * 7)

    assert dcap.accepted(dcap.platform("tdx"), collateral=masked).tee == "tdx"
    found = dcap.refused(
        dcap.platform("tdx"), collateral=masked, body={"seam_attributes": b"\x01" + bytes(7)}
    )
    assert found == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize("version", [2, 4, 0x10, 0xFF])
def test_dcap_13_a_version_that_intel_does_not_list_is_refused(version: int) -> None:
    assert module(tee_tcb_svn=bytes((5, version, 6)) + bytes(13)) == ["not_genuine.identity_mismatch"]


def test_dcap_13_without_identities_no_versioned_module_is_known() -> None:
    empty = dcap.platform("tdx").tcb_info(tdxModuleIdentities=[])
    absent = {key: value for key, value in empty.items() if key != "tdxModuleIdentities"}
    for info in (empty, absent):
        found = dcap.refused(dcap.platform("tdx"), collateral={"texts": {"tcb_info": json.dumps(info)}})
        assert found == ["not_genuine.identity_mismatch"]


def test_dcap_13_without_the_module_of_version_0_tcb_info_is_malformed() -> None:
    info = dcap.platform("tdx").tcb_info()
    del info["tdxModule"]
    text = {"texts": {"tcb_info": json.dumps(info)}}

    assert dcap.refused(dcap.platform("tdx"), collateral=text) == ["malformed.non_canonical"]


def test_dcap_13_a_module_of_version_0_is_judged_by_the_platforms_levels() -> None:
    claims = dcap.accepted(dcap.platform("tdx"), body={"tee_tcb_svn": bytes((5, 0, 6)) + bytes(13)})
    details: Any = claims.details
    assert (details.module, details.tcb_status) == (None, "UpToDate")

    found = dcap.refused(dcap.platform("tdx"), body={"tee_tcb_svn": bytes((4, 0, 6)) + bytes(13)})
    assert found == ["not_genuine.unknown_status"]


@pytest.mark.parametrize(
    ("svn", "expected"),
    [
        (9, "UpToDate"),
        (5, "UpToDate"),
        (4, "OutOfDate"),
        (3, "OutOfDate"),
        (2, "not_genuine.revoked"),
        (1, "not_genuine.revoked"),
        (0, "not_genuine.unknown_status"),
    ],
)
def test_dcap_13_the_level_of_the_module_counts(svn: int, expected: str) -> None:
    body = {"tee_tcb_svn": bytes((svn, 1, 6)) + bytes(13)}
    if "." in expected:
        assert dcap.refused(dcap.platform("tdx"), body=body) == [expected]
    else:
        details: Any = dcap.accepted(dcap.platform("tdx"), body=body).details
        assert (details.module.status, details.tcb_status) == (expected, expected)


def test_dcap_13_two_identities_of_one_version_are_refused() -> None:
    info = dcap.platform("tdx").tcb_info()
    twice = {
        "tcb_info": {"tdxModuleIdentities": [*info["tdxModuleIdentities"], info["tdxModuleIdentities"][0]]}
    }

    assert dcap.refused(dcap.platform("tdx"), collateral=twice) == ["malformed.non_canonical"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_independent_findings_are_reported_together(tee: str) -> None:
    found = dcap.refused(
        dcap.platform(tee),
        signature=bytes(64),
        qe_report={"mrsigner": bytes(32)},
        collateral={"tcb_info": {"fmspc": "000000000000"}},
    )

    assert found == [
        "not_genuine.bad_signature",
        "not_genuine.identity_mismatch",
        "not_genuine.identity_mismatch",
    ]
