# SPDX-License-Identifier: Apache-2.0
"""Is an SGX quote genuine? A pure function of quote, endorsements, trust anchors and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.attestation import claims as claims_
from confide.tees._dcap import verify
from confide.tees.sgx import wire

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.tees._dcap.tcb import TcbEvaluation

__all__ = ["SgxDetails", "authenticate"]


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
    flags: wire.SgxFlags
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


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,  # noqa: ARG001 - for Intel's TEEs CRLs are mandatory
) -> Claims:
    """Claims over the quote of an enclave in ``data``, or an exception. Numbers in brackets are those of Intel's library.

    1. Parse: header, body, signature data, each length exact; ECDSA P-256; Intel's quoting enclave.
    2. Signature: the attestation key signs header and body (4.1.2.4.16).
    3. Binding: the quoting enclave's report data is SHA-256 of attestation key and authentication data, then 32 zero bytes
       (4.1.2.4.13).
    4. The quoting enclave's report is signed by the platform's key, PCK (4.1.2.4.12).
    5. Chain: PCK certificate, Platform or Processor CA, root; the root is one of ``anchors`` byte for byte; each is valid at
       ``at``; nothing else is in the quote (4.1.2.4.4, 4.1.2.2).
    6. TCB info: signed by the TCB signing key under the same roots, for SGX, FMSPC and PCEID those of the PCK certificate,
       issued and not out of date at ``at`` (4.1.2.4.9, 4.1.2.4.10, 4.1.2.3).
    7. Enclave identity: the same, for ``QE`` (4.1.2.4.14).
    8. Revocation: CRLs of the root and of the PCK CA, valid at ``at``, which list no certificate of these chains
       (4.1.2.4.6, 4.1.2.4.7).
    9. The quoting enclave is the one of the identity: MRSIGNER, ISVPRODID, MISCSELECT and ATTRIBUTES under their masks, not in
       debug mode, ISVSVN at a level that is not revoked (4.1.2.4.15).
    10. TCB: the highest level all of whose components the platform's certificate meets (4.1.2.4.17.1 to 17.3).
    11. One status for platform and quoting enclave.

    What a status is worth is for the policy; ``Revoked`` and words that Intel has not documented are refused here. Steps 2 to
    10 run as far as they do not need each other; what they find is raised together. ``require_revocation`` changes nothing.
    Raises MalformedError (1, and endorsements that are not what they claim to be), NotGenuine (1 to 10),
    EndorsementsMissing (4 to 8).
    """
    quote, report = wire.decode(data)
    genuine = verify.verify(quote, tee="sgx", endorsements=endorsements, anchors=anchors, at=at, seam=None)
    return claims_.authenticated(
        tee="sgx",
        simulated=genuine.simulated,
        report_data=report.report_data,
        measurements={"mrenclave": report.mrenclave, "mrsigner": report.mrsigner},
        details=SgxDetails(
            quote_version=quote.header.version,
            cpusvn=report.cpusvn,
            miscselect=report.miscselect,
            flags=wire.SgxFlags(report.flags),
            xfrm=report.xfrm,
            mrenclave=report.mrenclave,
            mrsigner=report.mrsigner,
            isvprodid=report.isvprodid,
            isvsvn=report.isvsvn,
            isvextprodid=report.isvextprodid,
            configid=report.configid,
            configsvn=report.configsvn,
            isvfamilyid=report.isvfamilyid,
            fmspc=genuine.pck.fmspc,
            pceid=genuine.pck.pceid,
            ppid=genuine.pck.ppid,
            platform=genuine.platform,
            qe=genuine.qe,
            tcb_status=genuine.tcb_status,
            tcb_date=genuine.tcb_date,
            advisory_ids=genuine.advisory_ids,
            tcb_evaluation_data_number=genuine.tcb_evaluation_data_number,
            qe_evaluation_data_number=genuine.qe_evaluation_data_number,
            collateral_expires=genuine.collateral_expires,
            root=genuine.root,
        ),
        checks=genuine.checks,
        expires=genuine.expires,
        chain=genuine.vouchers,
        unproven=genuine.unproven,
    )
