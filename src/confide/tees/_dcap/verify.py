# SPDX-License-Identifier: Apache-2.0
"""From a quote and Intel's collateral to what can be believed: the steps that SGX and TDX share.

Source: Intel, "SGX ECDSA QuoteLibReference DCAP API" and the Quote Verification Library, whose numbered checks these are.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.attestation.claims import Check, Voucher
from confide.attestation.findings import Findings
from confide.crypto import signing, x509
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.tees._dcap import chain as chain_
from confide.tees._dcap import identity, pck, tcb
from confide.tees._dcap.selection import Pool, gather, select_identity, select_info, verify_ecdsa

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.evidence import Endorsements
    from confide.tees._dcap.collateral import TcbInfo
    from confide.tees._dcap.identity import Seam
    from confide.tees._dcap.pck import PckCertificate
    from confide.tees._dcap.quote import Quote
    from confide.tees._dcap.tcb import TcbEvaluation

__all__ = ["Genuine", "verify"]

_STAGE: Final = "endorsement"
_KINDS: Final = {"sgx": ("SGX", "QE"), "tdx": ("TDX", "TD_QE")}


@dataclass(frozen=True, slots=True)
class Genuine:
    """What a verified quote shows, whatever its body: the platform, the levels of its parts, until when, and who vouches."""

    pck: PckCertificate
    simulated: bool
    root: str
    platform: TcbEvaluation
    qe: TcbEvaluation
    module: TcbEvaluation | None
    tcb_status: str
    tcb_date: datetime
    advisory_ids: tuple[str, ...]
    tcb_evaluation_data_number: int
    qe_evaluation_data_number: int
    collateral_expires: datetime
    expires: datetime
    checks: tuple[Check, ...]
    vouchers: tuple[Voucher, ...]
    unproven: tuple[str, ...]


def verify(
    quote: Quote,
    *,
    tee: str,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    seam: Seam | None,
) -> Genuine:
    """Steps 2 to 11 of ``authenticate``; ``tee`` is "sgx" or "tdx", ``seam`` is None for SGX.

    All steps that do not need each other run; what they find is raised together. Raises ``NotGenuine``,
    ``EndorsementsMissing``, and ``MalformedError`` for endorsements that are not what they claim to be.
    """
    anchored = chain_.sort_anchors(anchors, tee)
    pool = gather(endorsements)
    found = Findings()
    found.run(_verify_quote, quote)
    found.run(_check_report_data, quote)
    pck_kind, enclave_kind = _KINDS[tee]
    leaf = found.run(_find_pck, quote, pool)
    path = None
    if leaf is not None:
        found.run(_verify_report, quote, leaf)
        path = found.run(_verify_pck, quote, leaf, pool, anchored, at)
    info = found.run(select_info, pool, pck_kind, leaf, anchored, at)
    enclave = found.run(select_identity, pool, enclave_kind, anchored, at)
    chains = [
        one for one in (path, *(one[1] for one in (info, enclave) if one is not None)) if one is not None
    ]
    revocations = [found.run(chain_.check_crls, one, pool.crls, at=at) for one in dict.fromkeys(chains)]
    qe = module = levels = None
    if enclave is not None:
        qe = found.run(identity.check_quoting_enclave, enclave[0], quote.qe_report)
    if info is not None and seam is not None:
        module = found.run(identity.check_module, info[0], seam)
    if info is not None and leaf is not None:
        launched = None if seam is None else seam.tee_tcb_svn
        levels = found.run(_match_platform, info[0], leaf, launched)
    running = None if seam is None else seam.tee_tcb_svn_2
    newest = None
    if info is not None and leaf is not None and running is not None:
        found.run(_match_platform, info[0], leaf, running)
        newest = found.run(identity.check_running_module, info[0], running)
    found.raise_any()
    # Without a finding there is nothing that is None, but for modules without levels; a step left out must not pass.
    if leaf is None or path is None or info is None or enclave is None or qe is None or levels is None:
        raise _no_result()
    updates = [one.next_update for one in revocations if one is not None]
    versioned = seam is not None and seam.tee_tcb_svn[1] > 0
    if not updates or len(updates) != len(revocations) or (module is None) == versioned:
        raise _no_result()
    if len({one.root.public_key_der for one in chains}) != 1:
        raise NotGenuine("untrusted_root", "quote and collateral end at different roots", stage=_STAGE)
    status = _merge(info[0], levels, module, qe, running, newest)
    parts = [part for part in (levels[1].evaluation, qe, module) if part is not None]
    collateral_expires = min(*updates, info[0].next_update, enclave[0].next_update)
    anchor = anchored.by_root[path.root.der]
    return Genuine(
        pck=leaf,
        simulated=any(anchored.by_root[one.root.der].simulated for one in chains),
        root=anchor.name,
        platform=levels[1].evaluation,
        qe=qe,
        module=module,
        tcb_status=status,
        tcb_date=min(part.date for part in parts),
        advisory_ids=tuple(sorted({advisory for part in parts for advisory in part.advisory_ids})),
        tcb_evaluation_data_number=info[0].evaluation_number,
        qe_evaluation_data_number=enclave[0].evaluation_number,
        collateral_expires=collateral_expires,
        expires=min(collateral_expires, *(one.not_after for one in chains)),
        checks=_checks(quote, leaf, info[0], module),
        vouchers=_vouchers(quote, path),
        unproven=quote.unproven,
    )


@functools.lru_cache(maxsize=256)
def _attestation_key(point: bytes) -> bytes:
    return signing.public_key_from_point(point, curve="p256")


def _no_result() -> NotGenuine:
    return NotGenuine("chain_invalid", "a check gave no result", stage=_STAGE)


def _verify_quote(quote: Quote) -> None:
    """Step 2: header and body are signed by the attestation key."""
    verify_ecdsa(_attestation_key(quote.attestation_key), quote.signature, quote.signed)


def _check_report_data(quote: Quote) -> None:
    """Step 3: the quoting enclave's report names the attestation key."""
    expected = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + bytes(32)
    if quote.qe_report.report_data != expected:
        raise NotGenuine("bad_signature", "the quoting enclave does not vouch for the attestation key")


def _verify_report(quote: Quote, leaf: PckCertificate) -> None:
    """Step 4: the quoting enclave's report is signed by the platform's key."""
    verify_ecdsa(leaf.certificate.public_key_der, quote.qe_report_signature, quote.qe_report_bytes)


def _find_pck(quote: Quote, pool: Pool) -> PckCertificate:
    """The certificate of the platform's key: from the quote, or where the quote only names its platform from beside it."""
    if quote.certification_type == pck.CHAIN_TYPE:
        own = [one for one in pck.read_chain(quote.certification_data) if pck.is_pck(one)]
        if len(own) != 1:
            raise MalformedError("unknown_format", "the quote does not hold exactly one PCK certificate")
        return pck.read_pck(own[0])
    beside = [one for one in pool.certificates if pck.is_pck(one)]
    if not beside:
        raise EndorsementsMissing(
            "certificate",
            "the PCK certificate is not embedded in the quote, which only names its platform",
            hint="ask Intel's service or the cloud provider for the PCK certificate, and give it with --endorsements",
        )
    for certificate in beside:
        try:
            verify_ecdsa(certificate.public_key_der, quote.qe_report_signature, quote.qe_report_bytes)
        except NotGenuine:
            continue
        return pck.read_pck(certificate)
    # None fits: one is judged, so that the refusal says what is wrong with it.
    return pck.read_pck(min(beside, key=lambda one: one.der))


def _verify_pck(
    quote: Quote, leaf: PckCertificate, pool: Pool, anchored: chain_.Anchors, at: datetime
) -> chain_.Chain:
    """Step 5: the platform's key is certified by one of Intel's two PCK CAs, and that by the root."""
    embedded = pck.read_chain(quote.certification_data) if quote.certification_type == pck.CHAIN_TYPE else ()
    issuer = leaf.certificate.issuer_der
    issuers = [one for one in pool.certificates if one.subject_der == issuer]
    others = {one.der: one for one in (*embedded, *issuers)}
    path = chain_.verify(leaf.certificate, tuple(others.values()), anchored, at=at, length=3)
    for certificate, name in ((path.path[0], chain_.PCK_NAME), (path.path[1], chain_.PCK_CA_NAME)):
        chain_.check_name(certificate, name)
    chain_.check_extras(embedded, path)
    return path


def _match_platform(
    info: TcbInfo, leaf: PckCertificate, tee_tcb_svn: bytes | None
) -> tuple[tcb.PlatformLevel, tcb.PlatformLevel]:
    """Step 10: the levels that the platform meets, by its certificate alone and with its TDX components."""
    levels = tcb.match_platform(
        info.levels, cpusvn=leaf.components, pcesvn=leaf.pcesvn, tee_tcb_svn=tee_tcb_svn
    )
    for level in levels:
        tcb.judge(level.evaluation, what="platform")
    return levels


def _merge(
    info: TcbInfo,
    levels: tuple[tcb.PlatformLevel, tcb.PlatformLevel],
    module: TcbEvaluation | None,
    qe: TcbEvaluation,
    running: bytes | None,
    newest_module_svn: int | None,
) -> str:
    """Step 11: one word for platform, module and quoting enclave together."""
    by_certificate, by_report = (level.evaluation.status for level in levels)
    module_status = None if module is None else module.status
    status = tcb.merge(by_report, module_status)
    old_alone = tcb.old_module_alone(status, by_certificate=by_certificate, module=module_status)
    if running is not None and qe.status == tcb.UP_TO_DATE and old_alone:
        newest = info.levels[0]
        status = tcb.relaunch(
            status,
            by_certificate=by_certificate,
            running=running,
            newest=newest,
            newest_module_svn=newest.tdx_components[0] if newest_module_svn is None else newest_module_svn,
        )
    return tcb.merge(status, qe.status)


def _checks(
    quote: Quote, leaf: PckCertificate, info: TcbInfo, module: TcbEvaluation | None
) -> tuple[Check, ...]:
    number = info.evaluation_number
    checks = [
        Check("signature", "passed", "ECDSA P-256 with SHA-256, by the attestation key"),
        Check("quoting enclave", "passed", "its report names the attestation key, and it is Intel's"),
        Check("chain", "passed", "a pinned root, valid at the given time"),
        Check("revocation", "passed", "no certificate is on a CRL of its issuer"),
        Check("collateral", "passed", f"TCB info {number}, signed by Intel, for FMSPC {leaf.fmspc.hex()}"),
    ]
    if module is not None:
        checks.append(Check("TDX module", "passed", "signed by Intel, of a version that Intel lists"))
    if quote.padding:
        checks.append(Check("padding", "passed", f"{quote.padding} zero bytes follow the quote"))
    return tuple(checks)


@functools.lru_cache(maxsize=64)
def _certifiers(path: tuple[bytes, ...]) -> tuple[Voucher, ...]:
    certificates = [x509.Certificate.from_der(der) for der in path]
    return tuple(Voucher(one.subject, one.spki_sha256) for one in certificates)


def _vouchers(quote: Quote, path: chain_.Chain) -> tuple[Voucher, ...]:
    key = hashlib.sha256(_attestation_key(quote.attestation_key)).digest()
    return (
        Voucher("attestation key of the quoting enclave", key),
        *_certifiers(tuple(certificate.der for certificate in path.path)),
    )
