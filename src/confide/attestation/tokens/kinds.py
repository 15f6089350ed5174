# SPDX-License-Identifier: Apache-2.0
"""The one explicit table from a kind of issuer to its module: a kind is in it or its tokens are refused."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from confide.attestation.tokens import ear, google, ita, maa, nras
from confide.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.tokens.said import Said

__all__ = ["AUDIENCE_MANDATORY", "KINDS", "Kind", "issuer", "of"]


class Kind(Protocol):
    """What every issuer's module has."""

    ALGORITHMS: frozenset[str]
    MEASURED: frozenset[str]
    UNPROVEN: tuple[str, ...]

    def recognises(self, claims: Mapping[str, Any]) -> bool:
        """Whether a payload is of this kind."""

    def read(self, claims: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Said:
        """The claims in common terms."""


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "google-confidential-space": cast("Kind", google),
        "nras": cast("Kind", nras),
        "maa": cast("Kind", maa),
        "ita": cast("Kind", ita),
        "ear": cast("Kind", ear),
    }
)

AUDIENCE_MANDATORY: Final = frozenset({"google-confidential-space"})
"""The kinds whose every token names its audience; those of the others may carry none."""


def of(claims: Mapping[str, Any]) -> str:
    """The kind of a payload; ``malformed.unknown_format`` for every other."""
    for name, kind in KINDS.items():
        if kind.recognises(claims):
            return name
    raise MalformedError(
        "unknown_format", "the token is of no issuer that is known here", hint=f"known: {', '.join(KINDS)}"
    )


def issuer(kind: str, claims: Mapping[str, Any]) -> str:
    """Who speaks: `iss`, or for an EAR without it the developer in its verifier id."""
    named = claims.get("iss")
    if named is None and kind == "ear":
        named = ear.issuer(claims)
    if not isinstance(named, str) or not 1 <= len(named) <= 512:
        raise MalformedError("non_canonical", "the token does not say who issued it")
    return named
