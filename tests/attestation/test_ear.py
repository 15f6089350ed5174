# SPDX-License-Identifier: Apache-2.0
"""EAR: results of this verifier written as JWT and CWT, and results of others read."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation import ear
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import AttestationResult, Tier, Vector
from confide.attestation.tokens import ear as tokens_ear
from confide.attestation.verifier import Verifier
from confide.crypto import cose, jose
from confide.crypto.signing import SigningKey
from confide.simulator import nvidia
from confide.wire import cbor
from support import bundles, snp, tokens
from support.refusal import code_of, only_typed_errors

NONCE = b"\x10" * 32
NON_CANONICAL, UNKNOWN = "malformed.non_canonical", "malformed.unknown_format"
KEY = SigningKey.from_bytes(b"\x07" * 32)
WHO: dict[str, Any] = {"developer": "https://verifier.example", "build": "confide 0"}


def result(*, simulated: bool = False) -> AttestationResult:
    """An accepted bundle."""
    verifier = Verifier(
        snp.policy(None, service=bundles.SERVICE),
        extra_anchors=(snp.authority().anchor(simulated=simulated),),
        allow_simulated=simulated,
    )
    return verifier.verify(
        bundles.fresh(NONCE).encode(),
        at=snp.AT,
        nonce=NONCE,
        age=timedelta(seconds=2),
        purpose="channel",
        audience="client",
    )


def claims(**changes: Any) -> dict[str, Any]:
    """A passing set of claims with members changed."""
    return copy.deepcopy(tokens.EAR) | changes


def dotted(**changes: Any) -> dict[str, Any]:
    """The same in Veraison's older spelling."""
    submod = {
        "ear.status": "affirming",
        "ear.trustworthiness-vector": {"instance-identity": 2, "executables": 3, "hardware": 2},
        "ear.appraisal-policy-id": "policy://acme/7",
    }
    return {
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "iat": 1666529184,
        "ear.verifier-id": {"developer": "https://veraison.example", "build": "vts 1"},
        "submods": {"PSA": submod},
    } | changes


# Written.


def test_ear_06_a_result_becomes_a_jwt_with_its_parts_nonce_policy_and_evidence() -> None:
    given = result()

    token = jose.Jws.decode(
        ear.to_jwt(given, KEY, **WHO, issuer="https://me", audience="you", nonce=NONCE),
        algorithms=frozenset({"EdDSA"}),
    )

    token.verify(tokens.ED25519_SPKI + KEY.public)
    assert token.typ == "eat+jwt"
    found = token.claims()
    assert found["eat_profile"] == "tag:ietf.org,2026:rats/ear#03"
    assert (found["iss"], found["aud"]) == ("https://me", "you")
    assert found["iat"] == int(snp.AT.timestamp())
    assert found["exp"] == found["iat"] + 300
    assert found["eat_nonce"] == tokens.b64(NONCE)
    assert found["ear_verifier_id"] == WHO
    assert found["ear_status"] == given.tier.name.lower() == "affirming"
    (submod,) = found["submods"].values()
    assert list(found["submods"]) == ["snp"]
    digest = tokens.b64(given.policy_digest)
    assert submod["ear_appraisal_policy_ids"] == [f"ni:///sha-256;{digest}"]
    made = {name: value for name, value in given.vector.to_json().items() if value}
    assert submod["ear_trustworthiness_vector"] == made
    assert made["hardware"] == 2
    assert submod["eat_nonce"] == tokens.b64(given.claims.report_data)
    assert submod["confide"] == {"tee": "snp", "simulated": False, "binding": "platform"}
    bare = replace(given.evidence, endorsements=Endorsements())
    evidence = hashlib.sha256(bare.encode()).digest()
    assert found["confide"]["evidence_sha256"] == tokens.b64(evidence)
    assert given.kid is not None
    assert found["confide"]["kid"] == tokens.b64(given.kid)


def test_a_cwt_says_what_the_jwt_says() -> None:
    given = result()
    options = {**WHO, "nonce": NONCE, "issuer": "a", "audience": "b"}

    data = ear.to_cwt(given, KEY, **options)

    payload = cose.verify1(data, KEY.public, content_type="application/eat+cwt")
    assert ear.from_cbor(payload) == ear.to_claims(given, **options)
    raw = cbor.decode(payload, what="EAR", max_size=1 << 16)
    assert raw[265] == ear.PROFILE
    assert raw[10] == NONCE
    assert raw[266]["snp"][1000] == 2
    assert raw[266]["snp"][1001][4] == 2


def test_what_is_written_is_read_back() -> None:
    found = ear.read(ear.to_claims(result(), **WHO, nonce=NONCE))
    assert found.nonce == NONCE
    assert (found.developer, found.build) == (WHO["developer"], WHO["build"])
    assert found.tier is Tier.AFFIRMING
    assert found.submods["snp"].vector == result().vector


def test_a_result_does_not_outlive_what_it_rests_on() -> None:
    found = ear.to_claims(result(), **WHO, lifetime=timedelta(days=100 * 365))
    assert found["exp"] == int(result().expires.timestamp())


@pytest.mark.parametrize(
    "options", [{"nonce": b"short"}, {"nonce": bytes(65)}, {"developer": ""}, {"lifetime": timedelta(0)}]
)
def test_a_result_that_would_be_no_ear_is_not_written(options: dict[str, Any]) -> None:
    assert code_of(ear.to_claims, result(), **(WHO | options)).startswith("configuration.")


def written(form: str, *, simulated: bool) -> tokens.Case:
    """The token of another verifier's result, under a policy that pins that verifier's key."""
    options = {**WHO, "issuer": "https://verifier.example", "audience": "https://me.example", "nonce": NONCE}
    given = result(simulated=simulated)
    data = ear.to_jwt(given, KEY, **options).encode() if form == "jwt" else ear.to_cwt(given, KEY, **options)
    signer = tokens.Signer("EdDSA", KEY)
    endorsements = Endorsements(documents=(EvidencePart("jwks", signer.jwks()),))
    pins = {"submods.snp.ear_appraisal_policy_ids": [["ni:///sha-256;" + tokens.b64(given.policy_digest)]]}
    base = replace(tokens.case("ear"), data=data, at=snp.AT, endorsements=endorsements)
    return base.pinned(keys=[signer.pin], claims=pins)


@pytest.mark.parametrize("form", ["jwt", "cwt"])
def test_another_relying_party_accepts_what_is_written(form: str) -> None:
    given = written(form, simulated=False)
    found = given.accept(report_data=NONCE)
    assert found.tier is Tier.AFFIRMING
    assert found.vector == result().vector
    assert found.to_json()["claims"]["hardware"] == ["snp"]
    last = given.data[-2:-1]
    changed = given.token(given.data[:-2] + (b"A" if last != b"A" else b"B") + given.data[-1:])
    assert changed.codes() == ["not_genuine.bad_signature"]
    assert given.pinned(keys=["00" * 32]).codes() == ["endorsements_missing.certificate"]


@pytest.mark.parametrize("form", ["jwt", "cwt"])
def test_sim_03_a_simulated_result_stays_simulated_in_its_token(form: str) -> None:
    given = written(form, simulated=True)
    assert given.codes() == ["not_acceptable.attributes", "not_acceptable.tee"]
    claims_ = ear.to_claims(result(simulated=True), **WHO)
    (submod,) = claims_["submods"].values()
    assert submod["confide"]["simulated"] is True
    assert submod["ear_status"] == claims_["ear_status"] == "contraindicated"
    assert submod["ear_trustworthiness_vector"]["hardware"] == 97
    assert submod["ear_trustworthiness_vector"]["instance-identity"] == 97


def test_a_submodule_for_each_device() -> None:
    """A guest with a GPU beside it, of which nothing shows that they belong together."""
    gpu = nvidia.Platform.create()
    report, own = gpu.evidence(NONCE)
    guest = snp.mint(version=5).evidence
    tables = {
        "snp": {"measurement": [snp.MEASUREMENT.hex()]},
        "nvidia": {"require_binding": False},
    }
    verifier = Verifier(
        AppraisalPolicy.from_table({"tees": ["snp", "nvidia"], "reference": tables}),
        extra_anchors=(snp.authority().anchor(), gpu.anchor),
        allow_simulated=True,
    )
    both = Evidence(
        guest.platform,
        devices=(EvidencePart("nvidia", report),),
        endorsements=guest.endorsements.merge(own),
    )
    given = verifier.verify(both, at=snp.AT)

    found = ear.to_claims(given, **WHO)

    assert list(found["submods"]) == ["snp", "nvidia-0"]
    device = found["submods"]["nvidia-0"]
    assert device["confide"] == {"tee": "nvidia", "simulated": True, "binding": "unproven"}
    assert device["eat_nonce"] == tokens.b64(NONCE)
    assert device["ear_status"] == found["ear_status"] == "contraindicated"
    assert found["submods"]["snp"]["ear_status"] == "affirming"
    assert ear.read(found).tier is given.tier is Tier.CONTRAINDICATED
    assert ear.from_cbor(cbor.encode(ear._to_cbor(found))) == found


# Read.


def test_both_spellings_are_understood() -> None:
    new, old = ear.read(claims()), ear.read(dotted())
    assert new.submods["cpu"].vector == old.submods["PSA"].vector == Vector(2, 0, 3, 0, 2)
    assert new.submods["cpu"].policy_ids == old.submods["PSA"].policy_ids == ("policy://acme/7",)
    assert new.tier is old.tier is Tier.AFFIRMING


@pytest.mark.parametrize("where", ["outer", "inner"])
@pytest.mark.parametrize("base", ["new", "old"])
def test_ear_07_both_spellings_in_one_token_are_refused(base: str, where: str) -> None:
    mixed = claims() if base == "new" else dotted()
    target = mixed if where == "outer" else next(iter(mixed["submods"].values()))
    target["ear.status" if base == "new" else "ear_status"] = "affirming"
    assert code_of(ear.read, mixed) == NON_CANONICAL


@pytest.mark.parametrize(
    "profile",
    [
        None,
        "",
        1,
        "tag:ietf.org,2026:rats/ear#02",
        "tag:ietf.org,2026:rats/ear#03 ",
        "tag:github.com,2022:veraison/ear",
        "tag:github.com/veraison/ar4si,2022-10-17",
    ],
)
def test_ear_05_an_unknown_profile_is_refused(profile: object) -> None:
    assert code_of(ear.read, claims(eat_profile=profile)) == UNKNOWN
    assert tokens.case("ear").changed("eat_profile", profile).codes() == [UNKNOWN]


def test_ear_05_the_profile_decides_the_spelling() -> None:
    assert code_of(ear.read, dotted(eat_profile=ear.PROFILE)) == NON_CANONICAL


@pytest.mark.parametrize(
    ("status", "vector"),
    [("affirming", {"executables": 33}), ("affirming", {"hardware": 97}), ("warning", {"hardware": 96})],
)
def test_ear_01_a_status_better_than_its_worst_claim_is_refused(status: str, vector: dict[str, int]) -> None:
    submod = {"ear_status": status, "ear_trustworthiness_vector": vector}
    assert code_of(ear.read, claims(submods={"cpu": submod})) == NON_CANONICAL


def test_ear_01_an_overall_status_better_than_the_worst_part_is_refused() -> None:
    parts = {"a": {"ear_status": "affirming"}, "b": {"ear_status": "warning"}}
    assert code_of(ear.read, claims(submods=parts, ear_status="affirming")) == NON_CANONICAL
    assert ear.read(claims(submods=parts, ear_status="warning")).tier is Tier.WARNING


_NAMES = [name.replace("_", "-") for name in Vector.__slots__]


@given(st.dictionaries(st.sampled_from(_NAMES), st.integers(-128, 127)), st.sampled_from(list(ear._TIERS)))
def test_ear_01_the_tier_is_never_better_than_the_worst_claim(vector: dict[str, int], status: str) -> None:
    submod: dict[str, Any] = {"ear_status": status, "ear_trustworthiness_vector": vector}
    found = only_typed_errors(tokens_ear.read, claims(submods={"cpu": submod}), {})
    if found is not None:
        worst = max((Tier.of(value) for value in vector.values()), default=Tier.NONE)
        if status == "none":
            assert found.tier is (worst if worst is Tier.CONTRAINDICATED else Tier.NONE)
        else:
            assert found.tier >= max(worst, Tier[status.upper()])
        assert found.vector.tier >= worst
        assert found.vector.tier >= Tier[status.upper()]


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        (5, "affirming"),
        (31, "affirming"),
        (40, "warning"),
        (95, "warning"),
        (99, "contraindicated"),
        (-97, "contraindicated"),
    ],
)
def test_ear_02_a_value_that_nobody_named_counts_by_its_range(value: int, tier: str) -> None:
    submod = {"ear_status": tier, "ear_trustworthiness_vector": {"hardware": value}}
    assert ear.read(claims(submods={"cpu": submod})).tier.name.lower() == tier


@pytest.mark.parametrize("value", [128, -129, 2**63, "2", 2.0, True, None])
def test_ear_02_a_value_that_is_no_signed_byte_is_refused(value: object) -> None:
    submod = {"ear_status": "contraindicated", "ear_trustworthiness_vector": {"hardware": value}}
    assert code_of(ear.read, claims(submods={"cpu": submod})).startswith("malformed.")


def test_ear_04_a_required_submodule_that_is_missing_is_refused() -> None:
    """A policy that pins a claim of the GPU's submodule does not accept a token about the CPU alone."""
    pins = {
        "submods.*.ear_appraisal_policy_ids": [["policy://acme/7"]],
        "submods.gpu0.ear_status": ["affirming"],
    }
    given = tokens.case("ear").pinned(claims=pins)
    assert given.codes() == ["not_acceptable.attributes"]
    both = {"cpu": tokens.EAR["submods"]["cpu"], "gpu0": tokens.EAR["submods"]["cpu"]}
    assert given.changed("submods", both).codes() == []


@pytest.mark.parametrize(
    "submods", [{}, None, [], {"cpu": None}, {"cpu": {}}, {"cpu": {"ear_status": "good"}}]
)
def test_ear_04_submodules_that_are_none_are_refused(submods: object) -> None:
    assert code_of(ear.read, claims(submods=submods)).startswith("malformed.")


@pytest.mark.parametrize("status", ["none", "warning", "contraindicated"])
def test_a_verdict_that_is_not_affirming_is_refused_by_default(status: str) -> None:
    given = tokens.case("ear").changed("submods/cpu/ear_status", status)
    assert given.codes() == ["not_acceptable.attributes"]
    if status == "warning":
        accepted = given.pinned(tier="warning").accept()
        assert accepted.tier is Tier.WARNING
    else:
        # `none` beside affirming claims is the verifier's choice not to affirm.
        assert given.pinned(tier="warning").codes() == ["not_acceptable.attributes"]


@pytest.mark.parametrize("status", ["none", "warning", "contraindicated"])
def test_ear_01_an_overall_status_worse_than_every_part_counts(status: str) -> None:
    given = tokens.case("ear").changed("ear_status", status)
    assert given.codes() == ["not_acceptable.attributes"]
    assert given.pinned(tier="warning").codes() == (
        [] if status == "warning" else ["not_acceptable.attributes"]
    )
    if status == "warning":
        assert given.pinned(tier="warning").accept().tier is Tier.WARNING


@pytest.mark.parametrize("other", ["affirming", "warning"])
def test_ear_01_an_attester_of_which_nothing_is_claimed_is_not_hidden_by_a_warning(other: str) -> None:
    cpu = tokens.EAR["submods"]["cpu"]
    silent = {name: value for name, value in cpu.items() if name != "ear_trustworthiness_vector"}
    parts = {"a": silent | {"ear_status": "none"}, "b": cpu | {"ear_status": other}}
    given = tokens.case("ear").changed("submods", parts)
    assert given.pinned(tier="warning").codes() == ["not_acceptable.attributes"]


def test_a_verdict_that_claims_nothing_is_refused() -> None:
    given = tokens.case("ear").changed(
        "submods/cpu", {"ear_status": "none", "ear_appraisal_policy_ids": ["policy://acme/7"]}
    )
    assert given.pinned(tees=["unknown"]).codes() == ["not_acceptable.attributes"]
    assert given.pinned(tees=["unknown"], tier="warning").codes() == ["not_acceptable.attributes"]


# Interoperation: the shapes of the claims files that Veraison's tool accepts (ok) and refuses (ko), written anew.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"submods": {"test": {"ear.status": "affirming", "ear.appraisal-policy-id": "policy://x/1"}}},
        {"ear.raw-evidence": "3q2-7w"},
        {"ear.veraison.annotated-evidence": {"k1": "v1"}, "ear.veraison.policy-claims": {"foo": "bar"}},
        {
            "submods": {
                "TPM": {
                    "ear.status": "affirming",
                    "ear.veraison.key-attestation": {"akpub": tokens.b64(tokens.Signer.of("ES256").spki)},
                }
            }
        },
        {"submods": {"test": {"ear.status": 2}}},
    ],
)
def test_ear_08_what_veraison_accepts_is_read(changes: dict[str, Any]) -> None:
    assert ear.read(dotted(**changes)).tier is Tier.AFFIRMING


@pytest.mark.parametrize(
    "changes",
    [
        {"submods": {"TPM": {"ear.status": "affirming", "ear.veraison.key-attestation": {}}}},
        {"submods": {"TPM": {"ear.status": "affirming", "ear.veraison.key-attestation": {"akpub": "+/"}}}},
        {"submods": {"test": {"ear.status": "unknown"}}},
        {"submods": {"test": {"ear.status": 3}}},
        {"submods": {"test": {"ear.status": "affirming", "ear.trustworthiness-vector": {"novel": 2}}}},
        {"submods": {"test": {"ear.status": "affirming", "ear.appraisal-policy-id": 1}}},
        {"submods": {"test": {}}},
        {"ear.verifier-id": {"build": "1"}},
        {"ear.verifier-id": None},
        {"eat_nonce": "short"},
        {"eat_nonce": "a" * 97},
    ],
)
def test_ear_08_what_veraison_refuses_is_refused(changes: dict[str, Any]) -> None:
    assert code_of(ear.read, dotted(**changes)).startswith("malformed.")


def test_ear_08_the_example_of_the_draft_in_cbor_is_read() -> None:
    """draft-ietf-rats-ear, figure "CBOR claims-set: contraindicated appraisal"."""
    payload = cbor.encode(
        {
            265: "tag:ietf.org,2026:rats/ear#03",
            6: 1666529184,
            1004: {0: "https://veraison-project.org", 1: "vts 0.0.1"},
            1002: bytes.fromhex("6c696665626f61746d616e"),
            266: {"PSA": {1000: 96, 1001: {0: 2, 2: 96, 4: 2}, 1003: ["https://veraison.example/policy/1"]}},
        }
    )
    found = ear.read(ear.from_cbor(payload))
    assert found.tier is Tier.CONTRAINDICATED
    assert found.submods["PSA"].vector == Vector(instance_identity=2, executables=96, hardware=2)


@pytest.mark.parametrize(
    "change",
    [
        {"eat_profile": ear.PROFILE},
        {"submods": {}},
        {266: 1},
        {266: {1: {}}},
        {1004: {0: "a", 2: "b"}},
        {265: b"x"},
    ],
)
def test_a_cwt_with_claims_by_name_or_of_other_types_is_refused(change: dict[Any, Any]) -> None:
    payload = {265: ear.PROFILE, 1004: {0: "a", 1: "b"}, 266: {"x": {1000: 2}}}
    assert code_of(ear.from_cbor, cbor.encode(payload | change)) == NON_CANONICAL


def test_a_payload_that_is_no_map_is_refused() -> None:
    assert code_of(ear.from_cbor, cbor.encode([1])) == UNKNOWN


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_nothing_but_typed_errors_comes_out_of_any_claims(data: Any) -> None:
    base = data.draw(st.sampled_from([claims(), dotted()]))
    target: Any = base
    if data.draw(st.booleans()):
        target = next(iter(base["submods"].values()))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(_ANY)
    only_typed_errors(ear.read, base)


@given(st.binary(max_size=200))
def test_nothing_but_typed_errors_comes_out_of_any_payload(data: bytes) -> None:
    only_typed_errors(ear.from_cbor, data)


@given(
    st.dictionaries(st.sampled_from(_NAMES), st.integers(-128, 127)),
    st.binary(min_size=8, max_size=64),
    st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3),
)
def test_claims_survive_cbor(vector: dict[str, int], nonce: bytes, ids: list[str]) -> None:
    submod: dict[str, Any] = {"ear_status": "contraindicated", "ear_appraisal_policy_ids": ids}
    if vector:
        submod["ear_trustworthiness_vector"] = vector
    given = claims(submods={"cpu": submod}, eat_nonce=tokens.b64(nonce))
    try:
        encoded = cbor.encode(ear._to_cbor(given))
    except UnicodeEncodeError:
        return
    assert ear.from_cbor(encoded) == given
    assert ear.read(given).nonce == nonce
    assert json.loads(json.dumps(given)) == given
