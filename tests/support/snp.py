# SPDX-License-Identifier: Apache-2.0
"""Mints SEV-SNP reports and their certificates under a root of the tests' own, every field of which can be set.

    case = snp.mint(product="Turin", version=5, report={"vmpl": 1}, patch={0x208: b"\\x01"})
    snp.verify(case)                                    # an AttestationResult, or the exception
    snp.verify(case, reference={"vmpl": [1]})

The simulator mints them (``simulator.snp_reports``); here the keys are fixed, so that tests are reproducible, and the root
can stand for a vendor's, which the simulator's own never does.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

from confide.attestation.anchors import TrustAnchor
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto.issue import IssuingKey
from confide.simulator import snp_reports
from confide.simulator.snp_reports import (
    AT,
    CA_USAGE,
    CPUID,
    HWID,
    MEASUREMENT,
    NOT_AFTER,
    NOT_BEFORE,
    REPORT_DATA,
    ROLES,
    TCB,
    der_integer,
    der_text,
    extensions,
    name,
    patched,
    sign,
)

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.evidence import Evidence
    from confide.attestation.result import AttestationResult

__all__ = [
    "AT",
    "CA_USAGE",
    "CPUID",
    "HWID",
    "MEASUREMENT",
    "NOT_AFTER",
    "NOT_BEFORE",
    "REPORT_DATA",
    "TCB",
    "Authority",
    "Minted",
    "authority",
    "codes",
    "der_integer",
    "der_text",
    "extensions",
    "mint",
    "name",
    "patched",
    "policy",
    "sign",
    "verify",
]


class Authority(snp_reports.Authority):
    """The simulator's, whose root can also stand for a vendor's."""

    __slots__ = ()

    def anchor(self, *, simulated: bool = False) -> TrustAnchor:
        """The root as a trust anchor."""
        return TrustAnchor("snp", self.product, self.certificates, simulated)


Minted: TypeAlias = snp_reports.Minted[Authority]


@functools.cache
def authority(product: str = "Genoa", seed: int = 1, **changes: Any) -> Authority:
    """A reproducible authority; another ``seed`` has the same names and other keys."""
    scalar = 1000 * seed + 10 * sorted(CPUID).index(product)
    keys = {role: IssuingKey.from_scalar(scalar + 7 + offset) for offset, role in enumerate(ROLES)}
    return Authority.create(product, keys=keys, changes=changes)


def mint(
    *, product: str = "Genoa", root: Authority | None = None, key: IssuingKey | None = None, **overrides: Any
) -> Minted:
    """``snp_reports.mint`` under ``authority(product)``."""
    return snp_reports.mint(
        product=product,
        root=root or authority(product),
        key=key or IssuingKey.from_scalar(0xC0FFEE),
        **overrides,
    )


def policy(reference: dict[str, Any] | None = None, **top: Any) -> AppraisalPolicy:
    """A policy that pins the measurement of minted reports, and whatever else is asked for."""
    table = {"measurement": [MEASUREMENT.hex()]} | (reference or {})
    return AppraisalPolicy.from_table({"tees": ["snp"], **top, "reference": {"snp": table}})


def verify(
    case: Minted | Evidence,
    *,
    reference: dict[str, Any] | None = None,
    anchors: tuple[TrustAnchor, ...] | None = None,
    allow_simulated: bool = False,
    top: dict[str, Any] | None = None,
    at: datetime = AT,
    **asked: Any,
) -> AttestationResult:
    """Verify a minted case under ``policy(reference, **top)`` with its own root as the only extra anchor."""
    if anchors is None:
        anchors = (
            (case.authority.anchor(),) if isinstance(case, snp_reports.Minted) else (authority().anchor(),)
        )
    verifier = Verifier(
        policy(reference, **(top or {})), extra_anchors=anchors, allow_simulated=allow_simulated
    )
    return verifier.verify(case.evidence if isinstance(case, snp_reports.Minted) else case, at=at, **asked)


def codes(error: Any) -> list[str]:
    """The codes of everything that an AttestationError found, the first one first."""
    return [reason.code for reason in error.reasons]
