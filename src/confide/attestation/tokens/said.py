# SPDX-License-Identifier: Apache-2.0
"""What one token says, in the terms that every kind of issuer is mapped to.

Each module beside this one maps one issuer's claims. Nothing here is verified; ``authenticate`` reads a token only after
its signature has been checked against a pinned key or root.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confide.attestation.result import Tier, Vector
from confide.errors import MalformedError
from confide.wire import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.errors import Reason

__all__ = ["Said", "flag", "hex_bytes", "member", "nonce_text"]


@dataclass(frozen=True, slots=True)
class Said:
    """One issuer's words. ``nonce`` is None where the kind of token has none, ``debug`` None where it says nothing about it.

    ``hardware`` are the TEEs that the token speaks of, by confide's names where confide has one. ``statuses`` are Intel's
    TCB statuses. ``objections`` are what the issuer itself holds against the attester. ``tree`` is what policies pin claims in.
    """

    tree: Mapping[str, Any]
    hardware: tuple[str, ...]
    debug: bool | None
    nonce: bytes | None
    measurements: Mapping[str, bytes] = field(default_factory=dict)
    statuses: tuple[str, ...] = ()
    vector: Vector = field(default_factory=lambda: Vector(configuration=2, hardware=2, runtime_opaque=2))
    tier: Tier = Tier.AFFIRMING
    objections: tuple[Reason, ...] = ()


def member(claims: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """The claim ``name`` if it is there; ``malformed.non_canonical`` if it is of another type than ``kind``."""
    value = claims.get(name)
    if value is None:
        return None
    wanted = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in wanted:
        raise MalformedError("non_canonical", f"the claim `{name}` of the token is of another type")
    return value


def flag(claims: Mapping[str, Any], name: str) -> bool | None:
    """A claim that is true, false or absent."""
    value = member(claims, name, bool)
    return None if value is None else bool(value)


def hex_bytes(claims: Mapping[str, Any], name: str, length: int | None = None) -> bytes | None:
    """A claim of hexadecimal text, if it is there."""
    text = member(claims, name, str)
    return None if text is None else hexadecimal.decode(text, what=f"claim `{name}`", length=length)


def nonce_text(text: str) -> bytes:
    """The bytes that a nonce claim of free text stands for: those of lower-case hexadecimal, else the text's own in UTF-8."""
    if not 8 <= len(text) <= 256:
        raise MalformedError("length_mismatch", "the nonce of the token is shorter or longer than a nonce is")
    if len(text) % 2 == 0 and set(text) <= set("0123456789abcdef"):
        return bytes.fromhex(text)
    return text.encode("utf-8")
