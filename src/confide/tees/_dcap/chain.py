# SPDX-License-Identifier: Apache-2.0
"""Chains to Intel's root, and the CRLs of the two CAs below which every key of SGX and TDX stands.

Signatures are verified once for the same bytes and remembered; what depends on time is judged anew for each time.
Source: Intel, "SGX PCK Certificate and Certificate Revocation List Profile Specification".
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from confide.attestation.anchors import TrustAnchor
from confide.crypto import x509
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = [
    "Anchors",
    "Chain",
    "Revocation",
    "anchors",
    "check_crls",
    "check_extras",
    "check_name",
    "is_named",
    "issuer_is_named",
    "sort_anchors",
    "verify",
]

ROOT_NAME: Final = "Intel SGX Root CA"
PCK_NAME: Final = frozenset({"Intel SGX PCK Certificate"})
PCK_CA_NAME: Final = frozenset({"Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"})
SIGNER_NAME: Final = frozenset({"Intel SGX TCB Signing"})
MAX_CRLS: Final = 32
MAX_CERTIFICATES: Final = 64
_STAGE: Final = "endorsement"
_HINT: Final = "run `confide endorse EVIDENCE`, and give its output with --endorsements"


@functools.cache
def anchors(tee: str) -> tuple[TrustAnchor, ...]:
    """Intel's root for SGX and TDX as shipped in ``roots/``, as an anchor of ``tee``."""
    data = resources.files("confide.tees._dcap").joinpath("roots", "intel_sgx_root_ca.pem").read_bytes()
    return (TrustAnchor(tee, ROOT_NAME, tuple(one.der for one in x509.parse_pem(data))),)


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """The roots of one TEE, and which anchor each belongs to."""

    by_root: dict[bytes, TrustAnchor]
    roots: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]


@functools.lru_cache(maxsize=16)
def sort_anchors(given: tuple[TrustAnchor, ...], tee: str) -> Anchors:
    """The anchors of ``tee``; raises ``not_genuine.no_trusted_roots`` if there is no root among them."""
    # Simulated ones last: a root that stands in both kinds of anchor counts as simulated.
    own = sorted((anchor for anchor in given if anchor.tee == tee), key=lambda anchor: anchor.simulated)
    by_root: dict[bytes, TrustAnchor] = {}
    certificates: dict[bytes, x509.Certificate] = {}
    for anchor in own:
        for der in anchor.certificates:
            certificate = certificates.setdefault(der, x509.Certificate.from_der(der))
            if certificate.subject_der == certificate.issuer_der:
                by_root[der] = anchor
    if not by_root:
        raise NotGenuine("no_trusted_roots", f"there is no trusted root for {tee.upper()}", stage=_STAGE)
    return Anchors(
        by_root,
        tuple(one for der, one in certificates.items() if der in by_root),
        tuple(one for der, one in certificates.items() if der not in by_root),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A verified path from a leaf to a root, leaf first, and when all of it is valid."""

    path: tuple[x509.Certificate, ...]
    not_before: datetime
    not_after: datetime

    @property
    def root(self) -> x509.Certificate:
        """The pinned root at which the path ends."""
        return self.path[-1]


@functools.lru_cache(maxsize=512)
def _known(_digests: tuple[bytes, ...], _length: int, _anchored: Anchors) -> list[Chain]:
    """The memory of one question about a chain: the path that was found, or nothing yet.

    Certificates are remembered by their digests: strangers send them, and 512 times all that they may send is too much.
    """
    return []


def verify(
    leaf: x509.Certificate,
    others: tuple[x509.Certificate, ...],
    anchored: Anchors,
    *,
    at: datetime,
    length: int,
) -> Chain:
    """The path from ``leaf`` through ``others`` to a pinned root, ``length`` certificates long and valid at ``at``.

    Roots among ``others`` count for nothing unless they are pinned. Raises ``NotGenuine`` as ``x509.verify_chain`` does.
    """
    digests = tuple(hashlib.sha256(one.der).digest() for one in (leaf, *others))
    known = _known(digests, length, anchored)
    # Each path is read once and judged: another thread may put that of another time in its place meanwhile.
    for remembered in tuple(known):
        if remembered.not_before <= at <= remembered.not_after:
            return remembered
    path = x509.verify_chain(
        leaf,
        [*anchored.authorities, *others],
        anchored.roots,
        at=at,
        max_depth=4,
        signatures=frozenset({"ecdsa"}),
    )
    if len(path) != length:
        raise NotGenuine("chain_invalid", "a chain of Intel's has another length than its kind", stage=_STAGE)
    for certificate in path:
        if certificate.key_kind != "p256":
            raise NotGenuine("algorithm_mismatch", "a key of Intel's is not on P-256", stage=_STAGE)
    found = Chain(
        path,
        max(certificate.not_before for certificate in path),
        min(certificate.not_after for certificate in path),
    )
    known[:] = [found]
    return found


def is_named(certificate: x509.Certificate, names: frozenset[str]) -> bool:
    """Whether the one common name of a certificate is among ``names``."""
    return _common_name(certificate.subject) in names


def issuer_is_named(certificate: x509.Certificate, name: str) -> bool:
    """Whether the one common name of a certificate's issuer is ``name``."""
    return _common_name(certificate.issuer) == name


@functools.lru_cache(maxsize=256)
def _common_name(text: str) -> str | None:
    found = [part[3:] for part in text.split(", ") if part.startswith("CN=")]
    return found[0] if len(found) == 1 else None


def check_name(certificate: x509.Certificate, names: frozenset[str]) -> None:
    """A key of Intel's may vouch only for what its name says: the root certifies PCK CAs and the TCB signer alike."""
    if not is_named(certificate, names):
        raise NotGenuine("wrong_usage", "a certificate of the chain is for another purpose", stage=_STAGE)


def check_extras(certificates: tuple[x509.Certificate, ...], chain: Chain) -> None:
    """Nothing but the chain may stand in a quote: what is not on the path must be a certificate of the root's own key.

    Intel has issued its root more than once, so that old quotes hold another certificate of the same key than is pinned.
    """
    on_path = {certificate.der for certificate in chain.path}
    for certificate in certificates:
        if certificate.der not in on_path:
            _check_root_twin(certificate.der, chain.root.der)


@functools.lru_cache(maxsize=64)
def _check_root_twin(encoded: bytes, root_encoded: bytes) -> None:
    certificate, root = x509.Certificate.from_der(encoded), x509.Certificate.from_der(root_encoded)
    same_name = certificate.subject_der == certificate.issuer_der == root.subject_der
    if not same_name or certificate.public_key_der != root.public_key_der:
        raise NotGenuine(
            "chain_invalid", "the quote holds a certificate that is not of its chain", stage=_STAGE
        )
    certificate.signed.verify(root.public_key_der)


@dataclass(frozen=True, slots=True)
class Revocation:
    """That nothing is revoked, and the first time at which one of the CRLs used is out of date."""

    next_update: datetime


@functools.lru_cache(maxsize=64)
def _crl(data: bytes) -> x509.Crl:
    return x509.Crl.from_bytes(data)


@functools.lru_cache(maxsize=256)
def _genuine(crl: bytes, issuer: bytes) -> x509.Crl:
    """The list, if ``issuer`` has signed it and it is a whole list; validity in time is judged by the caller."""
    found, authority = _crl(crl), x509.Certificate.from_der(issuer)
    if authority.key_usage is None or "crl_sign" not in authority.key_usage:
        raise NotGenuine("wrong_usage", "the issuer's key is not for signing CRLs", stage=_STAGE)
    try:
        found.signed.verify(authority.public_key_der)
    except NotGenuine as error:
        leaf = error.code.partition(".")[2]
        raise NotGenuine(leaf, "a CRL is not signed by the CA that it names", stage="revocation") from None
    if any(extension.critical for extension in found.extensions.values()):
        raise EndorsementsMissing("crl", "a CRL says in a critical extension that it is not a whole list")
    return found


def check_crls(chain: Chain, crls: Iterable[bytes], *, at: datetime) -> Revocation:
    """No certificate of the chain is on a CRL of its issuer, each of which has one that is valid (the root's covers itself).

    Of several lists one that is valid is enough, and one that revokes is too much, even if it is out of date. Raises
    ``not_genuine.revoked``, ``bad_signature``; ``endorsements_missing.crl`` or ``crl_expired``.
    """
    given = tuple(dict.fromkeys(crls))
    if len(given) > MAX_CRLS:
        raise MalformedError("limit_exceeded", f"more than {MAX_CRLS} CRLs were given as endorsements")
    read = [(data, _crl(data)) for data in given]
    return Revocation(
        min(
            _check_one(certificate, issuer, read, at)
            for certificate, issuer in zip(chain.path, (*chain.path[1:], chain.root), strict=True)
        )
    )


def _check_one(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    read: list[tuple[bytes, x509.Crl]],
    at: datetime,
) -> datetime:
    """The latest next update among the valid lists of ``issuer``."""
    own = [data for data, crl in read if crl.issuer_der == issuer.subject_der]
    valid: list[datetime] = []
    refused: NotGenuine | EndorsementsMissing | None = None
    for data in own:
        try:
            crl = _genuine(data, issuer.der)
        except (NotGenuine, EndorsementsMissing) as error:
            refused = refused or error
            continue
        if certificate.serial in crl.revoked:
            raise NotGenuine("revoked", "Intel has revoked a certificate of the chain", stage="revocation")
        if crl.next_update is not None and crl.this_update <= at <= crl.next_update:
            valid.append(crl.next_update)
    if valid:
        return max(valid)
    if refused is not None:
        raise refused
    # The issuer is on a path to a pinned root, so that its name is not of anybody's choosing.
    name = issuer.subject.partition(",")[0].removeprefix("CN=")
    if own:
        raise EndorsementsMissing(
            "crl_expired",
            f"the CRL of {name} is not valid at the time of verification",
            hint=_HINT,
            stage="revocation",
        )
    raise EndorsementsMissing(
        "crl",
        f"the CRL of {name} is missing; for SGX and TDX it is mandatory",
        hint=_HINT,
        stage="revocation",
    )
