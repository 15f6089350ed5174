# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto import hpke
from support.refusal import code_of
from support.vectors import rows

FIXED_PUBLIC = "429443a3f7ba432c81ec1e6377edab601bd9647bd5104c29d5363cf2594f295b"
INFO = b"confide/1 session\0" + bytes(32)


def key() -> hpke.PrivateKey:
    return hpke.PrivateKey.from_seeds(bytes(range(64)), bytes(range(100, 132)))


def _extract(salt: bytes, label: bytes, ikm: bytes, suite: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(prk: bytes, label: bytes, info: bytes, length: int, suite: bytes) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\x01", "sha256")[:length]


def wrap_by_hand(shared: bytes, encapsulation: bytes, info: bytes, plaintext: bytes) -> bytes:
    """RFC 9180, section 5.1, mode base, written out for the suite 0x647a, 0x0001, 0x0002."""
    suite = b"HPKE" + bytes.fromhex("647a00010002")
    context = b"\0" + _extract(b"", b"psk_id_hash", b"", suite) + _extract(b"", b"info_hash", info, suite)
    secret = _extract(shared, b"secret", b"", suite)
    aead_key = _expand(secret, b"key", context, 32, suite)
    nonce = _expand(secret, b"base_nonce", context, 12, suite)
    return encapsulation + AESGCM(aead_key).encrypt(nonce, plaintext, b"")


def test_keys_and_wraps_of_the_x_wing_draft_open() -> None:
    """Public key from the draft's seed, shared secret from its encapsulation, key schedule written out above."""
    for row in rows("xwing", 3):
        expanded = hashlib.shake_256(bytes.fromhex(row["seed"])).digest(96)
        private = hpke.PrivateKey.from_seeds(expanded[:64], expanded[64:])
        wrapped = wrap_by_hand(
            bytes.fromhex(row["shared"]), bytes.fromhex(row["encapsulation"]), INFO, b"session secret"
        )

        assert hashlib.sha256(private.public).hexdigest() == row["public_sha256"]
        assert private.open(INFO, wrapped) == b"session secret"


def test_a_fixed_key_has_a_fixed_public_half() -> None:
    public = key().public

    assert len(public) == hpke.PUBLIC_BYTES == 1216
    assert hashlib.sha256(public).hexdigest() == FIXED_PUBLIC


@given(st.binary(max_size=200), st.binary(max_size=100))
@settings(max_examples=30)
def test_what_is_sealed_opens(plaintext: bytes, info: bytes) -> None:
    wrapped = hpke.seal(key().public, info, plaintext)

    assert len(wrapped) == len(plaintext) + hpke.OVERHEAD
    assert key().open(info, wrapped) == plaintext


def test_the_wrap_of_a_session_secret_has_the_length_of_the_envelope() -> None:
    assert len(hpke.seal(key().public, INFO, bytes(64))) == 1200
    assert hpke.OVERHEAD == 1136
    assert hpke.ENCAPSULATION == 1120


def test_two_wraps_of_the_same_are_different() -> None:
    assert hpke.seal(key().public, INFO, bytes(64)) != hpke.seal(key().public, INFO, bytes(64))


def test_every_part_of_a_wrap_is_bound() -> None:
    wrapped = hpke.seal(key().public, INFO, b"secret")
    for index in (0, 500, 1087, 1088, 1119, 1120, 1125, len(wrapped) - 16, len(wrapped) - 1):
        for bit in (0, 7):
            changed = bytearray(wrapped)
            changed[index] ^= 1 << bit
            assert code_of(key().open, INFO, bytes(changed)) == "channel.record_auth"


def test_the_ignored_bit_of_the_share_is_bound_by_the_combiner() -> None:
    """X25519 ignores the top bit, X-Wing hashes the share as sent: so the wrap is not malleable there either."""
    changed = bytearray(hpke.seal(key().public, INFO, b"secret"))
    changed[1119] ^= 0x80

    assert code_of(key().open, INFO, bytes(changed)) == "channel.record_auth"


def test_another_info_key_or_length_is_refused() -> None:
    wrapped = hpke.seal(key().public, INFO, b"secret")

    assert code_of(key().open, INFO[:-1] + b"\1", wrapped) == "channel.record_auth"
    assert code_of(hpke.PrivateKey.generate().open, INFO, wrapped) == "channel.record_auth"
    assert code_of(key().open, INFO, wrapped + b"\0") == "channel.record_auth"
    for size in (0, 1, 1119, 1120, 1135, 1136, len(wrapped) - 1):
        assert code_of(key().open, INFO, wrapped[:size]) == "channel.record_auth"


def test_ch_11_low_order_shares_in_a_wrap_are_refused() -> None:
    wrapped = hpke.seal(key().public, INFO, b"secret")
    assert key().open(INFO, wrapped) == b"secret"

    for row in rows("x25519_low_order", 12):
        changed = wrapped[:1088] + bytes.fromhex(row["public"]) + wrapped[1120:]
        assert code_of(key().open, INFO, changed) == "channel.record_auth", row["id"]


def test_ch_11_low_order_points_in_a_public_key_are_refused() -> None:
    public = key().public
    hpke.seal(public, INFO, b"secret")

    for row in rows("x25519_low_order", 12):
        assert code_of(hpke.seal, public[:1184] + bytes.fromhex(row["public"]), INFO, b"secret") == (
            "not_genuine.weak_key"
        ), row["id"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda public: public[:-1],
        lambda public: public + b"\0",
        lambda public: b"",
        lambda public: b"\xff" * 1216,
        lambda public: b"\xff" * 3 + public[3:],
    ],
)
def test_a_public_key_that_is_not_one_is_refused(spoil: object) -> None:
    """The last one puts an ML-KEM coefficient out of range (FIPS 203, section 7.2)."""
    assert callable(spoil)

    assert code_of(hpke.seal, spoil(key().public), INFO, b"secret") == "not_genuine.weak_key"


def test_an_erased_key_opens_nothing() -> None:
    private = key()
    wrapped = hpke.seal(private.public, INFO, b"secret")
    private.erase()

    assert code_of(private.open, INFO, wrapped) == "enclave.key_missing"


@pytest.mark.parametrize(("first", "second"), [(63, 32), (65, 32), (64, 31), (64, 33)])
def test_seeds_have_their_lengths(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="seeds"):
        hpke.PrivateKey.from_seeds(bytes(first), bytes(second))


def test_the_refusal_of_a_wrap_carries_no_library_error() -> None:
    with pytest.raises(Exception, match="did not open") as caught:
        key().open(INFO, bytes(1200))

    assert caught.value.__context__ is None
