# SPDX-License-Identifier: Apache-2.0
"""A secret that only the TPM with a given endorsement key tells, and only if it holds a key of a given name: TPM2_MakeCredential.

Source: "Trusted Platform Module Library", Part 1, 24 (credential protection), B.10.4 (RSA secret sharing), 11.4.10.2 (KDFa, which
is the counter-mode KDF of NIST SP 800-108 with HMAC). For endorsement keys of TCG's profile L-1: RSA-2048, SHA-256, AES-128-CFB.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from confide.crypto import signing
from confide.errors import NotGenuine

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make_credential"]

_SEED: Final = 32
_KEY: Final = 16
_LABEL: Final = b"IDENTITY\x00"


def make_credential(
    endorsement_key_der: bytes, name: bytes, secret: bytes, *, random: Callable[[int], bytes]
) -> tuple[bytes, bytes]:
    """The two parameters of TPM2_ActivateCredential, without their lengths: credential blob and encrypted seed.

    ``name`` is the name of the object that the TPM must hold, ``secret`` at most 32 bytes. Raises ``not_genuine.algorithm_mismatch``
    unless the endorsement key (a SubjectPublicKeyInfo) is RSA of 2048 bits.
    """
    key = signing.load_public_key(endorsement_key_der)
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 2048:
        raise NotGenuine("algorithm_mismatch", "the endorsement key is not an RSA key of 2048 bits")
    if not 1 <= len(secret) <= _SEED:
        raise ValueError("a credential protects 1 to 32 bytes")
    seed = random(_SEED)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), _LABEL)
    encrypted = key.encrypt(seed, oaep)
    # Each pair of keys is used once, with a seed of its own, so that the initialisation vector of zeros repeats under none.
    cipher = Cipher(algorithms.AES(_kdf(seed, b"STORAGE", name, _KEY)), CFB(bytes(_KEY))).encryptor()
    identity = cipher.update(len(secret).to_bytes(2, "big") + secret) + cipher.finalize()
    code = hmac.digest(_kdf(seed, b"INTEGRITY", b"", _SEED), identity + name, "sha256")
    return len(code).to_bytes(2, "big") + code + identity, encrypted


def _kdf(seed: bytes, label: bytes, context: bytes, length: int) -> bytes:
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=length,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(seed)
