# SPDX-License-Identifier: Apache-2.0
"""Is a TDX quote genuine? A pure function of quote, endorsements, trust anchors and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from confide.tees._dcap.tcb import TcbEvaluation
    from confide.tees.tdx.wire import TdAttributes

__all__ = ["TdxDetails"]


@dataclass(frozen=True, slots=True)
class TdxDetails:
    """The authenticated facts of a TD's quote, by Intel's names; digests and SVNs as bytes.

    ``tee_tcb_svn_2`` and ``mrservicetd`` are None for a body of version 1.0, ``module`` for a TDX module of version 0, which
    has no levels of its own. ``tcb_status`` is the word for platform, quoting enclave and module together, never ``Revoked``;
    ``tcb_date`` the oldest of their dates; ``advisory_ids`` all of theirs. ``event_logs`` are documents as they came, not
    replayed against the RTMRs.
    """

    quote_version: int
    body: str
    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: TdAttributes
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    tee_tcb_svn_2: bytes | None
    mrservicetd: bytes | None
    fmspc: bytes
    pceid: bytes
    ppid: bytes
    platform: TcbEvaluation
    qe: TcbEvaluation
    module: TcbEvaluation | None
    tcb_status: str
    tcb_date: datetime
    advisory_ids: tuple[str, ...]
    tcb_evaluation_data_number: int
    qe_evaluation_data_number: int
    collateral_expires: datetime
    root: str
    event_logs: tuple[bytes, ...] = ()
