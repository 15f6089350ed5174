# SPDX-License-Identifier: Apache-2.0
"""The Verifier: evidence, endorsements, a policy and a time go in; an AttestationResult or an exception comes out.

Deciding is a pure function: no clock, no network, no file, no state between calls, so that one Verifier serves any number
of threads.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from confide.attestation import binding, result, schemes, vouching
from confide.attestation.evidence import Endorsements, Evidence
from confide.attestation.key_material import KeyMaterial, kid
from confide.attestation.vouching import Asked
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
    from confide.attestation.evidence import EvidencePart
    from confide.attestation.policy import AppraisalPolicy
    from confide.attestation.result import AttestationResult, Binding, Vector

__all__ = ["Verifier"]

_T = TypeVar("_T")

MAX_REPORT_DATA: Final = 1024


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
        policy.check_filled()
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
        2. Find the scheme of the platform's format and of each device's; any other format is refused.
        3. Collect the trust anchors: the vendor's pinned ones, the caller's, and what the policy pins. None: refused.
        4. Authenticate (signature, chain, validity, revocation, TCB and identity, by the TEE's own numbered list), the
           platform first; its claims are what a vTPM's key is trusted for.
        5. Appraise each part: TEE admitted, simulation consented, the TEE's reference values, the devices complete.
        6. Service, purpose, audience, manifest.
        7. Binding: all of the report data; the nonce and its age; what the devices' evidence is bound to.
        8. Every finding of 5 to 7 is raised together, or the result is made.

        Raises MalformedError (1, 2, 4), NotGenuine (3, 4), EndorsementsMissing (4, 5), NotAcceptable (8), and
        ``attestation.internal`` if a check itself fails to run: what was not checked has not passed.
        """
        asked = Asked(_aware(at), _nonce(nonce), age, purpose, audience, _report_data(report_data), cached)
        return _fail_closed(lambda: self._verify(evidence, asked))

    def _verify(self, given: Evidence | bytes, asked: Asked) -> AttestationResult:
        evidence = given if isinstance(given, Evidence) else Evidence.decode(given)
        material = None if evidence.key_material is None else KeyMaterial.decode(evidence.key_material)
        _check_formats(evidence)
        vouching.check_asked(asked, evidence)
        # Merged once for all parts.
        evidence = replace(evidence, endorsements=evidence.endorsements.merge(self._endorsements))
        platform = self._authenticate(evidence.platform, evidence.endorsements, asked, platform=None)
        devices = [
            self._authenticate(part, evidence.endorsements, asked, platform=platform)
            for part in evidence.devices
        ]
        every = (platform, *devices)
        found: list[Reason] = []
        for claims in every:
            found += self._appraise(claims)
        found += self._complete(platform, devices)
        found += vouching.service(self._policy.service, evidence, material, asked)
        carrier = next(
            (claims for claims in devices if claims.tee == "tpm"),
            platform,
        )
        bound, refused = vouching.bind(carrier, evidence, material, self._policy.service, asked)
        found += refused
        found += vouching.too_old(self._policy.max_age, bound.freshness, bound.age)
        bindings = [_device_binding(claims, bound.root) for claims in devices]
        if platform.tee != "nvidia":  # GPUs among themselves have no platform that they could belong to.
            for claims, belongs in zip(devices, bindings, strict=True):
                found += self._bound(claims, belongs)
        result.raise_unacceptable(found, every)
        if bound.freshness == "not checked":
            material = None  # The report does not vouch for it.
        return result.accepted(
            vector=self._vector(platform),
            notes=tuple(note for claims in every for note in self._notes(claims))
            + _composite_notes(devices, bindings, bound.freshness),
            claims=platform,
            key_material=material,
            kid=None if material is None or evidence.key_material is None else kid(evidence.key_material),
            evidence=evidence,
            freshness=bound.freshness,
            age=bound.age,
            policy_digest=self._policy.digest,
            verified_at=asked.at,
            parts=tuple(
                result.Part(claims.tee, claims, self._vector(claims), belongs)
                for claims, belongs in zip(devices, bindings, strict=True)
            ),
        )

    def _authenticate(
        self, part: EvidencePart, endorsements: Endorsements, asked: Asked, *, platform: Claims | None
    ) -> Claims:
        """Steps 3 and 4 for one part."""
        scheme = schemes.scheme(part.format)
        reference = self._policy.reference.get(scheme.tee)
        anchors = (
            *scheme.endorse.anchors(),
            *(anchor for anchor in self._extra_anchors if anchor.tee == scheme.tee),
            *(() if reference is None else reference.anchors),
        )
        if not any(anchor.certificates or anchor.keys for anchor in anchors) and platform is None:
            raise NotGenuine("no_trusted_roots", "there is no trusted root for this TEE", stage="chain")
        if scheme.tee in schemes.DEVICES:
            return scheme.authenticate_device.authenticate(
                part.data,
                endorsements=endorsements,
                anchors=anchors,
                at=asked.at,
                require_revocation=self._policy.require_revocation,
                platform=platform,
            )
        return scheme.authenticate.authenticate(
            part.data,
            endorsements=endorsements,
            anchors=anchors,
            at=asked.at,
            require_revocation=self._policy.require_revocation,
        )

    def _appraise(self, claims: Claims) -> list[Reason]:
        """Step 5 for one part."""
        found: list[Reason] = []
        if claims.simulated and not self._allow_simulated:
            found.append(
                result.unacceptable(
                    "simulated",
                    "the evidence is simulated: no hardware protects this enclave",
                    hint="for a test or demo pass `allow_simulated=True` beside the simulator's anchor",
                )
            )
        reference = self._policy.reference.get(claims.tee)
        if reference is None:
            found.insert(
                0,
                result.unacceptable(
                    "tee",
                    f"the policy does not admit this TEE: {claims.tee}",
                    hint=f'add "{claims.tee}" to `tees`, with a [reference.{claims.tee}] table, if you mean to',
                ),
            )
            return found
        return [*found, *schemes.scheme(claims.tee).appraise.appraise(claims, reference, self._policy)]

    def _complete(self, platform: Claims, devices: list[Claims]) -> list[Reason]:
        """Step 5 for the whole: no device is missing, alone, or there twice."""
        found: list[Reason] = []

        def refuse(leaf: str, message: str, hint: str = "") -> None:
            found.append(result.unacceptable(leaf, message, hint=hint))

        wants_cpu = any(tee in schemes.CPU for tee in self._policy.tees)
        if platform.tee in schemes.DEVICES and wants_cpu:
            refuse(
                "tee",
                f"the evidence is of a device alone ({platform.tee}), and the policy names TEEs of CPUs",
                "give the CPU's evidence with it; a policy for the device alone names nothing else in `tees`",
            )
        for tee, reference in self._policy.devices.items():
            there = sum(claims.tee == tee for claims in (platform, *devices))
            if not there and reference.required and platform.tee in schemes.CPU:
                refuse(
                    "tee",
                    f"the policy asks for evidence of a device, and there is none: {tee}",
                    f"give it with the platform's, or write `required = false` in [reference.{tee}]",
                )
            elif there and reference.count is not None and there != reference.count:
                refuse("attributes", f"there are not as many devices as the policy names: {tee}")
        own = [key for claims in (platform, *devices) for key in _own_keys(claims)]
        if len(set(own)) != len(own):
            refuse("identity", "two reports are from one and the same device")
        return found

    def _bound(self, claims: Claims, belongs: Binding) -> list[Reason]:
        reference = self._policy.devices.get(claims.tee)
        if belongs == "bound" or reference is None or not reference.require_binding:
            return []
        return [
            result.unacceptable(
                "channel",
                f"nothing shows that the device's evidence belongs to this platform: {claims.tee}",
                hint="give the bundle and the nonce that was sent; "
                f"`require_binding = false` in [reference.{claims.tee}] accepts it as unproven",
                stage="binding",
            )
        ]

    def _vector(self, claims: Claims) -> Vector:
        reference = self._policy.reference.get(claims.tee)
        if reference is None:
            raise AttestationError("internal", "a refused TEE was not refused")
        return _simulated(schemes.scheme(claims.tee).appraise.trustworthiness(claims, reference), claims)

    def _notes(self, claims: Claims) -> list[Reason]:
        reference = self._policy.reference.get(claims.tee)
        found = []
        if claims.simulated:
            found.append(
                result.note("simulated", f"SIMULATED: no hardware protects this enclave ({claims.tee})")
            )
        found += [
            result.note("wildcard", f"the policy accepts any value of `{name}` ({claims.tee})", hint="pin it")
            for name in (() if reference is None else reference.wildcards)
        ]
        found += [
            result.note("not_checked", f"{check.name}: not checked ({claims.tee})", stage="endorsement")
            for check in claims.checks
            if check.outcome == "not checked"
        ]
        found += [
            result.note("unproven", f"unproven on real bytes: {text}", stage="parse")
            for text in claims.unproven
        ]
        return found


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
    if data is not None and not 1 <= len(data) <= MAX_REPORT_DATA:
        raise ConfigurationError("report_data", f"report data is 1 to {MAX_REPORT_DATA} bytes")
    return data


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


def _check_formats(evidence: Evidence) -> None:
    """Step 2: what may stand beside what."""
    schemes.scheme(evidence.platform.format)
    formats = [part.format for part in evidence.devices]
    if any(name not in schemes.DEVICES for name in formats):
        raise MalformedError("unknown_format", "a device's evidence is of no format known for devices")
    if formats and evidence.platform.format == "token":
        raise MalformedError("unknown_format", "a token stands alone, without devices")
    if evidence.platform.format == "nvidia" and any(name != "nvidia" for name in formats):
        raise MalformedError("unknown_format", "beside a GPU alone there can be only further GPUs")
    if formats.count("tpm") + (evidence.platform.format == "tpm") > 1:
        raise MalformedError("unknown_format", "the evidence has more than one TPM")


def _own_keys(claims: Claims) -> set[bytes]:
    """The keys of one device and of no other. A GPU's firmware has a key that changes with it, under the key of the device."""
    return {voucher.fingerprint for voucher in claims.chain[: 2 if claims.tee == "nvidia" else 1]}


def _device_binding(claims: Claims, root: bytes | None) -> Binding:
    """A vTPM beside a platform is trusted through that platform or not at all; a GPU answers the nonce of the keys."""
    if claims.tee == "tpm":
        return "bound"
    if root is not None and binding.equal(binding.gpu_nonce(root), claims.report_data):
        return "bound"
    return "unproven"


def _composite_notes(
    devices: list[Claims], bindings: list[Binding], freshness: result.Freshness
) -> tuple[Reason, ...]:
    found = [
        result.note(
            "binding", f"that the device belongs to this platform: unproven ({claims.tee})", stage="binding"
        )
        for claims, belongs in zip(devices, bindings, strict=True)
        if belongs != "bound"
    ]
    if freshness != "fresh":
        found.append(result.note("freshness", f"freshness: {freshness}", stage="binding"))
    return tuple(found)
