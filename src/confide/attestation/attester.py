# SPDX-License-Identifier: Apache-2.0
"""What a TEE's device can do for the code inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from confide.attestation.evidence import Endorsements

if TYPE_CHECKING:
    from confide.attestation.evidence import EvidencePart

__all__ = ["Attester", "PlatformEvidence"]


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
