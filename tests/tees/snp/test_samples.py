# SPDX-License-Identifier: Apache-2.0
"""Real reports of real machines, at their recorded times, with their documented verdicts.

These pin every offset and key: a mistake made alike in the layouts, the minting and the verifying shows only here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import x509
from confide.errors import MalformedError, NotAcceptable, NotGenuine
from confide.tees import formats
from confide.tees.snp import endorse, wire
from support import snp

if TYPE_CHECKING:
    from pathlib import Path

    from confide.attestation.result import AttestationResult

ACCEPTED = (
    "milan-v2-azure",
    "milan-v2-aci",
    "milan-v3",
    "milan-v3-vlek-aws",
    "genoa-v3",
    "genoa-v5-zen4c",
    "turin-v5",
)
FORGED = ("bad-vcek-legacy", "bad-vcek-new")


def entry(shared: Path, name: str) -> dict[str, Any]:
    entries = json.loads((shared / "evidence" / "manifest.json").read_text())["entries"]
    return next(one for one in entries if one["id"] == name and one["tee"] == "sev-snp")


def evidence(shared: Path, name: str) -> Evidence:
    folder = shared / "evidence" / "sev-snp"
    kind = "vlek" if "vlek" in name else "vcek"
    certificate = formats.read_endorsements([folder / f"{name}.{kind}.der"])
    report = formats.read((folder / f"{name}.report.bin").read_bytes())
    return Evidence(report.platform, endorsements=certificate)


def verify(shared: Path, name: str, *, at: str | None = None, **reference: Any) -> AttestationResult:
    facts = entry(shared, name)
    table = {"measurement": [facts["facts"]["measurement"]], "vmpl": [facts["facts"]["vmpl"]]} | reference
    policy = AppraisalPolicy.from_table({"tees": ["snp"], "reference": {"snp": table}})
    time = datetime.fromisoformat(at or facts["verify_at"])
    return Verifier(policy).verify(evidence(shared, name), at=time)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_real_report_is_accepted_with_its_documented_facts(shared: Path, name: str) -> None:
    facts = entry(shared, name)["facts"]

    result = verify(shared, name)

    shown = result.to_json()["claims"]
    assert isinstance(shown, dict)
    assert (result.tee, result.simulated, result.tier.name) == ("snp", False, "AFFIRMING")
    assert shown["report_version"] == facts["version"]
    assert shown["product"].lower() == facts["product"]
    assert shown["measurement"] == facts["measurement"]
    assert shown["report_data"] == facts["report_data"]
    assert shown["host_data"] == facts["host_data"]
    assert shown["chip_id"].startswith(facts["chip_id_prefix"])
    assert shown["guest_policy"]["value"] == facts["policy"]
    assert f"SEV-{shown['signing_key'].upper()}" == facts["signer"]
    assert shown["reported_tcb"]["microcode"] == facts["cert_ext"]["ucode"]
    assert shown["reported_tcb"]["snp"] == facts["cert_ext"]["snp"]


def test_snp_03_every_real_version_is_read_by_its_own_layout(shared: Path) -> None:
    versions = {}
    for name in ACCEPTED:
        data = (shared / "evidence" / "sev-snp" / f"{name}.report.bin").read_bytes()
        versions[name] = wire.decode_report(data)

    assert {type(report).__name__ for report in versions.values()} == {"ReportV2", "ReportV3", "ReportV5"}
    assert not hasattr(versions["milan-v2-azure"], "cpuid_fam_id")
    assert all(report.encode() for report in versions.values())


def test_a_real_debuggable_guest_is_refused_for_being_so(shared: Path) -> None:
    with pytest.raises(NotAcceptable) as caught:
        verify(shared, "milan-v2-debug")

    assert snp.codes(caught.value) == ["not_acceptable.debug"]


def test_a_real_debuggable_guest_is_contraindicated_where_it_is_allowed(shared: Path) -> None:
    facts = entry(shared, "milan-v2-debug")
    policy = AppraisalPolicy.from_table(
        {
            "tees": ["snp"],
            "allow_debug": True,
            "reference": {"snp": {"measurement": [facts["facts"]["measurement"]]}},
        }
    )

    at = datetime.fromisoformat(facts["verify_at"])
    result = Verifier(policy).verify(evidence(shared, "milan-v2-debug"), at=at)

    assert result.tier.name == "CONTRAINDICATED"


def test_an_old_tcb_is_refused_where_a_minimum_is_set(shared: Path) -> None:
    with pytest.raises(NotAcceptable) as caught:
        verify(shared, "milan-v2-azure", min_tcb={"snp": 9})

    assert snp.codes(caught.value) == ["not_acceptable.below_minimum"]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_certificate_is_refused_with_all_that_is_wrong_with_it(shared: Path, name: str) -> None:
    with pytest.raises(NotGenuine) as caught:
        verify(shared, name)

    codes = snp.codes(caught.value)
    stages = [reason.stage for reason in caught.value.reasons]
    assert codes[:2] == ["not_genuine.bad_signature", "not_genuine.bad_signature"]
    assert stages[:2] == ["signature", "endorsement"]
    assert "not_genuine.tcb_mismatch" in codes
    assert codes[-1] == "not_genuine.identity_mismatch"


def test_the_vlek_of_a_real_machine_expires(shared: Path) -> None:
    with pytest.raises(NotGenuine) as caught:
        verify(shared, "milan-v3-vlek-aws", at="2026-01-01T00:00:00Z")

    assert snp.codes(caught.value) == ["not_genuine.expired"]


def test_the_vcek_of_a_real_machine_is_not_valid_before_its_time(shared: Path) -> None:
    with pytest.raises(NotGenuine) as caught:
        verify(shared, "milan-v3", at="2026-02-01T00:00:00Z")

    assert snp.codes(caught.value) == ["not_genuine.not_yet_valid"]


def test_a_turin_certificate_without_a_report_is_read_with_its_fmc_level(shared: Path) -> None:
    data = (shared / "evidence" / "sev-snp" / "turin-vcek-only.vcek.der").read_bytes()

    key = endorse.read_key_certificate(x509.Certificate.from_der(data))

    assert key.product.name == "Turin"
    assert key.tcb == endorse.Tcb(bootloader=0, tee=0, snp=0, microcode=9, fmc=0)
    assert key.hwid == bytes.fromhex("1e550a8ee5cf9f4d")


def test_a_turin_certificate_without_a_report_chains_to_the_pinned_root(shared: Path) -> None:
    data = (shared / "evidence" / "sev-snp" / "turin-vcek-only.vcek.der").read_bytes()
    anchor = next(anchor for anchor in endorse.anchors() if anchor.name == "Turin")
    ark, ask, asvk = (x509.Certificate.from_der(der) for der in anchor.certificates)

    chain = x509.verify_chain(
        x509.Certificate.from_der(data), [asvk, ask], [ark], at=datetime(2026, 6, 1, tzinfo=UTC)
    )

    assert [one.der for one in chain[1:]] == [ask.der, ark.der]


def test_ev_01_a_real_report_cut_at_any_byte_is_refused(shared: Path) -> None:
    data = (shared / "evidence" / "sev-snp" / "genoa-v3.report.bin").read_bytes()

    for length in range(len(data)):
        with pytest.raises(MalformedError) as caught:
            formats.read(data[:length], format="snp")
        assert caught.value.code == "malformed.truncated"


def _flips(shared: Path, name: str, step: int) -> list[int]:
    """The single-bit flips of a real report that a Verifier still accepts."""
    facts = entry(shared, name)
    table = {"measurement": [facts["facts"]["measurement"]], "vmpl": [facts["facts"]["vmpl"]]}
    verifier = Verifier(AppraisalPolicy.from_table({"tees": ["snp"], "reference": {"snp": table}}))
    at = datetime.fromisoformat(facts["verify_at"])
    genuine = evidence(shared, name)
    verifier.verify(genuine, at=at)
    survived = []
    for bit in range(0, 8 * len(genuine.platform.data), step):
        changed = bytearray(genuine.platform.data)
        changed[bit // 8] ^= 1 << bit % 8
        flipped = Evidence(EvidencePart("snp", bytes(changed)), endorsements=genuine.endorsements)
        try:
            verifier.verify(flipped, at=at)
        except (MalformedError, NotGenuine):
            continue
        survived.append(bit)
    return survived


def test_ev_03_no_sampled_bit_of_a_real_report_is_malleable(shared: Path) -> None:
    assert _flips(shared, "turin-v5", 17) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["milan-v2-azure", "genoa-v3", "turin-v5"])
def test_ev_03_no_bit_of_a_real_report_is_malleable(shared: Path, name: str) -> None:
    assert _flips(shared, name, 1) == []


def test_ev_01_no_cut_certificate_is_accepted(shared: Path) -> None:
    genuine = evidence(shared, "genoa-v3")
    der = genuine.endorsements.certificates[0]

    for length in range(1, len(der), 7):
        cut = Evidence(genuine.platform, endorsements=Endorsements((der[:length],)))
        with pytest.raises(MalformedError):
            Verifier(snp.policy()).verify(cut, at=snp.AT)
