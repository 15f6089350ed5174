# SPDX-License-Identifier: Apache-2.0
"""Cases of NVIDIA devices that pass, of which a test changes one thing.

    case = nvidia.case()                                    # of a GH100, with its RIM documents
    nvidia.verify(case)                                     # an AttestationResult, or the exception
    nvidia.codes(nvidia.case(fields={"fwid": bytes(48)}))   # the codes of the refusal

Keys are fixed, so that minting is fast and reproducible.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto.issue import IssuingKey
from confide.errors import AttestationError, ConfideError
from confide.simulator.nvidia import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.result import AttestationResult
    from confide.simulator.nvidia import Manifest

AT = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
NONCE = bytes(range(100, 132))
SAMPLES = {
    "hopper-535": "2026-01-01T00:00:00+00:00",
    "hopper-550.90.07-full": "2025-10-24T12:00:00+00:00",
    "hopper-580": "2026-01-01T00:00:00+00:00",
    "switch-ls10": "2026-01-01T00:00:00+00:00",
}


def key(role: str) -> IssuingKey:
    """The same key for the same role in every run."""
    return IssuingKey.from_scalar(1 + zlib.crc32(role.encode()))


@functools.cache
def device(model: str = "GH100", world: str = "", serial: int = 0x41AB_0000_0000_0000_01) -> Platform:
    """A reproducible device; another ``world`` has other keys, another ``serial`` is another device of the same world."""
    own = {"device", "firmware"}
    return Platform.create(
        model, key=lambda role: key(f"{world}{role}{serial if role in own else ''}"), serial=serial
    )


@dataclass(frozen=True)
class Case:
    """A report with what came beside it."""

    platform: Platform
    report: bytes
    certificates: tuple[bytes, ...]
    documents: tuple[EvidencePart, ...] = ()

    @property
    def endorsements(self) -> Endorsements:
        """The certificates and documents."""
        return Endorsements(self.certificates, (), self.documents)

    @property
    def evidence(self) -> Evidence:
        """The report alone, as a lone device's."""
        return Evidence(EvidencePart("nvidia", self.report), endorsements=self.endorsements)

    @property
    def anchor(self) -> TrustAnchor:
        """Both local roots, as if they were a vendor's."""
        return replace(self.platform.anchor, simulated=False)


def case(
    platform: Platform | None = None,
    *,
    manifests: Mapping[str, Manifest] | None = None,
    certificates: tuple[bytes, ...] | None = None,
    extra: tuple[EvidencePart, ...] = (),
    nonce: bytes = NONCE,
    **report: Any,
) -> Case:
    """A case that passes unless something is overridden: fields of the report, its documents, or its certificates."""
    chosen = platform or device()
    return Case(
        chosen,
        chosen.report(nonce, **report),
        chosen.certificates if certificates is None else certificates,
        (*chosen.documents(manifests), *extra),
    )


def policy(reference: dict[str, Any] | None = None, **top: Any) -> AppraisalPolicy:
    """A policy for the device alone."""
    return AppraisalPolicy.from_table({"tees": ["nvidia"], **top, "reference": {"nvidia": reference or {}}})


def verify(
    given: Case,
    reference: dict[str, Any] | None = None,
    *,
    at: datetime = AT,
    top: dict[str, Any] | None = None,
    anchors: tuple[TrustAnchor, ...] | None = None,
    **asked: Any,
) -> AttestationResult:
    """Verify a case under ``policy(reference, **top)`` with its own roots as the only extra anchor."""
    chosen = (given.anchor,) if anchors is None else anchors
    return Verifier(policy(reference, **(top or {})), extra_anchors=chosen).verify(
        given.evidence, at=at, **asked
    )


def codes(given: Case, reference: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """The codes with which a case is refused, the first one first; the test fails if it is accepted."""
    with pytest.raises(ConfideError) as caught:
        verify(given, reference, **options)
    error = caught.value
    return [reason.code for reason in error.reasons] if isinstance(error, AttestationError) else [error.code]


def flipped(data: bytes, bit: int) -> bytes:
    """One bit turned over."""
    changed = bytearray(data)
    changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)


def folder(shared: Path) -> Path:
    """Where the real samples are."""
    return shared / "evidence" / "nvidia"
