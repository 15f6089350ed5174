# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.crypto.aead import TAG, Aead, AuthenticationFailed
from confide.crypto.secret import Secret
from confide.errors import ChannelError, ConfideError
from support.refusal import code_of
from support.vectors import rows

NONCE = bytes(range(12))
ERROR = "channel.record_auth"


def cipher() -> Aead:
    return Aead(bytes(range(32)))


def test_it_does_what_wycheproof_says() -> None:
    for row in rows("aes_256_gcm", 30):
        key, nonce, aad, plaintext, sealed = (
            bytes.fromhex(row[name]) for name in ("key", "nonce", "aad", "plaintext", "sealed")
        )
        aead = Aead(key)
        out = bytearray(b"\xee" * len(plaintext))
        if row["result"] == "nonce":
            for attempt in (aead.seal, aead.open):
                with pytest.raises(ValueError, match="nonce"):
                    attempt(nonce, sealed, aad)
            with pytest.raises(ValueError, match="nonce"):
                aead.open_into(nonce, sealed, aad, out)
        elif row["result"] == "valid":
            assert aead.seal(nonce, plaintext, aad) == sealed, row["id"]
            assert aead.open(nonce, sealed, aad) == plaintext
            assert aead.open_into(nonce, sealed, aad, out) == len(plaintext)
            assert out == plaintext
        else:
            assert code_of(aead.open, nonce, sealed, aad) == ERROR
            assert code_of(aead.open_into, nonce, sealed, aad, out) == ERROR
            assert out == bytes(len(plaintext)), "plaintext that did not authenticate was left behind"


@given(st.binary(max_size=300), st.binary(max_size=40), st.integers(0, 20))
def test_all_ways_of_sealing_and_opening_agree(plaintext: bytes, aad: bytes, room: int) -> None:
    sealed = cipher().seal(NONCE, plaintext, aad)
    out = bytearray(b"\xee" * (len(sealed) + room))
    back = bytearray(b"\xee" * (len(plaintext) + room))

    assert cipher().seal_into(NONCE, plaintext, aad, out) == len(sealed) == len(plaintext) + TAG
    assert out == sealed + b"\xee" * room
    assert cipher().open_into(NONCE, memoryview(out)[: len(sealed)], aad, memoryview(back)) == len(plaintext)
    assert back == plaintext + b"\xee" * room
    assert cipher().open(NONCE, sealed, aad) == plaintext
    assert Aead(Secret(bytes(range(32)))).open(NONCE, sealed, aad) == plaintext


def test_sealing_and_opening_in_place() -> None:
    buffer = bytearray(b"x" * 1000 + bytes(TAG))
    view = memoryview(buffer)
    cipher().seal_into(NONCE, view[:1000], b"", view)

    assert bytes(buffer) == cipher().seal(NONCE, b"x" * 1000, b"")
    assert cipher().open_into(NONCE, view, b"", view[:1000]) == 1000
    assert buffer[:1000] == b"x" * 1000


def test_every_flipped_bit_and_every_cut_is_refused_and_leaves_zeros() -> None:
    plaintext, aad = b"canary" * 5, b"kind"
    sealed = cipher().seal(NONCE, plaintext, aad)

    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        out = bytearray(b"\xee" * 40)
        assert code_of(cipher().open_into, NONCE, flipped, aad, out) == ERROR
        assert out == bytes(len(plaintext)) + b"\xee" * 10
        assert code_of(cipher().open, NONCE, flipped, aad) == ERROR
    for size in range(len(sealed)):
        out = bytearray(b"\xee" * 40)
        assert code_of(cipher().open_into, NONCE, sealed[:size], aad, out) == ERROR
        assert code_of(cipher().open, NONCE, sealed[:size], aad) == ERROR
        assert b"canary"[:3] not in out


@pytest.mark.parametrize("change", ["nonce", "aad", "key"])
def test_another_nonce_key_or_associated_data_is_refused(change: str) -> None:
    sealed = cipher().seal(NONCE, b"plaintext", b"aad")
    key = bytes(32) if change == "key" else bytes(range(32))
    nonce = bytes(12) if change == "nonce" else NONCE
    aad = b"" if change == "aad" else b"aad"

    assert code_of(Aead(key).open, nonce, sealed, aad) == ERROR


def test_the_failure_says_nothing_and_hangs_on_nothing() -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        cipher().open(NONCE, b"canary-canary-canary", b"")

    assert isinstance(caught.value, ChannelError)
    assert isinstance(caught.value, ConfideError)
    assert caught.value.__suppress_context__
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_keys_have_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Aead(bytes(size))


def test_an_output_buffer_that_is_too_small_is_a_callers_mistake_and_is_not_written() -> None:
    sealed = cipher().seal(NONCE, b"plaintext", b"")
    small = bytearray(b"\xee" * 8)

    with pytest.raises(ValueError, match="too small"):
        cipher().open_into(NONCE, sealed, b"", small)
    with pytest.raises(ValueError, match="too small"):
        cipher().seal_into(NONCE, b"plaintext", b"", small)
    assert small == b"\xee" * 8
