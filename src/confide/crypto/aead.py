# SPDX-License-Identifier: Apache-2.0
"""AES-256-GCM with 96-bit nonces, into fresh bytes or into buffers that are used again (NIST SP 800-38D)."""

from __future__ import annotations

from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.crypto.secret import Secret
from confide.errors import ChannelError

__all__ = ["KEY", "NONCE", "TAG", "Aead", "AuthenticationFailed"]

KEY = 32
NONCE = 12
TAG = 16

Buffer = bytes | bytearray | memoryview


class AuthenticationFailed(ChannelError):
    """The ciphertext was not made with this key, nonce and associated data; callers map it to an error of their own."""

    def __init__(self) -> None:
        super().__init__("record_auth", "data did not authenticate")


class Aead:
    """One key. Nonces are the caller's to keep unique: a repeated nonce under one key breaks GCM."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes | Secret) -> None:
        raw = key.reveal() if isinstance(key, Secret) else key
        if len(raw) != KEY:
            raise ValueError("the key must have 32 bytes")
        self._cipher = AESGCM(raw)

    def seal(self, nonce: bytes, plaintext: Buffer, aad: bytes) -> bytes:
        """The ciphertext of ``plaintext``, 16 bytes longer."""
        if len(nonce) != NONCE:
            raise ValueError("the nonce must have 12 bytes")
        return self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, data: Buffer, aad: bytes) -> bytes:
        """The plaintext of ``data``; raises ``AuthenticationFailed``."""
        if len(nonce) != NONCE:
            raise ValueError("the nonce must have 12 bytes")
        try:
            return self._cipher.decrypt(nonce, data, aad)
        except (InvalidTag, ValueError, OverflowError):
            raise AuthenticationFailed from None

    def seal_into(self, nonce: bytes, plaintext: Buffer, aad: bytes, out: bytearray | memoryview) -> int:
        """Write the ciphertext to the front of ``out``, which must have room for it, and return its length.

        ``out`` may begin at the same place in memory as ``plaintext``.
        """
        if len(nonce) != NONCE:
            raise ValueError("the nonce must have 12 bytes")
        size = len(plaintext) + TAG
        if len(out) != size:
            out = _front(out, size)
        return self._cipher.encrypt_into(nonce, plaintext, aad, out)

    def open_into(self, nonce: bytes, data: Buffer, aad: bytes, out: bytearray | memoryview) -> int:
        """Write the plaintext to the front of ``out`` and return its length.

        The library writes plaintext before it has checked the tag: on failure that part of ``out`` is zeroed and
        ``AuthenticationFailed`` is raised, so nothing that did not authenticate can be read from it.
        """
        if len(nonce) != NONCE:
            raise ValueError("the nonce must have 12 bytes")
        size = len(data) - TAG
        if size < 0:
            raise AuthenticationFailed
        if len(out) != size:
            out = _front(out, size)
        try:
            return self._cipher.decrypt_into(nonce, data, aad, out)
        except (InvalidTag, OverflowError):
            out[:] = bytes(size)
            raise AuthenticationFailed from None

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a cipher holds a key and is not serialised")


def _front(out: bytearray | memoryview, size: int) -> memoryview:
    if len(out) < size:
        raise ValueError("the output buffer is too small")
    return memoryview(out)[:size]
