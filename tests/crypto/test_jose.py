# SPDX-License-Identifier: Apache-2.0
"""Compact JWS and public JWK: what is accepted, and the list of RFC 8725."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from confide.crypto import jose
from confide.crypto.signing import SigningKey
from support.pki import certificate
from support.refusal import code_of, only_typed_errors
from support.tokens import Signer, b64

ALL = jose.ALGORITHMS
NON_CANONICAL, UNSUPPORTED = "malformed.non_canonical", "not_genuine.unsupported_algorithm"
CLAIMS = {"iss": "a", "exp": 1}


def decode(token: str, algorithms: frozenset[str] = ALL) -> jose.Jws:
    return jose.Jws.decode(token, algorithms=algorithms)


@pytest.mark.parametrize("algorithm", sorted(ALL))
def test_a_token_of_every_algorithm_verifies_under_its_key_and_under_no_other(algorithm: str) -> None:
    signer, other = Signer.of(algorithm, 1), Signer.of(algorithm, 2)

    token = decode(signer.jwt(CLAIMS), frozenset({algorithm}))

    token.verify(signer.spki)
    assert token.claims() == CLAIMS
    assert code_of(token.verify, other.spki) == "not_genuine.bad_signature"


@pytest.mark.parametrize("algorithm", sorted(ALL))
def test_every_bit_of_a_signature_counts(algorithm: str) -> None:
    signer = Signer.of(algorithm)
    head, body, signature = signer.jwt(CLAIMS).split(".")
    raw = signer.sign(f"{head}.{body}".encode())
    assert signature
    for bit in range(0, 8 * len(raw), 37):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        token = decode(f"{head}.{body}.{b64(bytes(flipped))}")
        assert code_of(token.verify, signer.spki) == "not_genuine.bad_signature"


def test_an_ecdsa_signature_in_der_is_refused() -> None:
    head, body, _ = Signer.of("ES256").jwt(CLAIMS).split(".")
    token = decode(f"{head}.{body}.{b64(bytes.fromhex('3006020101020101'))}")
    assert code_of(token.verify, Signer.of("ES256").spki) == "not_genuine.bad_signature"


@pytest.mark.parametrize("algorithm", ["none", "None", "", "HS256", "ES256K", "RS1", "A128KW"])
def test_rfc_8725_algorithms_that_nobody_accepts_are_refused(algorithm: str) -> None:
    """RFC 8725, section 2.1: `none`, MACs, and what is not known."""
    token = Signer.of("ES256").jwt(CLAIMS, header={"alg": algorithm})
    assert code_of(decode, token) == UNSUPPORTED
    head, body, _ = token.split(".")
    assert code_of(decode, f"{head}.{body}.") == UNSUPPORTED


def test_rfc_8725_a_public_key_is_no_mac_key() -> None:
    """RFC 8725, section 2.1: HS256 over the bytes of the RSA public key."""
    signer = Signer.of("RS256")
    signing_input = f"{b64(json.dumps({'alg': 'HS256'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    mac = hmac.digest(signer.spki, signing_input.encode(), hashlib.sha256)
    assert code_of(decode, f"{signing_input}.{b64(mac)}", ALL | {"HS256"}) == UNSUPPORTED


def test_an_algorithm_that_the_caller_does_not_name_is_refused() -> None:
    assert code_of(decode, Signer.of("ES384").jwt(CLAIMS), frozenset({"ES256"})) == UNSUPPORTED


@pytest.mark.parametrize(
    ("named", "signed"), [("ES256", "ES384"), ("ES384", "ES256"), ("RS256", "ES256"), ("PS256", "EdDSA")]
)
def test_rfc_8725_the_algorithm_is_that_of_the_key(named: str, signed: str) -> None:
    """RFC 8725, section 3.1: the header names one algorithm, the trusted key is of another."""
    token = decode(Signer.of(signed).jwt(CLAIMS, header={"alg": named}))
    assert code_of(token.verify, Signer.of(signed).spki) == "not_genuine.algorithm_mismatch"


def test_rsa_pss_and_pkcs1_are_not_exchangeable() -> None:
    token = decode(Signer.of("RS256").jwt(CLAIMS, header={"alg": "PS256"}))
    assert code_of(token.verify, Signer.of("RS256").spki) == "not_genuine.bad_signature"


@pytest.mark.parametrize(
    "parameter",
    [
        {"crit": ["b64"], "b64": False},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
        {"exp": 1},
        {"unknown": 1},
    ],
)
def test_rfc_8725_parameters_that_change_the_meaning_are_refused(parameter: dict[str, Any]) -> None:
    """RFC 7515, sections 4.1.11 and RFC 7797; RFC 8725, section 2.4: critical, unencoded, compressed, encrypted, nested."""
    assert code_of(decode, Signer.of("ES256").jwt(CLAIMS, **parameter)) == NON_CANONICAL


def test_keys_in_the_header_are_read_past() -> None:
    """The token names the attacker's key four ways; the owner's key is the one that it is checked with."""
    owner, attacker = Signer.of("ES256", 1), Signer.of("ES256", 2)
    header: dict[str, Any] = {
        "jwk": attacker.jwk(),
        "jku": "https://evil.example",
        "x5u": "https://evil.example",
        "kid": "../x",
    }

    decode(owner.jwt(CLAIMS, **header)).verify(owner.spki)

    assert code_of(decode(attacker.jwt(CLAIMS, **header)).verify, owner.spki) == "not_genuine.bad_signature"


def test_ev_23_duplicate_keys_are_refused_in_header_and_payload() -> None:
    signer = Signer.of("ES256")
    assert code_of(decode, signer.jwt(CLAIMS, header=b'{"alg":"ES256","alg":"ES256"}')) == NON_CANONICAL
    twice = decode(signer.jwt(None, payload=b'{"exp":1,"exp":2}'))
    assert code_of(twice.claims) == NON_CANONICAL


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"exp":1e400}', "malformed.limit_exceeded"),
        (b'{"exp":NaN}', NON_CANONICAL),
        (b'{"exp":' + b"9" * 5000 + b"}", "malformed.limit_exceeded"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "malformed.limit_exceeded"),
        (b'{"a":"\\ud800"}', NON_CANONICAL),
        (b'{"exp":1} x', NON_CANONICAL),
        (b"\xef\xbb\xbf{}", NON_CANONICAL),
        (b"[]", "malformed.unknown_format"),
        (b"1", "malformed.unknown_format"),
    ],
)
def test_ev_24_json_that_is_ambiguous_or_without_bounds_is_refused(payload: bytes, code: str) -> None:
    assert code_of(decode(Signer.of("ES256").jwt(None, payload=payload)).claims) == code


def test_ev_26_each_part_has_one_spelling() -> None:
    """Padding, the standard alphabet, white space, spare bits: each would be a second token with the same claims."""
    head, body, signature = Signer.of("ES256").jwt({"a": "\u00ff\u00fe?"}).split(".")
    spare = signature[:-1] + chr(ord(signature[-1]) + 1)
    for changed in (
        f"{head}=.{body}.{signature}",
        f"{head}.{body}==.{signature}",
        f"{head}.{body} .{signature}",
        f"{head}.{body}.{signature}\n",
        f"{head}.{body}.{spare}",
        f"{head}.{body}.+{signature[1:]}",
        f"{head}.{body}.\u00e9{signature[1:]}",
    ):
        assert code_of(decode, changed) == NON_CANONICAL


@pytest.mark.parametrize("token", ["", ".", "..", "a.b", "a.b.c.d.e", ".e30.", "e30..AA", "\ud800.e30.AA"])
def test_what_is_not_three_parts_is_refused(token: str) -> None:
    assert code_of(decode, token).startswith("malformed.")


def test_a_token_beyond_the_limit_is_refused_before_it_is_read() -> None:
    assert code_of(decode, "a" * (jose.MAX_TOKEN + 1)) == "malformed.limit_exceeded"


@given(st.binary(max_size=300))
def test_nothing_but_typed_errors_comes_out_of_any_bytes(data: bytes) -> None:
    only_typed_errors(jose.Jws.decode, data, algorithms=ALL)
    only_typed_errors(jose.read_jwks, data)


@given(
    st.dictionaries(
        st.text(max_size=8), st.one_of(st.integers(-(2**63), 2**64 - 1), st.booleans(), st.text(max_size=20))
    )
)
def test_what_is_signed_is_read_back(claims: dict[str, Any]) -> None:
    key = SigningKey.from_bytes(b"\x05" * 32)
    if any("\ud800" <= c <= "\udfff" for text in (*claims, *map(str, claims.values())) for c in text):
        return
    token = decode(jose.sign(key, claims, typ="eat+jwt"))
    token.verify(Signer("EdDSA", key).spki)
    assert token.claims() == claims
    assert (token.algorithm, token.typ) == ("EdDSA", "eat+jwt")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "EdDSA"])
def test_a_jwk_gives_the_key_that_it_spells(algorithm: str) -> None:
    signer = Signer.of(algorithm)
    (key,) = jose.read_jwks(signer.jwks(kid="k1", use="sig", alg=algorithm))
    assert key.public_key_der == signer.spki
    assert (key.kid, key.algorithm) == ("k1", algorithm)
    assert key.spki_sha256.hex() == signer.pin


def test_a_jwk_may_be_a_certificate_alone_and_must_agree_with_one_beside() -> None:
    leaf = certificate("leaf", "intermediate")
    text = base64.b64encode(leaf.der).decode()
    (key,) = jose.read_jwks(json.dumps({"keys": [{"kty": "EC", "x5c": [text]}]}).encode())
    assert key.public_key_der == leaf.public_key_der
    other = {"keys": [Signer.of("ES384").jwk(x5c=[text])]}
    assert code_of(jose.read_jwks, json.dumps(other).encode()) == NON_CANONICAL


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "k"])
def test_a_private_key_is_refused(member: str) -> None:
    assert code_of(jose.read_jwks, Signer.of("RS256").jwks(**{member: "AQAB"})) == NON_CANONICAL


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "kid": "a"},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQ"},
        {"kty": "RSA", "alg": "RSA-OAEP", "n": "AQ", "e": "AQ"},
        {"kty": "RSA", "key_ops": ["encrypt"], "n": "AQ", "e": "AQ"},
        {"kty": "RSA", "key_ops": [], "n": "AQ", "e": "AQ"},
    ],
)
def test_keys_of_other_kinds_and_uses_are_left_out(entry: dict[str, Any]) -> None:
    assert jose.read_jwks(json.dumps({"keys": [entry]}).encode()) == ()


def test_a_certificate_over_a_key_of_another_kind_is_left_out() -> None:
    """One key on a curve that is not used here does not make the others of its issuer unusable."""
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "P-521")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA512())
    )
    text = base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()
    other = {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "x5c": [text]}
    signer = Signer.of("ES256")
    (kept,) = jose.read_jwks(json.dumps({"keys": [other, signer.jwk()]}).encode())
    assert kept.public_key_der == signer.spki


def test_weak_and_misspelled_keys_are_refused() -> None:
    rsa = Signer.of("RS256").jwk()
    for entry, code in (
        (rsa | {"e": "Aw"}, "not_genuine.weak_key"),
        (rsa | {"n": b64(b"\x80" * 64)}, "not_genuine.weak_key"),
        (rsa | {"n": "AA" + str(rsa["n"])[2:]}, NON_CANONICAL),
        (Signer.of("ES256").jwk(x=b64(bytes(32))), "not_genuine.weak_key"),
        (Signer.of("ES256").jwk(x=b64(bytes(31))), "malformed.length_mismatch"),
        (Signer.of("EdDSA").jwk(x=b64(bytes(31))), "not_genuine.weak_key"),
    ):
        assert code_of(jose.read_jwks, json.dumps({"keys": [entry]}).encode()) == code


def test_a_set_of_very_many_keys_is_refused() -> None:
    keys = [Signer.of("ES256").jwk()] * (jose.MAX_KEYS + 1)
    assert code_of(jose.read_jwks, json.dumps({"keys": keys}).encode()) == "malformed.limit_exceeded"


@pytest.mark.parametrize("keys", [5, None, "keys", {"a": 1}, [5], [None], [[]], [{}]])
def test_a_set_that_is_no_list_of_keys_is_refused(keys: Any) -> None:
    assert code_of(jose.read_jwks, json.dumps({"keys": keys}).encode()).startswith("malformed.")
