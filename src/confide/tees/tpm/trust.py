# SPDX-License-Identifier: Apache-2.0
"""Why an attestation key (AK) is trusted: the platform's report, a certificate, or a pin in the policy. Nothing else counts.

No label makes a key trusted: evidence that only says that it is from Azure proves nothing.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.attestation.claims import Check, Voucher
from confide.crypto import x509
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.tees.tpm import endorse, hcl

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.tees.tpm.wire import TpmEvidence

__all__ = ["Trusted", "find", "from_certificate", "from_pin", "from_platform"]

MAX_CERTIFICATES: Final = 64
MAX_CRLS: Final = 32
_SIGNATURES: Final = frozenset({"ecdsa", "rsa-pss", "rsa-pkcs1"})
_STAGE: Final = "endorsement"
_SNP: Final = ("measurement",)
_TDX: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A trusted AK. ``kind`` is "platform", "certificate" or "pinned"; ``key`` a SubjectPublicKeyInfo; ``expires`` None for a pin."""

    kind: str
    key: bytes
    simulated: bool
    chain: tuple[Voucher, ...]
    checks: tuple[Check, ...]
    expires: datetime | None
    azure: hcl.RuntimeClaims | None = None
    instance: endorse.GceInstance | None = None


def find(
    evidence: TpmEvidence,
    claimed: bytes | None,
    *,
    platform: Claims | None,
    anchors: tuple[TrustAnchor, ...],
    endorsements: Endorsements,
    at: datetime,
    require_revocation: bool,
) -> Trusted:
    """The AK and why it is trusted; ``claimed`` is the key that the evidence gives, None if it gives none.

    Beside a platform only the platform's own report counts: what another authority says about a TPM does not show that it
    belongs to this machine. Raises MalformedError, NotGenuine, EndorsementsMissing.
    """
    if platform is not None:
        return from_platform(evidence, claimed, platform)
    own = [anchor for anchor in anchors if anchor.tee == "tpm"]
    if not any(anchor.certificates or anchor.keys for anchor in own):
        raise NotGenuine(
            "no_trusted_roots", "there is no trusted root and no pinned key for TPMs", stage=_STAGE
        )
    if claimed is None:
        raise NotGenuine(
            "untrusted_root",
            "the evidence gives no attestation key, and no platform that would name it",
            hint="an Azure VM's evidence is its CPU's report with the TPM's quote beside it",
            stage=_STAGE,
        )
    pinned = from_pin(claimed, own)
    if pinned is not None:
        return pinned
    return from_certificate(claimed, own, endorsements, at=at, require_revocation=require_revocation)


def from_platform(evidence: TpmEvidence, claimed: bytes | None, platform: Claims) -> Trusted:
    """Azure's links from the hardware to the AK, all mandatory:

    1. The HCL report is for this kind of hardware, and its hardware report is the platform's: same report data and measurements. An
       SNP report was asked for at VMPL 0, where the paravisor runs: at a lower level the guest itself chooses report data.
    2. The first half of the platform's report data is SHA-256 of the runtime claims, byte for byte; the second half is zero.
    3. The runtime claims name the AK (``HCLAkPub``), in strict JSON; a key that the evidence gives is the same one.

    The fourth link, the quote's signature by that AK, is checked by ``authenticate``. Who launched the VM chose its paravisor,
    so that all of this is worth as much as the platform's measurement is pinned.
    """
    if evidence.hcl is None or platform.tee not in hcl.REPORT_TYPES.values():
        raise NotGenuine(
            "untrusted_root",
            "nothing shows that the platform's report vouches for the TPM's attestation key",
            hint="on Azure give the HCL report (NV index 0x01400001); elsewhere verify the TPM's quote by itself",
            stage=_STAGE,
        )
    report = hcl.decode_hcl(evidence.hcl)
    if report.tee != platform.tee:
        raise MalformedError(
            "unknown_format", "the HCL report is for another kind of hardware than the platform"
        )
    hardware = report.hardware()
    names = _SNP if report.tee == "snp" else _TDX
    same = hmac.compare_digest(hardware.report_data, platform.report_data)
    for name in names:
        # A platform without one of its registers is not one that can be compared.
        same &= hmac.compare_digest(getattr(hardware, name), platform.measurements.get(name, b""))
    if report.tee == "snp":
        same &= getattr(platform.details, "vmpl", None) == 0
    if not same:
        raise NotGenuine(
            "identity_mismatch",
            "the hardware report in the HCL report is not the platform's, or not the paravisor's",
            stage="identity",
        )
    expected = report.claims_sha256.ljust(len(platform.report_data), b"\x00")
    if len(platform.report_data) != 64 or not hmac.compare_digest(expected, platform.report_data):
        raise NotGenuine(
            "identity_mismatch",
            "the platform's report data is not the digest of the runtime claims with zeros after it",
            hint="the JSON is hashed byte for byte: do not write it anew",
            stage="identity",
        )
    claims = hcl.decode_claims(report.claims_json)
    if claimed is not None and not hmac.compare_digest(claims.ak, claimed):
        raise NotGenuine(
            "identity_mismatch",
            "the attestation key is not the one that the runtime claims name",
            stage="identity",
        )
    return Trusted(
        kind="platform",
        key=claims.ak,
        simulated=platform.simulated,
        chain=(_voucher("TPM attestation key (HCLAkPub)", claims.ak), *platform.chain),
        checks=(
            Check(
                "platform", "passed", f"the {platform.tee} report's data is the digest of the runtime claims"
            ),
            Check("attestation key", "passed", "named in the runtime claims"),
        ),
        expires=platform.expires,
        azure=claims,
    )


def from_pin(key: bytes, anchors: list[TrustAnchor]) -> Trusted | None:
    """The AK if an anchor pins it by SHA-256 of its SubjectPublicKeyInfo, None otherwise."""
    fingerprint = hashlib.sha256(key).digest()
    pins = [anchor for anchor in anchors if fingerprint in anchor.keys]
    if not pins:
        return None
    return Trusted(
        kind="pinned",
        key=key,
        simulated=any(anchor.simulated for anchor in pins),
        chain=(_voucher("TPM attestation key, pinned", key),),
        checks=(Check("attestation key", "passed", "pinned by its SHA-256"),),
        expires=None,
    )


def from_certificate(
    key: bytes,
    anchors: list[TrustAnchor],
    endorsements: Endorsements,
    *,
    at: datetime,
    require_revocation: bool,
) -> Trusted:
    """The AK if a certificate for it, valid at ``at``, leads to a pinned root."""
    if len(endorsements.certificates) > MAX_CERTIFICATES:
        raise MalformedError(
            "limit_exceeded", f"more than {MAX_CERTIFICATES} certificates were given as endorsements"
        )
    by_root, roots, authorities = _sorted(tuple(anchors))
    given = [x509.Certificate.from_der(one) for one in endorsements.certificates]
    leaves = [one for one in given if one.public_key_der == key]
    pinned = {one.subject_der for one in (*roots, *authorities)}
    if not leaves or not any(one.issuer_der in pinned for one in given):
        raise NotGenuine(
            "untrusted_root",
            "no certificate for the attestation key leads to a pinned authority, and the policy pins no such key",
            hint="give the AK's certificate with --endorsements, or pin the key: `ak` in [reference.tpm]",
            stage=_STAGE,
        )
    chain = _first_chain(leaves, [*authorities, *given], roots, at)
    endorse.check_usage(chain[0])
    instance = endorse.read_instance(chain[0])
    revocation, expires = _check_revocation(chain, endorsements, at, required=require_revocation)
    anchor = by_root[chain[-1].der]
    ends = min(certificate.not_after for certificate in chain)
    return Trusted(
        kind="certificate",
        key=key,
        simulated=anchor.simulated,
        chain=tuple(Voucher(one.subject or "TPM attestation key", one.spki_sha256) for one in chain),
        checks=(
            Check("chain", "passed", "a pinned root, valid at the given time"),
            Check("attestation key", "passed", "named in its certificate"),
            revocation,
        ),
        expires=ends if expires is None else min(ends, expires),
        instance=instance,
    )


def _first_chain(
    leaves: list[x509.Certificate],
    others: list[x509.Certificate],
    roots: tuple[x509.Certificate, ...],
    at: datetime,
) -> tuple[x509.Certificate, ...]:
    """The path of the first certificate that has one, in an order that does not depend on how they came."""
    refusal: NotGenuine | None = None
    for leaf in sorted(leaves, key=lambda one: one.der):
        try:
            return x509.verify_chain(
                leaf,
                others,
                roots,
                at=at,
                # Google's older certificates name the TPM's maker there, critically; no name is relied on here.
                allowed_critical=frozenset({endorse.OID_SUBJECT_ALT_NAME}),
                signatures=_SIGNATURES,
            )
        except NotGenuine as error:
            refusal = refusal or error
    raise refusal or NotGenuine("untrusted_root", "no certificate of the key was given", stage=_STAGE)


@functools.lru_cache(maxsize=16)
def _sorted(
    anchors: tuple[TrustAnchor, ...],
) -> tuple[dict[bytes, TrustAnchor], tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """Anchors by root, roots (self-issued), and the CAs that are pinned with them."""
    # Simulated ones last: a root that stands in both kinds of anchor counts as simulated.
    ordered = sorted(anchors, key=lambda anchor: anchor.simulated)
    read = {der: x509.Certificate.from_der(der) for anchor in ordered for der in anchor.certificates}
    by_root = {
        der: anchor
        for anchor in ordered
        for der in anchor.certificates
        if read[der].subject_der == read[der].issuer_der
    }
    return (
        by_root,
        tuple(one for der, one in read.items() if der in by_root),
        tuple(one for der, one in read.items() if der not in by_root),
    )


def _check_revocation(
    chain: tuple[x509.Certificate, ...], endorsements: Endorsements, at: datetime, *, required: bool
) -> tuple[Check, datetime | None]:
    """Every certificate below the root against its issuer's CRLs; one that lists it is too much, also an old one."""
    if len(endorsements.crls) > MAX_CRLS:
        raise MalformedError("limit_exceeded", f"more than {MAX_CRLS} CRLs were given as endorsements")
    lists = [x509.Crl.from_bytes(data) for data in endorsements.crls]
    ends: list[datetime] = []
    outdated: EndorsementsMissing | None = None
    covered = 0
    for certificate, issuer in itertools.pairwise(chain):
        passed: list[datetime] = []
        for crl in lists:
            if crl.issuer_der != issuer.subject_der:
                continue
            try:
                crl.check(certificate, issuer=issuer, at=at)
            except EndorsementsMissing as error:
                if certificate.serial in crl.revoked:
                    raise NotGenuine(
                        "revoked", "an expired CRL revokes a certificate of the chain", stage="revocation"
                    ) from None
                outdated = error
            else:
                passed.append(crl.next_update or at)
        if passed:
            covered += 1
            ends.append(max(passed))
    if covered == len(chain) - 1:
        return Check("revocation", "passed", "no certificate is on its issuer's CRL"), min(ends)
    if not required:
        return Check(
            "revocation", "not checked", "not every issuer's CRL was given, valid at the given time"
        ), None
    raise outdated or EndorsementsMissing(
        "crl",
        "the policy asks for revocation to be checked, and not every issuer's CRL was given",
        hint="fetch the CRLs that the certificates name, and give them with --endorsements",
        stage="revocation",
    )


def _voucher(name: str, key: bytes) -> Voucher:
    return Voucher(name, hashlib.sha256(key).digest())
