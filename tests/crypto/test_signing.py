# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from confide.crypto import signing
from confide.crypto.issue import IssuingKey
from confide.crypto.signing import SigningKey
from support.refusal import code_of
from support.vectors import document, rows

HASHES = {"p256": "sha256", "p384": "sha384"}
ORDERS = {name: curve[2] for name, curve in signing.CURVES.items()}
BAD = "not_genuine.bad_signature"
WEAK = "not_genuine.weak_key"


def ecdsa_key(curve: str) -> IssuingKey:
    return IssuingKey.from_scalar(0xC0FFEE, curve=curve)


def spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


# RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_ed25519_gives_what_rfc_8032_says(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_bytes(bytes.fromhex(seed))

    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.to_bytes().hex() == seed
    signing.verify(key.public, bytes.fromhex(signature), bytes.fromhex(message))


def test_ed25519_verifies_what_wycheproof_says() -> None:
    for row in rows("ed25519", 40):
        public, message, signature = (bytes.fromhex(row[n]) for n in ("public", "message", "signature"))
        if row["result"] == "valid":
            signing.verify(public, signature, message)
        else:
            assert code_of(signing.verify, public, signature, message) == BAD, row["id"]


@given(st.binary(max_size=64), st.integers(0, 511))
def test_a_flipped_bit_of_the_signature_or_another_message_is_refused(message: bytes, bit: int) -> None:
    key = SigningKey.from_bytes(bytes(range(32)))
    signature = bytearray(key.sign(message))
    signing.verify(key.public, bytes(signature), message)
    signature[bit // 8] ^= 1 << bit % 8

    assert code_of(signing.verify, key.public, bytes(signature), message) == BAD
    assert code_of(signing.verify, key.public, key.sign(message), message + b"\0") == BAD


P = (1 << 255) - 19
D = -121665 * pow(121666, -1, P) % P


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def small_order_points() -> set[tuple[int, int]]:
    """All eight points of the torsion of edwards25519, found by multiplying points by the prime order of the base."""
    order = (1 << 252) + 27742317777372353535851937790883648493
    found: set[tuple[int, int]] = set()
    for y in range(2, 60):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if x * x % P != square:
            x = x * pow(2, (P - 1) // 4, P) % P
        if x * x % P != square:
            continue
        total, addend, n = (0, 1), (x, y), order
        while n:
            if n & 1:
                total = _add(total, addend)
            addend, n = _add(addend, addend), n >> 1
        found.add(total)
    return found


def test_ev_11_every_small_order_ed25519_key_is_refused() -> None:
    """Under such a key one signature verifies for many messages: whoever names it as a signer proves nothing."""
    points = small_order_points()
    assert len(points) == 8
    assert {y for _, y in points} == signing._SMALL_ORDER_Y

    for x, y in points:
        for sign in (0, 1, x & 1):
            for value in {y, y + P} if y < 19 else {y}:
                public = (value | sign << 255).to_bytes(32, "little")
                assert code_of(signing.verify, public, bytes(64), b"message") == WEAK


@pytest.mark.parametrize(
    "public",
    [b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32, (P + 3).to_bytes(32, "little"), b"\x02" + bytes(31)],
)
def test_ev_11_an_ed25519_key_that_is_not_canonical_is_refused(public: bytes) -> None:
    key = SigningKey.from_bytes(bytes(range(32)))
    signature = key.sign(b"message")
    signing.verify(key.public, signature, b"message")

    assert code_of(signing.verify, public, signature, b"message") in {WEAK, BAD}
    if len(public) != 32 or public[0] != 2:
        assert code_of(signing.verify, public, signature, b"message") == WEAK


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_ecdsa_verifies_what_wycheproof_says(curve: str) -> None:
    size = signing.CURVES[curve][1]
    for row in rows(f"ecdsa_{curve}", 45):
        signature, message = bytes.fromhex(row["signature"]), bytes.fromhex(row["message"])
        check = functools.partial(
            signing.verify_ecdsa,
            bytes.fromhex(row["spki"]),
            int.from_bytes(signature[:size], "big"),
            int.from_bytes(signature[size:], "big"),
            message,
            curve=curve,
            hash_name=HASHES[curve],
        )
        if row["result"] == "valid":
            check()
        elif len(signature) == 2 * size:
            assert code_of(check) == BAD, row["id"]


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_ev_09_r_and_s_are_between_1_and_n_minus_1(curve: str) -> None:
    n = ORDERS[curve]
    key, message = ecdsa_key(curve), b"report"
    r, s = key.sign_ecdsa(message, hash_name=HASHES[curve])
    check = functools.partial(signing.verify_ecdsa, message=message, curve=curve, hash_name=HASHES[curve])
    check(key.public_key_der, r, s)

    all_ones = (1 << n.bit_length()) - 1
    for bad in (0, n, n + 1, -1, -r, r + n, s + n, s - n, n - r, all_ones, 1 << 384, 1 << 4096, 2 * n):
        assert code_of(check, key.public_key_der, bad, s) == BAD
        if bad != n - s:
            assert code_of(check, key.public_key_der, r, bad) == BAD
    assert code_of(check, key.public_key_der, 0, 0) == BAD
    assert code_of(check, key.public_key_der, s, r) == BAD


def test_ev_10_the_twin_of_a_signature_verifies_so_no_cache_may_be_keyed_by_it() -> None:
    key = ecdsa_key("p384")
    r, s = key.sign_ecdsa(b"report")

    signing.verify_ecdsa(
        key.public_key_der, r, ORDERS["p384"] - s, b"report", curve="p384", hash_name="sha384"
    )


def test_ev_12_a_key_of_another_kind_than_demanded_is_refused() -> None:
    p256, p384 = ecdsa_key("p256"), ecdsa_key("p384")
    r, s = p256.sign_ecdsa(b"report", hash_name="sha384")
    check = functools.partial(signing.verify_ecdsa, r=r, s=s, message=b"report", hash_name="sha384")
    check(p256.public_key_der, curve="p256")

    assert code_of(check, p256.public_key_der, curve="p384") == "not_genuine.algorithm_mismatch"
    assert code_of(check, p384.public_key_der, curve="p256") == "not_genuine.algorithm_mismatch"
    assert code_of(check, RSA_SPKI, curve="p384") == "not_genuine.algorithm_mismatch"
    assert code_of(signing.verify_rsa_pss, p384.public_key_der, b"", b"", hash_name="sha384") == (
        "not_genuine.algorithm_mismatch"
    )


RSA_SPKI = bytes.fromhex(document("rsa_pss_4096_sha384")["spki"])


def test_rsa_pss_verifies_what_wycheproof_says() -> None:
    for row in rows("rsa_pss_4096_sha384", 12):
        check = functools.partial(
            signing.verify_rsa_pss,
            RSA_SPKI,
            bytes.fromhex(row["signature"]),
            bytes.fromhex(row["message"]),
            hash_name="sha384",
        )
        if row["result"] == "valid":
            check()
        else:
            assert code_of(check) == BAD, row["id"]


def test_ev_12_weak_and_unknown_public_keys_are_refused() -> None:
    assert signing.key_kind(RSA_SPKI) == "rsa4096"

    small = rsa.RSAPublicNumbers(65537, (1 << 1023) | 1).public_key()
    low_exponent = rsa.RSAPublicNumbers(3, (1 << 2047) | 1).public_key()
    huge = rsa.RSAPublicNumbers(65537, (1 << 16383) | 1).public_key()
    for weak in (small, low_exponent, huge):
        assert code_of(signing.key_kind, spki(weak)) == WEAK
    for unknown in (
        ec.derive_private_key(5, ec.SECP521R1()).public_key(),
        ec.derive_private_key(5, ec.SECP256K1()).public_key(),
        x25519.X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key(),
        ed448.Ed448PrivateKey.from_private_bytes(bytes(57)).public_key(),
        _dsa_key(),
    ):
        assert code_of(signing.key_kind, spki(unknown)) == "not_genuine.unsupported_algorithm"


def test_a_key_of_an_algorithm_that_nobody_knows_is_refused() -> None:
    unknown = bytes.fromhex("300c300506032a03040303000102")

    assert code_of(signing.key_kind, unknown) == "not_genuine.unsupported_algorithm"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_a_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey.from_bytes(bytes(size))


def _dsa_key() -> dsa.DSAPublicKey:
    numbers = dsa.DSAParameterNumbers(p=(1 << 2047) | 1, q=(1 << 255) | 1, g=2)
    return dsa.DSAPublicNumbers(4, numbers).public_key()


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_ev_11_points_that_are_not_on_the_curve_are_refused(curve: str) -> None:
    good = ecdsa_key(curve).public_key_der
    size = signing.CURVES[curve][1]
    point = good[-2 * size :]
    assert signing.public_key_from_point(point, curve=curve) == good

    flipped = point[:-1] + bytes([point[-1] ^ 1])
    other = ecdsa_key("p256" if curve == "p384" else "p384").public_key_der
    for bad in (
        bytes(2 * size),
        b"\xff" * 2 * size,
        flipped,
        b"",
        point[:-1],
        point + b"\0",
        b"\x04" + point,
        b"\x02" + point[:size],
        other[-2 * (80 - size) :],
    ):
        assert code_of(signing.public_key_from_point, bad, curve=curve) == WEAK
    for spoiled in (
        good[:-1] + flipped[-1:],
        good[: -2 * size] + bytes(2 * size),
        good[:-1],
        b"",
        b"\x30\x00",
    ):
        assert code_of(signing.key_kind, spoiled) == WEAK


def test_ev_11_a_compressed_point_is_refused() -> None:
    """The named curve and the uncompressed point are the one accepted form of a key in a certificate."""
    good = ecdsa_key("p384").public_key_der
    compressed = (
        bytes.fromhex("3046")
        + good[2:20]
        + bytes.fromhex("033200")
        + bytes([2 + (good[-1] & 1)])
        + good[-96:-48]
    )

    assert code_of(signing.key_kind, compressed) == WEAK


@given(st.binary(max_size=120))
def test_any_bytes_as_a_key_are_refused_with_a_typed_error(data: bytes) -> None:
    assert code_of(signing.key_kind, data).startswith("not_genuine.")


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_rsa_pkcs1_signatures_verify_under_their_own_hash_only(hash_name: str) -> None:
    key = rsa_key()
    made = key.sign_rsa_pkcs1(b"quoted", hash_name=hash_name)
    signing.verify_rsa_pkcs1(key.public_key_der, made, b"quoted", hash_name=hash_name)
    other = "sha256" if hash_name != "sha256" else "sha512"
    for signature, message, name in (
        (made, b"quoted", other),
        (made, b"Quoted", hash_name),
        (made[:-1], b"quoted", hash_name),
        (made + b"\x00", b"quoted", hash_name),
        (bytes(len(made)), b"quoted", hash_name),
        (b"", b"quoted", hash_name),
        (key.sign_rsa_pss(b"quoted", hash_name=hash_name), b"quoted", hash_name),
    ):
        assert (
            code_of(signing.verify_rsa_pkcs1, key.public_key_der, signature, message, hash_name=name) == BAD
        )


def test_ev_12_a_pkcs1_signature_needs_an_rsa_key() -> None:
    key = ecdsa_key("p256")
    assert code_of(signing.verify_rsa_pkcs1, key.public_key_der, b"", b"", hash_name="sha256") == (
        "not_genuine.algorithm_mismatch"
    )


@functools.cache
def rsa_key() -> IssuingKey:
    return IssuingKey.generate_rsa(2048)


def test_an_rsa_key_of_modulus_and_exponent_is_the_key_itself() -> None:
    key = rsa_key()
    numbers = serialization.load_der_public_key(key.public_key_der)
    assert isinstance(numbers, rsa.RSAPublicKey)
    modulus = numbers.public_numbers().n.to_bytes(256, "big")
    assert signing.public_key_from_modulus(modulus) == key.public_key_der


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [
        (b"", 65537),
        (bytes(256), 65537),
        (b"\xff" * 128, 65537),  # RSA-1024
        (b"\xff" * 256, 3),
        (b"\xff" * 256, 65538),
        (b"\xff" * 256, 1 << 64),
        (b"\x00" + b"\xff" * 256, 65537),  # A leading zero.
        (b"\x7f" + b"\xff" * 255, 65537),
        (b"\xff" * 255 + b"\xfe", 65537),  # An even modulus.
        (b"\xff" * 1025, 65537),
    ],
)
def test_ev_12_a_modulus_that_no_usable_key_has_is_refused(modulus: bytes, exponent: int) -> None:
    assert code_of(signing.public_key_from_modulus, modulus, exponent) == WEAK
