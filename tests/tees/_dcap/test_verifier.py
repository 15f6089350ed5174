# SPDX-License-Identifier: Apache-2.0
"""Quotes through the Verifier, as relying parties have them: raw files, collateral files, a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import EndorsementsMissing, NotAcceptable
from confide.tees import formats
from support import dcap

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.result import AttestationResult

ANY: dict[str, dict[str, Any]] = {"tdx": {"mrtd": "ANY"}, "sgx": {"mrenclave": "ANY"}}


def policy(tee: str, **top: Any) -> AppraisalPolicy:
    return AppraisalPolicy.from_table({"tees": [tee], **top, "reference": {tee: ANY[tee]}})


def verify(shared: Path, name: str, collateral: str | None, run: dcap.Run, **top: Any) -> AttestationResult:
    folder = shared / "evidence" / run.tee
    evidence = formats.read((folder / f"{name}.quote.bin").read_bytes())
    assert evidence.platform.format == run.tee
    files = [] if collateral is None else [folder / f"{name}.collateral-{collateral}.json"]
    stapled = Evidence(evidence.platform, endorsements=formats.read_endorsements(files))
    return Verifier(policy(run.tee, **top)).verify(stapled, at=run.at)


@pytest.mark.parametrize(
    ("name", "collateral"),
    [("v4-uptodate", "eval17"), ("v5-uptodate", "eval18"), ("v4-dstack-eventlog", "eval17")],
)
def test_a_real_quote_that_is_up_to_date_is_accepted(shared: Path, name: str, collateral: str) -> None:
    result = verify(shared, name, collateral, dcap.run(shared, name))

    assert (result.tee, result.simulated) == ("tdx", False)
    shown = result.to_json()
    assert shown["verdict"] == "accepted"
    assert "UpToDate" in str(shown["claims"])
    assert not any(reason.code == "note.unproven" for reason in result.reasons)


def test_a_real_quote_is_accepted_only_while_the_policy_admits_its_status(shared: Path) -> None:
    run = dcap.run(shared, "v3-config-and-hardening")
    words = ["UpToDate", "ConfigurationAndSWHardeningNeeded"]

    assert verify(shared, "v3-config-and-hardening", "eval17", run, tcb_status=words).tee == "sgx"
    with pytest.raises(NotAcceptable) as caught:
        verify(shared, "v3-config-and-hardening", "eval17", run)
    assert "INTEL-SA-00289" in str(caught.value)


def test_an_old_tcb_is_not_acceptable_and_names_its_advisories(shared: Path) -> None:
    run = next(one for one in dcap.runs(shared) if one.name == "v4-gcp-cos113 2026-06-27")
    with pytest.raises(NotAcceptable) as caught:
        verify(shared, "v4-gcp-cos113", "eval21", run)

    assert caught.value.code == "not_acceptable.out_of_date"
    assert "INTEL-SA-01397" in caught.value.message


def test_without_collateral_the_verdict_is_undecided(shared: Path) -> None:
    with pytest.raises(EndorsementsMissing):
        verify(shared, "v4-uptodate", None, dcap.run(shared, "v4-uptodate"))


@pytest.mark.parametrize("tee", dcap.TEES)
def test_sim_03_simulated_quotes_need_two_consents(tee: str) -> None:
    made = dcap.platform(tee)
    data, endorsements = made.evidence(dcap.REPORT_DATA)
    evidence = Evidence(EvidencePart(tee, data), endorsements=endorsements)

    with pytest.raises(NotAcceptable) as caught:
        Verifier(policy(tee), extra_anchors=(made.anchor,)).verify(evidence, at=dcap.AT)
    assert caught.value.code == "not_acceptable.simulated"
    both = Verifier(policy(tee), extra_anchors=(made.anchor,), allow_simulated=True)
    result = both.verify(evidence, at=dcap.AT)
    assert result.simulated
    assert result.tier.name != "AFFIRMING"


def test_a_layout_without_a_real_sample_is_noted() -> None:
    made = dcap.platform("sgx")
    data, endorsements = made.evidence(dcap.REPORT_DATA, version=4)
    verifier = Verifier(policy("sgx"), extra_anchors=(made.anchor,), allow_simulated=True)
    result = verifier.verify(Evidence(EvidencePart("sgx", data), endorsements=endorsements), at=dcap.AT)

    notes = [reason.message for reason in result.reasons if reason.code == "note.unproven"]
    assert len(notes) == 1
    assert notes[0].endswith(
        "no sample of real hardware has shown a quote of version 4 with a body of type 1"
    )
