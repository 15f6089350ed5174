# SPDX-License-Identifier: Apache-2.0
"""What somebody who knows an AES-GCM key can do with it: GHASH is linear, so one free block buys any tag."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_R = 0xE1 << 120


def multiply(x: int, y: int) -> int:
    """In GF(2^128) with GCM's reflected bits (NIST SP 800-38D, section 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (_R if y & 1 else 0)
    return product


def power(x: int, exponent: int) -> int:
    result = 1 << 127  # The one of the field.
    while exponent:
        if exponent & 1:
            result = multiply(result, x)
        x = multiply(x, x)
        exponent >>= 1
    return result


def _encrypt(key: bytes, block: bytes) -> int:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the raw block cipher is what GCM is made of
    return int.from_bytes(encryptor.update(block), "big")


def hash_key(key: bytes) -> int:
    return _encrypt(key, bytes(16))


def _ghash(h: int, ciphertext: bytes) -> int:
    total = 0
    for i in range(0, len(ciphertext), 16):
        total = multiply(total ^ int.from_bytes(ciphertext[i : i + 16], "big"), h)
    return multiply(total ^ len(ciphertext) * 8, h)


def tag(key: bytes, nonce: bytes, ciphertext: bytes) -> int:
    return _ghash(hash_key(key), ciphertext) ^ _encrypt(key, nonce + b"\0\0\0\1")


def with_tag(key: bytes, nonce: bytes, ciphertext: bytes, wanted: bytes) -> bytes:
    """``ciphertext`` (whole blocks) with its last block changed so that its tag under ``key`` is ``wanted``."""
    difference = tag(key, nonce, ciphertext) ^ int.from_bytes(wanted, "big")
    # The last block is multiplied by H twice: once for itself, once for the block of lengths.
    change = multiply(difference, power(hash_key(key), (1 << 128) - 1 - 2))
    last = int.from_bytes(ciphertext[-16:], "big") ^ change
    return ciphertext[:-16] + last.to_bytes(16, "big")


def under_two_keys(first: bytes, second: bytes, nonce: bytes, ciphertext: bytes) -> bytes:
    """``ciphertext`` (whole blocks), its last block changed, with a tag that is right under both keys."""
    difference = tag(first, nonce, ciphertext) ^ tag(second, nonce, ciphertext)
    slope = power(hash_key(first), 2) ^ power(hash_key(second), 2)
    change = multiply(difference, power(slope, (1 << 128) - 2))
    last = int.from_bytes(ciphertext[-16:], "big") ^ change
    changed = ciphertext[:-16] + last.to_bytes(16, "big")
    return changed + tag(first, nonce, changed).to_bytes(16, "big")
