# SPDX-License-Identifier: Apache-2.0
"""JWS in compact serialisation and the public half of JWK (RFC 7515, 7517, 7518, 8037), narrowed along RFC 8725.

The caller says which algorithms it accepts and under which key; a token's own header chooses neither. Header parameters
that name or carry keys (`jku`, `jwk`, `x5u`) are read past; `x5c` is handed out as bytes, which are worth nothing until a
chain from them ends at a pinned root. There is no symmetric algorithm here, so that a public key can never be a MAC key.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from confide.crypto import signing, x509
from confide.errors import MalformedError, NotGenuine
from confide.wire import base64_text, strict_json
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALGORITHMS", "Jwk", "Jws", "read_jwks", "sign"]

MAX_TOKEN: Final = 64 * 1024
MAX_HEADER: Final = 24 * 1024
MAX_CHAIN: Final = 8
MAX_JWKS: Final = 256 * 1024
MAX_KEYS: Final = 64

_ECDSA: Final = {"ES256": ("p256", 32, "sha256"), "ES384": ("p384", 48, "sha384")}
_PSS: Final = {"PS256": "sha256", "PS384": "sha384"}
_PKCS1: Final = {"RS256": hashes.SHA256()}

ALGORITHMS: Final = frozenset({*_ECDSA, *_PSS, *_PKCS1, "EdDSA"})
"""Every algorithm that can be accepted, by its name in RFC 7518 and RFC 8037."""

# These say where a key is or bring one. They are read past, since refusing them would refuse every token of some issuers.
_PASSED_OVER: Final = frozenset({"kid", "typ", "jku", "jwk", "x5u", "x5t", "x5t#S256", "x5c"})
_KTY: Final = {"p256": ("EC", "P-256"), "p384": ("EC", "P-384"), "ed25519": ("OKP", "Ed25519")}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Jws:
    """The parts of one token; nothing in it is verified until ``verify`` has returned.

    ``certificates`` are the DER certificates of ``x5c``, the signer's first.
    """

    algorithm: str
    typ: str | None
    certificates: tuple[bytes, ...]
    payload: bytes
    signature: bytes
    signing_input: bytes

    @classmethod
    def decode(cls, data: bytes | str, *, algorithms: frozenset[str], what: str = "token") -> Self:
        """Take a compact serialisation of at most 64 KiB apart (RFC 7515, section 7.1).

        Raises ``malformed.unknown_format`` for anything but three parts (a JWE has five), ``malformed.non_canonical`` for
        base64url with padding or spare bits, JSON with duplicate keys, and header parameters that change the meaning of a
        token (``crit``, ``b64``, ``zip``, ``enc``, ``cty``) or are not known; ``not_genuine.unsupported_algorithm`` for an
        algorithm outside ``algorithms``.
        """
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
        if len(raw) > MAX_TOKEN:
            raise MalformedError("limit_exceeded", f"the {what} is longer than {MAX_TOKEN} bytes")
        parts = raw.split(b".")
        if len(parts) != 3 or not all(parts[:2]):
            raise MalformedError("unknown_format", f"the {what} is not a JWS in compact serialisation")
        header_bytes, payload, signature = (
            _base64url(part, f"{name} of the {what}", MAX_TOKEN)
            for part, name in zip(parts, ("header", "payload", "signature"), strict=True)
        )
        header = strict_json.decode(
            header_bytes, what=f"header of the {what}", max_size=MAX_HEADER, max_depth=4
        )
        fields = Fields(header, f"header of the {what}")
        algorithm = fields.text("alg", 16)
        typ = fields.text("typ", 64, default=None)
        fields.text("kid", 512, default=None)
        certificates = fields.list_("x5c", MAX_CHAIN, default=[])
        if set(header) - _PASSED_OVER - {"alg"}:
            raise MalformedError(
                "non_canonical",
                f"the header of the {what} has a parameter that has no place here",
                hint="critical, compressed, encrypted, unencoded and nested tokens are refused",
            )
        if algorithm not in algorithms or algorithm not in ALGORITHMS:
            raise NotGenuine("unsupported_algorithm", f"the {what} names an algorithm that is not accepted")
        return cls(
            algorithm=algorithm,
            typ=typ,
            certificates=tuple(
                base64_text.decode(item, what=f"certificate of the {what}", max_length=x509.MAX_CERTIFICATE)
                for item in certificates
            ),
            payload=payload,
            signature=signature,
            signing_input=raw[: raw.rindex(b".")],
        )

    def fits(self, public_key_der: bytes) -> bool:
        """Whether a key (DER SubjectPublicKeyInfo) is of the kind that the algorithm asks for."""
        kind = signing.key_kind(public_key_der)
        if self.algorithm in _ECDSA:
            return kind == _ECDSA[self.algorithm][0]
        return kind == "ed25519" if self.algorithm == "EdDSA" else kind.startswith("rsa")

    def verify(self, public_key_der: bytes) -> None:
        """Check the signature under a DER SubjectPublicKeyInfo that the caller trusts.

        Raises ``not_genuine.algorithm_mismatch`` for a key of another kind than the algorithm's, ``bad_signature``,
        ``weak_key``. Source: RFC 7518, sections 3.3 to 3.5; RFC 8037, section 3.1.
        """
        if not self.fits(public_key_der):
            raise NotGenuine("algorithm_mismatch", "the token's algorithm is not one for the signer's key")
        key = signing.load_public_key(public_key_der)
        if self.algorithm in _ECDSA:
            curve, size, hash_name = _ECDSA[self.algorithm]
            if len(self.signature) != 2 * size:
                raise NotGenuine("bad_signature", "the ECDSA signature has the wrong length")
            r, s = (int.from_bytes(half, "big") for half in (self.signature[:size], self.signature[size:]))
            signing.verify_ecdsa(public_key_der, r, s, self.signing_input, curve=curve, hash_name=hash_name)
        elif self.algorithm in _PSS:
            signing.verify_rsa_pss(
                public_key_der, self.signature, self.signing_input, hash_name=_PSS[self.algorithm]
            )
        elif isinstance(key, ed25519.Ed25519PublicKey):
            signing.verify(key.public_bytes_raw(), self.signature, self.signing_input)
        elif isinstance(key, rsa.RSAPublicKey):
            self._verify_pkcs1(key)
        else:
            raise NotGenuine("algorithm_mismatch", "the token's algorithm is not one for the signer's key")

    def _verify_pkcs1(self, key: rsa.RSAPublicKey) -> None:
        if len(self.signature) == (key.key_size + 7) // 8:
            try:
                key.verify(self.signature, self.signing_input, padding.PKCS1v15(), _PKCS1[self.algorithm])
            except (InvalidSignature, ValueError):
                pass  # Raised below.
            else:
                return
        raise NotGenuine("bad_signature", "the RSA signature does not verify")

    def claims(self, *, what: str = "token", max_depth: int = 16) -> dict[str, Any]:
        """The payload as a JSON object, read strictly."""
        value = strict_json.decode(
            self.payload, what=f"payload of the {what}", max_size=MAX_TOKEN, max_depth=max_depth
        )
        if not isinstance(value, dict):
            raise MalformedError("unknown_format", f"the payload of the {what} is not a JSON object")
        return value


def sign(key: signing.SigningKey, claims: Mapping[str, object], *, typ: str) -> str:
    """A compact JWS with EdDSA over the JSON of ``claims``; the header is ``alg`` and ``typ`` and nothing else."""
    header = strict_json.encode({"alg": "EdDSA", "typ": typ})
    signing_input = _encode(header) + "." + _encode(strict_json.encode(dict(claims)))
    return signing_input + "." + _encode(key.sign(signing_input.encode("ascii")))


@dataclass(frozen=True, slots=True)
class Jwk:
    """A public key out of a JWK: its SubjectPublicKeyInfo, and the id and algorithm that the set gives it."""

    kid: str | None
    algorithm: str | None
    public_key_der: bytes

    @property
    def spki_sha256(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes."""
        return hashlib.sha256(self.public_key_der).digest()


def read_jwks(data: bytes) -> tuple[Jwk, ...]:
    """The public signature keys of a JWK set, or of one JWK, of at most 256 KiB (RFC 7517, section 5).

    Keys of kinds that are not used here, and keys for other uses than to verify signatures, are left out. A key may be given by its parameters, by
    ``x5c`` or by both, which must then agree; what a certificate says is not looked at. Private keys are refused.
    """
    value = strict_json.decode(data, what="JWK set", max_size=MAX_JWKS, max_depth=6)
    entries = value.get("keys") if isinstance(value, dict) and "keys" in value else [value]
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise MalformedError("limit_exceeded", f"a JWK set is a list of at most {MAX_KEYS} keys")
    found = (_read_jwk(Fields(entry, "JWK"), entry) for entry in entries)
    return tuple(key for key in found if key is not None)


def _read_jwk(fields: Fields, entry: Any) -> Jwk | None:
    kty, use = fields.text("kty", 16), fields.text("use", 16, default="sig")
    if _PRIVATE & set(entry):
        raise MalformedError(
            "non_canonical", "the JWK set has a private key", hint="give the issuer's public keys only"
        )
    kid, algorithm = fields.text("kid", 512, default=None), fields.text("alg", 16, default=None)
    uses = fields.list_("key_ops", 8, default=["verify"])
    if use != "sig" or "verify" not in uses or (algorithm is not None and algorithm not in ALGORITHMS):
        return None
    by_parameters = _parameters(kty, fields)
    chain = fields.list_("x5c", MAX_CHAIN, default=[])
    by_certificate = None
    if chain:
        der = base64_text.decode(chain[0], what="certificate of a JWK", max_length=x509.MAX_CERTIFICATE)
        by_certificate = x509.Certificate.from_der(der).public_key_der
    key = by_parameters or by_certificate
    if key is None:
        return None
    if by_certificate is not None and by_certificate != key:
        raise MalformedError("non_canonical", "a JWK names one key and brings the certificate of another")
    try:
        signing.load_public_key(key)
    except NotGenuine as error:
        if error.code != "not_genuine.unsupported_algorithm":
            raise
        return None
    return Jwk(kid, algorithm, key)


def _parameters(kty: str, fields: Fields) -> bytes | None:
    """The SubjectPublicKeyInfo of a JWK's own parameters; None where there are none, or of a kind not used here."""
    if kty == "RSA" and fields.has("n"):
        n, e = (_base64url(fields.text(name, 2048), "JWK", 1024) for name in ("n", "e"))
        if n[:1] == b"\0" or e[:1] == b"\0" or not n or not e:
            raise MalformedError("non_canonical", "a JWK has a number that is not in its shortest form")
        try:
            numbers = rsa.RSAPublicNumbers(int.from_bytes(e, "big"), int.from_bytes(n, "big"))
            return _spki(numbers.public_key())
        except ValueError:
            raise NotGenuine("weak_key", "a JWK is not a usable RSA key") from None
    curve = fields.text("crv", 16, default=None)
    kinds = [kind for kind, spelled in _KTY.items() if spelled == (kty, curve)]
    if not kinds or not fields.has("x"):
        return None
    if kty == "OKP":
        x = _base64url(fields.text("x", 64), "JWK", 32)
        try:
            return _spki(ed25519.Ed25519PublicKey.from_public_bytes(x))
        except ValueError:
            raise NotGenuine("weak_key", "a JWK is not a usable Ed25519 key") from None
    size = signing.CURVES[kinds[0]][1]
    x, y = (_base64url(fields.text(name, 96), "JWK", size) for name in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise MalformedError("length_mismatch", "a JWK has a coordinate of another length than its curve's")
    return signing.public_key_from_point(x + y, curve=kinds[0])


def _spki(key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _base64url(text: bytes | str, what: str, max_length: int) -> bytes:
    spelled = text.decode("latin-1") if isinstance(text, bytes) else text
    return base64_text.decode(spelled, what=what, max_length=max_length, url=True)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
