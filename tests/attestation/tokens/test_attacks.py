# SPDX-License-Identifier: Apache-2.0
"""Tokens of every kind: a passing case, and what is refused one change away from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation.anchors import TrustAnchor
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.tokens import wire
from confide.attestation.tokens.authenticate import authenticate
from confide.crypto.issue import IssuingKey, issue_crl
from confide.wire import strict_json
from support import tokens
from support.refusal import code_of, only_typed_errors
from support.tokens import AT, KINDS, NOW, Case, Signer, case

EVERY = pytest.mark.parametrize("kind", KINDS)
JWT_KINDS = [kind for kind in KINDS if kind != "nras"]


@EVERY
def test_the_passing_case_passes_and_says_who_vouched(kind: str) -> None:
    given = case(kind)

    result = given.accept()

    (voucher,) = result.claims.chain
    assert voucher.fingerprint.hex() == given.signer.pin
    assert given.table["issuer"] in voucher.name
    assert result.tier.name == "AFFIRMING"
    shown = result.to_json()
    assert shown["claims"]["kind"] == kind
    assert shown["claims"]["issuer"] == given.table["issuer"]
    strict_json.encode(shown)


@EVERY
def test_ear_06_the_nonce_is_in_the_result(kind: str) -> None:
    wanted = tokens.SNP_REPORT_DATA if kind == "maa" else tokens.NONCE
    result = case(kind).accept(report_data=wanted)
    assert result.claims.report_data == wanted
    assert case(kind).codes(report_data=b"\1" * len(wanted)) == ["not_acceptable.channel"]


# Keys and algorithms: RFC 8725.


@EVERY
def test_gpu_07_a_key_that_the_token_brings_is_not_believed(kind: str) -> None:
    """An attacker's token whose header brings its key in `jwk`, points to it in `jku` and `x5u`, and names the pinned `kid`."""
    given, attacker = case(kind), Signer.of(case(kind).signer.algorithm, 9)
    header: dict[str, Any] = {
        "jwk": attacker.jwk(),
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example",
        "kid": "k1",
    }
    if kind == "nras":
        forged = given.token(tokens.bundle(attacker))
    else:
        forged = replace(given, signer=attacker).changed(**header)
    forged = replace(forged, table=given.table)
    assert forged.codes() == ["not_genuine.bad_signature"]


@EVERY
def test_a_key_that_was_given_but_not_pinned_does_not_count(kind: str) -> None:
    other = Signer.of(case(kind).signer.algorithm, 9)
    assert case(kind).pinned(keys=[other.pin]).codes() == ["endorsements_missing.certificate"]


@EVERY
def test_a_pinned_key_that_was_not_given_is_missing(kind: str) -> None:
    assert replace(case(kind), endorsements=Endorsements()).codes() == ["endorsements_missing.certificate"]


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
@pytest.mark.parametrize("kind", JWT_KINDS)
def test_rfc_8725_none_and_macs_are_refused(kind: str, algorithm: str) -> None:
    forged = case(kind).changed(header={"alg": algorithm, "typ": "JWT"})
    assert forged.codes() == ["not_genuine.unsupported_algorithm"]


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("maa", "ES256"), ("google-confidential-space", "PS384"), ("ita", "ES384")]
)
def test_rfc_8725_an_algorithm_of_another_issuer_is_refused(kind: str, algorithm: str) -> None:
    """The key is even pinned: the kind of issuer fixes its algorithms."""
    assert case(kind, algorithm=algorithm).codes() == ["not_genuine.unsupported_algorithm"]


def test_rfc_8725_a_key_is_used_with_the_algorithm_that_its_set_names() -> None:
    """RFC 8725, section 3.1: Intel's key for PS384, a token signed with it by RS256, which Intel's tokens may have too."""
    given = case("ita", algorithm="RS256")
    assert given.codes() == []
    for named, code in (("RS256", []), ("PS384", ["not_genuine.algorithm_mismatch"])):
        keys = Endorsements(documents=(EvidencePart("jwks", given.signer.jwks(alg=named)),))
        assert replace(given, endorsements=keys).codes() == code


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "PS256", "PS384", "EdDSA"])
def test_an_ear_may_be_signed_with_any_algorithm_of_its_kind(algorithm: str) -> None:
    assert case("ear", algorithm=algorithm).codes() == []


@pytest.mark.parametrize("kind", JWT_KINDS)
@pytest.mark.parametrize("parameter", [{"crit": ["exp"]}, {"b64": False}, {"zip": "DEF"}, {"cty": "JWT"}])
def test_rfc_8725_headers_that_change_the_meaning_are_refused(kind: str, parameter: dict[str, Any]) -> None:
    assert case(kind).changed(**parameter).codes() == ["malformed.non_canonical"]


@pytest.mark.parametrize("typ", ["at+jwt", "dpop+jwt", "JOSE", "secevent+jwt"])
def test_rfc_8725_a_token_for_another_use_is_refused(typ: str) -> None:
    """RFC 8725, section 3.11: explicit types keep tokens of one use out of another."""
    assert case("ear").changed(typ=typ).codes() == ["malformed.unknown_format"]


@EVERY
def test_ev_03_every_bit_of_a_token_counts(kind: str) -> None:
    """No bit of a token is without effect, neither of its statements nor of what holds them together."""
    given = case(kind)
    anchors = (
        AppraisalPolicy.from_table({"tees": ["token"], "reference": {"token": given.table}})
        .reference["token"]
        .anchors
    )
    options: dict[str, Any] = {
        "endorsements": given.endorsements,
        "anchors": anchors,
        "at": AT,
        "require_revocation": False,
    }
    authenticate(given.data, **options)
    changed = bytearray(given.data)
    for bit in range(8 * len(changed)):
        changed[bit // 8] ^= 1 << bit % 8
        code = code_of(authenticate, bytes(changed), **options)
        assert code.startswith(("malformed.", "not_genuine.", "endorsements_missing.")), (bit, code)
        changed[bit // 8] ^= 1 << bit % 8


@EVERY
@pytest.mark.parametrize("more", [b"\0", b"\0" * 16, b" ", b".", b"A" * 65536, b"\n\n", b"\xff"])
def test_ev_02_bytes_after_a_token_are_refused(kind: str, more: bytes) -> None:
    given = case(kind)
    (code,) = given.token(given.data + more).codes() or ["accepted"]
    if kind == "nras" and not more.strip():
        assert code == "accepted"  # White space after JSON means nothing.
    else:
        assert code.startswith(("malformed.", "not_genuine."))


def test_ev_14_a_hundred_megabytes_are_refused_unread() -> None:
    for start in (b"", b"[", b"\x84", b"eyJ"):
        assert case("ear").token(start + bytes(100 << 20)).codes() == ["malformed.limit_exceeded"]


# Claims of time, issuer and audience.


@pytest.mark.parametrize("kind", JWT_KINDS)
def test_ear_03_a_token_without_an_end_is_refused(kind: str) -> None:
    assert case(kind).changed("exp", remove=True).codes() == ["malformed.non_canonical"]


@EVERY
def test_ear_03_a_token_is_refused_from_its_end_on(kind: str) -> None:
    given = case(kind)
    ends = given.accept().claims.details.expires
    assert replace(given, at=ends - timedelta(seconds=1)).codes() == []
    assert replace(given, at=ends).codes() == ["not_genuine.expired"]


@EVERY
def test_a_token_is_refused_before_it_begins(kind: str) -> None:
    given = case(kind)
    begins = AT - timedelta(seconds=10)
    assert replace(given, at=begins).codes() == []
    assert replace(given, at=begins - timedelta(seconds=1)).codes() == ["not_genuine.not_yet_valid"]


@pytest.mark.parametrize("kind", JWT_KINDS)
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    ["1780315200", "", 1780315200.5, True, [1780315200], {}, -1, 253402300800, 2**63],
)
def test_rfc_8725_times_are_whole_seconds_within_bounds(kind: str, claim: str, value: object) -> None:
    (code,) = case(kind).changed(claim, value).codes()
    assert code in {"malformed.non_canonical", "malformed.limit_exceeded"}


@pytest.mark.parametrize("claim", ["exp", "iat"])
@pytest.mark.parametrize("kind", JWT_KINDS)
def test_a_time_of_null_is_no_time(kind: str, claim: str) -> None:
    assert case(kind).changed(claim, None).codes() == ["malformed.non_canonical"]


def test_a_future_nbf_counts_beside_a_past_iat() -> None:
    assert case("maa").changed("nbf", NOW + 5).codes() == ["not_genuine.not_yet_valid"]


def test_a_token_that_ends_before_it_begins_is_refused() -> None:
    assert case("maa").changed("exp", NOW - 10).codes() == ["malformed.non_canonical"]


@pytest.mark.parametrize("kind", JWT_KINDS)
def test_gpu_07_another_issuer_is_refused(kind: str) -> None:
    codes = case(kind).changed("iss", "https://evil.example").codes()
    # Google's tokens are told by their issuer, so that another issuer's is of no kind known.
    assert codes in (["not_genuine.identity_mismatch"], ["malformed.unknown_format"])


@EVERY
def test_an_issuer_is_compared_as_a_whole(kind: str) -> None:
    given = case(kind)
    codes = given.pinned(issuer=given.table["issuer"] + "/").codes()
    # For Google's own issuer there is always a root, which has not signed this token.
    google = kind == "google-confidential-space"
    assert codes == ["endorsements_missing.certificate" if google else "not_genuine.identity_mismatch"]


@pytest.mark.parametrize("kind", ["ear", "google-confidential-space"])
def test_gpu_07_a_token_for_another_audience_is_refused(kind: str) -> None:
    given = case(kind)
    assert given.changed("aud", "https://you.example").codes() == ["not_acceptable.identity"]
    assert given.changed("aud", ["https://you.example"]).codes() == ["not_acceptable.identity"]
    assert given.changed("aud", ["https://you.example", "https://me.example"]).codes() == []
    assert given.changed("aud", remove=True).codes() == ["not_acceptable.identity"]
    assert given.changed("aud", 1).codes() == ["malformed.non_canonical"]


@pytest.mark.parametrize("kind", ["maa", "ita"])
def test_gpu_07_a_token_for_somebody_is_refused_where_the_policy_names_nobody(kind: str) -> None:
    assert case(kind).changed("aud", "https://you.example").codes() == ["not_acceptable.identity"]


def test_gpu_07_a_replayed_bundle_answers_another_nonce() -> None:
    """NVIDIA's token binds nothing but its nonce: the verifier's own is compared in full."""
    given = case("nras")
    assert given.codes(report_data=tokens.NONCE) == []
    assert given.codes(report_data=bytes(32)) == ["not_acceptable.channel"]


@EVERY
def test_a_token_older_than_the_policy_admits_is_stale(kind: str) -> None:
    given = case(kind).pinned(max_age="10s")
    assert given.codes() == []
    assert replace(given, at=AT + timedelta(seconds=1)).codes() == ["not_acceptable.stale"]


@EVERY
def test_a_kind_is_not_another(kind: str) -> None:
    other = "maa" if kind != "maa" else "ear"
    codes = case(kind).pinned(kind=other, tees=None).codes()
    assert "not_acceptable.identity" in codes


# Strict reading.


@pytest.mark.parametrize("kind", JWT_KINDS)
def test_ev_23_a_claim_that_is_there_twice_is_refused(kind: str) -> None:
    given = case(kind)
    payload = json.dumps(tokens._CLAIMS[kind]).encode()
    twice = given.signer.jwt(None, payload=b'{"iss":"https://evil.example",' + payload[1:])
    assert given.token(twice).codes() == ["malformed.non_canonical"]


def test_ev_23_a_part_that_is_there_twice_is_refused() -> None:
    text = case("nras").data.decode()
    first = text.index('{"GPU-0"')
    assert case("nras").token(text[:-2] + "," + text[first + 1 :]).codes() == ["malformed.non_canonical"]


@pytest.mark.parametrize(
    "payload",
    [b'{"exp":1e400}', b'{"exp":' + b"9" * 4000 + b"}", b"[" * 9000, b'{"a":"\\udc00"}', b'{"exp":1}{}'],
)
def test_ev_24_json_without_bounds_is_refused(payload: bytes) -> None:
    (code,) = case("ear").token(case("ear").signer.jwt(None, payload=payload)).codes()
    assert code in {"malformed.non_canonical", "malformed.limit_exceeded"}


@pytest.mark.parametrize(
    "change", [lambda t: t + "=", lambda t: t + " ", lambda t: " " + t, lambda t: t + "\n\n"]
)
def test_ev_26_a_token_has_one_spelling(change: Any) -> None:
    given = case("ear")
    assert given.token(change(given.data.decode())).codes() == ["malformed.non_canonical"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_line_end_after_a_token_is_accepted(end: str) -> None:
    given = case("ear")
    assert given.token(given.data.decode() + end).codes() == []


def test_ev_26_hexadecimal_has_one_spelling() -> None:
    for text in (tokens.NONCE.hex().upper(), tokens.NONCE.hex() + "0", " " + tokens.NONCE.hex()):
        given = case("nras")
        data = tokens.bundle(given.signer, overall={"eat_nonce": text}, part={"eat_nonce": text})
        assert given.token(data).codes()[0].startswith("malformed.")


@EVERY
def test_ev_01_every_truncation_is_refused(kind: str) -> None:
    given = case(kind)
    for length in range(0, len(given.data), 13):
        (code,) = given.token(given.data[:length]).codes()
        assert code.startswith(("malformed.", "not_genuine."))


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_nothing_but_typed_errors_comes_out_of_any_bytes(data: bytes) -> None:
    only_typed_errors(wire.decode, data)
    only_typed_errors(wire.decode, b"\xd2" + data)
    only_typed_errors(wire.decode, b"[" + data)
    wire.recognises(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.sampled_from(JWT_KINDS), st.data())
def test_nothing_but_typed_errors_comes_out_of_signed_nonsense(kind: str, data: Any) -> None:
    """Any claim of a token replaced by any JSON, signed by the issuer itself."""
    claims = tokens._CLAIMS[kind]
    name = data.draw(st.sampled_from(sorted(claims)))
    case(kind).changed(name, data.draw(_JSON)).codes()


# Debugging, hardware, TCB.


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("google-confidential-space", "dbgstat", "enabled"),
        ("google-confidential-space", "dbgstat", "Disabled"),
        ("maa", "x-ms-sevsnpvm-is-debuggable", True),
        ("ita", "tdx/tdx_is_debuggable", True),
    ],
)
def test_debugging_is_refused_unless_the_policy_allows_it(kind: str, path: str, value: object) -> None:
    debugged = case(kind).changed(path, value)
    assert debugged.codes() == ["not_acceptable.debug"]
    result = replace(debugged, policy={"allow_debug": True}).accept()
    assert result.tier.name == "CONTRAINDICATED"


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("google-confidential-space", "dbgstat"),
        ("maa", "x-ms-sevsnpvm-is-debuggable"),
        ("ita", "tdx/tdx_is_debuggable"),
    ],
)
def test_a_token_silent_about_debugging_is_refused(kind: str, path: str) -> None:
    assert case(kind).changed(path, remove=True).codes() == ["not_acceptable.debug"]


@pytest.mark.parametrize("model", ["GCP_SHIELDED_VM", "GCP_AMD_SEV", "GCP_AMD_SEV_ES", "GCP_NEXT", ""])
def test_weak_and_unknown_hardware_is_admitted_only_by_name(model: str) -> None:
    assert case("google-confidential-space").changed("hwmodel", model).codes() == ["not_acceptable.tee"]


def test_weak_hardware_that_the_policy_names_is_never_affirming() -> None:
    given = case("google-confidential-space").pinned(tees=["shielded-vm"])
    result = given.changed("hwmodel", "GCP_SHIELDED_VM").accept()
    assert result.tier.name == "CONTRAINDICATED"


@pytest.mark.parametrize("own", [{"tee": "tpm", "simulated": False}, {"tee": "snp", "simulated": True}, {}])
@pytest.mark.parametrize(("claim", "expected"), [(0, 32), (2, 32), (-2, 32), (33, 33)])
def test_weak_hardware_of_an_ear_is_never_affirming(own: dict[str, Any], claim: int, expected: int) -> None:
    """What an EAR says of its hardware is not better than what the policy must spell to admit it."""
    status = "warning" if claim == 33 else "affirming"
    submod = tokens.EAR["submods"]["cpu"] | {"ear_status": status, "confide": own}
    submod |= {"ear_trustworthiness_vector": {"executables": 3, "hardware": claim}}
    del submod["ear_veraison_annotated_evidence"]
    given = case("ear").changed("submods/cpu", submod)
    assert "not_acceptable.tee" in given.codes()
    result = given.pinned(tees=["tpm", "simulated", "unknown"], tier="warning").accept()
    assert (result.vector.hardware, result.tier.name) == (expected, "WARNING")


@pytest.mark.parametrize(
    ("kind", "path"),
    [("google-confidential-space", "tdx/gcp_attester_tcb_status"), ("ita", "tdx/attester_tcb_status")],
)
def test_a_tcb_status_that_the_policy_does_not_name_is_out_of_date(kind: str, path: str) -> None:
    old = case(kind).changed(path, "OutOfDate")
    assert old.codes() == ["not_acceptable.out_of_date"]
    result = replace(old, policy={"tcb_status": ["UpToDate", "OutOfDate"]}).accept()
    assert result.tier.name == "WARNING"


# Pinned claims.


@EVERY
def test_a_claim_that_differs_from_its_pin_is_refused(kind: str) -> None:
    given = case(kind)
    (path,) = given.table["claims"]
    assert given.pinned(claims={path: ["other"]}).codes() == ["not_acceptable.measurement"]
    assert given.pinned(claims={path + ".x": ["other"]}).codes()
    assert given.pinned(claims={"absent": ["x"]}).codes() == ["not_acceptable.attributes"]


@EVERY
def test_claims_any_is_a_wildcard_that_the_result_shows(kind: str) -> None:
    result = case(kind).pinned(claims="ANY").accept()
    assert "note.wildcard" in {reason.code for reason in result.reasons}
    if kind != "ear":
        assert result.tier.name == "WARNING"


# Chains.


def _chained(**changes: Any) -> tuple[Case, tuple[bytes, bytes, bytes]]:
    import base64

    given = case("google-confidential-space")
    chain = tokens.chain(given.signer, **changes)
    header: dict[str, Any] = {"x5c": [base64.b64encode(der).decode() for der in chain]}
    pinned = given.pinned(keys=None, roots=[hashlib.sha256(chain[2]).hexdigest()])
    return replace(pinned.changed(**header), endorsements=Endorsements(), table=pinned.table), chain


def test_a_chain_to_a_pinned_root_vouches() -> None:
    given, chain = _chained()
    result = given.accept()
    assert [voucher.name for voucher in result.claims.chain] == ["CN=Leaf", "CN=Middle", "CN=Root"]
    assert result.claims.details.root == hashlib.sha256(chain[2]).digest()
    assert "note.not_checked" in {reason.code for reason in result.reasons}


def test_ev_17_a_root_that_is_not_pinned_does_not_count() -> None:
    given, _ = _chained()
    assert given.pinned(roots=["00" * 32]).codes() == ["not_genuine.untrusted_root"]


def test_a_pinned_leaf_is_no_root() -> None:
    """The hash of the leaf's certificate is pinned as if it were a root."""
    given, chain = _chained()
    assert given.pinned(roots=[hashlib.sha256(chain[0]).hexdigest()]).codes() == ["not_genuine.wrong_usage"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"not_after": AT - timedelta(seconds=1)}, "not_genuine.expired"),
        ({"not_before": AT + timedelta(seconds=1)}, "not_genuine.not_yet_valid"),
        ({"is_ca": True}, "not_genuine.wrong_usage"),
        ({"key_usage": frozenset({"key_encipherment"})}, "not_genuine.wrong_usage"),
        ({"signing_key": IssuingKey.from_scalar(9999, curve="p256")}, "not_genuine.bad_signature"),
    ],
)
def test_ev_19_a_chain_with_a_defect_is_refused(changes: dict[str, Any], code: str) -> None:
    given, _ = _chained(**changes)
    assert given.codes() == [code]


def test_a_token_signed_by_another_key_than_the_leaf_is_refused() -> None:
    given, _ = _chained()
    header = wire.decode(given.data)
    import base64

    forged = replace(given, signer=Signer.of("RS256", 9)).changed(
        x5c=[base64.b64encode(der).decode() for der in header.whole.certificates]
    )
    assert replace(forged, table=given.table).codes() == ["not_genuine.bad_signature"]


def test_ev_20_revocation_of_a_chain() -> None:
    given, chain = _chained()
    required = replace(given, policy={"require_revocation": True})
    assert required.codes() == ["endorsements_missing.crl"]

    def crl(issuer: str, number: int, *revoked: int, days: int = 0) -> bytes:
        return issue_crl(
            issuer=issuer,
            signing_key=IssuingKey.from_scalar(8000 + number, curve="p256"),
            this_update=AT + timedelta(days=days - 1),
            next_update=AT + timedelta(days=days, minutes=30),
            revoked=revoked,
            hash_name="sha256",
        )

    both = Endorsements(crls=(crl("Root", 1), crl("Middle", 2)))
    assert replace(required, endorsements=both).codes() == []
    half = Endorsements(crls=(crl("Root", 1),))
    assert replace(required, endorsements=half).codes() == ["endorsements_missing.crl"]
    bad = Endorsements(crls=(crl("Root", 1), crl("Middle", 2, 1 + sum(b"Leaf"))))
    assert replace(given, endorsements=bad).codes() == ["not_genuine.revoked"]
    assert chain
    # The lists end before the token does, and the result with them.
    assert replace(required, endorsements=both).accept().expires == AT + timedelta(minutes=30)
    assert replace(given, endorsements=half).accept().expires == AT + timedelta(minutes=30)
    # A list that is out of date clears nothing, and still revokes what it names.
    old = Endorsements(crls=(crl("Root", 1), crl("Middle", 2, days=-2)))
    assert replace(required, endorsements=old).codes() == ["endorsements_missing.crl_expired"]
    assert replace(given, endorsements=old).codes() == []
    old = Endorsements(crls=(crl("Root", 1), crl("Middle", 2, 1 + sum(b"Leaf"), days=-2)))
    assert replace(given, endorsements=old).codes() == ["not_genuine.revoked"]
    assert replace(required, endorsements=old).codes() == ["not_genuine.revoked"]


# Anchors.


def test_ev_18_without_a_key_or_root_nothing_is_trusted() -> None:
    given = case("ear")
    options: dict[str, Any] = {"endorsements": given.endorsements, "at": AT, "require_revocation": False}
    for anchors in (
        (),
        (TrustAnchor("token", given.table["issuer"], ()),),
        (TrustAnchor("snp", given.table["issuer"], (), keys=(bytes.fromhex(given.signer.pin),)),),
    ):
        assert code_of(authenticate, given.data, anchors=anchors, **options) == "not_genuine.no_trusted_roots"


def test_sim_03_a_simulated_key_gives_simulated_claims() -> None:
    given = case("ear")
    anchor = TrustAnchor(
        "token", given.table["issuer"], (), simulated=True, keys=(bytes.fromhex(given.signer.pin),)
    )
    claims = authenticate(
        given.data, endorsements=given.endorsements, anchors=(anchor,), at=AT, require_revocation=False
    )
    assert claims.simulated


def test_a_key_given_as_certificate_counts_by_its_pin_alone() -> None:
    """Self-made certificates say nothing: what counts is the pinned hash of the key in them."""
    given = case("maa")
    leaf, *_ = tokens.chain(given.signer, not_after=AT - timedelta(days=1))
    assert replace(given, endorsements=Endorsements(certificates=(leaf,))).codes() == []


def test_other_documents_are_not_read_as_keys() -> None:
    given = case("maa")
    other = Endorsements(documents=(EvidencePart("intel-collateral", given.signer.jwks()),))
    assert replace(given, endorsements=other).codes() == ["endorsements_missing.certificate"]


def test_a_chain_in_the_header_is_nothing_where_only_keys_are_pinned() -> None:
    import base64

    given = case("ear")
    header: dict[str, Any] = {"x5c": [base64.b64encode(der).decode() for der in tokens.chain(given.signer)]}
    chained = given.changed(**header)
    assert chained.codes() == []
    assert replace(chained, endorsements=Endorsements()).codes() == ["endorsements_missing.certificate"]


def test_revocation_of_a_pinned_key_is_its_pin() -> None:
    result = replace(case("maa"), policy={"require_revocation": True}).accept()
    (check,) = [check for check in result.claims.checks if check.name == "revocation"]
    assert check.outcome == "passed"


@pytest.mark.parametrize("swap", [False, True])
def test_of_several_pinned_keys_the_refusal_is_of_the_nearest(swap: bool) -> None:
    """One pinned key is of another kind, the other of the right kind and not the signer's."""
    given, other, near = case("ear"), Signer.of("ES384", 8), Signer.of("ES256", 8)
    keys = [other, near] if swap else [near, other]
    documents = tuple(EvidencePart("jwks", one.jwks()) for one in keys)
    pinned = given.pinned(keys=[one.pin for one in keys])
    assert replace(pinned, endorsements=Endorsements(documents=documents)).codes() == [
        "not_genuine.bad_signature"
    ]
    rotated = replace(
        pinned.pinned(keys=[one.pin for one in (*keys, given.signer)]),
        endorsements=Endorsements(documents=(*documents, EvidencePart("jwks", given.signer.jwks()))),
    )
    assert rotated.codes() == []


def test_more_endorsements_than_anybody_needs_are_refused() -> None:
    given, chain = _chained()
    distinct = tuple(bytes([number]) for number in range(65))
    assert chain
    for many in (Endorsements(certificates=distinct), Endorsements(crls=distinct)):
        assert replace(given, endorsements=many).codes() == ["malformed.limit_exceeded"]
