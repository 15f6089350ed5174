# SPDX-License-Identifier: Apache-2.0
"""The table ``[reference.nitro]``: what it takes, what it refuses, and what it says of itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from confide.errors import AttestationError, ConfideError
from confide.tees.nitro import appraise, endorse
from confide.tees.nitro.appraise import parse_reference
from support import nitro

PCR = "ab" * 48


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({}, "not_acceptable.empty_policy"),
        ({"pcr1": [PCR], "pcr2": [PCR]}, "not_acceptable.empty_policy"),
        ({"pcr0": []}, "not_acceptable.empty_policy"),
        ({"pcr0": [PCR], "pcr8": []}, "not_acceptable.empty_policy"),
        ({"pcr0": [PCR], "nonce": []}, "not_acceptable.empty_policy"),
        ({"pcr0": [PCR], "user_data": []}, "not_acceptable.empty_policy"),
        ({"pcr0": "any"}, "configuration.invalid"),
        ({"pcr0": PCR}, "configuration.invalid"),
        ({"pcr0": [PCR[:-2]]}, "configuration.invalid"),
        ({"pcr0": [PCR + "00"]}, "configuration.invalid"),
        ({"pcr0": [PCR.upper()]}, "configuration.invalid"),
        ({"pcr0": [PCR[:-1] + " "]}, "configuration.invalid"),
        ({"pcr0": [7]}, "configuration.invalid"),
        ({"pcr0": ["ANY"]}, "configuration.invalid"),
        ({"pcr0": [PCR, "00" * 48]}, "configuration.invalid"),
        ({"pcr0": [PCR], "pcr2": ["00" * 48]}, "configuration.invalid"),
        ({"pcr0": [PCR], "pcr32": [PCR]}, "configuration.invalid"),
        ({"pcr0": [PCR], "PCR1": [PCR]}, "configuration.invalid"),
        ({"pcr0": [PCR], "pcr_1": [PCR]}, "configuration.invalid"),
        ({"pcr0": [PCR], "module_id": ["i-0"]}, "configuration.invalid"),
        ({"pcr0": [PCR], "time": "later"}, "configuration.invalid"),
        ({"pcr0": [PCR], "time": True}, "configuration.invalid"),
        ({"pcr0": [PCR], "nonce": "aa"}, "configuration.invalid"),
        ({"pcr0": [PCR], "nonce": [""]}, "configuration.invalid"),
        ({"pcr0": [PCR], "nonce": ["a"]}, "configuration.invalid"),
        ({"pcr0": [PCR], "nonce": ["AA"]}, "configuration.invalid"),
        ({"pcr0": [PCR], "nonce": [7]}, "configuration.invalid"),
        ({"pcr0": [PCR], "public_key": ["00" * 1025]}, "configuration.invalid"),
    ],
)
def test_ev_28_a_table_that_pins_nothing_or_is_written_wrongly_is_refused(
    table: dict[str, Any], code: str
) -> None:
    with pytest.raises(ConfideError) as caught:
        parse_reference(table)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("table", "measured", "wildcards"),
    [
        ({"pcr0": [PCR], "pcr1": [PCR], "pcr2": [PCR]}, True, ()),
        ({"pcr0": [PCR]}, True, ("pcr1", "pcr2")),
        ({"pcr0": "ANY"}, False, ("pcr0", "pcr1", "pcr2")),
        ({"pcr0": "ANY", "pcr1": [PCR], "pcr2": [PCR]}, False, ("pcr0",)),
        (
            {"pcr0": [PCR], "pcr1": [PCR], "pcr2": [PCR], "pcr3": "ANY", "pcr31": "ANY"},
            True,
            ("pcr3", "pcr31"),
        ),
    ],
)
def test_a_table_says_what_it_pins_and_what_it_leaves_open(
    table: dict[str, Any], measured: bool, wildcards: tuple[str, ...]
) -> None:
    reference = parse_reference(table)

    assert (reference.measured, reference.wildcards) == (measured, wildcards)


def test_only_a_table_for_archives_brings_anchors_of_its_own() -> None:
    assert parse_reference({"pcr0": [PCR]}).anchors == ()
    assert parse_reference({"pcr0": [PCR], "time": "now"}).anchors == ()
    assert parse_reference({"pcr0": [PCR], "time": "document"}).anchors == endorse.archive_anchors()


def test_registers_of_place_and_signer_may_be_pinned_to_nothing() -> None:
    nothing = ["00" * 48]

    assert nitro.verify(nitro.document(), reference={"pcr3": nothing, "pcr8": nothing})


def test_any_of_several_values_will_do() -> None:
    values = [PCR, nitro.platform().pcrs[0].hex()]

    assert nitro.verify(nitro.document(), reference={"pcr0": values})
    assert nitro.refusal(nitro.document(), reference={"pcr0": values[:1]}) == ["not_acceptable.measurement"]


def test_a_measured_image_is_affirmed_and_another_is_not() -> None:
    claims = nitro.claims(nitro.document())
    pinned, open_ = parse_reference({"pcr0": [PCR]}), parse_reference({"pcr0": "ANY"})

    assert appraise.trustworthiness(claims, pinned).executables == 3
    assert appraise.trustworthiness(claims, open_).executables == 33
    assert appraise.trustworthiness(claims, pinned).instance_identity == 0
    assert appraise.trustworthiness(claims, pinned).tier.name == "AFFIRMING"


def test_claims_and_tables_of_another_tee_are_not_judged() -> None:
    claims = nitro.claims(nitro.document())
    reference, policy = parse_reference({"pcr0": [PCR]}), nitro.policy()

    class Other:
        """What another TEE's claims look like from here."""

        details: object = object()
        measurements = claims.measurements

    other: Any = Other()
    for call in (
        lambda: appraise.appraise(other, reference, policy),
        lambda: appraise.appraise(claims, object(), policy),
        lambda: appraise.trustworthiness(claims, object()),
        lambda: appraise.describe(other),
    ):
        with pytest.raises(AttestationError) as caught:
            call()
        assert caught.value.code == "attestation.internal"


def test_a_parsed_table_cannot_be_changed() -> None:
    reference = parse_reference({"pcr0": [PCR]})

    with pytest.raises(TypeError):
        reference.pcrs["pcr0"] = None  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference.archival = True  # type: ignore[misc]


def test_everything_that_is_known_is_described_and_can_be_written_as_json() -> None:
    import json

    shown = appraise.describe(nitro.claims(nitro.document(nonce=b"\x01", public_key=b"\x02")))

    assert (shown["nonce"], shown["public_key"], shown["user_data"]) == ("01", "02", nitro.REPORT_DATA.hex())
    assert (shown["debug"], shown["judged_at_document_time"]) == (False, False)
    assert shown["timestamp"] == "2026-06-01T12:00:00+00:00"
    assert json.loads(json.dumps(shown)) == shown
