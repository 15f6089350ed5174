# SPDX-License-Identifier: Apache-2.0
"""Quotes that cannot be verified are shown all the same, and documents are told apart by their form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from confide.crypto import x509
from confide.crypto.x509 import Extension
from confide.errors import EndorsementsMissing, MalformedError
from confide.simulator.dcap import QE_SIGNER
from confide.tees._dcap import collateral, pck
from confide.tees.sgx import endorse as sgx_endorse
from confide.tees.sgx import wire as sgx_wire
from confide.tees.tdx import endorse as tdx_endorse
from confide.tees.tdx import wire as tdx_wire
from support import dcap

if TYPE_CHECKING:
    from pathlib import Path

EXPLAIN = {"sgx": sgx_wire.explain, "tdx": tdx_wire.explain}
URLS = {"sgx": sgx_endorse.urls, "tdx": tdx_endorse.urls}


def tree(made: Any, **changes: Any) -> Any:
    return json.loads(json.dumps(EXPLAIN[made.TEE](made.quote(dcap.REPORT_DATA, **changes))))


@pytest.mark.parametrize("tee", dcap.TEES)
def test_a_chain_that_cannot_be_read_is_said_to_be_so(tee: str) -> None:
    made = dcap.platform(tee)
    assert "PEM" in tree(made, certification=(5, b"no PEM"))["certification"]["unreadable"]
    odd = dcap.changed(tee, sgx={"replace": {(4,): None}})
    assert "part 4 is missing" in str(tree(odd)["certification"]["certificate 0"]["sgx extension"])
    assert tree(made, certification=(1, b"\x01\x02"))["certification"]["data"] == "0102"


@pytest.mark.parametrize("tee", dcap.TEES)
def test_what_is_shown_is_what_is_in_the_quote(tee: str) -> None:
    shown = tree(dcap.platform(tee), header={"user_data": b"\x07" * 20}, padding=bytes(5))

    assert shown["user data"] == "07" * 20
    assert shown["zero bytes after the end"] == 5
    assert shown["quoting enclave"]["mrsigner"] == QE_SIGNER.hex()
    assert "set" not in shown["quoting enclave"]["attributes"]
    assert shown["certification"]["certificate 0"]["sgx extension"]["fmspc"] == "00906ed50000"


@pytest.mark.parametrize("tee", dcap.TEES)
def test_addresses_are_made_of_what_is_certain_only(tee: str) -> None:
    made = dcap.platform(tee)
    assert f"/{tee}/certification/v4/tcb?fmspc=00906ed50000" in URLS[tee](made.quote(dcap.REPORT_DATA))[0]
    with pytest.raises(EndorsementsMissing):
        URLS[tee](made.quote(dcap.REPORT_DATA, certification=(2, bytes(404))))
    with pytest.raises(MalformedError):
        URLS[tee](made.quote(dcap.REPORT_DATA, chain=made.chain[1:]))
    named = (("CN", "platform&evil=1"), ("O", "confide simulated device"))
    strange = dcap.changed(tee, certificates={"pck": {"issuer": named}})
    with pytest.raises(MalformedError):
        URLS[tee](strange.quote(dcap.REPORT_DATA))


def test_collateral_is_told_from_other_json(shared: Path) -> None:
    for file in (shared / "evidence").rglob("*.json"):
        data = file.read_bytes()
        expected = ".collateral-" in file.name or "testroot" in str(file)
        assert collateral.is_collateral(data) == expected, file.name
    for other in (b"", b"[]", b"{}", b"\x00", b"x" * 100, b"{" * (1 << 20)):
        assert not collateral.is_collateral(other)


def test_a_certificate_without_intels_extension_is_no_pck() -> None:
    root = x509.Certificate.from_der(dcap.platform("sgx").certificates["root"])

    assert not pck.is_pck(root)
    with pytest.raises(MalformedError) as caught:
        pck.read_pck(root)
    assert caught.value.code == "malformed.unknown_format"


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("role", ["platform", "root"])
def test_dcap_20_a_crl_that_covers_a_part_only_does_not_count(tee: str, role: str) -> None:
    made = dcap.platform(tee)
    partial = {"2.5.29.28": Extension(critical=True, value=b"\x30\x03\x81\x01\xff")}
    key = "pck_crl" if role == "platform" else "root_ca_crl"

    found = dcap.refused(made, collateral={"document": {key: made.crl(role, extensions=partial).hex()}})
    assert set(found) == {"endorsements_missing.crl"}


@pytest.mark.parametrize("tee", dcap.TEES)
def test_a_quote_is_recognised_by_its_header_alone(tee: str) -> None:
    recognises = {"sgx": sgx_wire.recognises, "tdx": tdx_wire.recognises}
    other = "tdx" if tee == "sgx" else "sgx"
    made = dcap.platform(tee)
    for header, expected in (
        ({}, True),
        ({"version": 6}, True),  # Intel's enclave, so that decoding it can say what is wrong.
        ({"attestation_key_type": 3}, True),
        ({"qe_vendor_id": bytes(16)}, True),
        ({"qe_vendor_id": bytes(16), "attestation_key_type": 3}, False),
        ({"qe_vendor_id": bytes(16), "version": 6}, False),
        ({"tee_type": 0x82}, False),
    ):
        data = made.quote(dcap.REPORT_DATA, header=header)
        assert recognises[tee](data) == expected, header
        assert not recognises[other](data)
    assert not recognises[tee](made.quote(dcap.REPORT_DATA, padding=bytes(64 * 1024)))


@pytest.mark.parametrize("tee", dcap.TEES)
def test_of_several_identities_that_of_the_own_enclave_is_spoken_of(tee: str) -> None:
    made = dcap.platform(tee)
    old = made.collateral(identity={"nextUpdate": "2026-05-30T00:00:00Z"})
    other = made.collateral(identity={"id": "QVE"})
    for order in ((old, other), (other, old)):
        endorsements = dcap.document(order[0]).merge(dcap.document(order[1]))
        found = dcap.judged(tee, made.quote(dcap.REPORT_DATA), endorsements, (made.anchor,))
        assert found == ["endorsements_missing.collateral_expired"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_a_document_of_256_kib_is_read_and_one_byte_more_is_not(tee: str) -> None:
    made = dcap.platform(tee)
    data = made.collateral()
    for size, code in ((256 * 1024, "accepted"), (256 * 1024 + 1, "malformed.limit_exceeded")):
        given = dcap.document(data + b" " * (size - len(data)))
        assert dcap.judged(tee, made.quote(dcap.REPORT_DATA), given, (made.anchor,)) == [code]
