# SPDX-License-Identifier: Apache-2.0
"""TPM2_MakeCredential against the specification's own formulas, by the private key of an endorsement key."""

from __future__ import annotations

import functools
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from confide.crypto.credential import make_credential
from support.refusal import code_of

NAME = b"\x00\x0b" + bytes(range(32))
SECRET = b"a secret of 32 bytes, exactly so"


@functools.cache
def key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def spki(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def kdfa(seed: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa for one block: HMAC(seed, 1 || label || 0 || context || bits)."""
    fixed = (1).to_bytes(4, "big") + label + b"\x00" + context + bits.to_bytes(4, "big")
    return hmac.digest(seed, fixed, "sha256")[: bits // 8]


def opened(private: rsa.RSAPrivateKey, blob: bytes, encrypted: bytes, name: bytes) -> bytes | None:
    """What a TPM with this key does: the secret, or None where the integrity does not hold. CFB is done with ECB, block by block."""
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\x00")
    seed = private.decrypt(encrypted, oaep)
    size = int.from_bytes(blob[:2], "big")
    code, identity = blob[2 : 2 + size], blob[2 + size :]
    if not hmac.compare_digest(
        hmac.digest(kdfa(seed, b"INTEGRITY", b"", 256), identity + name, "sha256"), code
    ):
        return None
    block = Cipher(algorithms.AES(kdfa(seed, b"STORAGE", name, 128)), modes.ECB()).encryptor()  # noqa: S305 - to build CFB of
    plain, previous = b"", bytes(16)
    for start in range(0, len(identity), 16):
        chunk = identity[start : start + 16]
        plain += bytes(a ^ b for a, b in zip(chunk, block.update(previous), strict=False))
        previous = chunk
    assert int.from_bytes(plain[:2], "big") == len(plain) - 2
    return plain[2:]


def test_a_credential_opens_with_the_endorsement_key_for_its_name_only() -> None:
    blob, encrypted = make_credential(spki(key()), NAME, SECRET, random=lambda n: bytes(range(n)))
    assert opened(key(), blob, encrypted, NAME) == SECRET
    assert opened(key(), blob, encrypted, NAME[:-1] + b"\x00") is None
    assert opened(key(), blob[:-1] + bytes([blob[-1] ^ 1]), encrypted, NAME) is None
    assert SECRET not in blob


def test_a_credential_depends_on_its_seed() -> None:
    made = [
        make_credential(spki(key()), NAME, SECRET, random=lambda n, fill=fill: bytes([fill]) * n)[0]  # type: ignore[misc]
        for fill in (1, 2)
    ]
    assert made[0] != made[1]
    assert hashlib.sha256(made[0]).digest() != hashlib.sha256(made[1]).digest()


def test_other_keys_and_lengths_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    for other in (spki(curve), spki(key(3072))):
        assert code_of(make_credential, other, NAME, SECRET, random=bytes) == "not_genuine.algorithm_mismatch"
    for secret in (b"", bytes(33)):
        with pytest.raises(ValueError, match="1 to 32"):
            make_credential(spki(key()), NAME, secret, random=bytes)
