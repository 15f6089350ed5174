# SPDX-License-Identifier: Apache-2.0
"""EARs as CWT: COSE_Sign1 with every algorithm that an EAR may have, and what is refused of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from confide.attestation import ear
from confide.attestation.tokens import wire
from confide.crypto import cose, jose
from confide.errors import MalformedError
from confide.wire import cbor
from support import tokens
from support.tokens import Case, Signer, case

LABELS = {
    "ES256": cose.ES256,
    "ES384": cose.ES384,
    "PS256": cose.PS256,
    "PS384": cose.PS384,
    "EdDSA": cose.ED25519,
}


def cwt(
    signer: Signer,
    *,
    header: dict[int, Any] | None = None,
    unprotected: dict[int, Any] | None = None,
    tag: bytes = b"",
    **claims: Any,
) -> bytes:
    """A CWT as another verifier would write it."""
    payload = cbor.encode(ear._to_cbor(tokens.EAR | claims))
    protected = cbor.encode({1: LABELS[signer.algorithm]} | (header or {}))
    signature = signer.sign(cbor.encode(["Signature1", protected, b"", payload]))
    return tag + cbor.encode([protected, unprotected or {}, payload, signature])


def given(algorithm: str, data: bytes | None = None, **changes: Any) -> Case:
    """The passing case of an algorithm."""
    base = case("ear", algorithm=algorithm)
    return replace(base, data=cwt(base.signer, **changes) if data is None else data)


@pytest.mark.parametrize("algorithm", sorted(LABELS))
@pytest.mark.parametrize("tag", [b"", b"\xd2"])
def test_a_cwt_of_every_algorithm_is_accepted(algorithm: str, tag: bytes) -> None:
    result = given(algorithm, tag=tag).accept(report_data=tokens.NONCE)
    assert result.claims.details.algorithm == algorithm


@pytest.mark.parametrize("algorithm", sorted(LABELS))
def test_ev_03_every_bit_of_a_cwt_counts(algorithm: str) -> None:
    passing = given(algorithm)
    changed = bytearray(passing.data)
    for bit in range(0, 8 * len(changed), 7):
        changed[bit // 8] ^= 1 << bit % 8
        codes = passing.token(bytes(changed)).codes()
        assert codes, bit
        assert codes[0].startswith(("malformed.", "not_genuine.", "endorsements_missing.")), (bit, codes)
        changed[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("named", "signed"),
    [
        ("ES256", "ES384"),
        ("ES384", "ES256"),
        ("PS256", "ES256"),
        ("EdDSA", "ES256"),
        ("ES256", "EdDSA"),
        ("ES256", "PS256"),
    ],
)
def test_rfc_8725_the_algorithm_of_a_cwt_is_that_of_the_key(named: str, signed: str) -> None:
    forged = given(signed, header={1: LABELS[named]})
    assert forged.codes() == ["not_genuine.algorithm_mismatch"]


@pytest.mark.parametrize("label", [0, -8, 5, -257, -47, "ES256"])
def test_rfc_8725_other_algorithms_of_cose_are_refused(label: object) -> None:
    assert given("ES256", header={1: label}).codes() == ["not_genuine.unsupported_algorithm"]


@pytest.mark.parametrize(
    "changes",
    [
        {"header": {2: [3]}},
        {"unprotected": {1: -7}},
        {"unprotected": {4: b"kid"}},
        {"tag": b"\xd8\x3d"},
        {"tag": b"\xd2\xd2"},
    ],
)
def test_other_headers_and_tags_are_refused(changes: dict[str, Any]) -> None:
    (code,) = given("ES256", **changes).codes()
    assert code.startswith("malformed.")


def test_a_cwt_that_has_ended_is_refused() -> None:
    assert given("ES256", exp=tokens.NOW).codes() == ["not_genuine.expired"]


def test_a_cwt_is_of_no_other_kind() -> None:
    """Intel's claims under Intel's pinned key and algorithm, in the form that only EARs have."""
    base = case("ita")
    claims = {name: value for name, value in tokens.ITA.items() if name not in {"iss", "iat", "exp"}}
    payload = cbor.encode(claims | {1: tokens.ITA["iss"], 6: tokens.ITA["iat"], 4: tokens.ITA["exp"]})
    protected = cbor.encode({1: cose.PS384})
    signature = base.signer.sign(cbor.encode(["Signature1", protected, b"", payload]))
    data = cbor.encode([protected, {}, payload, signature])
    assert base.token(data).codes() == ["malformed.unknown_format"]


@pytest.mark.parametrize("value", [{1: 2}, {"a": [{b"b": 2}]}, [[{-1: b"c"}]]])
def test_ev_25_a_claim_that_json_does_not_have_is_refused(value: Any) -> None:
    """Also by `explain`, whose answer is printed as JSON."""
    changed = given("ES256", x=value)
    assert changed.codes() == ["malformed.non_canonical"]
    with pytest.raises(MalformedError):
        wire.explain(changed.data)


def test_bytes_inside_a_claim_are_shown_and_pinned_as_base64url() -> None:
    changed = given("ES256", x={"a": [b"\xfb\xff"]})
    assert json.loads(json.dumps(wire.explain(changed.data)))["claims"]["x"] == {"a": ["-_8"]}
    assert changed.pinned(claims={"x.a": [["-_8"]]}).codes() == []
    assert changed.pinned(claims={"x.a": [["-_9"]]}).codes() == ["not_acceptable.attributes"]
    assert json.dumps(changed.accept().to_json())


def test_a_cwt_is_recognised_by_its_content_type() -> None:
    signer = Signer.of("ES256")
    typed = cwt(signer, header={3: "application/eat+cwt"})
    assert wire.recognises(typed)
    assert wire.recognises(b"\xd2" + typed)
    assert not wire.recognises(cwt(signer))
    assert not wire.recognises(b"\x85" + typed[1:])
    assert not wire.recognises(typed + bytes(jose.MAX_TOKEN))
    assert wire.explain(typed)["algorithm"] == "ES256"


def test_a_bundle_of_very_many_parts_is_refused() -> None:
    whole, parts = json.loads(case("nras").data)
    many = {f"GPU-{number}": parts["GPU-0"] for number in range(33)}
    assert case("nras").token(json.dumps([whole, many])).codes() == ["malformed.limit_exceeded"]
