# SPDX-License-Identifier: Apache-2.0
"""Certification paths at a given time (RFC 5280, section 6), from a leaf to roots that are pinned byte for byte."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from confide.errors import NotGenuine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from confide.crypto.x509 import Certificate
    from confide.crypto.x509_parts import Signed

__all__ = ["SIGNATURES", "verify_chain"]

SIGNATURES = frozenset({"ecdsa", "rsa-pss"})
"""The signature families that a chain may use unless the caller says otherwise; "rsa-pkcs1" is the other one."""

_BASIC_CONSTRAINTS = "2.5.29.19"
_KEY_USAGE = "2.5.29.15"
_MAX_INTERMEDIATES = 32
_MAX_SIGNATURES = 64
_STAGE = "endorsement"


def verify_chain(
    leaf: Certificate,
    intermediates: Sequence[Certificate],
    roots: Sequence[Certificate],
    *,
    at: datetime,
    allowed_critical: frozenset[str] = frozenset(),
    max_depth: int = 4,
    signatures: frozenset[str] = SIGNATURES,
    usage: str = "digital_signature",
) -> tuple[Certificate, ...]:
    """The path leaf, issuer, ..., root, every link and every certificate of which is valid at the aware time ``at``.

    Roots are compared by all their bytes, never by name; the order and repetition of ``intermediates`` do not matter;
    ``max_depth`` counts leaf and root. Extended key usage and names other than subject and issuer are not interpreted: a critical
    extension about them is refused. ``allowed_critical`` names OIDs of critical extensions that the caller handles itself.
    ``usage`` is the key usage that a leaf which names its usages must name: the key of a TPM that decrypts has "key_encipherment".

    Raises ``NotGenuine``: ``no_trusted_roots`` if ``roots`` is empty; ``untrusted_root`` if the path ends elsewhere;
    ``chain_invalid`` if a link is missing, the path is too long or a path length is exceeded; ``bad_signature``,
    ``unsupported_algorithm``, ``algorithm_mismatch``, ``weak_key``; ``wrong_usage`` if a CA stands as leaf, a leaf as CA, or a
    critical extension is unknown; ``expired``, ``not_yet_valid``.
    """
    if at.tzinfo is None:
        raise ValueError("the time of verification must be aware")
    if not roots:
        raise NotGenuine("no_trusted_roots", "there is no root to trust", stage=_STAGE)
    if len(intermediates) > _MAX_INTERMEDIATES:
        raise NotGenuine("chain_invalid", "too many intermediate certificates", stage=_STAGE)
    if any(leaf.der == root.der for root in roots):
        raise NotGenuine("wrong_usage", "a root certificate stands where a leaf belongs", stage=_STAGE)
    search = _Search(intermediates, roots, signatures, max_depth)
    refusal: NotGenuine | None = None
    for path in search.paths((leaf,)):
        try:
            _check(path, at, allowed_critical, usage)
        except NotGenuine as error:
            refusal = refusal or error
        else:
            return path
    raise refusal or search.refusal or NotGenuine("chain_invalid", "no path to a root", stage=_STAGE)


class _Search:
    """Depth-first over issuers by name and signature; remembers the failure that came nearest to a root."""

    def __init__(
        self,
        intermediates: Sequence[Certificate],
        roots: Sequence[Certificate],
        signatures: frozenset[str],
        max_depth: int,
    ) -> None:
        self._roots = {root.der: root for root in roots}
        # Sorted, so that the answer does not depend on the order in which certificates came.
        pool = {other.der: other for other in intermediates if other.der not in self._roots}
        self._pool = [pool[encoded] for encoded in sorted(pool)]
        self._signatures = signatures
        self._max_depth = max_depth
        self._budget = _MAX_SIGNATURES
        self._nearest = 0
        self.refusal: NotGenuine | None = None

    def _remember(self, path: tuple[Certificate, ...], refusal: NotGenuine) -> None:
        if len(path) > self._nearest:
            self._nearest = len(path)
            self.refusal = refusal

    def paths(self, path: tuple[Certificate, ...]) -> Iterator[tuple[Certificate, ...]]:
        """Every path that continues ``path`` to a root, each link's signature verified."""
        last = path[-1]
        if last.signed.family not in self._signatures:
            self._remember(
                path,
                NotGenuine(
                    "unsupported_algorithm",
                    "a certificate is signed with an algorithm that is not accepted",
                    stage=_STAGE,
                ),
            )
            return
        by_root = [root for root in self._roots.values() if root.subject_der == last.issuer_der]
        by_other = [other for other in self._pool if other.subject_der == last.issuer_der]
        if not by_root and not by_other:
            self._remember(path, _no_issuer(last))
            return
        if len(path) >= self._max_depth:
            self._remember(path, _too_long(last))
            return
        known = {certificate.der for certificate in path}
        failed: NotGenuine | None = None
        for issuer in (*by_root, *by_other):
            if issuer.der in known:
                # Signed by itself or in a circle: such a path never comes to a pinned root.
                failed = failed or _untrusted_root()
                continue
            if self._budget <= 0:
                failed = NotGenuine("chain_invalid", "too many candidate issuers", stage=_STAGE)
                break
            self._budget -= 1
            try:
                _verify_link(last.signed, issuer.public_key_der)
            except NotGenuine as error:
                failed = failed or _as_link(error, is_root=issuer.der in self._roots)
                continue
            if issuer.der in self._roots:
                yield (*path, issuer)
            else:
                yield from self.paths((*path, issuer))
        if failed is not None:
            self._remember(path, failed)


@functools.lru_cache(maxsize=256)
def _verify_link(signed: Signed, issuer_key: bytes) -> None:
    """One link. That a signature is good does not change with time, and CAs are the same under many leaves; a failure
    is raised and not kept.
    """
    signed.verify(issuer_key)


def _no_issuer(last: Certificate) -> NotGenuine:
    if last.subject_der == last.issuer_der:
        return _untrusted_root()
    return NotGenuine("chain_invalid", "the issuer of a certificate is missing", stage=_STAGE)


def _too_long(last: Certificate) -> NotGenuine:
    if last.subject_der == last.issuer_der:
        return _untrusted_root()
    return NotGenuine("chain_invalid", "the chain is too long", stage=_STAGE)


def _untrusted_root() -> NotGenuine:
    return NotGenuine(
        "untrusted_root", "the chain ends at a certificate that is not a pinned root", stage=_STAGE
    )


def _as_link(error: NotGenuine, *, is_root: bool) -> NotGenuine:
    """A failed link, told from the side of the chain: a look-alike of a root is not that root."""
    if is_root and error.code in {"not_genuine.bad_signature", "not_genuine.algorithm_mismatch"}:
        return NotGenuine(
            "untrusted_root", "a certificate names a pinned root that has not signed it", stage=_STAGE
        )
    leaf = error.code.partition(".")[2]
    return NotGenuine(leaf, error.message, hint=error.hint, stage=_STAGE)


def _check(path: tuple[Certificate, ...], at: datetime, allowed_critical: frozenset[str], usage: str) -> None:
    """What each certificate of a path with good signatures must be."""
    processed = allowed_critical | {_BASIC_CONSTRAINTS, _KEY_USAGE}
    for depth, certificate in enumerate(path):
        if any(e.critical and oid not in processed for oid, e in certificate.extensions.items()):
            raise NotGenuine("wrong_usage", "a critical extension is not known here", stage=_STAGE)
        if depth == 0:
            _check_leaf(certificate, usage)
        else:
            _check_issuer(certificate, below=depth - 1)
        # Raises for weak keys: that of the leaf has signed nothing yet.
        _ = certificate.key_kind
    for certificate in path:
        if at < certificate.not_before:
            raise NotGenuine("not_yet_valid", "a certificate of the chain is not valid yet", stage=_STAGE)
        if at > certificate.not_after:
            raise NotGenuine("expired", "a certificate of the chain has expired", stage=_STAGE)


def _check_leaf(leaf: Certificate, usage: str) -> None:
    if leaf.is_ca:
        raise NotGenuine("wrong_usage", "a CA certificate stands where a leaf belongs", stage=_STAGE)
    # AMD's VCEKs carry no key usage at all; one that is there must allow what the key is used for.
    if leaf.key_usage is not None and usage not in leaf.key_usage:
        raise NotGenuine("wrong_usage", "the leaf's key is not for what it is used for", stage=_STAGE)


def _check_issuer(issuer: Certificate, *, below: int) -> None:
    """``below`` is the number of CA certificates between ``issuer`` and the leaf."""
    if not issuer.is_ca or not issuer.extensions[_BASIC_CONSTRAINTS].critical:
        raise NotGenuine("wrong_usage", "a certificate that is not a CA's has signed another", stage=_STAGE)
    if issuer.key_usage is None or "key_cert_sign" not in issuer.key_usage:
        raise NotGenuine("wrong_usage", "a CA's key is not for signing certificates", stage=_STAGE)
    if issuer.path_length is not None and below > issuer.path_length:
        raise NotGenuine("chain_invalid", "a CA's path length is exceeded", stage=_STAGE)
