# SPDX-License-Identifier: Apache-2.0
"""Does authenticated evidence vouch for this service, this key and this nonce?

One part of the evidence carries the binding D (``docs/spec/evidence.md``, section 4): the CPU's report, or, where a vTPM
is vouched for by that report (Azure), the vTPM's quote. D covers the evidence of every other device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from confide.attestation import binding, result, schemes
from confide.errors import ConfigurationError, MalformedError

if TYPE_CHECKING:
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Evidence, EvidencePart
    from confide.attestation.key_material import KeyMaterial
    from confide.attestation.policy import ServicePolicy
    from confide.attestation.result import Freshness
    from confide.errors import Reason

__all__ = ["Asked", "Bound", "bind", "check_asked", "is_carrier", "service", "too_old"]

# How far a cached bundle may claim to come from the future, and how long its key lives on after its lifetime.
CLOCK_SKEW: Final = timedelta(minutes=5)
OVERLAP: Final = timedelta(seconds=60)

_WHOLE: Final = frozenset({"snp", "tdx", "sgx"})
_VOUCHES: Final = frozenset({*schemes.CPU, "tpm"})
_CARRIED: Final = {
    **dict.fromkeys(_WHOLE, "the report data"),
    "nitro": "the document's user data",
    "tpm": "the quote's qualifying data",
    "nvidia": "the nonce of the report",
    "token": "the token's nonce",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller of one verification states."""

    at: datetime
    nonce: bytes | None
    age: timedelta | None
    purpose: str | None
    audience: str | None
    report_data: bytes | None
    cached: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """What step 7 found out: how fresh, how old, and the root under which devices were asked, if it is known."""

    freshness: Freshness
    age: timedelta | None
    root: bytes | None = None


def service(
    policy: ServicePolicy | None, evidence: Evidence, material: KeyMaterial | None, asked: Asked
) -> list[Reason]:
    """Step 6: the service, purpose and audience that the key material states, against those wanted."""
    found: list[Reason] = []

    def refuse(leaf: str, message: str, hint: str = "") -> None:
        found.append(result.unacceptable(leaf, message, hint=hint, stage="binding"))

    if asked.purpose is not None and policy is None:
        refuse(
            "empty_policy",
            "the policy has no [service], which this use of evidence needs",
            "add a [service] table",
        )
    if material is None:
        if asked.purpose is not None or asked.audience is not None:
            refuse(
                "channel",
                "the evidence vouches for no key",
                "ask the enclave for a bundle, not for a raw report",
            )
        if policy is not None:
            refuse(
                "identity",
                "the policy names a service, and the evidence does not say which service it is from",
            )
        return found
    if asked.purpose is not None and material.purpose != asked.purpose:
        refuse("purpose", "the key was attested for another purpose")
    # Evidence made for one audience is for nobody else, also not for those who do not name themselves.
    if (asked.audience is not None or asked.purpose is not None) and material.audience != (
        asked.audience or ""
    ):
        refuse("identity", "the key was attested for another audience")
    if policy is not None:
        if material.service.kind != policy.kind:
            refuse("identity", "the service is of another kind than the policy names")
        if material.service.id != policy.id:
            refuse(
                "identity",
                "the service has another id than the policy names",
                "tenants and rooms differ in `id`",
            )
        if material.service.manifest not in policy.manifest:
            refuse(
                "measurement",
                "the service runs another manifest than the policy names",
                "compare the manifests, or measure the service again if it was changed on purpose",
            )
    if (
        evidence.manifest is not None
        and hashlib.sha256(evidence.manifest).digest() != material.service.manifest
    ):
        refuse("measurement", "the manifest in the bundle is not the one that the key material names")
    return found


def check_asked(asked: Asked, evidence: Evidence) -> None:
    """Refuse, as the caller's error, report data that this evidence cannot carry; before anything is decided."""
    carrier = next((part for part in evidence.devices if is_carrier(part)), evidence.platform)
    if asked.report_data is None or carrier.format not in _WHOLE:
        return
    if len(asked.report_data) != binding.REPORT_DATA_BYTES:
        raise ConfigurationError(
            "report_data", "report data is exactly 64 bytes", hint="give all of it, not a prefix"
        )


def bind(
    claims: Claims,
    evidence: Evidence,
    material: KeyMaterial | None,
    policy: ServicePolicy | None,
    asked: Asked,
) -> tuple[Bound, list[Reason]]:
    """Step 7: what the carrier of the binding carries, against the key material, the nonce, and what the caller expects.

    ``claims`` are the carrier's.
    """
    found: list[Reason] = []
    unchecked = Bound("not checked", None)

    def refuse(leaf: str, message: str, hint: str = "") -> None:
        found.append(result.unacceptable(leaf, message, hint=hint, stage="binding"))

    if asked.report_data is not None and not _carries(claims, asked.report_data):
        refuse("channel", f"{_CARRIED[claims.tee]} is not the one asked for")
    if asked.nonce is None and asked.purpose is not None and not asked.cached:
        refuse(
            "nonce_missing",
            "no nonce was sent, so the evidence may be old",
            "send 32 random bytes with the request",
        )
    key_material, proof = evidence.key_material, evidence.proof
    if key_material is None or material is None:
        if asked.nonce is not None:
            refuse("nonce_missing", "the evidence answers no nonce: it carries no key material")
        return unchecked, found
    if claims.tee not in _VOUCHES:
        refuse("channel", "evidence of this kind vouches for no key", "a CPU's TEE or a TPM does")
        return unchecked, found
    if asked.nonce is not None:
        if proof is None:
            refuse("nonce_missing", "the evidence answers no nonce", "ask for fresh evidence")
            return unchecked, found
        root = proof.root(binding.leaf(asked.nonce, key_material))
        if not binding.equal(_expected(claims, evidence, root), claims.report_data):
            # One hash covers nonce and key, so which of the two differs cannot be told; both are named.
            refuse(
                "nonce_mismatch",
                "the report data does not answer this nonce for this key",
                "ask for fresh evidence",
            )
            refuse("channel", "the report data does not vouch for this key under this nonce")
            return unchecked, found
        return Bound("fresh", asked.age, root), found
    if proof is not None:
        # Without the nonce the report data cannot be made, so that anybody may have put this key material here.
        if policy is not None or asked.purpose is not None or asked.audience is not None:
            refuse(
                "nonce_missing",
                "the evidence answers a nonce that was not given, so that it vouches for no service or key",
                "give the nonce that was sent",
            )
        return unchecked, found
    root = binding.leaf(b"", key_material)
    if not binding.equal(_expected(claims, evidence, root), claims.report_data):
        refuse("channel", "the report data does not vouch for this key")
        return unchecked, found
    claimed = asked.at - _time(material.issued_at)
    if asked.purpose is not None:
        if claimed < -CLOCK_SKEW:
            refuse("from_future", "the evidence claims to have been issued in the future")
        if claimed > timedelta(seconds=material.lifetime) + OVERLAP:
            refuse("stale", "the lifetime that the key claims for itself is over", "ask for the bundle again")
    return Bound("claimed", claimed, root), found


def _carries(claims: Claims, data: bytes) -> bool:
    """Whether the carrier has exactly ``data``; a TPM has the hash of 64 bytes in their place, as the binding has it."""
    hashed = claims.tee == "tpm" and len(data) == binding.REPORT_DATA_BYTES
    return binding.equal(data, claims.report_data) or (
        hashed and binding.equal(binding.tpm_qualifying_data(data), claims.report_data)
    )


def is_carrier(part: EvidencePart) -> bool:
    """Whether a device carries the binding instead of the platform: a vTPM, which the platform's report vouches for."""
    return part.format == "tpm"


def _expected(claims: Claims, evidence: Evidence, root: bytes) -> bytes:
    """What the carrier must carry for ``root`` and the evidence of all devices but itself."""
    covered = [part.data for part in evidence.devices if not is_carrier(part)]
    data = binding.report_data(root, covered)
    return binding.tpm_qualifying_data(data) if claims.tee == "tpm" else data


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        raise MalformedError(
            "limit_exceeded", "the time of issue in the key material is not a date"
        ) from None


def too_old(max_age: timedelta | None, freshness: Freshness, age: timedelta | None) -> list[Reason]:
    """The policy's ``max_age`` against an age on the verifier's own clock; a claimed age never satisfies it."""
    if freshness == "fresh" and age is not None and age < timedelta(0):
        return [result.unacceptable("from_future", "the age of the evidence is negative", stage="binding")]
    if max_age is None:
        return []
    if freshness != "fresh":
        message = "the policy asks for an age, and only an answer to the verifier's own nonce has one"
        return [
            result.unacceptable("stale", message, hint="ask for fresh evidence with a nonce", stage="binding")
        ]
    if age is None:
        message = "the policy asks for an age, and the time since the nonce left was not given"
        return [result.unacceptable("stale", message, hint="pass `age`", stage="binding")]
    if age > max_age:
        message = "the evidence is older than the policy admits"
        return [result.unacceptable("stale", message, hint="ask for fresh evidence", stage="binding")]
    return []
