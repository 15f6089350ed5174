# SPDX-License-Identifier: Apache-2.0
"""The three forms in which attestation tokens come: a compact JWS, a detached bundle of them (NVIDIA), a COSE_Sign1 (EAR).

Reading checks form and nothing else; a token's claims are worth nothing before ``authenticate`` has judged its signature.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from confide.attestation import ear
from confide.attestation.tokens import nras
from confide.attestation.tokens.said import member
from confide.crypto import cose, jose, signing
from confide.errors import MalformedError, NotGenuine
from confide.wire import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Signed", "Token", "decode", "explain", "recognises"]

MAX_PARTS: Final = 32
_COMPACT = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\r?\n?", re.ASCII)
_TYPES: Final = frozenset({"jwt", "eat+jwt", "application/eat+jwt"})
_COSE: Final = {cose.ES256: "ES256", cose.ES384: "ES384", cose.PS256: "PS256", cose.PS384: "PS384"}


class Signed(Protocol):
    """One signed statement: its claims, and what is needed to check its signature."""

    @property
    def algorithm(self) -> str:
        """The algorithm by its name in RFC 7518."""

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The certificates that came with it, the signer's first."""

    def fits(self, public_key_der: bytes) -> bool:
        """Whether a key is of the kind that the algorithm asks for."""

    def verify(self, public_key_der: bytes) -> None:
        """Check the signature under a key that the caller trusts."""


@dataclass(frozen=True, slots=True)
class _Cwt:
    """A COSE_Sign1 behind the same face as a JWS."""

    parts: cose.Sign1

    @property
    def algorithm(self) -> str:
        return _COSE.get(self.parts.algorithm, "EdDSA")

    @property
    def certificates(self) -> tuple[bytes, ...]:
        return ()

    def fits(self, public_key_der: bytes) -> bool:
        kind = signing.key_kind(public_key_der)
        if self.algorithm.startswith("PS"):
            return kind.startswith("rsa")
        return kind == {"ES256": "p256", "ES384": "p384", "EdDSA": "ed25519"}[self.algorithm]

    def verify(self, public_key_der: bytes) -> None:
        if not self.fits(public_key_der):
            raise NotGenuine("algorithm_mismatch", "the token's algorithm is not one for the signer's key")
        # A SubjectPublicKeyInfo of Ed25519 ends with the 32 bytes of the key (RFC 8410, section 4).
        self.parts.verify(public_key_der[-32:] if self.algorithm == "EdDSA" else public_key_der)


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart: the statement about the whole with its claims, and those about parts by name."""

    form: str
    whole: Signed
    claims: Mapping[str, Any]
    parts: Mapping[str, tuple[Signed, Mapping[str, Any]]]

    @property
    def statements(self) -> tuple[tuple[Signed, Mapping[str, Any]], ...]:
        """Every signed statement with its claims, the whole first."""
        return ((self.whole, self.claims), *self.parts.values())


def recognises(data: bytes) -> bool:
    """Whether a file is a token: three parts of base64url, a detached bundle of such, or a COSE_Sign1 that says in its
    protected header that it is an EAT. Nothing is checked.
    """
    if len(data) > jose.MAX_TOKEN:
        return False
    if _COMPACT.fullmatch(data) is not None:
        return True
    if data[:1] in {b"\x84", b"\xd2"} and ear.CWT_TYPE.encode() in data[:64]:
        return True
    return re.match(rb'\s*\[\s*\[\s*"JWT"\s*,\s*"eyJ', data[:256]) is not None


def decode(data: bytes) -> Token:
    """Take a token apart; one line end after it, as editors write it, is accepted.

    Raises MalformedError, and ``not_genuine.unsupported_algorithm`` for algorithms that nobody accepts (``none``, MACs).
    """
    if len(data) > jose.MAX_TOKEN:
        raise MalformedError("limit_exceeded", f"the token is longer than {jose.MAX_TOKEN} bytes")
    if data[:1] in {b"\x84", b"\xd2"}:
        return _decode_cwt(data)
    if data.lstrip()[:1] == b"[":
        return _decode_detached(data)
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    whole, claims = _statement(text, "token")
    return Token("jwt", whole, claims, MappingProxyType({}))


def _statement(text: bytes | str, what: str) -> tuple[jose.Jws, dict[str, Any]]:
    jws = jose.Jws.decode(text, algorithms=jose.ALGORITHMS, what=what)
    if jws.typ is not None and jws.typ.lower() not in _TYPES:
        raise MalformedError(
            "unknown_format", f"the {what} says that it is something else than an EAT or JWT"
        )
    return jws, jws.claims(what=what)


def _decode_cwt(data: bytes) -> Token:
    algorithms = frozenset({cose.ED25519, *_COSE})
    parts = cose.Sign1.decode(
        data, algorithms=algorithms, what="token", max_size=jose.MAX_TOKEN, allow_tag=True
    )
    return Token("cwt", _Cwt(parts), ear.from_cbor(parts.payload), MappingProxyType({}))


def _decode_detached(data: bytes) -> Token:
    """NVIDIA's bundle: ``[["JWT", overall], {"GPU-0": jwt, ...}]``, in which the digests link the parts to the whole."""
    value = strict_json.decode(data, what="token bundle", max_size=jose.MAX_TOKEN, max_depth=4)
    match value:
        case [["JWT", str() as overall], dict() as details]:
            pass
        case _:
            raise MalformedError("unknown_format", "the token bundle is not a JWT with detached parts")
    if len(details) > MAX_PARTS or any(not isinstance(text, str) for text in details.values()):
        raise MalformedError("limit_exceeded", f"a token bundle has at most {MAX_PARTS} parts, each a JWT")
    whole, claims = _statement(overall, "overall token")
    if not nras.recognises(claims):
        raise MalformedError("unknown_format", "a token bundle of an unknown kind")
    wanted = nras.digests(claims)
    if set(wanted) != set(details):
        raise NotGenuine(
            "identity_mismatch", "the bundle's parts are not those that it names", stage="identity"
        )
    for name, digest in wanted.items():
        if not nras.linked(details[name], digest):
            raise NotGenuine(
                "identity_mismatch", "a part of the bundle is not the one that it names", stage="identity"
            )
    return Token(
        "detached",
        whole,
        claims,
        MappingProxyType({name: _statement(text, "part") for name, text in details.items()}),
    )


def explain(data: bytes) -> dict[str, object]:
    """A token's algorithm and claims for a person. Nothing of it is checked: anybody may have written it."""
    token = decode(data)
    fields: dict[str, object] = {
        "form": token.form,
        "algorithm": token.whole.algorithm,
        "certificates in the header": len(token.whole.certificates),
        "issuer": member(token.claims, "iss", str),
        "claims": dict(token.claims),
    }
    fields |= {f"part {name}": dict(claims) for name, (_, claims) in token.parts.items()}
    return fields
