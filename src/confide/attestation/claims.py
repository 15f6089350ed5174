# SPDX-License-Identifier: Apache-2.0
"""Claims: what has been authenticated. Nothing else in confide lets a caller read a field of evidence and trust it.

``authenticated`` is called by a TEE's ``authenticate`` and by nobody else (a test reads the source tree for that).
Python cannot make a forgery impossible for code in the same process; it makes one impossible to write by accident:
neither the constructor nor ``dataclasses.replace`` yields Claims.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from confide.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["Check", "Claims", "Voucher", "authenticated"]

_WITNESS = object()


@dataclass(frozen=True, slots=True)
class Check:
    """One step of authentication: its name, whether it ran, and a sentence on what it established."""

    name: str
    outcome: Literal["passed", "not checked"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Voucher:
    """One key of the chain under evidence: a name for people, and SHA-256 of its SubjectPublicKeyInfo."""

    name: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """Authenticated facts about one TEE.

    ``report_data`` is what the guest put into the report (64 bytes for SNP, TDX, SGX; Nitro's user data, a TPM's qualifying
    data, the nonce of a GPU or a token), ``measurements`` the registers by the vendor's names, ``details`` the TEE's own
    typed facts, ``checks`` the steps that ran, ``expires`` the first time at which one of the certificates or CRLs used is
    no longer valid, ``chain`` who vouches, from the key that signed the evidence up to the trusted root. ``unproven`` says
    which layouts of this evidence have never been seen in a sample of real hardware.
    """

    tee: str
    simulated: bool
    report_data: bytes
    measurements: Mapping[str, bytes]
    details: object
    checks: tuple[Check, ...]
    expires: datetime
    chain: tuple[Voucher, ...]
    unproven: tuple[str, ...]
    witness: InitVar[object]

    def __post_init__(self, witness: object) -> None:
        if witness is not _WITNESS:
            raise ConfigurationError(
                "claims",
                "claims come only from authenticated evidence",
                hint="pass the evidence to a Verifier",
            )
        object.__setattr__(self, "measurements", MappingProxyType(dict(self.measurements)))


def authenticated(
    *,
    tee: str,
    simulated: bool,
    report_data: bytes,
    measurements: Mapping[str, bytes],
    details: object,
    checks: tuple[Check, ...],
    expires: datetime,
    chain: tuple[Voucher, ...] = (),
    unproven: tuple[str, ...] = (),
) -> Claims:
    """Claims over evidence whose every check has passed; only a TEE's ``authenticate`` may say so."""
    return Claims(
        tee, simulated, report_data, measurements, details, checks, expires, chain, unproven, _WITNESS
    )
