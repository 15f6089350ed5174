# SPDX-License-Identifier: Apache-2.0
"""Is an SEV-SNP report genuine? A pure function of report, endorsements, trust anchors and time.

Source: "SEV Secure Nested Paging Firmware ABI Specification" (56860), sections on ATTESTATION_REPORT and its signature;
"VCEK Certificate and KDS Interface Specification" (57230), sections on certificates and their extensions.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.attestation import claims as claims_
from confide.attestation.claims import Check, Voucher
from confide.attestation.findings import Findings
from confide.crypto import x509
from confide.errors import ConfideError, EndorsementsMissing, MalformedError, NotGenuine, Reason
from confide.tees.snp import endorse, wire

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements

__all__ = ["SnpDetails", "authenticate"]


MAX_CERTIFICATES: Final = 64
MAX_CRLS: Final = 32


@dataclass(frozen=True, slots=True)
class SnpDetails:
    """The authenticated facts of a report, by AMD's names; ids, digests and host data as bytes.

    ``launch_mit_vector`` and ``current_mit_vector`` are None before report version 5; ``csp_id`` is None for a VCEK.
    """

    version: int
    product: str
    signing_key: str
    guest_svn: int
    policy: wire.GuestPolicy
    platform_info: wire.PlatformInfo
    author_key_enabled: bool
    vmpl: int
    family_id: bytes
    image_id: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    chip_id: bytes
    csp_id: str | None
    reported_tcb: endorse.Tcb
    current_tcb: endorse.Tcb
    committed_tcb: endorse.Tcb
    launch_tcb: endorse.Tcb
    current_version: tuple[int, int, int]
    committed_version: tuple[int, int, int]
    launch_mit_vector: int | None
    current_mit_vector: int | None


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,
) -> Claims:
    """Claims over the report in ``data`` (1184 bytes), or an exception.

    1. Parse: the layout of the report's own version, reserved bytes and bits zero (56860, ATTESTATION_REPORT).
    2. Find the certificate of the key that SIGNING_KEY names, VCEK or VLEK, among the endorsements (56860, SIGNING_KEY).
    3. Signature: ECDSA P-384 with SHA-384 over bytes 0x000 to 0x29F, r and s little-endian (56860, signature format).
    4. Chain: key certificate, ASK (for a VCEK) or ASVK (for a VLEK), ARK, RSA-PSS with SHA-384; the ARK is one of
       ``anchors`` byte for byte; every certificate is valid at ``at`` (57230, certificate formats).
    5. Revocation: the ARK's CRL, where one is given, does not list the ASK or ASVK (57230, CRL).
    6. Product: the root's product line, the certificate's productName and the report's family and model (version 3 and
       later; version 2 does not say) are one and the same.
    7. TCB: each level of REPORTED_TCB, which is what the key was derived for, equals the certificate's (57230, extensions).
    8. Identity: CHIP_ID equals the certificate's hardware id: 64 bytes, on Turin 8 bytes and zeros. A VLEK has none.

    Steps 3 to 8 are independent of each other and all run; what they find is raised together. Raises MalformedError
    (1, 2), NotGenuine (1 to 8), EndorsementsMissing (2, and 5 if ``require_revocation``).
    """
    report = wire.decode_report(data)
    anchored = _sorted(anchors)
    key, others = _find_key_certificate(report, endorsements, anchored, at)
    found = Findings()
    found.run(lambda: _verify_signature(key.certificate, data, report))
    chain = found.run(lambda: _verify_chain(key, others, anchored, at))
    revocation, expires = None, key.certificate.not_after
    if chain is not None:
        revocation = found.run(
            lambda: _check_revocation(chain, endorsements, at, required=require_revocation)
        )
        found.run(lambda: _check_product_of_root(key, anchored.anchor_of(chain)))
        expires = min(certificate.not_after for certificate in chain)
    found.run(lambda: _check_processor(key, report))
    tcbs = found.run(lambda: _read_tcbs(key, report))
    if tcbs is not None:
        found.genuine += _compare_tcb(key, tcbs[0])
    found.run(lambda: _check_identity(key, report))
    found.raise_any()
    if chain is None or tcbs is None or revocation is None:
        raise NotGenuine("chain_invalid", "a check gave no result", stage="endorsement")
    checked, next_update = revocation
    return claims_.authenticated(
        tee="snp",
        simulated=anchored.anchor_of(chain).simulated,
        report_data=report.report_data,
        measurements={"measurement": report.measurement},
        details=_details(report, key, tcbs),
        checks=(
            Check("signature", "passed", "ECDSA P-384 with SHA-384"),
            Check("chain", "passed", "a pinned root, valid at the given time"),
            checked,
            Check("product", "passed", key.product.name),
            Check("tcb", "passed", "reported TCB equals the certificate's"),
            Check(
                "identity",
                "passed",
                "chip id equals the certificate's" if key.hwid else "a VLEK names no chip",
            ),
        ),
        expires=expires if next_update is None else min(expires, next_update),
        chain=tuple(Voucher(one.subject, one.spki_sha256) for one in chain),
        unproven=(wire.UNPROVEN_V4,) if report.version == 4 else (),
    )


@functools.lru_cache(maxsize=256)
def _parsed(der: bytes) -> x509.Certificate:
    # Reading is a pure function of the bytes; validity is judged anew for each chain.
    return x509.Certificate.from_der(der)


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    """Trust anchors, sorted into roots (self-issued) and the CAs that are pinned with them."""

    by_root: dict[bytes, TrustAnchor]
    roots: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    known: frozenset[bytes]

    def anchor_of(self, chain: tuple[x509.Certificate, ...]) -> TrustAnchor:
        return self.by_root[chain[-1].der]


@functools.lru_cache(maxsize=16)
def _sorted(anchors: tuple[TrustAnchor, ...]) -> _Anchors:
    # Simulated ones last: a root that stands in both kinds of anchor counts as simulated.
    of_snp = sorted(
        (anchor for anchor in anchors if anchor.tee == "snp"), key=lambda anchor: anchor.simulated
    )
    certificates = {der: _parsed(der) for anchor in of_snp for der in anchor.certificates}
    by_root = {
        der: anchor
        for anchor in of_snp
        for der in anchor.certificates
        if certificates[der].subject_der == certificates[der].issuer_der
    }
    if not by_root:
        raise NotGenuine("no_trusted_roots", "there is no trusted root for SEV-SNP", stage="endorsement")
    return _Anchors(
        by_root,
        tuple(certificate for der, certificate in certificates.items() if der in by_root),
        tuple(certificate for der, certificate in certificates.items() if der not in by_root),
        frozenset(certificates),
    )


@functools.lru_cache(maxsize=256)
def _known(
    _digests: tuple[bytes, ...], _anchored: _Anchors
) -> list[tuple[tuple[x509.Certificate, ...], datetime, datetime]]:
    """The memory of one question about a chain: the path found, and when all of it is valid, or nothing yet.

    Signatures do not change with time; validity is judged anew for each time that is asked about. Certificates are remembered
    by their digests: strangers send them, and 256 times all that they may send is too much.
    """
    return []


def _find_key_certificate(
    report: wire.Report, endorsements: Endorsements, anchored: _Anchors, at: datetime
) -> tuple[endorse.KeyCertificate, list[x509.Certificate]]:
    """Step 2: the key's certificate, and the other certificates given, which may be CAs of its chain."""
    if len(endorsements.certificates) > MAX_CERTIFICATES:
        raise MalformedError(
            "limit_exceeded", f"more than {MAX_CERTIFICATES} certificates were given as endorsements"
        )
    wanted = {wire.KeyInfo.VCEK: "vcek", wire.KeyInfo.VLEK: "vlek"}.get(
        wire.KeyInfo(report.key_info).signing_key
    )
    if wanted is None:
        raise NotGenuine(
            "identity_mismatch", "the report says that no key of the chip signed it", stage="identity"
        )
    keys: list[endorse.KeyCertificate] = []
    others: list[x509.Certificate] = []
    unreadable: ConfideError | None = None
    for der in endorsements.certificates:
        if der in anchored.known:
            continue
        certificate = _parsed(der)
        if not endorse.is_key_certificate(certificate):
            others.append(certificate)
            continue
        try:
            keys.append(endorse.read_key_certificate(certificate))
        except (MalformedError, NotGenuine) as error:
            unreadable = unreadable or error
    right = [key for key in keys if key.kind == wanted]
    if len(right) == 1:
        return right[0], others
    if right:
        # With several, the one that fits best is judged; the order in which they came does not matter.
        return max(right, key=lambda key: (_fit(key, report, at), key.certificate.der)), others
    if unreadable is not None:
        raise unreadable
    if keys:
        raise NotGenuine(
            "identity_mismatch",
            "the certificate given is not of the kind of key that signed the report",
            stage="identity",
        )
    raise EndorsementsMissing(
        "certificate",
        f"the certificate of the chip's key ({wanted.upper()}) is missing",
        hint="run `confide endorse EVIDENCE`, and give its output with --endorsements",
    )


def _fit(key: endorse.KeyCertificate, report: wire.Report, at: datetime) -> int:
    """How many of the checks that need no signature a certificate passes."""
    found = Findings()
    found.run(lambda: _check_identity(key, report))
    found.run(lambda: _check_processor(key, report))
    tcbs = found.run(lambda: _read_tcbs(key, report))
    if tcbs is not None:
        found.genuine += _compare_tcb(key, tcbs[0])
    valid = key.certificate.not_before <= at <= key.certificate.not_after
    return -2 * len(found.genuine) + int(valid)


def _verify_signature(certificate: x509.Certificate, data: bytes, report: wire.Report) -> None:
    """Step 3."""
    r = int.from_bytes(report.signature.r, "little")
    s = int.from_bytes(report.signature.s, "little")
    certificate.verify_signature(data[: wire.SIGNED_BYTES], r, s, curve="p384", hash_name="sha384")


def _verify_chain(
    key: endorse.KeyCertificate, others: list[x509.Certificate], anchored: _Anchors, at: datetime
) -> tuple[x509.Certificate, ...]:
    """Step 4."""
    digests = tuple(hashlib.sha256(one.der).digest() for one in (key.certificate, *others))
    known = _known(digests, anchored)
    # Each path is read once and judged: another thread may put that of another time in its place meanwhile.
    for chain, first, last in tuple(known):
        if first <= at <= last:
            return chain
    chain = _build_chain(key.certificate, key.kind, others, anchored, at)
    first = max(certificate.not_before for certificate in chain)
    last = min(certificate.not_after for certificate in chain)
    known[:] = [(chain, first, last)]
    return chain


def _build_chain(
    leaf: x509.Certificate, kind: str, others: list[x509.Certificate], anchored: _Anchors, at: datetime
) -> tuple[x509.Certificate, ...]:
    # A path has three certificates, so that of the pinned CAs only the issuer of the leaf can be in it.
    pinned = [one for one in anchored.authorities if one.subject_der == leaf.issuer_der]
    named = {root.subject_der for root in anchored.roots}
    stapled = any(one.subject_der == leaf.issuer_der and one.issuer_der in named for one in others)
    if not pinned and not stapled and leaf.issuer_der not in named:
        raise NotGenuine(
            "untrusted_root", "no pinned authority has issued the chip's certificate", stage="endorsement"
        )
    chain = x509.verify_chain(leaf, [*pinned, *others], anchored.roots, at=at)
    if len(chain) != 3:
        raise NotGenuine(
            "chain_invalid", "the chip's certificate is not issued by an ASK or ASVK", stage="endorsement"
        )
    # Both CAs are AMD's and look alike but for their names; each may certify its own kind of key only.
    if _common_name(chain[1]).startswith("SEV-VLEK-") != (kind == "vlek"):
        raise NotGenuine("chain_invalid", "the CA is not the one for this kind of key", stage="endorsement")
    return chain


def _common_name(certificate: x509.Certificate) -> str:
    names = [part[3:] for part in certificate.subject.split(", ") if part.startswith("CN=")]
    if len(names) != 1:
        raise NotGenuine("chain_invalid", "a CA of the chain has no single common name", stage="endorsement")
    return names[0]


def _check_revocation(
    chain: tuple[x509.Certificate, ...], endorsements: Endorsements, at: datetime, *, required: bool
) -> tuple[Check, datetime | None]:
    """Step 5. Every CRL of the root counts; one that is valid is enough, one that lists the CA is too much."""
    if len(endorsements.crls) > MAX_CRLS:
        raise MalformedError("limit_exceeded", f"more than {MAX_CRLS} CRLs were given as endorsements")
    authority, root = chain[1], chain[-1]
    passed: list[datetime] = []
    outdated: EndorsementsMissing | None = None
    for data in endorsements.crls:
        crl = x509.Crl.from_bytes(data)
        if crl.issuer_der != root.subject_der:
            continue
        try:
            crl.check(authority, issuer=root, at=at)
        except EndorsementsMissing as error:
            # Its signature is good: an old list still revokes what it names.
            if authority.serial in crl.revoked:
                raise NotGenuine(
                    "revoked", "an expired CRL revokes the CA of this chip", stage="revocation"
                ) from None
            outdated = error
        else:
            passed.append(crl.next_update or at)
    if passed:
        return Check("revocation", "passed", "the CA is not on the root's CRL"), max(passed)
    if not required:
        return Check(
            "revocation",
            "not checked",
            "no CRL given" if outdated is None else "the CRL given is out of date",
        ), None
    if outdated is not None:
        raise outdated
    raise EndorsementsMissing(
        "crl",
        "the policy asks for revocation to be checked, and no CRL of the root was given",
        hint="fetch AMD's CRL for this product and give it with --endorsements",
        stage="revocation",
    )


def _check_product_of_root(key: endorse.KeyCertificate, anchor: TrustAnchor) -> None:
    """Step 6, root against certificate. A simulated root stands for no product line."""
    if anchor.name != key.product.name and not (anchor.simulated and anchor.name not in endorse.PRODUCTS):
        raise NotGenuine(
            "identity_mismatch",
            "the chip's certificate names another product line than its root",
            stage="identity",
        )


def _check_processor(key: endorse.KeyCertificate, report: wire.Report) -> None:
    """Step 6, report against certificate."""
    if isinstance(report, wire.ReportV2):
        return
    product = endorse.product_of_processor(report.cpuid_fam_id, report.cpuid_mod_id)
    if product is None:
        raise NotGenuine(
            "no_trusted_roots", "the report is from a processor for which no root is pinned", stage="identity"
        )
    if product != key.product:
        raise NotGenuine(
            "identity_mismatch",
            "the report is from another product line than its certificate",
            stage="identity",
        )


_Tcbs = tuple[endorse.Tcb, endorse.Tcb, endorse.Tcb, endorse.Tcb]


def _read_tcbs(key: endorse.KeyCertificate, report: wire.Report) -> _Tcbs:
    """Reported, current, committed and launch TCB in the layout of the certificate's product."""
    values = (report.reported_tcb, report.current_tcb, report.committed_tcb, report.launch_tcb)
    try:
        read = {value: endorse.read_tcb(value, key.product) for value in set(values)}
    except MalformedError:
        raise NotGenuine(
            "tcb_mismatch",
            "a TCB in the report is not in the layout of the certificate's product",
            stage="tcb",
        ) from None
    return read[values[0]], read[values[1]], read[values[2]], read[values[3]]


def _compare_tcb(key: endorse.KeyCertificate, reported: endorse.Tcb) -> list[Reason]:
    """Step 7: one finding for each level that differs."""
    own = key.tcb.to_json()
    return [
        Reason(
            f"{NotGenuine.family}.tcb_mismatch",
            "tcb",
            f"the reported TCB and the chip's certificate differ in `{name}`",
            "the certificate must be the one for the reported TCB, not for the current one",
        )
        for name, level in reported.to_json().items()
        if own.get(name) != level
    ]


def _check_identity(key: endorse.KeyCertificate, report: wire.Report) -> None:
    """Step 8. A masked CHIP_ID is all zeros, which no chip has, so that only a VLEK goes with it."""
    if key.hwid is None:
        return
    length = key.product.hwid_bytes
    if not any(key.hwid) or report.chip_id[:length] != key.hwid or any(report.chip_id[length:]):
        raise NotGenuine(
            "identity_mismatch", "the chip id in the report is not the certificate's", stage="identity"
        )


def _details(report: wire.Report, key: endorse.KeyCertificate, tcbs: _Tcbs) -> SnpDetails:
    current, committed = report.current_version, report.committed_version
    mitigations = (
        (report.launch_mit_vector, report.current_mit_vector) if isinstance(report, wire.ReportV5) else None
    )
    return SnpDetails(
        version=report.version,
        product=key.product.name,
        signing_key=key.kind,
        guest_svn=report.guest_svn,
        policy=wire.GuestPolicy(report.policy),
        platform_info=wire.PlatformInfo(report.platform_info),
        author_key_enabled=wire.KeyInfo(report.key_info).author_key_enabled,
        vmpl=report.vmpl,
        family_id=report.family_id,
        image_id=report.image_id,
        host_data=report.host_data,
        id_key_digest=report.id_key_digest,
        author_key_digest=report.author_key_digest,
        report_id=report.report_id,
        report_id_ma=report.report_id_ma,
        chip_id=report.chip_id,
        csp_id=key.csp_id,
        reported_tcb=tcbs[0],
        current_tcb=tcbs[1],
        committed_tcb=tcbs[2],
        launch_tcb=tcbs[3],
        current_version=(current.major, current.minor, current.build),
        committed_version=(committed.major, committed.minor, committed.build),
        launch_mit_vector=None if mitigations is None else mitigations[0],
        current_mit_vector=None if mitigations is None else mitigations[1],
    )
