# SPDX-License-Identifier: Apache-2.0
"""HPKE in base mode (RFC 9180) with the one suite that confide uses: X-Wing (ML-KEM-768 with X25519), HKDF-SHA256,
AES-256-GCM; wire ids 0x647a, 0x0001, 0x0002.

A public key is ML-KEM-768 public (1184 bytes) followed by X25519 public (32). A wrapped message is the encapsulation
(ML-KEM ciphertext 1088, X25519 32), the ciphertext and its tag. Each message is a single shot without associated data.
"""

from __future__ import annotations

from typing import NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from confide.errors import ChannelError, EnclaveError, NotGenuine

__all__ = ["ENCAPSULATION", "OVERHEAD", "PUBLIC_BYTES", "PrivateKey", "seal"]

PUBLIC_BYTES = 1216
ENCAPSULATION = 1120
OVERHEAD = ENCAPSULATION + 16
_MLKEM_PUBLIC = 1184

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class PrivateKey:
    """A key pair that lives in this process only; there is no way to export it."""

    __slots__ = ("_key", "public")

    def __init__(self, mlkem_key: mlkem.MLKEM768PrivateKey, x25519_key: x25519.X25519PrivateKey) -> None:
        self._key: MLKEM768X25519PrivateKey | None = MLKEM768X25519PrivateKey(mlkem_key, x25519_key)
        self.public: bytes = (
            mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> Self:
        """A new key pair from the operating system's randomness."""
        return cls(mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())

    @classmethod
    def from_seeds(cls, mlkem_seed: bytes, x25519_private: bytes) -> Self:
        """The key pair of fixed seeds (64 and 32 bytes), for test vectors."""
        if len(mlkem_seed) != 64 or len(x25519_private) != 32:
            raise ValueError("the seeds must have 64 and 32 bytes")
        return cls(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(mlkem_seed),
            x25519.X25519PrivateKey.from_private_bytes(x25519_private),
        )

    def open(self, info: bytes, wrapped: bytes) -> bytes:
        """The plaintext of ``wrapped``.

        Raises ``channel.record_auth`` for every wrap that was not made for this key and ``info``, one with a low-order
        X25519 share included, without saying what is wrong with it.
        """
        if self._key is None:
            raise EnclaveError("key_missing", "this private key has been erased")
        if len(wrapped) >= OVERHEAD:
            try:
                return _SUITE.decrypt(wrapped, self._key, info)
            except (InvalidTag, ValueError):
                pass  # One answer for every cause, raised below without the library's exception.
        raise ChannelError("record_auth", "the wrapped secret did not open")

    def erase(self) -> None:
        """Drop the private key; the library frees it."""
        self._key = None

    def __repr__(self) -> str:
        return "PrivateKey(redacted)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a private key is neither copied nor serialised")


def seal(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Wrap ``plaintext`` for the holder of ``public``; the result is ``OVERHEAD`` bytes longer.

    Raises ``not_genuine.weak_key`` if ``public`` is not a valid key: wrong length, ML-KEM coefficients out of range, an
    X25519 point of low order.
    """
    if len(public) == PUBLIC_BYTES:
        try:
            key = MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
                x25519.X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
            )
            return _SUITE.encrypt(plaintext, key, info)
        except ValueError:
            pass  # Raised below without the library's exception.
    raise NotGenuine("weak_key", "the channel key is not a valid X-Wing public key", stage="key material")
