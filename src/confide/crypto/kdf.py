# SPDX-License-Identifier: Apache-2.0
"""Key derivation: HKDF with SHA-512 (RFC 5869)."""

from __future__ import annotations

import hmac

from confide.crypto.secret import Secret

__all__ = ["BLOCK", "expand", "hkdf"]

BLOCK = 64
"""Bytes in one block of output, which is all that ``expand`` gives."""

_LEAST_SECRET = 32


def _octets(secret: bytes | Secret) -> bytes:
    return secret.reveal() if isinstance(secret, Secret) else secret


def expand(secret: bytes | Secret, info: bytes, length: int) -> bytes:
    """HKDF-Expand for at most one block: ``length`` is 1 to 64 bytes, ``secret`` a uniform key of at least 32 bytes.

    Source: RFC 5869, section 2.3, with N = 1.
    """
    key = _octets(secret)
    if len(key) < _LEAST_SECRET:
        raise ValueError("the secret to expand must have at least 32 bytes")
    if not 1 <= length <= BLOCK:
        raise ValueError("one block gives 1 to 64 bytes")
    return hmac.digest(key, info + b"\x01", "sha512")[:length]


def hkdf(secret: bytes | Secret, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF (extract, then expand) for ``length`` bytes, 1 to 16320. Source: RFC 5869, sections 2.2 and 2.3."""
    if not 1 <= length <= 255 * BLOCK:
        raise ValueError("HKDF with SHA-512 gives 1 to 16320 bytes")
    key = hmac.digest(salt or bytes(BLOCK), _octets(secret), "sha512")
    output = block = b""
    for counter in range(1, -(-length // BLOCK) + 1):
        block = hmac.digest(key, block + info + bytes((counter,)), "sha512")
        output += block
    return output[:length]
