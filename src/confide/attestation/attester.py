# SPDX-License-Identifier: Apache-2.0
"""What a TEE's device can do for the code inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from confide.attestation import binding
from confide.attestation.evidence import Endorsements
from confide.errors import EnclaveError

if TYPE_CHECKING:
    from confide.attestation.evidence import EvidencePart

__all__ = ["Attester", "DeviceAttester", "DeviceEvidence", "PlatformEvidence", "quote"]


@dataclass(frozen=True, slots=True)
class PlatformEvidence:
    """What one question to the device gave: the platform's report, reports of further devices in a fixed order, and
    the vendor certificates that the platform handed over with them.
    """

    platform: EvidencePart
    devices: tuple[EvidencePart, ...] = ()
    endorsements: Endorsements = field(default_factory=Endorsements)


@runtime_checkable
class Attester(Protocol):
    """A TEE's device, seen from inside. Calls may take milliseconds to seconds and are not re-entrant."""

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """Evidence over exactly these 64 bytes. Raises ``enclave`` errors if the device fails."""
        ...

    def derive_key(self, label: bytes) -> bytes:
        """32 bytes that only this TEE with this measurement can derive again for ``label``."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """What the devices beside a platform answered to one nonce, in a fixed order, with their certificates."""

    devices: tuple[EvidencePart, ...]
    endorsements: Endorsements = field(default_factory=Endorsements)


@runtime_checkable
class DeviceAttester(Attester, Protocol):
    """An attester that has devices beside its platform, such as GPUs."""

    def device_evidence(self, nonce: bytes) -> DeviceEvidence:
        """Evidence of every device over exactly these 32 bytes. Raises ``enclave`` errors if one of them fails."""
        ...


def quote(attester: Attester, root: bytes) -> PlatformEvidence:
    """Evidence for the root of a batch (64 bytes): of the devices first, since the platform's report covers theirs.

    A vTPM that carries the binding comes with the platform's evidence. ``enclave.bad_state`` if anything else does, which the
    report would not cover.
    """
    beside = DeviceEvidence(())
    if isinstance(attester, DeviceAttester):
        beside = attester.device_evidence(binding.gpu_nonce(root))
    made = attester.attest(binding.report_data(root, [part.data for part in beside.devices]))
    if any(part.format != "tpm" for part in made.devices):
        raise EnclaveError("bad_state", "the report does not cover the evidence of further devices")
    return PlatformEvidence(
        made.platform,
        (*made.devices, *beside.devices),
        made.endorsements.merge(beside.endorsements),
    )
