# SPDX-License-Identifier: Apache-2.0
"""TPM evidence that is one field away from one that passes: alone under a simulated root, and Azure's beside an SNP report.

part, endorsements = tpm.platform().evidence(tpm.REPORT_DATA, fields={...})
tpm.refusal(part, endorsements)                      # the codes with which it is refused
tpm.azure(claims={"user-data": ...}).refusal()
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto.issue import IssuingKey
from confide.errors import AttestationError, ConfideError
from confide.simulator import tpm as simulator
from confide.simulator.tpm import AT, Platform
from confide.tees.snp import authenticate as snp_authenticate
from confide.tees.tpm import authenticate as tpm_authenticate
from confide.tees.tpm import wire
from support import snp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.result import AttestationResult

__all__ = [
    "AT",
    "REPORT_DATA",
    "AzureCase",
    "Platform",
    "authenticate",
    "azure",
    "codes",
    "platform",
    "policy",
    "refusal",
    "rsa_key",
    "verify",
]

REPORT_DATA = bytes(range(32))


@functools.cache
def rsa_key(number: int = 1) -> IssuingKey:
    """An RSA key of this test run; another number is another key."""
    del number
    return IssuingKey.generate_rsa(2048)


@functools.cache
def platform(
    seed: int = 1, scheme: str = "ecdsa", hash_name: str = "sha256", curve: str = "p256"
) -> Platform:
    """A TPM; another ``seed`` has the same names and other keys."""
    return Platform.create(
        seed=seed,
        scheme=scheme,
        hash_name=hash_name,
        curve=curve,
        ak_key=None if scheme == "ecdsa" else rsa_key(seed),
    )


def authenticate(
    part: bytes,
    endorsements: Endorsements | None = None,
    *,
    anchors: tuple[TrustAnchor, ...] | None = None,
    at: datetime = AT,
    require_revocation: bool = False,
    beside: Claims | None = None,
) -> Claims:
    """Authenticate a part, by default under the root of ``platform()`` and alone."""
    return tpm_authenticate.authenticate(
        part,
        endorsements=endorsements or Endorsements(),
        anchors=(platform().anchor,) if anchors is None else anchors,
        at=at,
        require_revocation=require_revocation,
        platform=beside,
    )


def codes(check: Callable[[], object]) -> list[str]:
    """The codes of everything that a refusal found; the test fails where there is none."""
    with pytest.raises(ConfideError) as caught:
        check()
    error = caught.value
    return [one.code for one in error.reasons] if isinstance(error, AttestationError) else [error.code]


def refusal(part: bytes, endorsements: Endorsements | None = None, **options: Any) -> list[str]:
    """The codes with which a part is refused."""
    return codes(lambda: authenticate(part, endorsements, **options))


def policy(reference: Mapping[str, Any] | None = None, **top: Any) -> AppraisalPolicy:
    """A policy that pins PCR 4 and 9 of simulated TPMs, and whatever else is asked for."""
    pcrs = platform().pcrs["sha256"]
    table = {"pcr": {"4": [pcrs[4].hex()], "9": [pcrs[9].hex()]}} | dict(reference or {})
    return AppraisalPolicy.from_table({"tees": ["tpm"], **top, "reference": {"tpm": table}})


def verify(
    part: bytes,
    endorsements: Endorsements | None = None,
    *,
    reference: Mapping[str, Any] | None = None,
    anchors: tuple[TrustAnchor, ...] | None = None,
    at: datetime = AT,
    **asked: Any,
) -> AttestationResult:
    """Verify a part alone, through policy and Verifier."""
    verifier = Verifier(
        policy(reference),
        extra_anchors=(platform().anchor,) if anchors is None else anchors,
        allow_simulated=True,
    )
    evidence = Evidence(EvidencePart("tpm", part), endorsements=endorsements or Endorsements())
    return verifier.verify(evidence, at=at, **asked)


@dataclass(frozen=True)
class AzureCase:
    """An SNP report that names a TPM's key through the runtime claims, and the TPM's quote."""

    report: snp.Minted
    evidence: wire.TpmEvidence
    anchors: tuple[TrustAnchor, ...] = ()

    @functools.cached_property
    def platform(self) -> Claims:
        """The SNP report's claims."""
        return snp_authenticate.authenticate(
            self.report.report,
            endorsements=self.report.evidence.endorsements,
            anchors=(self.report.authority.anchor(),),
            at=AT,
            require_revocation=False,
        )

    def claims(self, **changes: Any) -> Claims:
        """The quote's claims; ``changes`` are fields of ``wire.TpmEvidence``."""
        part = replace(self.evidence, **changes).encode()
        return authenticate(part, anchors=self.anchors, beside=self.platform)

    def refusal(self, **changes: Any) -> list[str]:
        """The codes with which the quote is refused."""
        return codes(lambda: self.claims(**changes))

    def bundle(self) -> Evidence:
        """The composite."""
        evidence = self.report.evidence
        return replace(evidence, devices=(EvidencePart("tpm", self.evidence.encode()),))


def azure(
    *,
    tpm: Platform | None = None,
    claims: Mapping[str, Any] | None = None,
    claims_json: bytes | None = None,
    report: Mapping[str, Any] | None = None,
    hcl: Mapping[str, Any] | None = None,
    hardware: bytes | None = None,
    extra_data: bytes = REPORT_DATA,
    anchors: tuple[TrustAnchor, ...] = (),
) -> AzureCase:
    """A case that passes unless something is overridden: members of the runtime ``claims`` or their bytes, fields of the SNP
    ``report``, arguments of ``simulator.hcl_report``, the ``hardware`` report inside the HCL report.
    """
    tpm = tpm or platform(scheme="rsassa")
    text = simulator.runtime_claims(tpm.ak_key, **dict(claims or {})) if claims_json is None else claims_json
    data = hashlib.sha256(text).digest() + bytes(32)
    minted = snp.mint(report={"report_data": data} | dict(report or {}))
    whole = simulator.hcl_report(hardware or minted.report, text, **dict(hcl or {}))
    signed = tpm.attest(extra_data).encode()
    return AzureCase(
        minted,
        wire.TpmEvidence(signed, tpm.sign(signed).encode(), tpm.pcrs, hcl=whole),
        anchors,
    )
