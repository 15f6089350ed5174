# SPDX-License-Identifier: Apache-2.0
"""One passing case of every vendor's format, under roots of the tests, for what holds for all of them alike."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confide.attestation.evidence import Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import ConfideError
from confide.simulator import devices

if TYPE_CHECKING:
    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.result import AttestationResult

AT = datetime(2026, 6, 1, tzinfo=UTC)
TEES = devices.TEES
REFERENCE: dict[str, dict[str, Any]] = {
    "snp": {"measurement": "ANY"},
    "tdx": {"mrtd": "ANY"},
    "sgx": {"mrenclave": "ANY"},
    "nitro": {"pcr0": "ANY"},
    "tpm": {"pcr": "ANY"},
    "nvidia": {"rim": "required"},
}
# A register that the case does not have, for policies that nothing meets.
ELSEWHERE: dict[str, dict[str, Any]] = {
    "snp": {"measurement": ["ee" * 48]},
    "tdx": {"mrtd": ["ee" * 48]},
    "sgx": {"mrenclave": ["ee" * 32]},
    "nitro": {"pcr0": ["ee" * 48]},
    "tpm": {"pcr": {"4": ["ee" * 32]}},
    "nvidia": {"rim": "required", "device_ids": ["EE" * 9]},
}


@functools.cache
def _directory() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="confide-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "simulator"


@functools.cache
def anchors() -> tuple[TrustAnchor, ...]:
    """The roots of all of them, which take a while to make."""
    return devices.anchors(_directory())


def report_data(tee: str) -> bytes:
    """What the case is made over: 64 bytes, or the 32 of a GPU's nonce."""
    return bytes(range(32 if tee == "nvidia" else 64))


@functools.cache
def case(tee: str) -> Evidence:
    """Evidence of ``tee`` with everything that verifies it, the same all through a run."""
    return devices.example(tee, report_data(tee), at=AT, directory=_directory())


def data(tee: str) -> bytes:
    """The vendor's bytes."""
    return case(tee).platform.data


def with_data(tee: str, changed: bytes, *, format_: str | None = None) -> Evidence:
    """The case with other bytes, perhaps under another name."""
    return replace(case(tee), platform=EvidencePart(format_ or tee, changed))


@functools.cache
def policy(tee: str) -> AppraisalPolicy:
    """A policy that admits the case, with ``ANY`` spelled out."""
    return AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: REFERENCE[tee]}})


def verifier(tee: str, *, reference: dict[str, Any] | None = None, **options: Any) -> Verifier:
    """A Verifier that trusts the roots of the tests, with both consents."""
    chosen = (
        policy(tee)
        if reference is None
        else AppraisalPolicy.from_table({"tees": [tee], "reference": {tee: reference}})
    )
    arguments: dict[str, Any] = {
        "extra_anchors": anchors(),
        "allow_simulated": True,
    }
    return Verifier(chosen, **(arguments | options))


def verify(tee: str, evidence: Evidence | None = None, **options: Any) -> AttestationResult:
    """The result, or the exception."""
    return verifier(tee, **options).verify(case(tee) if evidence is None else evidence, at=AT)


def refusal(tee: str, evidence: Evidence | None = None, **options: Any) -> list[str]:
    """The codes with which it is refused; empty if it is not."""
    try:
        verify(tee, evidence, **options)
    except ConfideError as error:
        reasons = getattr(error, "reasons", None)
        return [error.code] if reasons is None else [reason.code for reason in reasons]
    return []
