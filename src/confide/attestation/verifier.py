# SPDX-License-Identifier: Apache-2.0
"""The Verifier: evidence, endorsements, a policy and a time go in; an AttestationResult or an exception comes out.

Deciding is a pure function: no clock, no network, no file, no state between calls, so that one Verifier serves any number
of threads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from confide.attestation import binding, result, schemes
from confide.attestation.evidence import Endorsements, Evidence
from confide.attestation.key_material import KeyMaterial, kid
from confide.errors import (
    AttestationError,
    ConfideError,
    ConfigurationError,
    MalformedError,
    NotGenuine,
    Reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy, ServicePolicy
    from confide.attestation.result import AttestationResult, Freshness, Vector

__all__ = ["Verifier"]

_T = TypeVar("_T")

# How far a cached bundle may claim to come from the future, and how long its key lives on after its lifetime.
CLOCK_SKEW: Final = timedelta(minutes=5)
OVERLAP: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the caller of one verification states."""

    at: datetime
    nonce: bytes | None
    age: timedelta | None
    purpose: str | None
    audience: str | None
    report_data: bytes | None
    cached: bool


class Verifier:
    """Verifies evidence under one policy.

    ``endorsements`` are added to those stapled to the evidence; both are untrusted. ``extra_anchors`` are roots beside the
    vendors' pinned ones. Simulated evidence needs two consents: its root in ``extra_anchors``, and ``allow_simulated``.
    """

    __slots__ = ("_allow_simulated", "_endorsements", "_extra_anchors", "_policy")

    def __init__(
        self,
        policy: AppraisalPolicy,
        *,
        endorsements: Endorsements | None = None,
        extra_anchors: Iterable[TrustAnchor] = (),
        allow_simulated: bool = False,
    ) -> None:
        self._policy = policy
        self._endorsements = endorsements
        self._extra_anchors = tuple(extra_anchors)
        self._allow_simulated = allow_simulated

    @property
    def policy(self) -> AppraisalPolicy:
        """The policy that this Verifier applies."""
        return self._policy

    def verify(
        self,
        evidence: Evidence | bytes,
        *,
        at: datetime,
        nonce: bytes | None = None,
        age: timedelta | None = None,
        purpose: str | None = None,
        audience: str | None = None,
        report_data: bytes | None = None,
        cached: bool = False,
    ) -> AttestationResult:
        """Decide whether ``evidence`` is genuine and acceptable at the time ``at`` (an aware datetime).

        ``nonce`` is the 32 bytes that this verifier sent and ``age`` the time since it left, on the verifier's own clock.
        ``purpose`` and ``audience`` say what the evidence is wanted for; with a purpose, key material, ``[service]`` in the
        policy and the binding are mandatory, and so is the nonce unless ``cached`` accepts evidence that answers none.
        ``report_data`` asks for exactly these 64 bytes. ``evidence`` as bytes is a bundle.

        1. Parse the bundle, its key material and its proof.
        2. Find the scheme of the platform's format; devices that no scheme covers are refused.
        3. Collect the trust anchors: the vendor's pinned ones and the caller's. None: refused.
        4. Authenticate (signature, chain, validity, revocation, TCB and identity, by the TEE's own numbered list).
        5. Appraise: TEE admitted, simulation consented, the TEE's reference values.
        6. Service, purpose, audience, manifest.
        7. Binding: all 64 bytes of report data; the nonce and its age.
        8. Every finding of 5 to 7 is raised together, or the result is made.

        Raises MalformedError (1, 2, 4), NotGenuine (3, 4), EndorsementsMissing (4), NotAcceptable (8), and
        ``attestation.internal`` if a check itself fails to run: what was not checked has not passed.
        """
        asked = _Asked(_aware(at), _nonce(nonce), age, purpose, audience, _report_data(report_data), cached)
        return _fail_closed(lambda: self._verify(evidence, asked))

    def _verify(self, given: Evidence | bytes, asked: _Asked) -> AttestationResult:
        evidence = given if isinstance(given, Evidence) else Evidence.decode(given)
        material = None if evidence.key_material is None else KeyMaterial.decode(evidence.key_material)
        scheme = schemes.scheme(evidence.platform.format)
        if evidence.devices:
            raise MalformedError("unknown_format", "evidence of devices is not supported in this version")
        anchors = (*scheme.endorse.anchors(), *(a for a in self._extra_anchors if a.tee == scheme.tee))
        if not any(anchor.certificates for anchor in anchors):
            raise NotGenuine("no_trusted_roots", "there is no trusted root for this TEE", stage="chain")
        claims = scheme.authenticate.authenticate(
            evidence.platform.data,
            endorsements=evidence.endorsements.merge(self._endorsements),
            anchors=anchors,
            at=asked.at,
            require_revocation=self._policy.require_revocation,
        )
        reference = self._policy.reference.get(claims.tee)
        found: list[Reason] = []
        if reference is None:
            found.append(
                result.unacceptable(
                    "tee", "the policy does not admit this TEE", hint="add it to `tees` if you mean to"
                )
            )
        if claims.simulated and not self._allow_simulated:
            found.append(
                result.unacceptable(
                    "simulated",
                    "the evidence is simulated: no hardware protects this enclave",
                    hint="for a test or demo pass `allow_simulated=True` beside the simulator's anchor",
                )
            )
        if reference is not None:
            found += scheme.appraise.appraise(claims, reference, self._policy)
        found += _service(self._policy.service, evidence, material, asked)
        freshness, age, bound = _binding(claims, evidence, material, self._policy.service, asked)
        found += bound
        found += _age(self._policy.max_age, freshness, age)
        result.raise_unacceptable(found)
        if reference is None:  # Already raised above; a policy table is needed from here on.
            raise AttestationError("internal", "a refused TEE was not refused")
        if freshness == "not checked":
            material = None  # The report does not vouch for it.
        return result.accepted(
            vector=_simulated(scheme.appraise.trustworthiness(claims, reference), claims),
            notes=_notes(claims, reference, freshness),
            claims=claims,
            key_material=material,
            kid=None if material is None or evidence.key_material is None else kid(evidence.key_material),
            evidence=evidence,
            freshness=freshness,
            age=age,
            policy_digest=self._policy.digest,
            verified_at=asked.at,
        )


def _fail_closed(check: Callable[[], _T]) -> _T:
    try:
        return check()
    except ConfideError:
        raise
    except Exception as error:
        raise AttestationError(
            "internal",
            "a check could not be run, so the evidence is refused",
            hint="this is a defect of confide; please report it with the evidence file",
            stage="internal",
        ) from error


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None or at.utcoffset() is None:
        raise ConfigurationError(
            "time", "the time to verify at has no time zone", hint="use datetime.now(UTC)"
        )
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError("time", "the time to verify at lies outside the years 1 to 9999") from None


def _nonce(nonce: bytes | None) -> bytes | None:
    if nonce is not None and len(nonce) != binding.NONCE_BYTES:
        raise ConfigurationError("nonce", "a nonce is exactly 32 random bytes")
    return nonce


def _report_data(data: bytes | None) -> bytes | None:
    if data is not None and len(data) != binding.REPORT_DATA_BYTES:
        raise ConfigurationError(
            "report_data", "report data is exactly 64 bytes", hint="give all of it, not a prefix"
        )
    return data


def _service(
    policy: ServicePolicy | None, evidence: Evidence, material: KeyMaterial | None, asked: _Asked
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


def _binding(
    claims: Claims,
    evidence: Evidence,
    material: KeyMaterial | None,
    service: ServicePolicy | None,
    asked: _Asked,
) -> tuple[Freshness, timedelta | None, list[Reason]]:
    """Step 7: report data against the key material, the nonce, and what the caller expects in it."""
    found: list[Reason] = []

    def refuse(leaf: str, message: str, hint: str = "") -> None:
        found.append(result.unacceptable(leaf, message, hint=hint, stage="binding"))

    if asked.report_data is not None and not binding.equal(asked.report_data, claims.report_data):
        refuse("channel", "the report data is not the one asked for")
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
        return "not checked", None, found
    if asked.nonce is not None:
        if proof is None:
            refuse("nonce_missing", "the evidence answers no nonce", "ask for fresh evidence")
            return "not checked", None, found
        root = proof.root(binding.leaf(asked.nonce, key_material))
        if not binding.equal(binding.report_data(root), claims.report_data):
            # One hash covers nonce and key, so which of the two differs cannot be told; both are named.
            refuse(
                "nonce_mismatch",
                "the report data does not answer this nonce for this key",
                "ask for fresh evidence",
            )
            refuse("channel", "the report data does not vouch for this key under this nonce")
            return "not checked", None, found
        return "fresh", asked.age, found
    if proof is not None:
        # Without the nonce the report data cannot be made, so that anybody may have put this key material here.
        if service is not None or asked.purpose is not None or asked.audience is not None:
            refuse(
                "nonce_missing",
                "the evidence answers a nonce that was not given, so that it vouches for no service or key",
                "give the nonce that was sent",
            )
        return "not checked", None, found
    if not binding.equal(binding.report_data(binding.leaf(b"", key_material)), claims.report_data):
        refuse("channel", "the report data does not vouch for this key")
        return "not checked", None, found
    age = asked.at - _time(material.issued_at)
    if asked.purpose is not None:
        if age < -CLOCK_SKEW:
            refuse("from_future", "the evidence claims to have been issued in the future")
        if age > timedelta(seconds=material.lifetime) + OVERLAP:
            refuse("stale", "the lifetime that the key claims for itself is over", "ask for the bundle again")
    return "claimed", age, found


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        raise MalformedError(
            "limit_exceeded", "the time of issue in the key material is not a date"
        ) from None


def _age(max_age: timedelta | None, freshness: Freshness, age: timedelta | None) -> list[Reason]:
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


def _simulated(vector: Vector, claims: Claims) -> Vector:
    """EAR's values for a simulated TEE, whatever its scheme says: unrecognised hardware whose memory is visible."""
    if not claims.simulated:
        return vector
    return result.Vector(
        instance_identity=97,
        configuration=vector.configuration,
        executables=vector.executables,
        file_system=vector.file_system,
        hardware=97,
        runtime_opaque=96,
        storage_opaque=max(vector.storage_opaque, 32),
        sourced_data=vector.sourced_data,
    )


def _notes(claims: Claims, reference: schemes.Reference, freshness: Freshness) -> tuple[Reason, ...]:
    found = []
    if claims.simulated:
        found.append(result.note("simulated", "SIMULATED: no hardware protects this enclave"))
    found += [
        result.note("wildcard", f"the policy accepts any value of `{name}`", hint="pin it")
        for name in reference.wildcards
    ]
    found += [
        result.note("not_checked", f"{check.name}: not checked", stage="endorsement")
        for check in claims.checks
        if check.outcome == "not checked"
    ]
    if freshness != "fresh":
        found.append(result.note("freshness", f"freshness: {freshness}", stage="binding"))
    return tuple(found)
