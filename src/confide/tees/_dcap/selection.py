# SPDX-License-Identifier: Apache-2.0
"""Which of the texts that came beside a quote are Intel's, and which of those speaks for this platform now."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from confide.crypto import signing, x509
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.tees._dcap import chain as chain_
from confide.tees._dcap import collateral

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from confide.attestation.evidence import Endorsements
    from confide.tees._dcap.collateral import EnclaveIdentity, SignedText, TcbInfo
    from confide.tees._dcap.pck import PckCertificate

__all__ = ["FORMATS", "Pool", "gather", "select_identity", "select_info", "verify_ecdsa"]

FORMATS: Final = frozenset({"intel-collateral", "intel-tcb-info", "intel-qe-identity"})
"""The documents that are read: the bundle, and the two answers of Intel's service as they came."""
MAX_DOCUMENTS: Final = 16
# Each is tried on each text, and strangers may send texts and keys alike; Intel has used two in ten years.
MAX_SIGNERS: Final = 8
_STAGE: Final = "endorsement"
_FETCH: Final = "run `confide endorse EVIDENCE`, and give its output with --endorsements"

_Signed = TypeVar("_Signed", "TcbInfo", "EnclaveIdentity")


@dataclass(frozen=True, slots=True)
class Pool:
    """Everything that came beside the quote, unverified: Intel's texts, certificates, CRLs."""

    infos: tuple[TcbInfo, ...]
    identities: tuple[EnclaveIdentity, ...]
    certificates: tuple[x509.Certificate, ...]
    crls: tuple[bytes, ...]


def gather(endorsements: Endorsements) -> Pool:
    documents = [part.data for part in endorsements.documents if part.format in FORMATS]
    if len(documents) > MAX_DOCUMENTS or len(endorsements.certificates) > chain_.MAX_CERTIFICATES:
        raise MalformedError(
            "limit_exceeded",
            f"more than {MAX_DOCUMENTS} collateral documents or {chain_.MAX_CERTIFICATES} certificates were given",
        )
    read = [collateral.read(data) for data in dict.fromkeys(documents)]
    certificates = {der: x509.Certificate.from_der(der) for der in endorsements.certificates}
    for document in read:
        certificates |= {one.der: one for one in document.certificates}
    return Pool(
        tuple(one.tcb_info for one in read if one.tcb_info is not None),
        tuple(one.identity for one in read if one.identity is not None),
        tuple(certificates.values()),
        (*endorsements.crls, *(crl for document in read for crl in document.crls)),
    )


def verify_ecdsa(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Check r || s (64 bytes) under a SubjectPublicKeyInfo on P-256, with SHA-256; raises ``NotGenuine``."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    signing.verify_ecdsa(public_key, r, s, message, curve="p256", hash_name="sha256")


@functools.lru_cache(maxsize=256)
def _signed(text: bytes, signature: bytes, public_key: bytes) -> bool:
    """True, or the exception: whether a text is signed does not change with time."""
    verify_ecdsa(public_key, signature, text)
    return True


def _verify_text(
    signed: SignedText, pool: Pool, anchored: chain_.Anchors, at: datetime, *, what: str
) -> chain_.Chain:
    """Steps 6 and 7: a text of Intel's is signed by the TCB signing key, which the root has certified."""
    beside = {one.der: one for one in (*signed.certificates, *pool.certificates)}
    # Only a root can follow the signing key; of one that is not pinned the refusal says so.
    roots = tuple(one for one in signed.certificates if one.subject_der == one.issuer_der)
    signers = [one for one in beside.values() if chain_.is_named(one, chain_.SIGNER_NAME)]
    if max(len(signers), len(roots)) > MAX_SIGNERS:
        raise MalformedError(
            "limit_exceeded", f"more than {MAX_SIGNERS} TCB signing keys or roots were given"
        )
    refused: NotGenuine | None = None
    for signer in signers:
        try:
            _signed(signed.text, signed.signature, signer.public_key_der)
            return chain_.verify(signer, roots, anchored, at=at, length=2)
        except NotGenuine as error:
            leaf = error.code.partition(".")[2]
            refused = refused or NotGenuine(leaf, f"{what}: {error.message}", hint=error.hint, stage=_STAGE)
    if refused is not None:
        raise refused
    if signed.certificates:
        raise NotGenuine("chain_invalid", f"{what}: the issuer chain holds no TCB signing key", stage=_STAGE)
    raise EndorsementsMissing(
        "certificate", f"the certificate of the key that signed the {what} is missing", hint=_FETCH
    )


def select_info(
    pool: Pool, kind: str, leaf: PckCertificate | None, anchored: chain_.Anchors, at: datetime
) -> tuple[TcbInfo, chain_.Chain]:
    """Step 6: the newest TCB info that is Intel's, for this TEE and platform, and valid at ``at``."""

    def check(info: TcbInfo) -> chain_.Chain:
        chain = _verify_text(info.signed, pool, anchored, at, what="TCB info")
        if info.kind != kind:
            raise NotGenuine("identity_mismatch", "the TCB info is for the other TEE", stage=_STAGE)
        if leaf is not None and (info.fmspc, info.pceid) != (leaf.fmspc, leaf.pceid):
            raise NotGenuine(
                "identity_mismatch",
                "the TCB info is for another kind of platform than the PCK certificate",
                hint=f"give the collateral for FMSPC {leaf.fmspc.hex()} and PCEID {leaf.pceid.hex()}",
                stage=_STAGE,
            )
        return chain

    def fits(info: TcbInfo) -> int:
        return (info.kind == kind) + (
            leaf is not None and (info.fmspc, info.pceid) == (leaf.fmspc, leaf.pceid)
        )

    return _select(pool.infos, fits, check, at, what="TCB info")


def select_identity(
    pool: Pool, kind: str, anchored: chain_.Anchors, at: datetime
) -> tuple[EnclaveIdentity, chain_.Chain]:
    """Step 7: the newest enclave identity that is Intel's, for this TEE's quoting enclave, and valid at ``at``."""

    def check(one: EnclaveIdentity) -> chain_.Chain:
        chain = _verify_text(one.signed, pool, anchored, at, what="enclave identity")
        if one.kind != kind:
            raise NotGenuine("identity_mismatch", "the enclave identity is for another enclave", stage=_STAGE)
        return chain

    return _select(pool.identities, lambda one: int(one.kind == kind), check, at, what="enclave identity")


def _select(
    candidates: tuple[_Signed, ...],
    fits: Callable[[_Signed], int],
    check: Callable[[_Signed], chain_.Chain],
    at: datetime,
    *,
    what: str,
) -> tuple[_Signed, chain_.Chain]:
    """The best candidate that passes: of those that are valid, the one with the highest evaluation number.

    The first refusal is raised if none passes, so that texts that somebody added take nothing away.
    """
    refused: NotGenuine | EndorsementsMissing | None = None

    def rank(one: _Signed) -> tuple[int, bool, int, datetime]:
        return fits(one), one.issued <= at <= one.next_update, one.evaluation_number, one.issued

    for one in sorted(candidates, key=rank, reverse=True):
        try:
            chain = check(one)
            _check_time(one, at, what)
        except (NotGenuine, EndorsementsMissing) as error:
            refused = refused or error
        else:
            return one, chain
    if refused is not None:
        raise refused
    raise EndorsementsMissing(
        "collateral", f"Intel's {what} for this platform is missing", hint=_FETCH, stage=_STAGE
    )


def _check_time(one: TcbInfo | EnclaveIdentity, at: datetime, what: str) -> None:
    if at < one.issued:
        raise EndorsementsMissing(
            "collateral_not_yet_valid",
            f"Intel's {what} was issued after the time of verification",
            hint="give the collateral of that time, or another time with --at",
            stage=_STAGE,
        )
    if at > one.next_update:
        raise EndorsementsMissing(
            "collateral_expired",
            f"Intel's {what} is out of date at the time of verification",
            hint=_FETCH,
            stage=_STAGE,
        )
