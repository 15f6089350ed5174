# SPDX-License-Identifier: Apache-2.0
"""Files of reference values, and policies that wait for them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation import corim, reference
from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.reference import ReferenceValues
from confide.attestation.verifier import Verifier
from support import snp
from support.refusal import code_of, only_typed_errors

EMPTY, INVALID = "not_acceptable.empty_policy", "configuration.invalid"
A, B, C = b"\xaa" * 48, b"\xbb" * 48, b"\xcc" * 32
WAITING = """
# A comment that the filled policy does not keep.
tees = ["snp", "tdx"]
tcb_status = ["UpToDate", "SWHardeningNeeded"]
[reference.snp]
measurement = "FILES"
min_tcb = { Milan = { snp = 8 } }
[reference.tdx]
mrtd = "FILES"
rtmr1 = ["%s"]
rtmr2 = "FILES"
""" % ("ee" * 48)


def values(tee: str = "snp", origin: str = "release 7", **registers: tuple[bytes, ...]) -> ReferenceValues:
    return ReferenceValues(tee, registers or {"measurement": (A,)}, origin)


ALL = (values(), values("tdx", mrtd=(A, B)), values("tdx", "release 8", rtmr2=(B,), mrtd=(B,)))


def test_a_policy_is_filled_and_its_digest_covers_the_values() -> None:
    policy = AppraisalPolicy.from_toml(WAITING)
    assert policy.unfilled == (("snp", "measurement"), ("tdx", "mrtd"), ("tdx", "rtmr2"))

    filled = policy.with_reference_values(ALL)

    assert filled.unfilled == ()
    filled.check_filled()
    assert filled.digest == hashlib.sha256(filled.to_toml().encode()).digest() != policy.digest
    by_hand = AppraisalPolicy.from_toml(
        WAITING.replace('measurement = "FILES"', f'measurement = ["{A.hex()}"]')
        .replace('mrtd = "FILES"', f'mrtd = ["{A.hex()}", "{B.hex()}"]')
        .replace('rtmr2 = "FILES"', f'rtmr2 = ["{B.hex()}"]')
    )
    assert filled.reference == by_hand.reference
    assert (filled.tees, filled.tcb_status) == (by_hand.tees, by_hand.tcb_status)
    other = policy.with_reference_values((values(measurement=(B,)), *ALL[1:]))
    assert other.digest != filled.digest
    assert AppraisalPolicy.from_toml(filled.to_toml()).digest == filled.digest


def test_ev_28_a_policy_that_waits_refuses() -> None:
    policy = AppraisalPolicy.from_toml(WAITING)
    assert code_of(policy.check_filled) == EMPTY
    assert code_of(Verifier, policy) == EMPTY


@pytest.mark.parametrize("given", [(), ALL[:1], ALL[:2], ALL[1:], (values("nitro", pcr0=(A,)),)])
def test_ev_28_a_register_without_values_refuses(given: tuple[ReferenceValues, ...]) -> None:
    assert code_of(AppraisalPolicy.from_toml(WAITING).with_reference_values, given) == EMPTY


def test_values_of_another_tee_or_register_fill_nothing() -> None:
    policy = AppraisalPolicy.from_toml('tees = ["snp"]\n[reference.snp]\nmeasurement = "FILES"\n')
    assert code_of(policy.with_reference_values, (values("tdx", measurement=(A,)),)) == EMPTY
    assert code_of(policy.with_reference_values, (values("snp", host_data=(C,)),)) == EMPTY
    assert code_of(policy.with_reference_values, (values("snp", measurement=()),)) == EMPTY


def test_a_value_of_another_length_is_refused() -> None:
    policy = AppraisalPolicy.from_toml('tees = ["snp"]\n[reference.snp]\nmeasurement = "FILES"\n')
    assert code_of(policy.with_reference_values, (values(measurement=(C,)),)) == INVALID


def test_values_for_a_policy_that_waits_for_none_are_refused() -> None:
    policy = AppraisalPolicy.from_table({"tees": ["snp"], "reference": {"snp": {"measurement": [A.hex()]}}})
    assert code_of(policy.with_reference_values, ALL) == INVALID


def test_pcrs_of_a_tpm_are_spelled_by_number() -> None:
    policy = AppraisalPolicy.from_toml(
        f'tees = ["tpm"]\n[reference.tpm]\npcr = {{ 4 = "FILES", 9 = ["{C.hex()}"] }}\n'
    )
    assert policy.unfilled == (("tpm", "pcr4"),)
    filled = policy.with_reference_values((values("tpm", pcr4=(C,)),))
    assert filled.reference["tpm"].measured
    assert f'4 = ["{C.hex()}"]' in filled.to_toml()


def test_a_filled_policy_accepts_the_guest_that_was_measured_and_no_other() -> None:
    case = snp.mint(version=5)
    measured = case.evidence.platform.data[0x90:0xC0]
    policy = AppraisalPolicy.from_toml('tees = ["snp"]\n[reference.snp]\nmeasurement = "FILES"\n')

    def verify(value: bytes) -> Any:
        filled = policy.with_reference_values((values(measurement=(value,)),))
        verifier = Verifier(filled, extra_anchors=(snp.authority().anchor(),))
        return verifier.verify(case.evidence, at=snp.AT)

    assert verify(measured).tee == "snp"
    assert code_of(verify, A) == "not_acceptable.measurement"


# Files.


def test_a_file_is_read_back_as_it_was_written() -> None:
    data = reference.write(ALL)
    assert reference.read(data) == ALL
    assert reference.write(reference.read(data)) == data


def test_a_file_may_be_corim() -> None:
    data = corim.write(ALL[1:], identifier="acme")
    assert {one.tee for one in reference.read(data)} == {"tdx"}


GOOD = b'[[reference_values]]\ntee = "snp"\norigin = "x"\nregisters = { measurement = ["aa"] }\n'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", INVALID),
        (b"reference_values = []", EMPTY),
        (b"\xff", INVALID),
        (b"a = ", INVALID),
        (GOOD.replace(b'"aa"', b""), EMPTY),
        (GOOD.replace(b'"aa"', b'"AA"'), INVALID),
        (GOOD.replace(b'"aa"', b'"a"'), INVALID),
        (GOOD.replace(b'"aa"', b'""'), INVALID),
        (GOOD.replace(b'"aa"', b"1"), INVALID),
        (GOOD.replace(b'"aa"', b'"' + b"aa" * 65 + b'"'), INVALID),
        (GOOD.replace(b'["aa"]', b'"ANY"'), INVALID),
        (GOOD.replace(b'["aa"]', b'"FILES"'), INVALID),
        (GOOD.replace(b"measurement", b"Measurement"), INVALID),
        (GOOD.replace(b'{ measurement = ["aa"] }', b"{}"), INVALID),
        (GOOD.replace(b'"x"', b'""'), INVALID),
        (GOOD.replace(b"origin", b"orign"), INVALID),
        (GOOD + b'more = "x"\n', INVALID),
        (b"x = 1\n" + GOOD, INVALID),
        (GOOD + b"#" * reference.MAX_FILE, INVALID),
        (b"a" + b".a" * 5000 + b" = 1", INVALID),
    ],
)
def test_a_file_with_a_mistake_is_refused(data: bytes, code: str) -> None:
    assert only_typed_errors(reference.read, GOOD) is not None
    assert code_of(reference.read, data) == code


@given(st.binary(max_size=200))
def test_nothing_but_typed_errors_comes_out_of_any_file(data: bytes) -> None:
    only_typed_errors(reference.read, data)


_REGISTERS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True),
    st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=3, unique=True).map(tuple),
    min_size=1,
    max_size=3,
)
_ORIGIN = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)


@given(
    st.lists(
        st.builds(ReferenceValues, st.sampled_from(["snp", "tdx", "tpm"]), _REGISTERS, _ORIGIN),
        min_size=1,
        max_size=3,
    )
)
def test_any_values_survive_a_file(given_: list[ReferenceValues]) -> None:
    assert reference.read(reference.write(given_)) == tuple(given_)


def test_evidence_is_not_a_file_of_values() -> None:
    evidence = Evidence(EvidencePart("snp", snp.mint(version=5).evidence.platform.data)).encode()
    assert code_of(reference.read, evidence) == INVALID
