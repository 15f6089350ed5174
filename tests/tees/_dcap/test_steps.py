# SPDX-License-Identifier: Apache-2.0
"""No step of a verification can fail quietly, be left out, or leak from one verification into another."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from confide.attestation.evidence import Endorsements
from confide.errors import ConfideError, NotGenuine
from confide.simulator import dcap as simulator
from confide.tees._dcap import chain, identity, verify
from support import dcap

STEPS = (
    (verify, "_verify_quote"),
    (verify, "_check_report_data"),
    (verify, "_find_pck"),
    (verify, "_verify_report"),
    (verify, "_verify_pck"),
    (verify, "select_info"),
    (verify, "select_identity"),
    (verify, "_match_platform"),
    (chain, "check_crls"),
    (identity, "check_quoting_enclave"),
)
# Those whose result is needed further on: without it there are no claims.
WITH_RESULT = STEPS[2:3] + STEPS[4:]


class Unforeseen(Exception):
    pass


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(("module", "name"), STEPS)
def test_ev_29_an_unforeseen_error_in_a_step_lets_nothing_pass(
    monkeypatch: pytest.MonkeyPatch, tee: str, module: Any, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Unforeseen

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(Unforeseen):
        dcap.accepted(dcap.platform(tee))


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(("module", "name"), STEPS)
def test_ev_29_the_finding_of_each_step_refuses(
    monkeypatch: pytest.MonkeyPatch, tee: str, module: Any, name: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotGenuine("bad_signature", "a finding of this step")

    monkeypatch.setattr(module, name, refuse)
    with pytest.raises(NotGenuine) as caught:
        dcap.accepted(dcap.platform(tee))
    assert "not_genuine.bad_signature" in dcap.codes(caught.value)


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(("module", "name"), WITH_RESULT)
def test_ev_30_a_step_that_gives_nothing_lets_nothing_pass(
    monkeypatch: pytest.MonkeyPatch, tee: str, module: Any, name: str
) -> None:
    monkeypatch.setattr(module, name, lambda *_, **__: None)
    with pytest.raises(NotGenuine) as caught:
        dcap.accepted(dcap.platform(tee))
    assert caught.value.code == "not_genuine.chain_invalid"


def test_ev_32_verifications_at_once_do_not_mix() -> None:
    """Four platforms of one authority's names and other keys, each good under its own root alone."""
    made = [dcap.platform(tee, seed) for tee in dcap.TEES for seed in (1, 2)]
    cases = [(one, *one.evidence(dcap.REPORT_DATA)) for one in made]

    def judge(index: int) -> bool:
        own, data, endorsements = cases[index % 4]
        anchor = made[index // 4 % 4].anchor
        try:
            dcap.authenticate(own.TEE, data, endorsements, (anchor,))
        except ConfideError:
            return False
        return True

    expected = [made[index % 4] is made[index // 4 % 4] for index in range(64)]
    with ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            assert list(pool.map(judge, range(64))) == expected


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_31_what_a_refusal_says_holds_nothing_of_the_quote(tee: str) -> None:
    made = dcap.platform(tee)
    secret = b"\xa5" * 64
    data, endorsements = made.evidence(secret, signature=b"\x01" * 64, qe_report={"mrsigner": b"\xa5" * 32})
    with pytest.raises(NotGenuine) as caught:
        dcap.authenticate(tee, data, endorsements, (made.anchor,))
    assert [reason.stage for reason in caught.value.reasons] == ["signature", "identity"]
    assert "a5a5" not in "".join(reason.message + reason.hint for reason in caught.value.reasons)
    assert simulator.QE_SIGNER.hex() not in str(caught.value)


@pytest.mark.parametrize("tee", dcap.TEES)
def test_collateral_of_one_trusted_root_does_not_serve_a_quote_of_another(tee: str) -> None:
    one, other = dcap.platform(tee, 1), dcap.platform(tee, 2)
    data, _ = one.evidence(dcap.REPORT_DATA)
    own = one.collateral()
    both = (one.anchor, other.anchor)
    crls = {key: json.loads(own)[key] for key in ("root_ca_crl", "pck_crl", "pck_crl_issuer_chain")}
    more = dcap.document(other.collateral(document=crls)).merge(Endorsements(crls=(other.crl("root"),)))

    assert dcap.judged(tee, data, dcap.document(own), both) == ["accepted"]
    assert dcap.judged(tee, data, more, both) == ["not_genuine.untrusted_root"]


def test_ev_30_a_module_that_nobody_looked_at_lets_nothing_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "check_module", lambda *_: None)
    with pytest.raises(NotGenuine) as caught:
        dcap.accepted(dcap.platform("tdx"))
    assert caught.value.code == "not_genuine.chain_invalid"


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("length", [2, 3])
def test_ev_30_a_chain_whose_crls_nobody_looked_at_lets_nothing_pass(
    monkeypatch: pytest.MonkeyPatch, tee: str, length: int
) -> None:
    check = chain.check_crls

    def skipping(one: chain.Chain, *rest: Any, **named: Any) -> Any:
        return None if len(one.path) == length else check(one, *rest, **named)

    monkeypatch.setattr(chain, "check_crls", skipping)
    with pytest.raises(NotGenuine) as caught:
        dcap.accepted(dcap.platform(tee))
    assert caught.value.code == "not_genuine.chain_invalid"
