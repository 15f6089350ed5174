# SPDX-License-Identifier: Apache-2.0
"""Is an SGX quote genuine? A pure function of quote, endorsements, trust anchors and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from confide.tees._dcap.tcb import TcbEvaluation
    from confide.tees.sgx.wire import SgxFlags

__all__ = ["SgxDetails"]


@dataclass(frozen=True, slots=True)
class SgxDetails:
    """The authenticated facts of an enclave's quote, by Intel's names; measurements and ids as bytes.

    ``tcb_status`` is the word for platform and quoting enclave together, never ``Revoked``; ``tcb_date`` the older of their
    dates; ``advisory_ids`` those of both. ``isvextprodid``, ``configid``, ``configsvn`` and ``isvfamilyid`` are zero unless the
    enclave has the KSS attribute.
    """

    quote_version: int
    cpusvn: bytes
    miscselect: int
    flags: SgxFlags
    xfrm: int
    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    isvextprodid: bytes
    configid: bytes
    configsvn: int
    isvfamilyid: bytes
    fmspc: bytes
    pceid: bytes
    ppid: bytes
    platform: TcbEvaluation
    qe: TcbEvaluation
    tcb_status: str
    tcb_date: datetime
    advisory_ids: tuple[str, ...]
    tcb_evaluation_data_number: int
    qe_evaluation_data_number: int
    collateral_expires: datetime
    root: str
