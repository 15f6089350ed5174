# SPDX-License-Identifier: Apache-2.0
"""Is a TDX quote genuine? A pure function of quote, endorsements, trust anchors and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.attestation import claims as claims_
from confide.tees._dcap import verify
from confide.tees._dcap.identity import Seam
from confide.tees.tdx import wire

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.tees._dcap.tcb import TcbEvaluation

__all__ = ["TdxDetails", "authenticate"]

EVENT_LOG: Final = "event-log"


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
    td_attributes: wire.TdAttributes
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


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,  # noqa: ARG001 - for Intel's TEEs CRLs are mandatory
) -> Claims:
    """Claims over the quote of a TD in ``data``, or an exception. Numbers in brackets are those of Intel's library.

    1. Parse: header, body (TDX 1.0 or 1.5), signature data, each length exact; ECDSA P-256; Intel's quoting enclave.
    2. Signature: the attestation key signs header and body (4.1.2.4.16).
    3. Binding: the quoting enclave's report data is SHA-256 of attestation key and authentication data, then 32 zero bytes
       (4.1.2.4.13).
    4. The quoting enclave's report is signed by the platform's key, PCK (4.1.2.4.12).
    5. Chain: PCK certificate, Platform or Processor CA, root; the root is one of ``anchors`` byte for byte; each is valid at
       ``at``; nothing else is in the quote (4.1.2.4.4, 4.1.2.2).
    6. TCB info: signed by the TCB signing key under the same roots, for TDX, FMSPC and PCEID those of the PCK certificate,
       issued and not out of date at ``at`` (4.1.2.4.9, 4.1.2.4.10, 4.1.2.3).
    7. Enclave identity: the same, for ``TD_QE`` (4.1.2.4.14).
    8. Revocation: CRLs of the root and of the PCK CA, valid at ``at``, which list no certificate of these chains
       (4.1.2.4.6, 4.1.2.4.7).
    9. The quoting enclave is the one of the identity: MRSIGNER, ISVPRODID, MISCSELECT and ATTRIBUTES under their masks, not in
       debug mode, ISVSVN at a level that is not revoked (4.1.2.4.15). The TDX module is one of TCB info: signer, attributes,
       its version, the level of its SVN (4.1.2.4.11).
    10. TCB: the highest level all of whose components the platform meets, the certificate's and the report's
        (4.1.2.4.17.1 to 17.4). For TDX 1.5 the module that runs now must be known and not revoked, too.
    11. One status for platform, module and quoting enclave, and for TDX 1.5 whether a relaunch would mend it.

    What a status is worth is for the policy; ``Revoked`` and words that Intel has not documented are refused here. Steps 2 to
    10 run as far as they do not need each other; what they find is raised together. ``require_revocation`` changes nothing.
    Raises MalformedError (1, and endorsements that are not what they claim to be), NotGenuine (1 to 10),
    EndorsementsMissing (4 to 8).
    """
    quote, report = wire.decode(data)
    v15 = report if isinstance(report, wire.TdReport15) else None
    seam = Seam(
        tee_tcb_svn=report.tee_tcb_svn,
        mrsigner=report.mrsignerseam,
        attributes=report.seam_attributes,
        tee_tcb_svn_2=None if v15 is None else v15.tee_tcb_svn_2,
    )
    genuine = verify.verify(quote, tee="tdx", endorsements=endorsements, anchors=anchors, at=at, seam=seam)
    details = TdxDetails(
        quote_version=quote.header.version,
        body=wire.BODY_10 if v15 is None else wire.BODY_15,
        tee_tcb_svn=report.tee_tcb_svn,
        mrseam=report.mrseam,
        mrsignerseam=report.mrsignerseam,
        seam_attributes=report.seam_attributes,
        td_attributes=wire.TdAttributes(report.td_attributes),
        xfam=report.xfam,
        mrtd=report.mrtd,
        mrconfigid=report.mrconfigid,
        mrowner=report.mrowner,
        mrownerconfig=report.mrownerconfig,
        rtmrs=(report.rtmrs[0], report.rtmrs[1], report.rtmrs[2], report.rtmrs[3]),
        tee_tcb_svn_2=None if v15 is None else v15.tee_tcb_svn_2,
        mrservicetd=None if v15 is None else v15.mrservicetd,
        fmspc=genuine.pck.fmspc,
        pceid=genuine.pck.pceid,
        ppid=genuine.pck.ppid,
        platform=genuine.platform,
        qe=genuine.qe,
        module=genuine.module,
        tcb_status=genuine.tcb_status,
        tcb_date=genuine.tcb_date,
        advisory_ids=genuine.advisory_ids,
        tcb_evaluation_data_number=genuine.tcb_evaluation_data_number,
        qe_evaluation_data_number=genuine.qe_evaluation_data_number,
        collateral_expires=genuine.collateral_expires,
        root=genuine.root,
        event_logs=tuple(part.data for part in endorsements.documents if part.format == EVENT_LOG),
    )
    registers = {f"rtmr{index}": value for index, value in enumerate(details.rtmrs)}
    return claims_.authenticated(
        tee="tdx",
        simulated=genuine.simulated,
        report_data=report.report_data,
        measurements={"mrtd": report.mrtd, **registers},
        details=details,
        checks=genuine.checks,
        expires=genuine.expires,
        chain=genuine.vouchers,
        unproven=genuine.unproven,
    )
