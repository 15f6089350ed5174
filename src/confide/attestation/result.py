# SPDX-License-Identifier: Apache-2.0
"""The outcome of a verification: a typed fact that only a Verifier can make, or the JSON of a refusal.

Tiers and trustworthiness claims are those of EAR and AR4SI: a claim from 2 to 31 is affirming, from 32 to 95 a warning,
from 96 on contraindicated; -1, 0 and 1 claim nothing. The tier is never better than the worst claim.
"""

from __future__ import annotations

import enum
from dataclasses import InitVar, dataclass, fields
from typing import TYPE_CHECKING, Literal

from confide.attestation import schemes
from confide.errors import (
    AttestationError,
    ConfigurationError,
    EndorsementsMissing,
    MalformedError,
    NotAcceptable,
    NotGenuine,
    Reason,
)

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Evidence
    from confide.attestation.key_material import KeyMaterial
    from confide.errors import ConfideError

__all__ = [
    "AttestationResult",
    "Binding",
    "Freshness",
    "Part",
    "Tier",
    "Vector",
    "accepted",
    "note",
    "refusal",
    "unacceptable",
    "verdict",
]

Freshness = Literal["fresh", "claimed", "not checked"]
Binding = Literal["bound", "unproven"]
Verdict = Literal["not_genuine", "not_acceptable", "undecided"]


class Tier(enum.IntEnum):
    """EAR's trustworthiness tiers."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @classmethod
    def of(cls, claim: int) -> Tier:
        """The tier of one claim value from -128 to 127, by its range."""
        if not -128 <= claim <= 127:
            raise MalformedError("limit_exceeded", "a trustworthiness claim is not a signed byte")
        if -1 <= claim <= 1:
            return cls.NONE
        # Negative values mirror the positive ones, shifted by one: -2..-32, -33..-96, -97..-128.
        magnitude = claim if claim > 0 else -claim - 1
        if magnitude < 32:
            return cls.AFFIRMING
        return cls.WARNING if magnitude < 96 else cls.CONTRAINDICATED


@dataclass(frozen=True, slots=True)
class Vector:
    """EAR's trustworthiness vector; 0 claims nothing."""

    instance_identity: int = 0
    configuration: int = 0
    executables: int = 0
    file_system: int = 0
    hardware: int = 0
    runtime_opaque: int = 0
    storage_opaque: int = 0
    sourced_data: int = 0

    @property
    def tier(self) -> Tier:
        """The worst tier among the claims that are made; ``NONE`` where none is."""
        return max(Tier.of(getattr(self, name)) for name in _CLAIMS)

    def to_json(self) -> dict[str, int]:
        """The claims by EAR's names."""
        return {name.replace("_", "-"): getattr(self, name) for name in _CLAIMS}


_CLAIMS = tuple(field.name for field in fields(Vector))


@dataclass(frozen=True, slots=True)
class Part:
    """A device that was verified beside the platform, in the order of the bundle.

    ``binding`` is ``bound`` where its evidence is seen to belong to the platform's: a vTPM whose key the platform's report
    names, a GPU whose nonce comes from the keys that the platform vouches for. Even that does not show that the GPU sits in
    the same machine; nothing does before TDISP.
    """

    tee: str
    claims: Claims
    vector: Vector
    binding: Binding

    @property
    def tier(self) -> Tier:
        """The worst tier among the device's claims."""
        return self.vector.tier


_WITNESS = object()


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """Evidence that is genuine and acceptable under one policy at one time.

    ``claims`` and ``vector`` are the platform's, ``parts`` its devices; ``tier`` is the worst of all of them.
    ``reasons`` are notes that a person should see (wildcards, revocation not checked, simulation). ``age`` is measured on
    the verifier's clock when ``freshness`` is ``fresh``, and only the enclave's claim when it is ``claimed``.
    ``key_material`` and ``kid`` are None where the report was not seen to vouch for a key (``freshness`` is ``not checked``).
    """

    tee: str
    simulated: bool
    tier: Tier
    vector: Vector
    reasons: tuple[Reason, ...]
    claims: Claims
    key_material: KeyMaterial | None
    kid: bytes | None
    evidence: Evidence
    freshness: Freshness
    age: timedelta | None
    policy_digest: bytes
    verified_at: datetime
    parts: tuple[Part, ...]
    witness: InitVar[object]

    def __post_init__(self, witness: object) -> None:
        if witness is not _WITNESS:
            raise ConfigurationError(
                "result", "an attestation result comes only from a Verifier", hint="call Verifier.verify"
            )

    @property
    def verdict(self) -> Literal["accepted"]:
        """Always ``accepted``: everything else is an exception."""
        return "accepted"

    @property
    def expires(self) -> datetime:
        """The first time at which something that was used is no longer valid."""
        return min((self.claims.expires, *(part.claims.expires for part in self.parts)))

    def to_json(self) -> dict[str, object]:
        """The result for machines: JSON values only, byte strings as lower-case hex."""
        return {
            "verdict": self.verdict,
            "tee": self.tee,
            "simulated": self.simulated,
            "tier": self.tier.name.lower(),
            "reasons": [_reason_json(reason) for reason in self.reasons],
            **_verified_json(self.claims, self.vector),
            "parts": [
                {
                    "tee": part.tee,
                    "simulated": part.claims.simulated,
                    "tier": part.tier.name.lower(),
                    "binding": part.binding,
                    **_verified_json(part.claims, part.vector),
                }
                for part in self.parts
            ],
            "freshness": self.freshness,
            "age_seconds": None if self.age is None else self.age.total_seconds(),
            "kid": None if self.kid is None else self.kid.hex(),
            "expires": self.expires.isoformat(),
            "policy_digest": self.policy_digest.hex(),
            "verified_at": self.verified_at.isoformat(),
        }


def _verified_json(claims: Claims, vector: Vector) -> dict[str, object]:
    return {**_claims_json(claims), "vector": vector.to_json()}


def _claims_json(claims: Claims) -> dict[str, object]:
    return {
        "claims": dict(schemes.scheme(claims.tee).appraise.describe(claims)),
        "checks": [
            {"name": check.name, "outcome": check.outcome, "detail": check.detail} for check in claims.checks
        ],
        "vouched_by": [
            {"name": voucher.name, "spki_sha256": voucher.fingerprint.hex()} for voucher in claims.chain
        ],
    }


def accepted(
    *,
    vector: Vector,
    notes: tuple[Reason, ...],
    claims: Claims,
    key_material: KeyMaterial | None,
    kid: bytes | None,
    evidence: Evidence,
    freshness: Freshness,
    age: timedelta | None,
    policy_digest: bytes,
    verified_at: datetime,
    parts: tuple[Part, ...] = (),
) -> AttestationResult:
    """A result over claims that passed a policy; only the Verifier may say so."""
    return AttestationResult(
        tee=claims.tee,
        simulated=claims.simulated or any(part.claims.simulated for part in parts),
        tier=max((vector.tier, *(part.tier for part in parts))),
        vector=vector,
        reasons=notes,
        claims=claims,
        key_material=key_material,
        kid=kid,
        evidence=evidence,
        freshness=freshness,
        age=age,
        policy_digest=policy_digest,
        verified_at=verified_at,
        parts=parts,
        witness=_WITNESS,
    )


def unacceptable(leaf: str, message: str, *, hint: str = "", stage: str = "policy") -> Reason:
    """A finding against the policy."""
    return Reason(f"{NotAcceptable.family}.{leaf}", stage, message, hint)


def note(leaf: str, message: str, *, hint: str = "", stage: str = "policy") -> Reason:
    """A finding that refuses nothing, but that a person should see."""
    return Reason(f"note.{leaf}", stage, message, hint)


def verdict(error: ConfideError) -> Verdict:
    """What an error says about the evidence."""
    if isinstance(error, NotGenuine | MalformedError):
        return "not_genuine"
    return "not_acceptable" if isinstance(error, NotAcceptable) else "undecided"


def refusal(error: ConfideError) -> dict[str, object]:
    """A refusal in the shape of ``AttestationResult.to_json``. It shows what the evidence says only where that has been
    authenticated: it is genuine then, and not acceptable.
    """
    reasons = error.reasons if isinstance(error, AttestationError) else (error.reason,)
    shown: dict[str, object] = {
        "verdict": verdict(error),
        "tee": None,
        "simulated": None,
        "tier": None,
        "reasons": [_reason_json(reason) for reason in reasons],
        "claims": {},
    }
    if isinstance(error, NotAcceptable) and error.claims:
        platform, *devices = error.claims
        shown |= {
            "tee": platform.tee,
            "simulated": any(claims.simulated for claims in error.claims),
            **_claims_json(platform),
            "parts": [
                {"tee": claims.tee, "simulated": claims.simulated, **_claims_json(claims)}
                for claims in devices
            ],
        }
    return shown


def raise_first(genuine: list[Reason], missing: list[Reason]) -> None:
    """Raise the collected findings, those against genuineness before those about what is missing; return if none."""
    for kind, found in ((NotGenuine, genuine), (EndorsementsMissing, missing)):
        if found:
            rest = (*found[1:], *(missing if kind is NotGenuine else ()))
            raise _with(kind, found[0], rest)


def raise_unacceptable(found: list[Reason], claims: tuple[Claims, ...] = ()) -> None:
    """Raise the collected findings against the policy, with the claims that they are about; return if none."""
    if not found:
        return
    error = NotAcceptable(
        found[0].code.removeprefix(f"{NotAcceptable.family}."),
        found[0].message,
        hint=found[0].hint,
        stage=found[0].stage,
        further=tuple(found[1:]),
    )
    error.claims = claims
    raise error


def _with(kind: type[AttestationError], first: Reason, further: tuple[Reason, ...]) -> AttestationError:
    leaf = first.code.removeprefix(f"{kind.family}.")
    return kind(leaf, first.message, hint=first.hint, stage=first.stage, further=further)


def _reason_json(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "stage": reason.stage, "message": reason.message, "hint": reason.hint}
