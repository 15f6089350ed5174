# SPDX-License-Identifier: Apache-2.0
"""Is a Nitro attestation document genuine? A pure function of document, CRLs, trust anchors and time.

Source: aws-nitro-enclaves-nsm-api, docs/attestation_process.md ("AP"); "AWS Nitro Enclaves User Guide", "Verifying the root
of trust"; RFC 9052 (COSE); RFC 5280 (certificates).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from confide.attestation import claims as claims_
from confide.attestation.claims import Check, Voucher
from confide.attestation.findings import Findings
from confide.crypto import x509
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.tees.nitro import endorse, wire

if TYPE_CHECKING:
    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.crypto.x509 import Certificate

__all__ = ["NitroDetails", "authenticate"]

_Chain = tuple[x509.Certificate, ...]

CLOCK_SKEW: Final = timedelta(minutes=5)
MAX_DEPTH: Final = 8
MAX_CRLS: Final = 32
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NitroDetails:
    """The authenticated facts of a document, by AWS's names; None for a field that the document does not have.

    ``timestamp`` is the hypervisor's clock when it signed. ``module_id`` names instance and enclave, which says nothing about
    what runs in it. ``archival`` says that certificates were judged at ``timestamp`` and not at the time of verification.
    """

    module_id: str
    timestamp: datetime
    digest: str
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    archival: bool


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,
) -> Claims:
    """Claims over the document in ``data`` (a COSE_Sign1 of at most 16 KiB), or an exception.

    1. Parse: COSE_Sign1 with ES384 in the protected header and nothing else in either header; a payload of exactly the
       known fields, with their types and sizes, PCR 0 to 15 at least, 48 bytes each (AP, 2.2 and 3.2.2).
    2. Signature: ECDSA P-384 with SHA-384 by the key in `certificate`, over headers and payload (AP, 3.2.5; RFC 9052, 4.4).
    3. Chain: `certificate`, CAs out of `cabundle` in any order, a root that is one of ``anchors`` byte for byte; all keys on
       P-384, all signatures with SHA-384, path lengths and key usages kept (AP, 3.2.3).
    4. Validity: every certificate at ``at``, or, only under an anchor that is ``archival``, at the document's own time.
    5. Time: the document is not from later than ``at`` (5 minutes of skew admitted), and from within its certificate's life.
    6. Revocation: CRLs that are given and list no CA of the chain. AWS's guide does without them.

    Steps 2 to 6 run whatever the others find; what they find is raised together. Raises MalformedError (1, 3, 6), NotGenuine
    (1 to 6), EndorsementsMissing (6, if ``require_revocation``). Certificates in ``endorsements`` are not used: the document's
    own signature covers its chain.
    """
    document = wire.decode_document(data)
    anchored = _sorted(anchors)
    leaf = _parsed(document.certificate)
    others = tuple(_parsed(der) for der in document.cabundle)
    signed_at = _EPOCH + timedelta(milliseconds=document.timestamp)
    found = Findings()
    found.run(lambda: document.sign1.verify(leaf.public_key_der))
    verified = found.run(lambda: _verify_chain(leaf, others, anchored, signed_at, at))
    found.run(lambda: _check_time(leaf, signed_at, at))
    revocation = None
    if verified is not None:
        chain, archival = verified
        revocation = found.run(
            lambda: _check_revocation(
                chain, endorsements, signed_at if archival else at, required=require_revocation
            )
        )
    found.raise_any()
    if verified is None or revocation is None:
        raise NotGenuine("chain_invalid", "a check gave no result", stage="endorsement")
    chain, archival = verified
    revoked, updates = revocation
    return claims_.authenticated(
        tee="nitro",
        simulated=anchored.is_simulated(chain),
        report_data=document.user_data or b"",
        measurements={f"pcr{index}": value for index, value in document.pcrs.items()},
        details=NitroDetails(
            module_id=document.module_id,
            timestamp=signed_at,
            digest=document.digest,
            public_key=document.public_key,
            user_data=document.user_data,
            nonce=document.nonce,
            archival=archival,
        ),
        checks=(
            Check("signature", "passed", "ECDSA P-384 with SHA-384"),
            Check("chain", "passed", f"a pinned root over {len(chain) - 2} CAs"),
            _validity(signed_at, archival=archival),
            Check("time", "passed", f"signed at {signed_at:%Y-%m-%dT%H:%M:%SZ} by the hypervisor's clock"),
            revoked,
        ),
        expires=min(*(certificate.not_after for certificate in chain), *updates),
        chain=tuple(Voucher(one.subject, one.spki_sha256) for one in chain),
        unproven=wire.unproven(document),
    )


def _validity(signed_at: datetime, *, archival: bool) -> Check:
    if archival:
        return Check(
            "validity now",
            "not checked",
            f"archival: certificates were judged at the document's own time, {signed_at:%Y-%m-%dT%H:%M:%SZ}",
        )
    return Check("validity", "passed", "every certificate at the time of verification")


@functools.lru_cache(maxsize=256)
def _parsed(der: bytes) -> Certificate:
    # Reading is a pure function of the bytes; validity is judged anew for each chain.
    return x509.Certificate.from_der(der)


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    """The pinned roots: those judged at the time of verification, and those judged at a document's own time."""

    current: tuple[Certificate, ...]
    archival: tuple[Certificate, ...]
    simulated: frozenset[bytes]

    def is_simulated(self, chain: _Chain) -> bool:
        return chain[-1].der in self.simulated


@functools.lru_cache(maxsize=16)
def _sorted(anchors: tuple[TrustAnchor, ...]) -> _Anchors:
    """Each root once: one that stands in several anchors is simulated or archival if one of them says so."""
    of_nitro = [anchor for anchor in anchors if anchor.tee == "nitro"]
    archival = {der for anchor in of_nitro if anchor.archival for der in anchor.certificates}
    roots = {der: _parsed(der) for anchor in of_nitro for der in anchor.certificates}
    if not roots:
        raise NotGenuine(
            "no_trusted_roots", "there is no trusted root for Nitro Enclaves", stage="endorsement"
        )
    return _Anchors(
        tuple(root for der, root in roots.items() if der not in archival),
        tuple(root for der, root in roots.items() if der in archival),
        frozenset(der for anchor in of_nitro if anchor.simulated for der in anchor.certificates),
    )


def _verify_chain(
    leaf: Certificate,
    others: tuple[Certificate, ...],
    anchored: _Anchors,
    signed_at: datetime,
    at: datetime,
) -> tuple[_Chain, bool]:
    """Steps 3 and 4: the chain, and whether it was judged at the document's own time."""
    refusal: NotGenuine | None = None
    for roots, when, archival in (
        (anchored.archival, signed_at, True),
        (anchored.current, at, False),
    ):
        if not roots:
            continue
        try:
            return _cached_chain(leaf, others, roots, when), archival
        except NotGenuine as error:
            # Of two kinds of roots, the one that the chain comes nearer to has more to say.
            if refusal is None or refusal.code == "not_genuine.untrusted_root":
                refusal = error
    raise refusal or NotGenuine("no_trusted_roots", "there is no root to trust", stage="endorsement")


@functools.lru_cache(maxsize=256)
def _known(
    _leaf: bytes, _others: tuple[bytes, ...], _roots: tuple[bytes, ...]
) -> list[tuple[_Chain, datetime, datetime]]:
    """The memory of one question about a chain: the path found, and when all of it is valid, or nothing yet.

    Signatures do not change with time; validity is judged anew for each time that is asked about.
    """
    return []


def _cached_chain(
    leaf: Certificate, others: tuple[Certificate, ...], roots: tuple[Certificate, ...], when: datetime
) -> _Chain:
    known = _known(leaf.der, tuple(one.der for one in others), tuple(one.der for one in roots))
    # Read once: another thread may put another path there between two readings.
    for chain, first, last in known[:1]:
        if first <= when <= last:
            return chain
    chain = x509.verify_chain(
        leaf, others, roots, at=when, max_depth=MAX_DEPTH, signatures=frozenset({"ecdsa"})
    )
    _check_keys(chain)
    first = max(certificate.not_before for certificate in chain)
    last = min(certificate.not_after for certificate in chain)
    known[:] = [(chain, first, last)]
    return chain


def _check_keys(chain: _Chain) -> None:
    """AWS's chain has one kind of key and one hash; others would be accepted by the path alone."""
    if chain[0].key_usage is None:
        raise NotGenuine(
            "wrong_usage", "the document's certificate does not say what its key is for", stage="endorsement"
        )
    if any(certificate.key_kind != "p384" for certificate in chain):
        raise NotGenuine(
            "algorithm_mismatch", "a key of the chain is not on the curve P-384", stage="endorsement"
        )
    if any(certificate.signed.hash_name != "sha384" for certificate in chain[:-1]):
        raise NotGenuine(
            "unsupported_algorithm",
            "a certificate of the chain is not signed with SHA-384",
            stage="endorsement",
        )


def _check_time(leaf: Certificate, signed_at: datetime, at: datetime) -> None:
    """Step 5."""
    if signed_at - at > CLOCK_SKEW:
        raise NotGenuine(
            "from_future",
            "the document was signed later than the time of verification",
            hint="check the clock, or the time given with --at",
            stage="endorsement",
        )
    if leaf.not_before - signed_at > CLOCK_SKEW or signed_at - leaf.not_after > CLOCK_SKEW:
        raise NotGenuine(
            "chain_invalid",
            "the document was signed outside the life of its own certificate",
            stage="endorsement",
        )


def _check_revocation(
    chain: _Chain, endorsements: Endorsements, when: datetime, *, required: bool
) -> tuple[Check, list[datetime]]:
    """Step 6. Every CRL of an issuer counts; one that is valid is enough, one that lists a certificate is too much.

    Asked for is a list for each certificate that names one; where none does, for each CA.
    """
    if len(endorsements.crls) > MAX_CRLS:
        raise MalformedError("limit_exceeded", f"more than {MAX_CRLS} CRLs were given as endorsements")
    crls = [_parsed_crl(data) for data in endorsements.crls]
    links = list(itertools.pairwise(chain))
    asked = [link for link in links if endorse.names_crl(link[0])] or links[1:]
    updates: list[datetime] = []
    covered: list[Certificate] = []
    outdated = False
    for certificate, issuer in links:
        passed, expired = _updates(certificate, issuer, crls, when)
        if passed is not None:
            covered.append(certificate)
            updates.append(passed)
        outdated = outdated or expired
    open_links = [certificate for certificate, _ in asked if certificate not in covered]
    if not open_links and asked:
        return Check("revocation", "passed", f"{len(covered)} CAs are not on their issuers' CRLs"), updates
    if required:
        raise EndorsementsMissing(
            "crl_expired" if outdated else "crl",
            f"the policy asks for CRLs, and {len(open_links) or 1} of the chain's are missing or out of date",
            hint="run `confide endorse EVIDENCE`, and give its output with --endorsements",
            stage="revocation",
        )
    detail = (
        "the CRLs given are out of date"
        if outdated
        else "no CRL given"
        if not covered
        else "a CRL is missing"
    )
    return Check("revocation", "not checked", detail), updates


@functools.lru_cache(maxsize=32)
def _parsed_crl(data: bytes) -> x509.Crl:
    return x509.Crl.from_bytes(data)


def _updates(
    certificate: Certificate, issuer: Certificate, crls: list[x509.Crl], when: datetime
) -> tuple[datetime | None, bool]:
    """Until when a CRL clears a certificate (None: there is no such list), and whether one was out of date."""
    passed: list[datetime] = []
    outdated = False
    for crl in crls:
        if crl.issuer_der != issuer.subject_der:
            continue
        try:
            crl.check(certificate, issuer=issuer, at=when)
        except EndorsementsMissing:
            # Its signature is good: an old list still revokes what it names.
            if certificate.serial in crl.revoked:
                raise NotGenuine(
                    "revoked", "an expired CRL revokes a CA of this chain", stage="revocation"
                ) from None
            outdated = True
        else:
            passed.append(crl.next_update or when)
    return (max(passed) if passed else None), outdated
