# SPDX-License-Identifier: Apache-2.0
"""The roots that confide ships are AMD's, byte for byte."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from confide.crypto import x509
from confide.tees.snp import endorse

if TYPE_CHECKING:
    from pathlib import Path

# SHA-256 over the DER certificates that AMD's key distribution service gives for each product line: ARK, ASK, ASVK.
PINS = {
    "Milan": (
        "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
        "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
    ),
    "Genoa": (
        "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
        "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
    ),
    "Turin": (
        "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
        "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
    ),
}


def test_ev_17_the_pinned_roots_are_the_vendors() -> None:
    shipped = {
        anchor.name: tuple(hashlib.sha256(der).hexdigest() for der in anchor.certificates)
        for anchor in endorse.anchors()
    }

    assert shipped == PINS


def test_no_pinned_root_is_simulated() -> None:
    assert [anchor.simulated for anchor in endorse.anchors()] == [False, False, False]
    assert {anchor.tee for anchor in endorse.anchors()} == {"snp"}


@pytest.mark.parametrize("name", list(PINS))
def test_the_cas_below_a_pinned_root_are_signed_by_it(name: str) -> None:
    anchor = next(anchor for anchor in endorse.anchors() if anchor.name == name)
    ark, ask, asvk = (x509.Certificate.from_der(der) for der in anchor.certificates)

    for certificate in (ark, ask, asvk):
        certificate.signed.verify(ark.public_key_der)
        assert certificate.key_kind == "rsa4096"
        assert certificate.not_before < datetime(2026, 1, 1, tzinfo=UTC) < certificate.not_after
        assert certificate.is_ca
    assert f"CN=SEV-{name}" in ask.subject
    assert f"CN=SEV-VLEK-{name}" in asvk.subject


def test_the_roots_equal_those_that_others_distribute(shared: Path) -> None:
    for anchor in endorse.anchors():
        published = x509.parse_pem(
            (shared / "evidence" / "roots" / f"amd_{anchor.name.lower()}_ask_ark_asvk.pem").read_bytes()
        )
        assert {one.der for one in published} == set(anchor.certificates)
