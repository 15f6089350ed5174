# SPDX-License-Identifier: Apache-2.0
"""Real certificates of vendors at recorded times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from confide.crypto import x509
from support.refusal import code_of

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 6, 1, tzinfo=UTC)
CHIPS = [
    ("milan-v2-aci", "milan"),
    ("milan-v2-azure", "milan"),
    ("milan-v2-debug", "milan"),
    ("milan-v3", "milan"),
    ("genoa-v3", "genoa"),
    ("genoa-v5-zen4c", "genoa"),
    ("turin-v5", "turin"),
    ("turin-vcek-only", "turin"),
]


def amd(shared: Path, product: str) -> tuple[x509.Certificate, ...]:
    """ASK, ARK and ASVK of a product."""
    data = (shared / "evidence" / "roots" / f"amd_{product}_ask_ark_asvk.pem").read_bytes()
    return x509.parse_pem(data)


def vcek(shared: Path, chip: str) -> x509.Certificate:
    (found,) = x509.parse_certificates((shared / "evidence" / "sev-snp" / f"{chip}.vcek.der").read_bytes())
    return found


@pytest.mark.parametrize(("chip", "product"), CHIPS)
def test_a_vcek_leads_over_the_ask_to_the_pinned_ark(shared: Path, chip: str, product: str) -> None:
    ask, ark, asvk = amd(shared, product)
    leaf = vcek(shared, chip)

    assert x509.verify_chain(leaf, [asvk, ark, ask], [ark], at=AT) == (leaf, ask, ark)
    assert (leaf.key_kind, ask.key_kind, ark.key_kind) == ("p384", "rsa4096", "rsa4096")
    assert leaf.extensions["1.3.6.1.4.1.3704.1.1"].value[:2] == b"\x02\x01"


def test_the_vlek_leads_over_the_asvk_while_it_was_valid(shared: Path) -> None:
    ask, ark, asvk = amd(shared, "milan")
    (leaf,) = x509.parse_certificates(
        (shared / "evidence" / "sev-snp" / "milan-v3-vlek-aws.vlek.der").read_bytes()
    )

    at = datetime(2025, 6, 1, tzinfo=UTC)
    assert x509.verify_chain(leaf, [ask, asvk], [ark], at=at) == (leaf, asvk, ark)
    assert code_of(x509.verify_chain, leaf, [ask, asvk], [ark], at=AT) == "not_genuine.expired"


@pytest.mark.parametrize("chip", ["bad-vcek-legacy", "bad-vcek-new"])
def test_forged_vceks_of_another_projects_tests_are_refused(shared: Path, chip: str) -> None:
    ask, ark, asvk = amd(shared, "milan")
    at = datetime(2024, 1, 1, tzinfo=UTC)

    assert (
        code_of(x509.verify_chain, vcek(shared, chip), [ask, asvk], [ark], at=at)
        == "not_genuine.bad_signature"
    )


def test_ev_17_the_root_of_one_product_does_not_vouch_for_another(shared: Path) -> None:
    roots = {product: amd(shared, product) for product in ("milan", "genoa", "turin")}

    for chip, product in CHIPS:
        for other, (ask, ark, asvk) in roots.items():
            if other != product:
                pool = [ask, asvk, *roots[product]]
                assert code_of(x509.verify_chain, vcek(shared, chip), pool, [ark], at=AT) == (
                    "not_genuine.untrusted_root"
                )


def test_every_flipped_byte_of_a_real_vcek_is_refused(shared: Path) -> None:
    ask, ark, _ = amd(shared, "genoa")
    original = vcek(shared, "genoa-v3").der
    for index in range(0, len(original), 3):
        spoiled = bytearray(original)
        spoiled[index] ^= 0x10

        def attempt(data: bytes = bytes(spoiled)) -> None:
            x509.verify_chain(x509.Certificate.from_der(data), [ask], [ark], at=AT)

        assert code_of(attempt).split(".")[0] in {"malformed", "not_genuine"}
