# SPDX-License-Identifier: Apache-2.0
"""An owner and an enclave on a simulated chip, with clocks that move when told to: where attacks on a release start."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from confide.attestation import binding
from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.key_material import KeyMaterial, ServiceIdentity
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto import hpke
from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.keys.identity import Identity
from confide.keys.receiver import Receiver
from confide.keys.release import ReleaseRequest, SecretName, Wrapped, release
from confide.simulator.measurement import measurement

if TYPE_CHECKING:
    from confide.simulator.snp import Chip

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
MANIFEST = b"the manifest of the service"
CANARY = b"canary-secret-of-the-owner-32byt"


@dataclass
class Clock:
    """Monotonic seconds, and the wall clock that goes with them."""

    now: float = 5000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.now - 5000.0)


@dataclass
class SimulatedAttester:
    """A simulated chip as the enclave sees it, without the process around it."""

    chip: Chip
    manifest: bytes = MANIFEST
    quotes: int = 0

    def attest(self, report_data: bytes) -> PlatformEvidence:
        self.quotes += 1
        report = self.chip.report(report_data, manifest=self.manifest, debug=False, level=0)
        root = self.chip.installation
        return PlatformEvidence(
            EvidencePart("snp", report), (), Endorsements((self.chip.vcek, root.ask), (root.crl,))
        )

    def derive_key(self, label: bytes) -> bytes:
        return self.chip.derive_key(label, manifest=self.manifest)


def service(*, tenant: str = "acme", manifest: bytes = MANIFEST, kind: str = "model") -> ServiceIdentity:
    return ServiceIdentity(kind, hashlib.sha256(manifest).digest(), tenant, os.urandom(16))


@dataclass
class ReleaseWorld:
    chip: Chip
    clock: Clock = field(default_factory=Clock)
    owner: Identity = field(default_factory=lambda: Identity("owner", SigningKey.generate()))
    name: SecretName = field(default_factory=lambda: SecretName("weights", 2))

    @property
    def secrets(self) -> dict[SecretName, Secret]:
        return {self.name: Secret(CANARY)}

    def policy(
        self, *, tenant: str = "acme", manifest: bytes = MANIFEST, max_age: str | None = "60s"
    ) -> AppraisalPolicy:
        return AppraisalPolicy.from_table(
            {
                "tees": ["snp"], **({"max_age": max_age} if max_age else {}),
                "service": {"kind": "model", "id": tenant, "manifest": [hashlib.sha256(manifest).hexdigest()]},
                "reference": {"snp": {"measurement": [measurement(manifest).hex()]}},
            }
        )  # fmt: skip

    def verifier(self, *, consent: bool = True, **policy: Any) -> Verifier:
        return Verifier(
            self.policy(**policy), extra_anchors=(self.chip.installation.anchor,), allow_simulated=consent
        )

    def receiver(self, **changed: Any) -> Receiver:
        owner = changed.pop("owner", self.owner)
        arguments: dict[str, Any] = {
            "audience": owner.audience, "names": ["weights", "token"], "owner_public": owner.public,
            "monotonic": self.clock, "wall_clock": self.clock.wall,
        }  # fmt: skip
        tenant, manifest = changed.pop("tenant", "acme"), changed.pop("manifest", MANIFEST)
        arguments.update(changed)
        return Receiver(
            SimulatedAttester(self.chip, manifest),
            service(tenant=tenant, manifest=manifest),
            manifest,
            **arguments,
        )

    def request(self, *names: SecretName, tenant: str = "acme") -> ReleaseRequest:
        return ReleaseRequest.new(tenant, names or (self.name,), os.urandom(32))

    def release(self, evidence: bytes, request: ReleaseRequest, **changed: Any) -> Wrapped:
        arguments: dict[str, Any] = {
            "verifier": self.verifier(), "audience": self.owner.audience, "at": self.clock.wall(),
            "age": timedelta(0), "signer": self.owner.key,
        }  # fmt: skip
        secrets = changed.pop("secrets", self.secrets)
        arguments.update(changed)
        return release(evidence, request, secrets, **arguments)

    def evidence(
        self,
        nonce: bytes,
        *,
        key: bytes | None = None,
        tenant: str = "acme",
        cached: bool = False,
        **fields: Any,
    ) -> bytes:
        """Genuine evidence over key material of any purpose, audience and key that the enclave's code might make."""
        material = KeyMaterial(
            **{
                "purpose": "release", "audience": self.owner.audience, "service": service(tenant=tenant),
                "key": hpke.PrivateKey.generate().public if key is None else key, "receipt_key": bytes([9]) * 32,
                "epoch": 1, "lifetime": 120, "issued_at": int(self.clock.wall().timestamp()), "at_most_once": True,
                "content": {}, "max_body": 0, "max_session": 120, **fields,
            }
        ).encode()  # fmt: skip
        answer = SimulatedAttester(self.chip).attest(
            binding.report_data(binding.batch_root([binding.leaf(nonce, material)]))
        )
        return Evidence(
            platform=answer.platform, key_material=material, manifest=MANIFEST,
            proof=None if cached else binding.NonceProof(1, 0, ()), endorsements=answer.endorsements,
        ).encode()  # fmt: skip
