# SPDX-License-Identifier: Apache-2.0
"""Results: the tier is never better than the worst claim, and what is shown is what was decided."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation.result import Tier, Vector, refusal, verdict
from confide.errors import (
    AttestationError,
    ConfideError,
    ConfigurationError,
    EndorsementsMissing,
    MalformedError,
    NotAcceptable,
    NotGenuine,
    Reason,
)
from support import bundles, snp

claim = st.integers(-128, 127)


@given(st.builds(Vector, claim, claim, claim, claim, claim, claim, claim, claim))
def test_ear_01_the_tier_is_never_above_the_worst_claim(vector: Vector) -> None:
    tiers = [Tier.of(value) for value in vector.to_json().values()]

    assert vector.tier == max(tiers)
    assert all(vector.tier >= tier for tier in tiers)


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        (-1, Tier.NONE),
        (0, Tier.NONE),
        (1, Tier.NONE),
        (2, Tier.AFFIRMING),
        (31, Tier.AFFIRMING),
        (-2, Tier.AFFIRMING),
        (-32, Tier.AFFIRMING),
        (32, Tier.WARNING),
        (95, Tier.WARNING),
        (-33, Tier.WARNING),
        (-96, Tier.WARNING),
        (96, Tier.CONTRAINDICATED),
        (99, Tier.CONTRAINDICATED),
        (127, Tier.CONTRAINDICATED),
        (-97, Tier.CONTRAINDICATED),
        (-128, Tier.CONTRAINDICATED),
    ],
)
def test_ear_02_a_claim_has_the_tier_of_its_range(value: int, tier: Tier) -> None:
    assert Tier.of(value) is tier


@pytest.mark.parametrize("value", [-129, 128, 1000])
def test_ear_02_a_claim_that_is_no_signed_byte_is_refused(value: int) -> None:
    with pytest.raises(MalformedError):
        Tier.of(value)


def test_an_empty_vector_claims_nothing() -> None:
    assert Vector().tier is Tier.NONE


def test_a_result_is_json_with_the_fields_of_the_command_line() -> None:
    result = snp.verify(snp.mint(version=5))

    shown = json.loads(json.dumps(result.to_json()))

    assert (shown["verdict"], shown["tee"], shown["simulated"], shown["tier"]) == (
        "accepted",
        "snp",
        False,
        "affirming",
    )
    assert shown["claims"]["measurement"] == snp.MEASUREMENT.hex()
    assert shown["claims"]["reported_tcb"] == {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}
    assert {reason["code"] for reason in shown["reasons"]} == {"note.not_checked", "note.freshness"}
    assert shown["freshness"] == "not checked"
    assert [check["name"] for check in shown["checks"]] == [
        "signature",
        "chain",
        "revocation",
        "product",
        "tcb",
        "identity",
    ]


def test_a_result_over_a_bundle_names_its_key() -> None:
    nonce = b"\x01" * 32

    shown = bundles.verifier().verify(bundles.fresh(nonce), at=snp.AT, nonce=nonce).to_json()

    assert isinstance(shown["kid"], str)
    assert len(shown["kid"]) == 64
    assert shown["freshness"] == "fresh"


def test_a_wildcard_shows_in_the_result_and_lowers_the_tier() -> None:
    result = snp.verify(snp.mint(), reference={"measurement": "ANY"})

    assert "note.wildcard" in [reason.code for reason in result.reasons]
    assert (result.vector.executables, result.tier.name) == (33, "WARNING")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MalformedError("truncated", "x"), "not_genuine"),
        (NotGenuine("revoked", "x"), "not_genuine"),
        (NotAcceptable("debug", "x"), "not_acceptable"),
        (EndorsementsMissing("crl", "x"), "undecided"),
        (AttestationError("internal", "x"), "undecided"),
        (ConfigurationError("invalid", "x"), "undecided"),
    ],
)
def test_every_error_has_a_verdict_and_none_of_them_is_accepted(error: ConfideError, expected: str) -> None:
    assert verdict(error) == expected
    assert refusal(error)["verdict"] == expected


def test_a_refusal_names_every_finding_and_no_claim_that_was_not_authenticated() -> None:
    error = NotAcceptable("debug", "one", further=(Reason("not_acceptable.vmpl", "policy", "two", "hint"),))

    shown = refusal(error)

    assert [reason["code"] for reason in shown["reasons"]] == [  # type: ignore[attr-defined]
        "not_acceptable.debug",
        "not_acceptable.vmpl",
    ]
    assert shown["claims"] == {}
    json.dumps(shown)
