# SPDX-License-Identifier: Apache-2.0
"""COSE_Sign1 (RFC 9052, section 4.2).

Confide writes one form and reads back only that one: untagged, protected header {1: -19} (and {3: content type} if given),
empty unprotected header, attached payload. ``Sign1`` takes apart the documents of vendors, which differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from confide.crypto import signing
from confide.errors import MalformedError, NotGenuine
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ED25519", "ES256", "ES384", "PS256", "PS384", "Sign1", "sign1", "verify1"]

ES256 = -7
ED25519 = -19
ES384 = -35
PS256 = -37
PS384 = -38

_ALG, _CRIT, _CONTENT_TYPE = 1, 2, 3
_TAG = 18
_WHAT = "COSE_Sign1"
_ECDSA = {ES256: ("p256", 32, "sha256"), ES384: ("p384", 48, "sha384")}
_PSS = {PS256: "sha256", PS384: "sha384"}


def _to_be_signed(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    return cbor.encode(["Signature1", protected, external_aad, payload])


def _protected(content_type: str | int | None, parameters: Mapping[int, Any] | None = None) -> bytes:
    header: dict[int, Any] = {**(parameters or {}), _ALG: ED25519}
    if content_type is not None:
        header[_CONTENT_TYPE] = content_type
    return cbor.encode(header)


def sign1(
    key: signing.SigningKey,
    payload: bytes,
    *,
    external_aad: bytes = b"",
    content_type: str | int | None = None,
    parameters: Mapping[int, Any] | None = None,
) -> bytes:
    """``payload`` signed with Ed25519; ``external_aad`` names the use and is signed but not carried. ``parameters`` are
    further protected ones, for formats of others that ask for them; ``verify1`` does not read such back.
    """
    protected = _protected(content_type, parameters)
    signature = key.sign(_to_be_signed(protected, external_aad, payload))
    return cbor.encode([protected, {}, bytes(payload), signature])


def verify1(
    data: bytes,
    public: bytes,
    *,
    external_aad: bytes = b"",
    content_type: str | int | None = None,
    max_size: int = 1 << 20,
) -> bytes:
    """The payload of what ``sign1`` wrote with the same ``external_aad`` and ``content_type``.

    Any other form raises ``malformed.*``, another algorithm ``not_genuine.unsupported_algorithm``, a signature that does not
    verify under ``public`` (Ed25519, 32 bytes) ``not_genuine.bad_signature``.
    """
    parts = Sign1.decode(data, algorithms=frozenset({ED25519}), max_size=max_size)
    if parts.protected_bytes != _protected(content_type):
        raise MalformedError("non_canonical", f"{_WHAT}: the protected header is not the one expected")
    parts.verify(public, external_aad=external_aad)
    return parts.payload


@dataclass(frozen=True, slots=True)
class Sign1:
    """The parts of one COSE_Sign1; nothing in it is verified until ``verify`` has returned."""

    protected_bytes: bytes
    protected: Mapping[Any, Any]
    unprotected: Mapping[Any, Any]
    payload: bytes
    signature: bytes
    algorithm: int

    @classmethod
    def decode(
        cls,
        data: bytes,
        *,
        algorithms: frozenset[int],
        what: str = _WHAT,
        max_size: int = 1 << 20,
        vendor: bool = False,
        allow_tag: bool = False,
        allow_unprotected: bool = False,
        header_tags: frozenset[int] = frozenset(),
    ) -> Self:
        """Take ``data`` apart. The algorithm comes from the protected header only and must be one of ``algorithms``.

        ``vendor`` accepts unsorted maps, ``allow_tag`` an enclosing tag 18, ``allow_unprotected`` unprotected parameters (the
        caller must not trust them), ``header_tags`` tags on protected parameters. Critical headers are always refused: none is understood here.
        """
        value = cbor.decode(
            data,
            what=what,
            max_size=max_size,
            deterministic=not vendor,
            tags=frozenset({_TAG}) if allow_tag else frozenset(),
        )
        if isinstance(value, cbor.Tagged):
            value = value.value
        if not isinstance(value, list) or len(value) != 4:
            raise MalformedError("unknown_format", f"{what} is not an array of four")
        protected_bytes, unprotected, payload, signature = value
        if not (
            isinstance(protected_bytes, bytes)
            and isinstance(unprotected, dict)
            and isinstance(payload, bytes)
            and isinstance(signature, bytes)
        ):
            raise MalformedError("unknown_format", f"{what}: a part has the wrong type")
        if unprotected and not allow_unprotected:
            raise MalformedError("non_canonical", f"{what}: the unprotected header is not empty")
        protected = cbor.decode(
            protected_bytes,
            what=f"{what} header",
            max_size=max_size,
            deterministic=not vendor,
            tags=header_tags,
        )
        if not isinstance(protected, dict):
            raise MalformedError("unknown_format", f"{what}: the protected header is not a map")
        if _CRIT in protected or _CRIT in unprotected or _ALG in unprotected:
            raise MalformedError("non_canonical", f"{what}: a header parameter that has no place here")
        if any(key in protected for key in unprotected):
            raise MalformedError("non_canonical", f"{what}: a parameter in both headers")
        algorithm = protected.get(_ALG)
        if type(algorithm) is not int or algorithm not in algorithms:
            raise NotGenuine("unsupported_algorithm", f"{what}: its algorithm is not accepted here")
        return cls(protected_bytes, protected, unprotected, payload, signature, algorithm)

    def verify(self, public: bytes, *, external_aad: bytes = b"") -> None:
        """Check the signature under ``public``: 32 bytes for Ed25519, a DER SubjectPublicKeyInfo otherwise."""
        message = _to_be_signed(self.protected_bytes, external_aad, self.payload)
        if self.algorithm == ED25519:
            signing.verify(public, self.signature, message)
        elif self.algorithm in _ECDSA:
            curve, size, hash_name = _ECDSA[self.algorithm]
            if len(self.signature) != 2 * size:
                raise NotGenuine("bad_signature", "the ECDSA signature has the wrong length")
            r, s = (int.from_bytes(half, "big") for half in (self.signature[:size], self.signature[size:]))
            signing.verify_ecdsa(public, r, s, message, curve=curve, hash_name=hash_name)
        elif self.algorithm in _PSS:
            signing.verify_rsa_pss(public, self.signature, message, hash_name=_PSS[self.algorithm])
        else:
            raise NotGenuine("unsupported_algorithm", "the signature's algorithm is not known here")
