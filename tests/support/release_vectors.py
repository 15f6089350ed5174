# SPDX-License-Identifier: Apache-2.0
"""Makes docs/spec/vectors/release.json: ``python tests/support/release_vectors.py``. All keys in it are for tests only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from confide.attestation.key_material import KeyMaterial, ServiceIdentity, kid
from confide.crypto import hpke
from confide.crypto.signing import SigningKey
from confide.keys.release import ReleaseRequest, SecretName, Wrapped, hpke_info, owner_audience
from confide.wire import cbor

PLACE = Path(__file__).parents[2] / "docs" / "spec" / "vectors" / "release.json"
OWNER_SEED, RECEIPT_SEED = bytes([0x11]) * 32, bytes([0x22]) * 32
MLKEM_SEED, X25519_PRIVATE = bytes(range(64)), bytes(range(64, 96))
INSTANCE, MANIFEST = bytes([0x33]) * 16, b"a manifest"
ISSUED = 1_780_000_000
CHALLENGE = bytes(range(100, 132))
SECRETS = {"token": (7, b"a token"), "weights": (2, bytes([0x44]) * 32)}


def material(manifest_digest: bytes) -> bytes:
    return KeyMaterial(
        purpose="release", audience=owner_audience(SigningKey.from_bytes(OWNER_SEED).public),
        service=ServiceIdentity("model", manifest_digest, "acme", INSTANCE),
        key=hpke.PrivateKey.from_seeds(MLKEM_SEED, X25519_PRIVATE).public,
        receipt_key=SigningKey.from_bytes(RECEIPT_SEED).public, epoch=1, lifetime=120, issued_at=ISSUED, at_most_once=True,
        content={}, max_body=0, max_session=120,
    ).encode()  # fmt: skip


def padded(content: bytes, to: int = 1024) -> bytes:
    plaintext = len(content).to_bytes(4, "big") + content
    return plaintext + bytes(-len(plaintext) % to)


def make() -> dict[str, Any]:
    import hashlib

    owner = SigningKey.from_bytes(OWNER_SEED)
    names = [SecretName(name, version) for name, (version, _) in SECRETS.items()]
    request = ReleaseRequest.new("acme", names, CHALLENGE)
    key_material = material(hashlib.sha256(MANIFEST).digest())
    public = hpke.PrivateKey.from_seeds(MLKEM_SEED, X25519_PRIVATE).public
    rows = [[name, version, value] for name, (version, value) in SECRETS.items()]
    content = cbor.encode({"v": 1, "lease": 3600, "secrets": rows})

    def answer(
        plaintext: bytes, *, signer: SigningKey = owner, info: bytes | None = None, **fields: Any
    ) -> Wrapped:
        key, nonce = kid(key_material), request.nonce
        made = Wrapped(key, nonce, hpke.seal(public, info or hpke_info(key, nonce), plaintext))
        made = dataclasses.replace(made, **fields)
        return dataclasses.replace(made, signature=signer.sign(made.signed_message))

    good = answer(padded(content))
    other = cbor.encode({"v": 1, "lease": 3600, "secrets": rows[:1]})
    swapped = cbor.encode({"v": 1, "lease": 3600, "secrets": rows[::-1]})
    renamed = cbor.encode({"v": 1, "lease": 3600, "secrets": [rows[0], ["weights", 1, rows[1][2]]]})
    refuse = {
        "another nonce": (answer(padded(content), nonce=bytes(32)), "broker.not_found"),
        "another kid": (answer(padded(content), kid=bytes(32)), "broker.integrity"),
        "no signature": (dataclasses.replace(good, signature=None), "broker.denied"),
        "signed by somebody else": (answer(padded(content), signer=SigningKey.from_bytes(bytes(32))), "broker.denied"),
        "wrap changed after signing": (
            dataclasses.replace(good, wrap=good.wrap[:-1] + bytes([good.wrap[-1] ^ 1])), "broker.denied",
        ),
        "wrap for another nonce": (
            answer(padded(content), info=hpke_info(kid(key_material), bytes(32))), "broker.integrity",
        ),
        "wrap for another kid": (answer(padded(content), info=hpke_info(bytes(32), request.nonce)), "broker.integrity"),
        "wrap cut": (answer(padded(content), wrap=good.wrap[:-1]), "broker.integrity"),
        "one secret missing": (answer(padded(other)), "broker.integrity"),
        "secrets in another order": (answer(padded(swapped)), "broker.integrity"),
        "another version": (answer(padded(renamed)), "broker.integrity"),
        "not padded": (answer(padded(content, 1)), "broker.integrity"),
        "padding not zero": (answer(padded(content)[:-1] + b"\x01"), "broker.integrity"),
    }  # fmt: skip
    return {
        "about": "docs/spec/release.md; all byte strings in hexadecimal; the keys are for tests only",
        "tenant": "acme",
        "challenge": CHALLENGE.hex(),
        "secrets": [
            {"name": name, "version": version, "secret": value.hex()}
            for name, (version, value) in SECRETS.items()
        ],
        "lease": 3600,
        "request": request.encode().hex(),
        "nonce": request.nonce.hex(),
        "owner_seed": OWNER_SEED.hex(),
        "owner_public": owner.public.hex(),
        "audience": owner_audience(owner.public),
        "mlkem_seed": MLKEM_SEED.hex(),
        "x25519_private": X25519_PRIVATE.hex(),
        "receipt_seed": RECEIPT_SEED.hex(),
        "key_material": key_material.hex(),
        "kid": kid(key_material).hex(),
        "plaintext": padded(content).hex(),
        "answer": good.encode().hex(),
        "acknowledgement": SigningKey.from_bytes(RECEIPT_SEED).sign(good.accepted_message).hex(),
        "refuse": [
            {"what": what, "answer": wrapped.encode().hex(), "code": code}
            for what, (wrapped, code) in refuse.items()
        ],
    }


if __name__ == "__main__":
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_text(json.dumps(make(), indent=1) + "\n")
