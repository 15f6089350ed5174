# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the receiving side, written from docs/spec/release.md alone; imports nothing of confide."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from support.protected_file_decoder import item

SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class RefusedError(Exception):
    """With the code that the specification names."""


def lp(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def nonce(challenge: bytes, tenant: str, secrets: list[list[Any]]) -> bytes:
    data = (
        lp(b"confide/release-challenge/1")
        + lp(challenge)
        + lp(tenant.encode())
        + len(secrets).to_bytes(4, "big")
    )
    for name, version in secrets:
        data += lp(name.encode()) + version.to_bytes(8, "big")
    return hashlib.sha256(data).digest()


def accept(vector: dict[str, Any], answer: bytes) -> tuple[int, list[list[Any]], bytes]:
    """Lease, secrets and acknowledgement of an answer to the vector's request, or RefusedError."""
    message, end = item(answer, 0)
    if (
        end != len(answer)
        or set(message) - {"signature"} != {"v", "kid", "nonce", "wrap"}
        or message["v"] != 1
    ):
        raise RefusedError("malformed")
    if message["nonce"] != bytes.fromhex(vector["nonce"]):
        raise RefusedError("broker.not_found")
    kid = hashlib.sha256(bytes.fromhex(vector["key_material"])).digest()
    if message["kid"] != kid:
        raise RefusedError("broker.integrity")
    digest = hashlib.sha256(message["wrap"]).digest()
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["owner_public"])).verify(
            message.get("signature", b""), b"confide/1 release answer\0" + kid + message["nonce"] + digest
        )
    except InvalidSignature:
        raise RefusedError("broker.denied") from None
    key = MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(vector["mlkem_seed"])),
        x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["x25519_private"])),
    )
    try:
        plaintext = SUITE.decrypt(message["wrap"], key, b"confide/1 release\0" + kid + message["nonce"])
    except (InvalidTag, ValueError):
        raise RefusedError("broker.integrity") from None
    length = int.from_bytes(plaintext[:4], "big")
    content, end = item(plaintext[4 : 4 + length], 0)
    rows = content["secrets"]
    asked = [[s["name"], s["version"]] for s in vector["secrets"]]
    padded = len(plaintext) % 1024 == 0 and not any(plaintext[4 + length :])
    if not padded or end != length or content["v"] != 1 or [row[:2] for row in rows] != asked:
        raise RefusedError("broker.integrity")
    receipt = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["receipt_seed"]))
    return (
        content["lease"],
        rows,
        receipt.sign(b"confide/1 release accepted\0" + kid + message["nonce"] + digest),
    )
