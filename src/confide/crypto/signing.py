# SPDX-License-Identifier: Apache-2.0
"""Ed25519 for confide's own signatures (RFC 8032), ECDSA and RSA to check those of vendors (FIPS 186-5, RFC 8017)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NoReturn, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from confide.errors import NotGenuine

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "CURVES",
    "SigningKey",
    "curve_name",
    "key_kind",
    "load_public_key",
    "public_key_from_modulus",
    "public_key_from_point",
    "verify",
    "verify_ecdsa",
    "verify_rsa_pkcs1",
    "verify_rsa_pss",
]

SIGNATURE_BYTES = 64

_P = (1 << 255) - 19
_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# A signature under one of these says nothing: whoever knows the key's y coordinate can make it.
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})

CURVES: dict[str, tuple[ec.EllipticCurve, int, int]] = {
    "p256": (
        ec.SECP256R1(),
        32,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "p384": (
        ec.SECP384R1(),
        48,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
}
"""By name: the curve, the bytes of a coordinate, the order of the group."""

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class SigningKey:
    """An Ed25519 private key."""

    __slots__ = ("_key", "public")

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's randomness."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, seed: bytes) -> Self:
        """The key of a 32-byte seed."""
        if len(seed) != 32:
            raise ValueError("the seed must have 32 bytes")
        return cls(ed25519.Ed25519PrivateKey.from_private_bytes(seed))

    def to_bytes(self) -> bytes:
        """The 32-byte seed, to be stored with care."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return "SigningKey(redacted)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a private key is neither copied nor serialised")


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature (64 bytes) under ``public`` (32 bytes).

    Raises ``not_genuine.weak_key`` for keys that are not canonical or of small order, and ``not_genuine.bad_signature``.
    """
    key = _ed25519(bytes(public))
    if len(signature) == SIGNATURE_BYTES:
        try:
            key.verify(bytes(signature), message)
        except InvalidSignature:
            pass  # Raised below.
        else:
            return
    raise NotGenuine("bad_signature", "the Ed25519 signature does not verify")


@functools.lru_cache(maxsize=64)
def _ed25519(public: bytes) -> ed25519.Ed25519PublicKey:
    if len(public) == 32:
        y = int.from_bytes(public, "little") & ((1 << 255) - 1)
        if y < _P and y not in _SMALL_ORDER_Y:
            try:
                return ed25519.Ed25519PublicKey.from_public_bytes(public)
            except ValueError:
                pass  # Raised below.
    raise NotGenuine("weak_key", "this is not a usable Ed25519 public key")


@functools.lru_cache(maxsize=128)
def load_public_key(
    public_key_der: bytes,
) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    """The key in a SubjectPublicKeyInfo; ``not_genuine.weak_key`` or ``unsupported_algorithm`` for what is unusable."""
    try:
        key = serialization.load_der_public_key(public_key_der)
    except UnsupportedAlgorithm:
        key = None
    except (ValueError, TypeError):
        raise NotGenuine("weak_key", "the public key is not valid") from None
    if key is not None and _spki(key) != public_key_der:
        # Compressed points, explicit curve parameters and the like: one key would have several digests.
        raise NotGenuine("weak_key", "the public key is not in its one accepted form")
    if isinstance(key, ec.EllipticCurvePublicKey):
        if curve_name(key) is None:
            raise NotGenuine("unsupported_algorithm", "the public key lies on a curve that is not used here")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not 2048 <= key.key_size <= 8192 or key.public_numbers().e < 65537:
            raise NotGenuine("weak_key", "the RSA key is too weak, or too large to check")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise NotGenuine("unsupported_algorithm", "the public key is of a kind that is not used here")


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def curve_name(key: ec.EllipticCurvePublicKey) -> str | None:
    """The short name of the key's curve, None for one that is not used."""
    for name, (curve, _, _) in CURVES.items():
        if key.curve.name == curve.name:
            return name
    return None


def key_kind(public_key_der: bytes) -> str:
    """The kind of a usable public key: "p256", "p384", "rsa2048" and so on, "ed25519"; raises like ``load_public_key``."""
    key = load_public_key(public_key_der)
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return curve_name(key) or ""
    return "ed25519"


def public_key_from_point(point: bytes, *, curve: str) -> bytes:
    """The SubjectPublicKeyInfo of the raw point x || y; ``not_genuine.weak_key`` unless it lies on the curve."""
    chosen, size, _ = CURVES[curve]
    if len(point) == 2 * size:
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(chosen, b"\x04" + bytes(point))
        except ValueError:
            pass  # Raised below.
        else:
            return _spki(key)
    raise NotGenuine("weak_key", "the public key is not a point of its curve")


def public_key_from_modulus(modulus: bytes, exponent: int = 65537) -> bytes:
    """The SubjectPublicKeyInfo of an RSA key, its modulus big-endian without leading zeros; ``not_genuine.weak_key`` for keys
    that ``load_public_key`` would refuse.
    """
    number = int.from_bytes(modulus, "big")
    if 2048 <= 8 * len(modulus) <= 8192 and modulus[0] >= 0x80 and number & 1 and 65537 <= exponent < 1 << 64:
        try:
            return _spki(rsa.RSAPublicNumbers(exponent, number).public_key())
        except ValueError:
            pass  # Raised below.
    raise NotGenuine("weak_key", "the RSA key is not valid, or too weak")


def verify_ecdsa(
    public_key_der: bytes, r: int, s: int, message: bytes, *, curve: str, hash_name: str
) -> None:
    """Check an ECDSA signature given as its two integers.

    ``curve`` is "p256" or "p384", ``hash_name`` "sha256", "sha384" or "sha512". Raises ``not_genuine.algorithm_mismatch`` if
    the key is of another curve or kind, ``not_genuine.bad_signature`` if r or s is not in 1 .. n-1 or does not verify. Both
    s and n - s verify (FIPS 186-5 asks for no low s), so a signature is no identifier of what it signs.
    """
    key = load_public_key(public_key_der)
    if not isinstance(key, ec.EllipticCurvePublicKey) or curve_name(key) != curve:
        raise NotGenuine(
            "algorithm_mismatch", "the signature's key is of another kind than its format demands"
        )
    order = CURVES[curve][2]
    if 0 < r < order and 0 < s < order:
        try:
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(_HASHES[hash_name]))
        except InvalidSignature:
            pass  # Raised below.
        else:
            return
    raise NotGenuine("bad_signature", "the ECDSA signature does not verify")


def verify_rsa_pss(public_key_der: bytes, signature: bytes, message: bytes, *, hash_name: str) -> None:
    """Check an RSA-PSS signature whose salt is as long as the hash (RFC 8017, section 8.1; RFC 8230)."""
    key = load_public_key(public_key_der)
    if not isinstance(key, rsa.RSAPublicKey):
        raise NotGenuine(
            "algorithm_mismatch", "the signature's key is of another kind than its format demands"
        )
    chosen = _HASHES[hash_name]
    try:
        key.verify(signature, message, padding.PSS(padding.MGF1(chosen), chosen.digest_size), chosen)
    except (InvalidSignature, ValueError):
        raise NotGenuine("bad_signature", "the RSA-PSS signature does not verify") from None


def verify_rsa_pkcs1(public_key_der: bytes, signature: bytes, message: bytes, *, hash_name: str) -> None:
    """Check an RSASSA-PKCS1-v1_5 signature (RFC 8017, section 8.2); for formats that leave no choice, such as TPM quotes."""
    key = load_public_key(public_key_der)
    if not isinstance(key, rsa.RSAPublicKey):
        raise NotGenuine(
            "algorithm_mismatch", "the signature's key is of another kind than its format demands"
        )
    try:
        key.verify(signature, message, padding.PKCS1v15(), _HASHES[hash_name])
    except (InvalidSignature, ValueError):
        raise NotGenuine("bad_signature", "the RSA signature does not verify") from None
