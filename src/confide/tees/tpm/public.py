# SPDX-License-Identifier: Apache-2.0
"""The public area of a TPM's key: TPMT_PUBLIC for RSA and ECC, its attributes, its name.

Source: "Trusted Platform Module Library, Part 2: Structures" (TCG, revision 1.59), 8.3 (TPMA_OBJECT), 12.2.4 (TPMT_PUBLIC);
Part 1, 16 (names).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from confide.crypto import signing
from confide.errors import MalformedError, NotGenuine
from confide.wire.cursor import Cursor

__all__ = [
    "ATTRIBUTES",
    "HIERARCHIES",
    "MAX_PUBLIC",
    "Public",
    "Scheme",
    "attributes",
    "decode_public",
    "encode_public",
    "qualified_name",
]

MAX_PUBLIC: Final = 1024

ALG_RSA: Final = 0x0001
ALG_SHA256: Final = 0x000B
ALG_NULL: Final = 0x0010
ALG_ECC: Final = 0x0023
CURVES: Final = MappingProxyType({0x0003: ("p256", 32), 0x0004: ("p384", 48)})
NAME_HASHES: Final = MappingProxyType({ALG_SHA256: "sha256", 0x000C: "sha384", 0x000D: "sha512"})
_SIGNING: Final = MappingProxyType({0x0014: "rsassa", 0x0016: "rsapss", 0x0018: "ecdsa"})

ATTRIBUTES: Final = MappingProxyType(
    {
        "fixedTPM": 1,
        "stClear": 2,
        "fixedParent": 4,
        "sensitiveDataOrigin": 5,
        "userWithAuth": 6,
        "adminWithPolicy": 7,
        "noDA": 10,
        "encryptedDuplication": 11,
        "restricted": 16,
        "decrypt": 17,
        "sign": 18,
    }
)
"""The bits of TPMA_OBJECT by name; all others are reserved and must be 0."""

_RESERVED: Final = ~sum(1 << bit for bit in ATTRIBUTES.values()) & 0xFFFFFFFF

HIERARCHIES: Final = MappingProxyType(
    {"owner": 0x40000001, "null": 0x40000007, "endorsement": 0x4000000B, "platform": 0x4000000C}
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """The one signature scheme of a restricted signing key."""

    name: str
    hash_name: str


@dataclass(frozen=True, slots=True)
class Public:
    """A key as its TPMT_PUBLIC says; ``encoded`` is all of it, of which the name is a digest.

    ``kind`` is "rsa" or "ecc"; ``unique`` is the modulus, or x || y at the curve's full length, and empty in a template.
    """

    kind: str
    name_hash: str
    attributes: int
    auth_policy: bytes
    scheme: Scheme | None
    curve: str
    exponent: int
    unique: bytes
    name: bytes
    encoded: bytes

    def has(self, attribute: str) -> bool:
        """Whether the bit of that name is set."""
        return bool(self.attributes >> ATTRIBUTES[attribute] & 1)

    def spki(self) -> bytes:
        """The key as a SubjectPublicKeyInfo; ``not_genuine.weak_key`` for one that is not usable."""
        if self.kind == "rsa":
            return signing.public_key_from_modulus(self.unique, self.exponent)
        return signing.public_key_from_point(self.unique, curve=self.curve)


def _sized(cursor: Cursor, most: int, what: str) -> bytes:
    length = cursor.u16()
    if length > most:
        raise MalformedError("limit_exceeded", f"{what} is longer than {most} bytes")
    return cursor.take(length)


def decode_public(data: bytes) -> Public:
    """TPMT_PUBLIC of an RSA or ECC key in ``data``.

    Raises MalformedError; ``not_genuine.unsupported_algorithm`` for kinds of keys, curves and hashes that are not used here.
    """
    if len(data) > MAX_PUBLIC:
        raise MalformedError("limit_exceeded", f"TPMT_PUBLIC is longer than {MAX_PUBLIC} bytes")
    cursor = Cursor(data, "TPMT_PUBLIC")
    kind, name_number, attributes = cursor.u16(), cursor.u16(), cursor.u32()
    name_hash = NAME_HASHES.get(name_number)
    if kind not in {ALG_RSA, ALG_ECC} or name_hash is None:
        raise NotGenuine("unsupported_algorithm", "the attestation key is of a kind that is not used here")
    if attributes & _RESERVED:
        raise MalformedError("reserved_not_zero", "TPMT_PUBLIC: reserved attributes are set")
    policy = _sized(cursor, 64, "authPolicy")
    _skip_symmetric(cursor)
    scheme = _scheme(cursor)
    curve, exponent = "", 0
    if kind == ALG_RSA:
        bits, exponent = cursor.u16(), cursor.u32() or 65537
        unique = _sized(cursor, 1024, "the modulus")
        if unique and 8 * len(unique) != bits:
            raise MalformedError("length_mismatch", "TPMT_PUBLIC: the modulus is not as long as it says")
    else:
        chosen = CURVES.get(cursor.u16())
        if chosen is None:
            raise NotGenuine(
                "unsupported_algorithm", "the attestation key lies on a curve that is not used here"
            )
        curve, size = chosen
        if cursor.u16() != ALG_NULL:
            raise MalformedError("non_canonical", "TPMT_PUBLIC: a signing key with a key derivation scheme")
        x, y = _sized(cursor, size, "x"), _sized(cursor, size, "y")
        unique = x.rjust(size, b"\x00") + y.rjust(size, b"\x00") if x or y else b""
    cursor.expect_end()
    name = name_number.to_bytes(2, "big") + hashlib.new(name_hash, data).digest()
    return Public(
        kind="rsa" if kind == ALG_RSA else "ecc",
        name_hash=name_hash,
        attributes=attributes,
        auth_policy=policy,
        scheme=scheme,
        curve=curve,
        exponent=exponent,
        unique=unique,
        name=name,
        encoded=bytes(data),
    )


def _skip_symmetric(cursor: Cursor) -> None:
    """TPMT_SYM_DEF_OBJECT: nothing for a signing key, AES with its length and mode for a storage key."""
    if cursor.u16() != ALG_NULL:
        cursor.take(4)


def _scheme(cursor: Cursor) -> Scheme | None:
    number = cursor.u16()
    if number == ALG_NULL:
        return None
    hash_number = cursor.u16()
    name, hash_name = _SIGNING.get(number), NAME_HASHES.get(hash_number)
    if name is None or hash_name is None:
        raise NotGenuine("unsupported_algorithm", "the attestation key's scheme is not accepted")
    return Scheme(name, hash_name)


def attributes(*names: str) -> int:
    """TPMA_OBJECT with the bits of these names set."""
    return sum(1 << ATTRIBUTES[name] for name in names)


def encode_public(
    *,
    attributes: int,
    scheme: Scheme | None,
    curve: str = "",
    unique: bytes = b"",
    name_hash: str = "sha256",
    auth_policy: bytes = b"",
    bits: int = 2048,
    exponent: int = 0,
    storage: bool = False,
) -> bytes:
    """TPMT_PUBLIC of a key, or of a template where ``unique`` is empty. ECC with a ``curve``, RSA without.

    ``unique`` is the modulus or x || y. ``storage`` makes it a parent of other objects, which it encrypts with AES-128-CFB.
    """
    hashes = {name: number for number, name in NAME_HASHES.items()}
    schemes = {name: number for number, name in _SIGNING.items()}
    parts = [
        (ALG_ECC if curve else ALG_RSA).to_bytes(2, "big"),
        hashes[name_hash].to_bytes(2, "big"),
        attributes.to_bytes(4, "big"),
        _tpm2b(auth_policy),
        bytes.fromhex("000600800043") if storage else ALG_NULL.to_bytes(2, "big"),
        ALG_NULL.to_bytes(2, "big")
        if scheme is None
        else schemes[scheme.name].to_bytes(2, "big") + hashes[scheme.hash_name].to_bytes(2, "big"),
    ]
    if curve:
        number, size = next((number, size) for number, (name, size) in CURVES.items() if name == curve)
        parts += [number.to_bytes(2, "big"), ALG_NULL.to_bytes(2, "big")]
        parts += [_tpm2b(unique[:size]), _tpm2b(unique[size:])]
    else:
        parts += [bits.to_bytes(2, "big"), exponent.to_bytes(4, "big"), _tpm2b(unique)]
    return b"".join(parts)


def _tpm2b(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def qualified_name(parent: bytes, name: bytes) -> bytes:
    """The qualified name of an object: over its parent's qualified name, or the handle of its hierarchy (Part 1, 16).

    ``not_genuine.unsupported_algorithm`` if the name's own hash is not one that is used here.
    """
    hash_name = NAME_HASHES.get(int.from_bytes(name[:2], "big"))
    if hash_name is None:
        raise NotGenuine("unsupported_algorithm", "the name of a key is of a hash that is not used here")
    return name[:2] + hashlib.new(hash_name, parent + name).digest()
