# SPDX-License-Identifier: Apache-2.0
"""The broker's part of the measured configuration: read strictly, and everything dangerous is off unless spelled out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from confide.attestation.anchors import TrustAnchor
from confide.broker.limits import Rate
from confide.errors import ConfigurationError, MalformedError
from confide.wire import hexadecimal
from confide.wire.fields import Fields

__all__ = ["ANY", "BrokerSettings"]

ANY: Final = "ANY"
_PEER: Final = Rate(120, 600)
_EVIDENCE: Final = Rate(30, 120)
_RELEASE: Final = Rate(10, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """What a broker was measured with.

    ``owners`` are the Ed25519 public keys that may keep secrets here; None (spelled ``ANY`` in the options) lets every
    key. ``allow_unanchored`` releases after a restart although nothing vouches for the database being the newest.
    ``anchors`` and ``allow_simulated`` are the two consents to enclaves on a simulated TEE. Rates are per minute and bound
    requests of one peer, verifications of evidence for one peer, and releases to one attested instance.
    """

    owners: frozenset[bytes] | None
    allow_unanchored: bool = False
    allow_simulated: bool = False
    anchors: tuple[TrustAnchor, ...] = ()
    challenge_seconds: int = 60
    peer_rate: Rate = _PEER
    evidence_rate: Rate = _EVIDENCE
    release_rate: Rate = _RELEASE

    def to_options(self) -> dict[str, object]:
        """The settings as a service's options, in words that TOML has: keys and certificates in hexadecimal."""
        return {
            "owners": ANY if self.owners is None else sorted(owner.hex() for owner in self.owners),
            "allow_unanchored": self.allow_unanchored,
            "allow_simulated": self.allow_simulated,
            "anchors": [
                {
                    "tee": anchor.tee,
                    "name": anchor.name,
                    "certificates": [der.hex() for der in anchor.certificates],
                    "simulated": anchor.simulated,
                }
                for anchor in self.anchors
            ],
            "challenge_seconds": self.challenge_seconds,
            "peer_rate": _plain(self.peer_rate),
            "evidence_rate": _plain(self.evidence_rate),
            "release_rate": _plain(self.release_rate),
        }

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Read a service's options; ``configuration.invalid`` for unknown keys, wrong types and an empty list of owners."""
        fields = Fields(options, "the broker's options", ConfigurationError)
        owners = fields.text("owners", default=None) if isinstance(options.get("owners"), str) else None
        settings = cls(
            owners=_owners(owners or fields.list_("owners", 1024, default=[])),
            allow_unanchored=fields.boolean("allow_unanchored", default=False),
            allow_simulated=fields.boolean("allow_simulated", default=False),
            anchors=tuple(_anchor(item) for item in fields.list_("anchors", 16, default=[])),
            challenge_seconds=fields.integer("challenge_seconds", 1, 300, default=60),
            peer_rate=_rate(fields.mapping("peer_rate", default=None), _PEER),
            evidence_rate=_rate(fields.mapping("evidence_rate", default=None), _EVIDENCE),
            release_rate=_rate(fields.mapping("release_rate", default=None), _RELEASE),
        )
        fields.end()
        return settings


def _plain(rate: Rate) -> dict[str, int]:
    return {"burst": rate.burst, "per_minute": rate.per_minute}


def _owners(value: object) -> frozenset[bytes] | None:
    if value == ANY and isinstance(value, str):
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ConfigurationError(
            "invalid",
            "the broker's options name no owners",
            hint='list the owners\' public keys, or spell "ANY" to let everybody keep secrets of his own',
        )
    owners = [_public(item) for item in value]
    if len(set(owners)) != len(owners):
        raise ConfigurationError("invalid", "the broker's options name an owner twice")
    return frozenset(owners)


def _public(value: object) -> bytes:
    try:
        return hexadecimal.decode(_word(value), what="an owner's public key", length=32)
    except MalformedError:
        raise ConfigurationError(
            "invalid",
            "an owner's public key is 64 lower-case hexadecimal digits",
            hint="`confide identity show` prints it",
        ) from None


def _anchor(value: object) -> TrustAnchor:
    fields = Fields(value if isinstance(value, Mapping) else {}, "an anchor", ConfigurationError)
    certificates = fields.list_("certificates", 16)
    try:
        ders = tuple(hexadecimal.decode(_word(item), what="a certificate") for item in certificates)
    except MalformedError:
        ders = ()
    if not ders or not all(ders):
        raise ConfigurationError("invalid", "an anchor has no certificates (DER in hexadecimal)")
    anchor = TrustAnchor(
        tee=fields.text("tee", 32),
        name=fields.text("name", 128),
        certificates=ders,
        simulated=fields.boolean("simulated"),
    )
    fields.end()
    return anchor


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError("invalid", "keys and certificates are written in hexadecimal, as text")
    return value


def _rate(table: Mapping[str, Any] | None, default: Rate) -> Rate:
    if table is None:
        return default
    fields = Fields(table, "a rate", ConfigurationError)
    rate = Rate(fields.integer("burst", 1, 100_000), fields.integer("per_minute", 1, 6_000_000))
    fields.end()
    return rate
