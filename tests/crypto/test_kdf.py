# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from confide.crypto.kdf import expand, hkdf
from confide.crypto.secret import Secret
from support.vectors import rows


def test_hkdf_gives_what_wycheproof_says() -> None:
    for row in rows("hkdf_sha512", 25):
        ikm, salt, info = (bytes.fromhex(row[name]) for name in ("ikm", "salt", "info"))
        if row["result"] == "valid":
            assert hkdf(ikm, salt=salt, info=info, length=row["length"]).hex() == row["okm"], row["id"]
        else:
            with pytest.raises(ValueError, match="16320"):
                hkdf(ikm, salt=salt, info=info, length=row["length"])


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100), st.integers(1, 300))
def test_hkdf_agrees_with_the_library(ikm: bytes, salt: bytes, info: bytes, length: int) -> None:
    assert hkdf(ikm, salt=salt, info=info, length=length) == HKDF(SHA512(), length, salt, info).derive(ikm)


@given(st.binary(min_size=32, max_size=100), st.binary(max_size=100), st.integers(1, 64))
def test_expand_agrees_with_the_library(key: bytes, info: bytes, length: int) -> None:
    assert expand(key, info, length) == HKDFExpand(SHA512(), length, info).derive(key)
    assert expand(Secret(key), info, length) == expand(key, info, length)


def test_expand_gives_the_key_schedule_of_the_envelope() -> None:
    """The values in section 11 of the envelope's proposal, which another implementation computed."""
    transcript = b"\x01" + b"\xaa" * 32 + (7).to_bytes(8, "big") + b"\xbb" * 16
    secret = bytes(range(64))

    assert expand(secret, b"confide/1 request\0" + transcript, 44).hex() == (
        "1e49e5bf9f0fcb3df027a7071ee299ba649888d1d8fb1e41a5f071dfc991e1415fafa1368a335bf15917271a"
    )
    assert expand(secret, b"confide/1 response\0" + transcript + b"\xcc" * 32, 44).hex() == (
        "9156b23581d31e56cc661d99bc5185b157da9f6a20dda91d30ecf5bed1f57931e8cc594501a3b30db0814221"
    )
    assert expand(secret, b"confide/1 binder\0" + transcript, 32).hex() == (
        "03691a005ad4cc1847278a84ace817181cd1f9b6728da07b73793e8f09248205"
    )
    assert expand(secret, b"confide/1 receipt\0" + transcript, 32).hex() == (
        "30bf0a535c1b50aeae273992fa283fdf1205c44bf6e5343ba6d7afdf5c4569a0"
    )


@pytest.mark.parametrize(("size", "length"), [(31, 32), (0, 32), (64, 0), (64, 65), (64, -1)])
def test_expand_refuses_short_secrets_and_more_than_one_block(size: int, length: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        expand(bytes(size), b"info", length)
