# SPDX-License-Identifier: Apache-2.0
"""Examples of every vendor's evidence, under roots that are this machine's own and the same at every call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from confide.attestation.evidence import Evidence
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.attestation.verifier import Verifier
from confide.errors import AttestationError, ConfigurationError, NotGenuine
from confide.simulator import devices, snp_reports

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 1, tzinfo=UTC)
TABLES = {
    "snp": 'measurement = "ANY"',
    "tdx": 'mrtd = "ANY"',
    "sgx": 'mrenclave = "ANY"',
    "nitro": 'pcr0 = "ANY"',
    "tpm": 'pcr = "ANY"',
    "nvidia": "",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated") / "devices"


def policy(tee: str, top: str = "") -> AppraisalPolicy:
    return AppraisalPolicy.from_toml(f'{top}tees = ["{tee}"]\n[reference.{tee}]\n{TABLES[tee]}\n')


def example(tee: str, home: Path, at: datetime = AT) -> Evidence:
    data = bytes(range(32 if tee == "nvidia" else 64))
    # Through the bundle's bytes, so that what is written can be read.
    return Evidence.decode(devices.example(tee, data, at=at, directory=home).encode())


@pytest.mark.parametrize("tee", devices.TEES)
def test_an_example_is_accepted_with_both_consents_and_is_never_affirming(tee: str, home: Path) -> None:
    verifier = Verifier(policy(tee), extra_anchors=devices.anchors(home), allow_simulated=True)

    for at in (AT, AT + timedelta(days=400)):
        result = verifier.verify(example(tee, home, at), at=at)

        assert result.simulated
        assert result.tier is Tier.CONTRAINDICATED
        assert result.to_json()["simulated"] is True


@pytest.mark.parametrize("tee", devices.TEES)
def test_sim_01_an_example_is_refused_under_the_vendors_roots(tee: str, home: Path) -> None:
    for verifier in (Verifier(policy(tee)), Verifier(policy(tee), allow_simulated=True)):
        with pytest.raises(NotGenuine) as caught:
            verifier.verify(example(tee, home), at=AT)

        assert "not_genuine.untrusted_root" in [reason.code for reason in caught.value.reasons]


@pytest.mark.parametrize("tee", devices.TEES)
def test_sim_03_the_root_alone_is_no_consent(tee: str, home: Path) -> None:
    with pytest.raises(AttestationError) as caught:
        Verifier(policy(tee), extra_anchors=devices.anchors(home)).verify(example(tee, home), at=AT)

    assert [reason.code for reason in caught.value.reasons] == ["not_acceptable.simulated"]


def test_sim_06_another_installation_has_other_roots(home: Path, tmp_path: Path) -> None:
    own, others = devices.anchors(home), devices.anchors(tmp_path / "other")

    assert own == devices.anchors(home)
    assert all(anchor.simulated for anchor in own)
    assert {anchor.tee for anchor in own} == set(devices.TEES)
    assert not {der for anchor in own for der in anchor.certificates} & {
        der for anchor in others for der in anchor.certificates
    }


def test_an_unknown_device_is_the_callers_error(home: Path) -> None:
    with pytest.raises(ConfigurationError):
        devices.example("sev", bytes(64), at=AT, directory=home)


def test_sim_06_minted_snp_reports_have_keys_of_their_own_and_a_root_that_says_simulated() -> None:
    one, other = (snp_reports.Authority.create("Turin") for _ in range(2))
    case = snp_reports.mint(product="Turin", version=5, root=one, report={"vmpl": 1})
    table = AppraisalPolicy.from_table(
        {"tees": ["snp"], "reference": {"snp": {"measurement": "ANY", "vmpl": [1]}}}
    )

    accepted = Verifier(table, extra_anchors=(one.simulated_anchor,), allow_simulated=True).verify(
        case.evidence, at=snp_reports.AT
    )
    assert accepted.simulated
    assert one.ark != other.ark
    with pytest.raises(NotGenuine):
        Verifier(table, extra_anchors=(other.simulated_anchor,), allow_simulated=True).verify(
            case.evidence, at=snp_reports.AT
        )


def test_anchors_are_made_for_the_tees_that_are_asked_for_only(home: Path) -> None:
    assert [anchor.tee for anchor in devices.anchors(home, tees=("nitro", "snp", "token"))] == [
        "snp",
        "nitro",
    ]
    assert devices.anchors(home, tees=()) == ()
