# SPDX-License-Identifier: Apache-2.0
"""Statements: what an owner signs is what the broker reads, and nothing else reads as it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto import cose
from confide.crypto.signing import SigningKey
from confide.errors import ConfideError
from confide.keys.release import SecretName
from confide.keys.signed_policy import (
    MAX_LEASE_SECONDS,
    PutKey,
    Query,
    Revoke,
    SetPolicy,
    SignedStatement,
    Statement,
    commitment,
    sign,
    verify,
)
from confide.wire import cbor
from support.refusal import code_of, only_typed_errors

KEY = SigningKey.from_bytes(bytes(range(32)))
OTHER = SigningKey.from_bytes(bytes(range(1, 33)))
STORE = b"s" * 16
KINDS: tuple[type[Statement], ...] = (PutKey, SetPolicy, Revoke, Query)

ALPHABET = "abcXYZ019._-"
names = st.text(ALPHABET, min_size=1, max_size=128).filter(lambda n: n[0] not in "._-" and n[-1] not in "._-")
secret_names = st.builds(SecretName, names, st.integers(1, 2**63 - 1))
heads = {"owner": st.just(KEY.public), "store": st.just(STORE), "serial": st.integers(1, 2**53 - 1)}

puts = st.builds(PutKey, **heads, secret=secret_names, commitment=st.binary(min_size=64, max_size=64))
policies = st.builds(
    SetPolicy,
    **heads,
    tenant=names,
    secrets=st.sets(secret_names, min_size=1, max_size=64).map(lambda s: tuple(sorted(s))),
    appraisal=st.binary(max_size=300),
    lease_seconds=st.integers(1, MAX_LEASE_SECONDS),
    max_instances=st.integers(0, 1024),
)
revocations = st.one_of(
    st.builds(Revoke, **heads, secret=secret_names),
    st.builds(Revoke, **heads, tenant=names),
    st.builds(Revoke, **heads, measurement=st.binary(min_size=16, max_size=64)),
    st.builds(Revoke, **heads, manifest=st.binary(min_size=32, max_size=32)),
)
queries = st.builds(
    Query, **heads, what=st.sampled_from(["list", "audit"]), challenge=st.binary(min_size=32, max_size=32)
)
statements = st.one_of(puts, policies, revocations, queries)

EXAMPLES: dict[str, Statement] = {
    "put": PutKey(
        owner=KEY.public, store=STORE, serial=1, secret=SecretName("weights", 1), commitment=bytes(64)
    ),
    "policy": SetPolicy(
        owner=KEY.public,
        store=STORE,
        serial=1,
        tenant="acme",
        secrets=(SecretName("weights", 1),),
        appraisal=b"",
        lease_seconds=60,
    ),
    "revoke": Revoke(owner=KEY.public, store=STORE, serial=1, tenant="acme"),
    "query": Query(owner=KEY.public, store=STORE, serial=1, what="list", challenge=bytes(32)),
}


@given(statements)
def test_what_is_signed_is_read_back_equal(statement: Statement) -> None:
    signed = sign(statement, KEY)
    assert verify(signed, type(statement), store=STORE) == statement
    assert SignedStatement.from_value(signed.to_value()) == signed


@given(statements)
def test_a_statement_has_one_encoding(statement: Statement) -> None:
    encoded = statement.encode()
    assert type(statement).decode(encoded).encode() == encoded


@given(statements, statements)
def test_two_statements_have_two_encodings(one: Statement, other: Statement) -> None:
    assert (one == other) == (one.encode() == other.encode())


@given(statements, st.sampled_from(KINDS))
def test_bnd_11_a_statement_of_one_kind_never_reads_as_another(
    statement: Statement, kind: type[Statement]
) -> None:
    signed = sign(statement, KEY)
    if kind is not type(statement):
        assert code_of(verify, signed, kind, store=STORE) == "not_genuine.bad_signature"
        assert code_of(kind.decode, statement.encode()).startswith("malformed.")


@pytest.mark.parametrize("statement", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_every_flipped_bit_of_a_signed_statement_is_refused(statement: Statement) -> None:
    signed = sign(statement, KEY)
    for position in range(len(signed.data)):
        for bit in range(8):
            changed = bytearray(signed.data)
            changed[position] ^= 1 << bit
            with pytest.raises(ConfideError):
                verify(SignedStatement(signed.owner, bytes(changed)), type(statement), store=STORE)


@pytest.mark.parametrize("statement", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_every_truncation_and_extension_of_a_signed_statement_is_refused(statement: Statement) -> None:
    data = sign(statement, KEY).data
    for changed in (*(data[:n] for n in range(len(data))), data + b"\x00", data + data):
        with pytest.raises(ConfideError):
            verify(SignedStatement(KEY.public, changed), type(statement), store=STORE)


def test_a_statement_under_another_key_or_store_is_refused() -> None:
    statement = EXAMPLES["put"]
    signed = sign(statement, KEY)
    assert verify(signed, PutKey, store=STORE) == statement
    stolen = SignedStatement(OTHER.public, signed.data)
    assert code_of(verify, stolen, PutKey, store=STORE) == "not_genuine.bad_signature"
    assert code_of(verify, signed, PutKey, store=b"t" * 16) == "not_genuine.identity_mismatch"


def test_a_signer_cannot_speak_in_the_name_of_another_owner() -> None:
    statement = EXAMPLES["put"]
    assert code_of(sign, statement, OTHER) == "configuration.invalid"
    forged = cose.sign1(OTHER, statement.encode(), external_aad=b"confide/broker/statement/1\x00put")
    signed = SignedStatement(OTHER.public, forged)
    assert code_of(verify, signed, PutKey, store=STORE) == "not_genuine.identity_mismatch"


@pytest.mark.parametrize("aad", [b"", b"confide/broker/statement/1", b"confide/broker/statement/2\x00put"])
def test_a_signature_made_for_another_context_is_refused(aad: bytes) -> None:
    data = cose.sign1(KEY, EXAMPLES["put"].encode(), external_aad=aad)
    assert (
        code_of(verify, SignedStatement(KEY.public, data), PutKey, store=STORE) == "not_genuine.bad_signature"
    )


def raw(kind: str, /, **changes: Any) -> bytes:
    """A payload with something in it that no constructor would write."""
    body = cbor.decode(EXAMPLES[kind].encode(), what="example", max_size=1 << 16)
    for key, value in changes.items():
        if value is None:
            del body[key]
        else:
            body[key] = value
    return cbor.encode(body)


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "version": ("put", {"v": 2}, "malformed.unsupported_version"),
    "kind": ("put", {"kind": "other"}, "malformed.unknown_format"),
    "short owner": ("put", {"owner": b"o" * 31}, "malformed.length_mismatch"),
    "long store": ("put", {"store": b"s" * 17}, "malformed.length_mismatch"),
    "serial 0": ("put", {"serial": 0}, "malformed.limit_exceeded"),
    "negative serial": ("put", {"serial": -1}, "malformed.limit_exceeded"),
    "serial beyond": ("put", {"serial": 2**53}, "malformed.limit_exceeded"),
    "true as serial": ("put", {"serial": True}, "malformed.non_canonical"),
    "no serial": ("put", {"serial": None}, "malformed.non_canonical"),
    "an unknown key": ("put", {"extra": 1}, "malformed.non_canonical"),
    "short commitment": ("put", {"commitment": bytes(63)}, "malformed.length_mismatch"),
    "version 0": ("put", {"version": 0}, "broker.name_invalid"),
    "version -1": ("put", {"version": -1}, "broker.name_invalid"),
    "version 2**63": ("put", {"version": 2**63}, "broker.name_invalid"),
    "no secrets": ("policy", {"secrets": []}, "malformed.limit_exceeded"),
    "65 secrets": ("policy", {"secrets": [["n", n + 1] for n in range(65)]}, "malformed.limit_exceeded"),
    "secrets out of order": ("policy", {"secrets": [["b", 1], ["a", 1]]}, "malformed.non_canonical"),
    "a secret twice": ("policy", {"secrets": [["a", 1], ["a", 1]]}, "malformed.non_canonical"),
    "a secret of three": ("policy", {"secrets": [["a", 1, 1]]}, "malformed.non_canonical"),
    "a secret without version": ("policy", {"secrets": [["a", "1"]]}, "broker.name_invalid"),
    "secrets as a map": ("policy", {"secrets": {"a": 1}}, "malformed.non_canonical"),
    "no lease": ("policy", {"lease_seconds": 0}, "malformed.limit_exceeded"),
    "a lease of a year": ("policy", {"lease_seconds": 31_536_000}, "malformed.limit_exceeded"),
    "a policy as text": ("policy", {"appraisal": "text"}, "malformed.non_canonical"),
    "a huge policy": ("policy", {"appraisal": bytes(32 * 1024 + 1)}, "malformed.limit_exceeded"),
    "two targets": ("revoke", {"value": bytes(32)}, "malformed.non_canonical"),
    "an unknown target": ("revoke", {"what": "everything"}, "malformed.unknown_format"),
    "a short measurement": (
        "revoke",
        {"what": "measurement", "tenant": None, "value": bytes(15)},
        "malformed.length_mismatch",
    ),
    "a long measurement": (
        "revoke",
        {"what": "measurement", "tenant": None, "value": bytes(65)},
        "malformed.limit_exceeded",
    ),
    "a short manifest": (
        "revoke",
        {"what": "manifest", "tenant": None, "value": bytes(31)},
        "malformed.length_mismatch",
    ),
    "an unknown question": ("query", {"what": "everything"}, "malformed.unknown_format"),
    "a short challenge": ("query", {"challenge": bytes(31)}, "malformed.length_mismatch"),
}


@pytest.mark.parametrize(("kind", "changes", "code"), CHANGES.values(), ids=CHANGES.keys())
def test_a_signed_payload_with_one_thing_wrong_is_refused(
    kind: str, changes: dict[str, Any], code: str
) -> None:
    cls = type(EXAMPLES[kind])
    aad = b"confide/broker/statement/1\x00" + kind.encode()
    good = SignedStatement(KEY.public, cose.sign1(KEY, raw(kind), external_aad=aad))
    assert verify(good, cls, store=STORE) == EXAMPLES[kind]
    bad = SignedStatement(KEY.public, cose.sign1(KEY, raw(kind, **changes), external_aad=aad))
    assert code_of(verify, bad, cls, store=STORE) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": None, "tenant": None},
        {"secret": SecretName("a", 1), "tenant": "b"},
        {"tenant": "b", "manifest": bytes(32)},
    ],
)
def test_a_revocation_names_exactly_one_thing(changes: dict[str, Any]) -> None:
    assert code_of(dataclasses.replace, EXAMPLES["revoke"], **changes) == "configuration.invalid"


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_noise_gives_typed_errors_only(data: bytes, kind: type[Statement]) -> None:
    assert only_typed_errors(kind.decode, data) is None
    assert only_typed_errors(verify, SignedStatement(KEY.public, data), kind, store=STORE) is None


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**64), 2**64 - 1)
        | st.binary(max_size=8)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(sorted(EXAMPLES)),
    st.data(),
)
def test_any_value_in_any_field_gives_the_statement_or_a_typed_error(
    value: Any, kind: str, data: st.DataObject
) -> None:
    body = cbor.decode(EXAMPLES[kind].encode(), what="example", max_size=1 << 16)
    body[data.draw(st.sampled_from(sorted(body)))] = value
    try:
        encoded = cbor.encode(body)
    except ConfideError:
        return
    found = only_typed_errors(type(EXAMPLES[kind]).decode, encoded)
    assert found is None or found.encode() == encoded


def test_commitments_hide_and_bind() -> None:
    salt = os.urandom(32)
    assert commitment(salt, b"secret") == commitment(salt, b"secret")
    different = {
        commitment(salt, b"secret"),
        commitment(salt, b"secret\x00"),
        commitment(salt, b""),
        commitment(os.urandom(32), b"secret"),
    }
    assert len(different) == 4
    assert code_of(commitment, salt[:-1], b"secret") == "malformed.length_mismatch"


def test_subjects_of_different_things_never_collide() -> None:
    shared: dict[str, Any] = {"owner": KEY.public, "store": STORE, "serial": 1}
    subjects = [
        EXAMPLES["put"].subject,
        EXAMPLES["policy"].subject,
        Revoke(**shared, measurement=b"m" * 32).subject,
        Revoke(**shared, manifest=b"m" * 32).subject,
    ]
    assert len(set(subjects)) == 4
    # A policy and its revocation, a key and its revocation, rise in one row of serials.
    assert Revoke(**shared, tenant="acme").subject == EXAMPLES["policy"].subject
    assert Revoke(**shared, secret=SecretName("weights", 7)).subject == EXAMPLES["put"].subject
