# SPDX-License-Identifier: Apache-2.0
"""Nitro documents that are one field away from one that passes.

nitro.verify(nitro.document(pcrs={...}))                 # claims, or the exception
nitro.verify(document, reference={"pcr3": [...]})        # through policy and Verifier
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import AttestationError, ConfideError
from confide.simulator.nitro import AT, Platform
from confide.tees.nitro import authenticate

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.result import AttestationResult

REPORT_DATA = bytes(range(64, 128))
PCR0 = b"\x10" * 48


@functools.cache
def platform(seed: int = 1) -> Platform:
    """A reproducible platform; another ``seed`` has the same names and other keys."""
    return Platform.create(seed=seed)


def document(**overrides: Any) -> bytes:
    """A document that passes unless something is overridden; see ``Platform.document``."""
    return platform().document(REPORT_DATA, **overrides)


def bundle(*order: int) -> list[bytes]:
    """CA certificates of the platform by their place: root 0, regional 1, zonal 2, instance 3 (and the leaf, 4)."""
    return [platform().chain[index].der for index in order]


def policy(reference: dict[str, Any] | None = None, **top: Any) -> AppraisalPolicy:
    """A policy that pins PCR 0 to 2 of minted documents, and whatever else is asked for."""
    pins = {f"pcr{index}": [platform().pcrs[index].hex()] for index in range(3)}
    table = {name: value for name, value in (pins | (reference or {})).items() if value is not None}
    return AppraisalPolicy.from_table({"tees": ["nitro"], **top, "reference": {"nitro": table}})


def verify(
    data: bytes,
    *,
    reference: dict[str, Any] | None = None,
    top: dict[str, Any] | None = None,
    anchors: tuple[TrustAnchor, ...] | None = None,
    endorsements: Endorsements | None = None,
    at: datetime = AT,
    **asked: Any,
) -> AttestationResult:
    """Verify a document with the platform's root as the only extra anchor."""
    verifier = Verifier(
        policy(reference, **(top or {})),
        extra_anchors=(platform().anchor,) if anchors is None else anchors,
        allow_simulated=True,
    )
    evidence = Evidence(EvidencePart("nitro", data), endorsements=endorsements or platform().endorsements)
    return verifier.verify(evidence, at=at, **asked)


def refusal(data: bytes, **options: Any) -> list[str]:
    """The codes with which a document is refused; fails the test if it is accepted."""
    with pytest.raises(ConfideError) as caught:
        verify(data, **options)
    error = caught.value
    return [reason.code for reason in error.reasons] if isinstance(error, AttestationError) else [error.code]


def claims(data: bytes, of: Platform | None = None, **options: Any) -> Any:
    """Authenticate under a platform's root, without a policy."""
    arguments: dict[str, Any] = {
        "endorsements": Endorsements(),
        "anchors": ((of or platform()).anchor,),
        "at": AT,
        "require_revocation": False,
    }
    return authenticate.authenticate(data, **(arguments | options))


def refused(data: bytes, of: Platform | None = None, **options: Any) -> list[str]:
    """The codes with which a document is not authenticated."""
    with pytest.raises(ConfideError) as caught:
        claims(data, of, **options)
    error = caught.value
    return [reason.code for reason in error.reasons] if isinstance(error, AttestationError) else [error.code]


# Items of CBOR that cost much, mean nothing here or have two spellings.
BOMBS = {
    "tag 35": "d823" + "6361612a",
    "bignum": "c2" + "5a000fffff",
    "decimal": "c4821b7fffffffffffffff03",
    "indefinite bytes": "5f4101ff",
    "indefinite text": "7f6161ff",
    "indefinite array": "9f01ff",
    "indefinite map": "bf0102ff",
    "not shortest": "1800",
    "not shortest length": "580101",
    "nan": "f97e00",
    "float": "fb3ff0000000000000",
    "shared reference": "d81c8101",
    "undefined": "f7",
    "simple": "f820",
    "break": "ff",
    "nested": "81" * 64 + "00",
    "nested maps": "a100" * 64 + "00",
    "huge array": "9b00ffffffffffffff",
    "huge map": "bb00ffffffffffffff",
    "huge bytes": "5b00ffffffffffffff",
}
