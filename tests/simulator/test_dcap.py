# SPDX-License-Identifier: Apache-2.0
"""Simulated TDX and SGX platforms: another root, the same bytes, and never taken for Intel's."""

from __future__ import annotations

import pytest

from confide.crypto import x509
from confide.errors import NotGenuine
from confide.simulator import dcap as simulator
from confide.simulator import sgx, tdx
from support import dcap

PLATFORMS: list[type[simulator.Platform]] = [tdx.Platform, sgx.Platform]


@pytest.mark.parametrize("made", PLATFORMS)
def test_sim_01_a_simulated_quote_is_never_under_intels_root(made: type[simulator.Platform]) -> None:
    platform = made.create()
    data, endorsements = platform.evidence(dcap.REPORT_DATA)

    with pytest.raises(NotGenuine) as caught:
        dcap.authenticate(made.TEE, data, endorsements, dcap.intel(made.TEE))
    assert set(dcap.codes(caught.value)) == {"not_genuine.untrusted_root"}


@pytest.mark.parametrize("made", PLATFORMS)
def test_sim_02_claims_under_a_simulated_root_say_so(made: type[simulator.Platform]) -> None:
    platform = made.create()
    data, endorsements = platform.evidence(dcap.REPORT_DATA)

    anchors = (*dcap.intel(made.TEE), platform.anchor)
    assert dcap.authenticate(made.TEE, data, endorsements, anchors).simulated


@pytest.mark.parametrize("made", PLATFORMS)
def test_names_of_simulated_certificates_are_not_intels(made: type[simulator.Platform]) -> None:
    for role, der in made.create().certificates.items():
        certificate = x509.Certificate.from_der(der)
        assert "OU=SIMULATED" in certificate.subject, role
        assert "Intel Corporation" not in certificate.subject


@pytest.mark.parametrize("made", PLATFORMS)
def test_a_seed_gives_the_same_platform_and_none_gives_another(made: type[simulator.Platform]) -> None:
    assert made.create(seed=5).certificates == made.create(seed=5).certificates
    assert made.create(seed=5).certificates != made.create(seed=6).certificates
    assert made.create().certificates["root"] != made.create().certificates["root"]


@pytest.mark.parametrize("made", PLATFORMS)
def test_keys_are_not_shown(made: type[simulator.Platform]) -> None:
    assert repr(made.create(seed=5)) == "Platform(redacted)"


def test_the_simulated_collateral_of_one_platform_serves_no_other() -> None:
    one, other = tdx.Platform.create(), tdx.Platform.create()
    data = one.quote(dcap.REPORT_DATA)

    found = dcap.judged("tdx", data, dcap.document(other.collateral()), (one.anchor,))
    assert set(found) == {"not_genuine.untrusted_root", "not_genuine.bad_signature"} & set(found)
    assert found[0].startswith("not_genuine.")
