# SPDX-License-Identifier: Apache-2.0
"""The one signature with the exponent 3: that of an SGX enclave's signer (Intel SDM, volume 3D, section 36.13)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from confide.errors import NotGenuine

__all__ = ["MODULUS_BYTES", "verify"]

MODULUS_BYTES = 384
_EXPONENT = 3


def verify(modulus: bytes, signature: bytes, message: bytes) -> None:
    """Check RSASSA-PKCS1-v1_5 with SHA-256, a modulus of 3072 bits and the exponent 3; both big-endian, 384 bytes.

    The processor accepts nothing else there. Elsewhere ``confide.crypto.signing`` refuses this exponent. Raises
    ``not_genuine.weak_key`` for a modulus that is none, ``not_genuine.bad_signature``.
    """
    if len(modulus) != MODULUS_BYTES or not modulus[0] & 0x80 or not modulus[-1] & 1:
        raise NotGenuine("weak_key", "the signer's modulus is not one of 3072 bits")
    try:
        key = rsa.RSAPublicNumbers(_EXPONENT, int.from_bytes(modulus, "big")).public_key()
        key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        raise NotGenuine("bad_signature", "the enclave's signature does not verify") from None
