# SPDX-License-Identifier: Apache-2.0
"""Which enclaves a policy admits. Each refusal starts from a case that passes and changes one thing."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.errors import ConfigurationError, NotAcceptable
from confide.simulator import dcap
from confide.simulator.sgx import Platform
from confide.tees.sgx import appraise, authenticate

DATA = bytes(range(64))
MRENCLAVE = bytes(range(32)).hex()
MRSIGNER = bytes(range(32, 64)).hex()
FLAGS = 0x05
KSS = 1 << 7


@functools.cache
def platform() -> Platform:
    return Platform.create(seed=4)


def policy(reference: dict[str, Any] | None = None, **keys: Any) -> AppraisalPolicy:
    table = (
        reference if reference and {"mrenclave", "mrsigner"} & set(reference) else {"mrenclave": [MRENCLAVE]}
    )
    return AppraisalPolicy.from_table(
        {"tees": ["sgx"], **keys, "reference": {"sgx": table | (reference or {})}}
    )


def claims(collateral: dict[str, Any] | None = None, version: int = 3, **body: Any) -> Any:
    data, endorsements = platform().evidence(DATA, collateral=collateral, version=version, body=body)
    return authenticate.authenticate(
        data, endorsements=endorsements, anchors=(platform().anchor,), at=dcap.AT, require_revocation=False
    )


def findings(
    reference: dict[str, Any] | None = None, keys: dict[str, Any] | None = None, **made: Any
) -> list[str]:
    wanted = policy(reference, **(keys or {}))
    found = appraise.appraise(claims(**made), wanted.reference["sgx"], wanted)
    return [reason.code.removeprefix("not_acceptable.") for reason in found]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_minted_cases_pass(version: int) -> None:
    assert findings(version=version) == []
    assert appraise.trustworthiness(claims(version=version), policy().reference["sgx"]).tier == Tier.AFFIRMING
    json.dumps(appraise.describe(claims(version=version)))


def test_another_enclave_is_refused() -> None:
    assert findings({"mrenclave": [MRSIGNER]}) == ["measurement"]
    assert findings({"mrenclave": [MRSIGNER, MRENCLAVE]}) == []
    assert findings({"mrenclave": "ANY"}) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mrsigner": [MRENCLAVE]}, "signer"),
        ({"isvprodid": 8}, "measurement"),
        ({"min_isvsvn": 4}, "below_minimum"),
    ],
)
def test_dcap_16_a_signer_is_pinned_with_product_and_version(change: dict[str, Any], code: str) -> None:
    right = {"mrsigner": [MRSIGNER], "isvprodid": 7, "min_isvsvn": 3}
    assert findings(right) == []
    assert findings(right | change) == [code]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"mrsigner": [MRSIGNER]},
        {"mrsigner": [MRSIGNER], "isvprodid": 1},
        {"mrsigner": [MRSIGNER], "min_isvsvn": 1},
        {"mrsigner": []},
        {"mrenclave": []},
        {"isvprodid": 1, "min_isvsvn": 1},
        {"mrsigner": [MRSIGNER], "mrenclave": "ANY"},
    ],
)
def test_dcap_16_a_signer_without_product_or_version_is_an_empty_policy(table: dict[str, Any]) -> None:
    with pytest.raises(NotAcceptable) as caught:
        appraise.parse_reference(table)
    assert caught.value.code == "not_acceptable.empty_policy"


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (FLAGS | 1 << 1, "debug"),
        (FLAGS | 1 << 4, "attributes"),
        (FLAGS | 1 << 5, "attributes"),
        (FLAGS & ~1, "attributes"),
        (FLAGS | 1 << 3, "attributes"),
        (FLAGS | 1 << 8, "attributes"),
        (FLAGS | 1 << 63, "attributes"),
    ],
)
def test_dcap_15_an_attribute_that_opens_the_enclave_is_refused(flags: int, code: str) -> None:
    assert findings(flags=flags) == [code]


def test_dcap_15_privileged_attributes_are_allowed_by_name_and_never_affirming() -> None:
    for bit, name in ((4, "provision_key"), (5, "einittoken_key")):
        assert findings({"allow_attributes": [name]}, flags=FLAGS | 1 << bit) == []
        other = {"provision_key", "einittoken_key"} - {name}
        assert findings({"allow_attributes": list(other)}, flags=FLAGS | 1 << bit) == ["attributes"]
        vector = appraise.trustworthiness(claims(flags=FLAGS | 1 << bit), policy().reference["sgx"])
        assert vector.tier == Tier.WARNING
    assert findings(keys={"allow_debug": True}, flags=FLAGS | 2) == []
    debug = appraise.trustworthiness(claims(flags=FLAGS | 2), policy().reference["sgx"])
    assert debug.tier == Tier.CONTRAINDICATED


@pytest.mark.parametrize(("bit", "name"), [(2, "mode64bit"), (6, "cet"), (7, "kss"), (10, "aex_notify")])
def test_dcap_15_chosen_attributes_must_be_as_the_policy_says(bit: int, name: str) -> None:
    for value in (True, False):
        flags = FLAGS & ~(1 << bit) | value << bit
        assert findings({"attributes": {name: value}}, flags=flags) == []
        assert findings({"attributes": {name: not value}}, flags=flags) == ["attributes"]


@pytest.mark.parametrize(
    ("key", "field", "value", "other", "code"),
    [
        ("xfrm", "xfrm", 0xE7, 0x1F, "attributes"),
        ("miscselect", "miscselect", 1, 0, "attributes"),
        ("configid", "configid", b"\x01" * 64, bytes(64), "measurement"),
        ("isvextprodid", "isvextprodid", b"\x02" * 16, bytes(16), "measurement"),
        ("isvfamilyid", "isvfamilyid", b"\x03" * 16, bytes(16), "measurement"),
        ("min_configsvn", "configsvn", 5, 4, "below_minimum"),
    ],
)
def test_dcap_15_pinned_fields_that_differ_are_refused(
    key: str, field: str, value: Any, other: Any, code: str
) -> None:
    written = value.hex() if isinstance(value, bytes) else value
    reference = {key: written if key == "min_configsvn" else [written]}
    assert findings(reference, flags=FLAGS | KSS, **{field: value}) == []
    assert findings(reference, flags=FLAGS | KSS, **{field: other}) == [code]
    if code != "attributes":
        # Without KSS the fields say nothing, whatever they hold.
        assert findings(reference, flags=FLAGS, **{field: value}) == ["attributes"]


def test_dcap_19_collateral_below_the_floor_is_refused() -> None:
    collateral = {"tcb_info": {"tcbEvaluationDataNumber": 16}}
    assert findings(collateral=collateral, keys={"min_tcb_evaluation": 17}) == ["below_minimum"]
    assert findings(collateral=collateral, keys={"min_tcb_evaluation": 16}) == []


def test_an_old_platform_is_refused_with_status_date_and_advisories() -> None:
    collateral = {
        "tcb_info": {"tcbLevels": [platform().level((6, *(0,) * 15), 5, "OutOfDate", "INTEL-SA-00233")]}
    }
    wanted = policy()
    found = appraise.appraise(claims(collateral), wanted.reference["sgx"], wanted)
    assert [reason.code for reason in found] == ["not_acceptable.out_of_date"]
    assert all(word in found[0].message for word in ("OutOfDate", "2026-02-11", "INTEL-SA-00233"))


def test_a_machine_that_is_not_named_is_refused() -> None:
    assert findings({"ppids": ["22" * 16]}) == ["identity"]
    assert findings({"ppids": ["11" * 16], "fmspcs": [dcap.FMSPC.hex()]}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"mrenclave": "any"},
        {"mrenclave": [MRENCLAVE.upper()]},
        {"mrsigner": "ANY"},
        {"isvprodid": -1},
        {"isvprodid": 1 << 16},
        {"min_isvsvn": "3"},
        {"attributes": {"debug": True}},
        {"attributes": {"kss": 1}},
        {"allow_attributes": ["debug"]},
        {"xfrm": [-1]},
        {"miscselect": [1 << 32]},
        {"configid": ["00"]},
        {"mrowner": []},
    ],
)
def test_a_table_that_is_written_wrongly_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        appraise.parse_reference({"mrenclave": [MRENCLAVE]} | change)


def test_wildcards_and_measured_tell_what_is_left_open() -> None:
    signer = appraise.parse_reference({"mrsigner": [MRSIGNER], "isvprodid": 7, "min_isvsvn": 3})
    anything = appraise.parse_reference({"mrenclave": "ANY"})
    assert (signer.measured, signer.wildcards, signer.anchors) == (True, (), ())
    assert (anything.measured, anything.wildcards) == (False, ("mrenclave",))
    assert appraise.trustworthiness(claims(), anything).executables == 33
