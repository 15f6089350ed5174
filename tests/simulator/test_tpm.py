# SPDX-License-Identifier: Apache-2.0
"""The simulated TPM: accepted only by consent, reproducible from a seed, and with every field open."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.simulator import tpm as simulator
from confide.simulator.tpm import AT, Platform
from confide.tees.tpm import endorse, hcl, public, wire
from support import tpm


def evidence(made: Platform) -> Evidence:
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    return Evidence(EvidencePart("tpm", part), endorsements=endorsements)


ANY = AppraisalPolicy.from_table({"tees": ["tpm"], "reference": {"tpm": {"pcr": "ANY"}}})


def test_simulated_evidence_needs_an_anchor_and_consent_and_never_affirms() -> None:
    made = Platform.create(seed=1)
    assert tpm.codes(lambda: Verifier(ANY).verify(evidence(made), at=AT)) == ["not_genuine.untrusted_root"]
    anchored = Verifier(ANY, extra_anchors=(made.anchor,))
    assert tpm.codes(lambda: anchored.verify(evidence(made), at=AT)) == ["not_acceptable.simulated"]
    result = Verifier(ANY, extra_anchors=(made.anchor,), allow_simulated=True).verify(evidence(made), at=AT)
    assert result.simulated
    assert result.tier.name == "CONTRAINDICATED"


def test_a_key_that_is_pinned_by_both_a_simulator_and_a_person_counts_as_simulated() -> None:
    made = Platform.create(seed=1)
    real = dataclasses.replace(made.pin, simulated=False)
    part, endorsements = made.evidence(tpm.REPORT_DATA)
    assert tpm.authenticate(part, endorsements, anchors=(real, made.pin)).simulated
    assert tpm.authenticate(part, endorsements, anchors=(made.pin, real)).simulated
    assert not tpm.authenticate(part, endorsements, anchors=(real,)).simulated


def test_keys_follow_from_a_seed_or_are_new() -> None:
    assert Platform.create(seed=1).root == Platform.create(seed=1).root
    assert Platform.create(seed=1).root != Platform.create(seed=2).root
    assert Platform.create().fingerprint != Platform.create().fingerprint


def test_simulated_roots_are_not_among_the_pinned_ones() -> None:
    pinned = {der for anchor in endorse.anchors() for der in anchor.certificates}
    made = Platform.create(seed=1)
    assert not pinned & {made.root, made.ca}
    assert made.anchor.simulated
    assert made.pin.simulated


@pytest.mark.parametrize(
    "change",
    [
        {"extra_data": b"other"},
        {"firmware_version": 1},
        {"clock_info": wire.ClockInfo(1, 2, 3, safe=False)},
        {"qualified_signer": b"\x00\x0b" + bytes(32)},
        {"pcr_digest": bytes(32)},
        {"selections": (wire.Selection("sha256", (1, 2, 3)),)},
    ],
)
def test_every_field_of_the_quote_can_be_set(change: dict[str, Any]) -> None:
    made = Platform.create(seed=1)
    part, _ = made.evidence(tpm.REPORT_DATA, fields=change)
    found = wire.decode_attest(wire.TpmEvidence.decode(part).attest)
    for name, value in change.items():
        assert getattr(found, name) == value


@pytest.mark.parametrize("name", sorted(public.ATTRIBUTES))
def test_every_attribute_of_the_key_can_be_set(name: str) -> None:
    area = public.decode_public(Platform.create(seed=1).area(attributes=public.attributes(name)))
    assert [one for one in public.ATTRIBUTES if area.has(one)] == [name]


@pytest.mark.parametrize("name", ["signature", "version", "report_size", "request_type", "status"])
def test_every_field_of_the_hcl_header_can_be_set(name: str) -> None:
    report = simulator.hcl_report(bytes(1184), b"{}", header={name: 77})
    assert getattr(hcl.Header.decode(report[:32]), name) == 77


@pytest.mark.parametrize("name", ["data_size", "version", "report_type", "hash_type", "claims_size"])
def test_every_field_of_the_runtime_header_can_be_set(name: str) -> None:
    report = simulator.hcl_report(bytes(1184), b"{}", runtime={name: 77})
    assert getattr(hcl.RuntimeHeader.decode(report[1216:1236]), name) == 77


def test_no_private_key_is_printed() -> None:
    assert repr(Platform.create(seed=1)) == "Platform(redacted)"
