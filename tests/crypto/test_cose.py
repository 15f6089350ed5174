# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.crypto import cose
from confide.crypto.issue import IssuingKey
from confide.crypto.signing import SigningKey
from confide.wire import cbor
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from pathlib import Path

KEY = SigningKey.from_bytes(bytes(range(32)))
AAD = b"confide/1 receipt"
VENDOR = frozenset({cose.ES384, cose.ES256, cose.PS384, cose.PS256})
NON_CANONICAL = "malformed.non_canonical"


def signed(
    *,
    protected: Any = None,
    unprotected: Any = None,
    payload: Any = b"payload",
    header: bytes | None = None,
    context: str = "Signature1",
) -> bytes:
    """What `sign1` makes, with any part replaced, and a signature that is right for the parts."""
    raw = cbor.encode({1: -19} if protected is None else protected) if header is None else header
    signature = KEY.sign(cbor.encode([context, raw, AAD, payload if isinstance(payload, bytes) else b""]))
    return cbor.encode([raw, {} if unprotected is None else unprotected, payload, signature])


def verify(data: bytes, **options: Any) -> bytes:
    return cose.verify1(data, KEY.public, external_aad=AAD, **options)


def test_the_bytes_are_those_of_rfc_9052() -> None:
    """The structure, written out: [h'a10132', {}, payload, signature], and the Sig_structure that is signed."""
    data = cose.sign1(KEY, b"payload", external_aad=AAD)

    assert data == signed()
    assert data[:6].hex() == "8443a10132a0"
    message = b"\x84\x6aSignature1\x43\xa1\x01\x32\x51" + AAD + b"\x47payload"
    assert data[-64:] == KEY.sign(message)
    assert verify(data) == b"payload"


@given(
    st.binary(max_size=100),
    st.binary(max_size=40),
    st.one_of(st.none(), st.text(max_size=20), st.integers(0, 999)),
)
def test_what_is_signed_verifies(payload: bytes, aad: bytes, content_type: str | int | None) -> None:
    data = cose.sign1(KEY, payload, external_aad=aad, content_type=content_type)

    assert cose.verify1(data, KEY.public, external_aad=aad, content_type=content_type) == payload


def test_another_use_key_or_content_type_is_refused() -> None:
    data = cose.sign1(KEY, b"payload", external_aad=AAD, content_type="a/b")
    assert verify(data, content_type="a/b") == b"payload"

    other = SigningKey.from_bytes(bytes(31) + b"\1")
    assert code_of(cose.verify1, data, KEY.public, external_aad=b"", content_type="a/b") == (
        "not_genuine.bad_signature"
    )
    assert code_of(cose.verify1, data, other.public, external_aad=AAD, content_type="a/b") == (
        "not_genuine.bad_signature"
    )
    assert code_of(verify, data, content_type="a/c") == NON_CANONICAL
    assert code_of(verify, data) == NON_CANONICAL


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    data = signed()

    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert code_of(verify, bytes(flipped)).split(".")[0] in {"malformed", "not_genuine"}
    for size in range(len(data)):
        assert code_of(verify, data[:size]) == "malformed.truncated"
    assert code_of(verify, data + b"\0") == "malformed.trailing_data"
    assert code_of(verify, data * 2) == "malformed.trailing_data"


@pytest.mark.parametrize("algorithm", [-7, -35, -37, -8, -257, 5, 0, 19])
def test_ev_08_another_algorithm_under_the_same_key_is_refused(algorithm: int) -> None:
    assert verify(signed()) == b"payload"

    assert code_of(verify, signed(protected={1: algorithm})) == "not_genuine.unsupported_algorithm"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"protected": {}}, "not_genuine.unsupported_algorithm"),
        ({"header": b""}, "malformed.truncated"),
        ({"protected": {1: "EdDSA"}}, "not_genuine.unsupported_algorithm"),
        ({"protected": {1: [-19]}}, "not_genuine.unsupported_algorithm"),
        ({"protected": {1: -19, 4: b"kid"}}, NON_CANONICAL),
        ({"protected": {1: -19, 2: [1]}}, NON_CANONICAL),
        ({"protected": [1, -19]}, "malformed.unknown_format"),
        ({"unprotected": {4: b"kid"}}, NON_CANONICAL),
        ({"protected": {}, "unprotected": {1: -19}}, NON_CANONICAL),
        ({"header": bytes.fromhex("a1013812")}, NON_CANONICAL),
        ({"header": bytes.fromhex("a201320132")}, NON_CANONICAL),
        ({"payload": None}, "malformed.unknown_format"),
        ({"payload": "payload"}, "malformed.unknown_format"),
        ({"context": "CounterSignature"}, "not_genuine.bad_signature"),
    ],
)
def test_only_the_written_form_is_read(change: dict[str, Any], code: str) -> None:
    assert verify(signed()) == b"payload"

    assert code_of(verify, signed(**change)) == code


def test_another_shape_is_refused() -> None:
    parts = cbor.decode(signed(), what="sign1", max_size=999)
    shapes = [
        cbor.encode(cbor.Tagged(18, parts)),
        cbor.encode(cbor.Tagged(98, parts)),
        cbor.encode(parts[:3]),
        cbor.encode([*parts, b""]),
        cbor.encode({0: parts}),
        cbor.encode(b""),
        cbor.encode([[], *parts[1:]]),
        cbor.encode(["a", *parts[1:]]),
        cbor.encode([parts[0], [], *parts[2:]]),
        cbor.encode([*parts[:3], [parts[3]]]),
    ]

    for shape in shapes[:2]:
        assert code_of(verify, shape) == NON_CANONICAL
    for shape in shapes[2:]:
        assert code_of(verify, shape) == "malformed.unknown_format"
    assert code_of(verify, cbor.encode([*parts[:3], parts[3][:-1]])) == "not_genuine.bad_signature"
    assert code_of(verify, cbor.encode([*parts[:3], b""])) == "not_genuine.bad_signature"


def test_the_size_is_limited() -> None:
    assert code_of(verify, signed(), max_size=20) == "malformed.limit_exceeded"


@pytest.mark.parametrize(("curve", "algorithm", "size"), [("p384", cose.ES384, 48), ("p256", cose.ES256, 32)])
def test_vendor_documents_with_ecdsa_verify_and_bind_the_curve(curve: str, algorithm: int, size: int) -> None:
    key = IssuingKey.from_scalar(77, curve=curve)
    protected = cbor.encode({1: algorithm})
    r, s = key.sign_ecdsa(
        cbor.encode(["Signature1", protected, b"", b"doc"]),
        hash_name="sha384" if curve == "p384" else "sha256",
    )
    signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    data = cbor.encode(cbor.Tagged(18, [protected, {}, b"doc", signature]))

    parts = cose.Sign1.decode(data, algorithms=VENDOR, allow_tag=True, vendor=True)
    parts.verify(key.public_key_der)
    assert parts.payload == b"doc"
    assert parts.algorithm == algorithm
    other = IssuingKey.from_scalar(77, curve="p256" if curve == "p384" else "p384")
    assert code_of(parts.verify, other.public_key_der) == "not_genuine.algorithm_mismatch"
    assert code_of(parts.verify, key.public_key_der, external_aad=b"x") == "not_genuine.bad_signature"
    assert code_of(cose.Sign1.decode, data, algorithms=VENDOR) == NON_CANONICAL
    assert code_of(cose.Sign1.decode, data, algorithms=frozenset({cose.ED25519}), allow_tag=True) == (
        "not_genuine.unsupported_algorithm"
    )
    for bad in (
        b"",
        signature[:-1],
        signature + b"\0",
        bytes(2 * size),
        b"\xff" * 2 * size,
        signature[size:],
    ):
        document = cbor.encode([protected, {}, b"doc", bad])
        spoiled = cose.Sign1.decode(document, algorithms=VENDOR)
        assert code_of(spoiled.verify, key.public_key_der) == "not_genuine.bad_signature"


def test_a_vendor_document_signed_with_rsa_pss_verifies(rsa_key: IssuingKey) -> None:
    protected = cbor.encode({1: cose.PS384})
    signature = rsa_key.sign_rsa_pss(cbor.encode(["Signature1", protected, b"", b"doc"]))
    data = cbor.encode([protected, {}, b"doc", signature])

    parts = cose.Sign1.decode(data, algorithms=VENDOR)
    parts.verify(rsa_key.public_key_der)
    assert code_of(parts.verify, rsa_key.public_key_der, external_aad=b"x") == "not_genuine.bad_signature"


def test_unprotected_parameters_never_override_protected_ones() -> None:
    def decode(protected: dict[int, Any], unprotected: dict[int, Any]) -> cose.Sign1:
        data = cbor.encode([cbor.encode(protected), unprotected, b"doc", bytes(96)])
        return cose.Sign1.decode(data, algorithms=VENDOR, allow_unprotected=True)

    assert decode({1: -35}, {4: b"kid"}).unprotected == {4: b"kid"}
    assert code_of(decode, {1: -35}, {1: -7}) == NON_CANONICAL
    assert code_of(decode, {}, {1: -35}) == NON_CANONICAL
    assert code_of(decode, {1: -35, 4: b"a"}, {4: b"b"}) == NON_CANONICAL
    assert code_of(decode, {1: -35}, {2: [4]}) == NON_CANONICAL
    assert code_of(decode, {1: -35, 2: [4], 4: b"a"}, {}) == NON_CANONICAL


def test_a_real_document_of_a_vendor_is_read(shared: Path) -> None:
    """Azure's reference info for its utility VM: tagged, RSA-PSS with SHA-384, certificates in the protected header."""
    data = (shared / "evidence" / "sev-snp" / "milan-v2-aci.uvm_reference_info.cose").read_bytes()

    parts = cose.Sign1.decode(
        data,
        algorithms=VENDOR,
        vendor=True,
        allow_tag=True,
        allow_unprotected=True,
        header_tags=frozenset({1}),
        max_size=1 << 16,
    )
    assert parts.algorithm == cose.PS384
    assert b"x-ms-sevsnpvm-launchmeasurement" in parts.payload


@given(st.binary(max_size=150))
def test_any_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    assert only_typed_errors(verify, data) is None
