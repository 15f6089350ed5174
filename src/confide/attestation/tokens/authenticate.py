# SPDX-License-Identifier: Apache-2.0
"""Is a token genuine? A pure function of token, keys, trust anchors and time.

Genuine means: a key that the policy pins, or a chain to a root that is pinned, has signed it for the issuer it names, and it
is valid now. Whether what it says is true is the issuer's word. Source: RFC 7515, 7519, 8725, 9711.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from confide.attestation import claims as claims_
from confide.attestation import result
from confide.attestation.claims import Check, Voucher
from confide.attestation.tokens import kinds, wire
from confide.crypto import jose, x509
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine, Reason
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.attestation.tokens.said import Said

__all__ = ["TokenDetails", "authenticate"]

MAX_CERTIFICATES: Final = 64
MAX_CRLS: Final = 32
MAX_AUDIENCES: Final = 16
_LAST: Final = 253402300799  # The end of the year 9999.


@dataclass(frozen=True, slots=True)
class TokenDetails:
    """The authenticated facts of a token. ``signer`` is SHA-256 of the signer's SubjectPublicKeyInfo, ``root`` SHA-256 of the
    DER of the root that its chain ended at, None where the key itself is pinned. ``age`` is in seconds, by the issuer's clock.
    """

    kind: str
    issuer: str
    audience: tuple[str, ...]
    issued_at: datetime
    expires: datetime
    age: int
    signer: bytes
    root: bytes | None
    algorithm: str
    said: Said = field(repr=False)


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,
) -> Claims:
    """Claims over the token in ``data``, or an exception.

    1. Parse: one JWS in compact serialisation, NVIDIA's bundle of them, or one COSE_Sign1; strict base64url, JSON and CBOR; no
       critical, compressed, encrypted or nested token (RFC 7515, section 7.1; RFC 8725, sections 3.2, 3.10 to 3.12).
    2. Parts: for a bundle, each part has the SHA-256 that the whole names (RFC 9711, section 4.2.18.2).
    3. Kind, by the claims' names; the algorithm is one of the kind's own (RFC 8725, section 3.1).
    4. Issuer: an anchor is pinned for exactly the issuer that the token names; every part names the same.
    5. Key: of the anchor's pinned keys those that were given as endorsements (documents "jwks", certificates); or the chain in
       `x5c` to a pinned root, every certificate valid at ``at``. No other header parameter names a key (RFC 8725, 3.1, 3.5).
    6. Signature: of every statement, under that key (RFC 7518, section 3).
    7. Time: `exp` is there and later than ``at``; `iat` is there and, with `nbf`, not later than ``at``; whole seconds.
    8. Revocation, for a chain: each CRL given by the issuer of a certificate does not list it, also one that is out of date.
    9. The issuer's claims have the form that its documentation gives them; an EAR's profile is known and its status honest.

    Steps 6, 7 and 8 are independent and all run; what they find is raised together. Raises MalformedError (1, 3, 7, 9),
    NotGenuine (1 to 8), EndorsementsMissing (5, and 8 if ``require_revocation``).
    """
    token = wire.decode(data)
    kind = kinds.of(token.claims)
    if token.form == "cwt" and kind != "ear":
        raise MalformedError("unknown_format", "tokens of this issuer are no CWTs")
    module = kinds.KINDS[kind]
    issuer = kinds.issuer(kind, token.claims)
    if any(signed.algorithm not in module.ALGORITHMS for signed, _ in token.statements):
        raise NotGenuine("unsupported_algorithm", "the token's algorithm is not one that its issuer uses")
    anchored = _anchors_for(issuer, anchors)
    times = _times(token, issuer)
    signer = _signer(token, anchored, endorsements, at)
    genuine: list[Reason] = []
    missing: list[Reason] = []
    revocation: tuple[Check, list[datetime]] | None = None
    for check in (
        lambda: _verify(token, signer),
        lambda: times.check(at),
        lambda: _check_revocation(signer, endorsements, at, required=require_revocation),
    ):
        try:
            revocation = check() or revocation
        except NotGenuine as error:
            genuine += error.reasons
        except EndorsementsMissing as error:
            missing += error.reasons
    result.raise_first(genuine, missing)
    if revocation is None:
        raise NotGenuine("chain_invalid", "a check gave no result", stage="endorsement")
    revoked, updates = revocation
    said = module.read(token.claims, {name: claims for name, (_, claims) in token.parts.items()})
    return claims_.authenticated(
        tee="token",
        simulated=signer.anchor.simulated,
        report_data=said.nonce or b"",
        measurements=said.measurements,
        details=TokenDetails(
            kind=kind,
            issuer=issuer,
            audience=_audience(token.claims),
            issued_at=_date(times.issued),
            expires=_date(times.expires),
            age=max(0, int(at.timestamp()) - times.issued),
            signer=hashlib.sha256(signer.public_key_der).digest(),
            root=hashlib.sha256(signer.chain[-1].der).digest() if signer.chain else None,
            algorithm=token.whole.algorithm,
            said=said,
        ),
        checks=(
            Check("signature", "passed", f"{token.whole.algorithm}, {len(token.statements)} statement(s)"),
            Check(
                "key", "passed", "a chain to a pinned root" if signer.chain else "a key that the policy pins"
            ),
            Check("time", "passed", "issued, not expired"),
            revoked,
        ),
        expires=min((_date(times.expires), *(one.not_after for one in signer.chain), *updates)),
        chain=signer.vouchers(issuer),
        unproven=module.UNPROVEN,
    )


@dataclass(frozen=True, slots=True)
class _Signer:
    """The key under which the token is to verify, and why it may: a chain, or (empty chain) a pin."""

    public_key_der: bytes
    chain: tuple[x509.Certificate, ...]
    anchor: TrustAnchor

    def vouchers(self, issuer: str) -> tuple[Voucher, ...]:
        if self.chain:
            return tuple(Voucher(one.subject, one.spki_sha256) for one in self.chain)
        return (Voucher(f"pinned key of {issuer}", hashlib.sha256(self.public_key_der).digest()),)


def _anchors_for(issuer: str, anchors: tuple[TrustAnchor, ...]) -> tuple[TrustAnchor, ...]:
    """Step 4. Genuine anchors first, so that what a real root vouches for is not called simulated."""
    usable = [one for one in anchors if one.tee == "token" and (one.certificates or one.keys)]
    if not usable:
        raise NotGenuine(
            "no_trusted_roots", "there is no trusted key or root for tokens", stage="endorsement"
        )
    found = sorted((one for one in usable if one.name == issuer), key=lambda one: one.simulated)
    if not found:
        raise NotGenuine(
            "identity_mismatch",
            "no key or root is pinned for the issuer that the token names",
            hint="compare `issuer` in [reference.token] with `confide inspect`",
            stage="identity",
        )
    return tuple(found)


@functools.lru_cache(maxsize=128)
def _certificate(der: bytes) -> x509.Certificate:
    return x509.Certificate.from_der(der)


@functools.lru_cache(maxsize=32)
def _jwks(data: bytes) -> tuple[tuple[bytes, str | None], ...]:
    return tuple((key.public_key_der, key.algorithm) for key in jose.read_jwks(data))


def _signer(
    token: wire.Token, anchors: tuple[TrustAnchor, ...], endorsements: Endorsements, at: datetime
) -> _Signer:
    """Step 5: a key whose pin is known and which verifies the whole; else the chain in the header; else what is wrong."""
    if len(endorsements.certificates) > MAX_CERTIFICATES:
        raise MalformedError("limit_exceeded", f"more than {MAX_CERTIFICATES} certificates were given")
    given = [_certificate(der) for der in endorsements.certificates]
    keys = dict.fromkeys(
        [key for part in endorsements.documents if part.format == "jwks" for key in _jwks(part.data)]
        + [(one.public_key_der, None) for one in given]
    )
    refusal: NotGenuine | None = None
    for anchor in anchors:
        for key, algorithm in keys:
            if hashlib.sha256(key).digest() not in anchor.keys:
                continue
            try:
                if algorithm not in {None, token.whole.algorithm}:
                    raise NotGenuine("algorithm_mismatch", "the issuer's key is for another algorithm")
                token.whole.verify(key)
            except NotGenuine as error:
                refusal = _nearer(refusal, error)
            else:
                return _Signer(key, (), anchor)
    try:
        found = _by_chain(token, anchors, given, at)
    except NotGenuine as error:
        refusal = _nearer(refusal, error)
    else:
        if found is not None:
            return found
    if refusal is not None:
        raise refusal
    raise EndorsementsMissing(
        "certificate",
        "the key of the token's issuer is missing: none of the keys given is pinned for it",
        hint="fetch the issuer's JWKS or certificate over a channel you trust, give it with --endorsements, and pin the "
        "SHA-256 of the key's SubjectPublicKeyInfo in `keys` of [reference.token]",
    )


def _nearer(first: NotGenuine | None, second: NotGenuine) -> NotGenuine:
    """Of two refusals the one that says more: a key of another kind was not even tried."""
    if first is None or (first.code.endswith("algorithm_mismatch") and not second.code.endswith("mismatch")):
        return second
    return first


def _by_chain(
    token: wire.Token, anchors: tuple[TrustAnchor, ...], given: list[x509.Certificate], at: datetime
) -> _Signer | None:
    """The signer of a token with `x5c`, if its chain ends at a root that is pinned as certificate or by its SHA-256."""
    if not token.whole.certificates:
        return None
    leaf, *others = (_certificate(der) for der in token.whole.certificates)
    roots: dict[bytes, TrustAnchor] = {}
    for anchor in anchors:
        named = [
            one.der for one in (*given, leaf, *others) if hashlib.sha256(one.der).digest() in anchor.keys
        ]
        for der in (*anchor.certificates, *named):
            roots.setdefault(der, anchor)
    if not roots:
        return None
    chain = x509.verify_chain(
        leaf,
        [one for one in (*others, *given) if one.der not in roots],
        [_certificate(der) for der in roots],
        at=at,
        signatures=frozenset({"rsa-pkcs1", "rsa-pss", "ecdsa"}),
    )
    return _Signer(leaf.public_key_der, chain, roots[chain[-1].der])


def _verify(token: wire.Token, signer: _Signer) -> None:
    """Step 6."""
    for signed, _ in token.statements:
        signed.verify(signer.public_key_der)


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds since 1970: the latest time of issue and start, and the first end, of all statements of a token."""

    issued: int
    start: int
    expires: int

    def check(self, at: datetime) -> None:
        """Step 7."""
        now = at.timestamp()
        if now < self.start:
            raise NotGenuine("not_yet_valid", "the token is not valid yet", stage="time")
        if now >= self.expires:
            raise NotGenuine(
                "expired", "the token is no longer valid", hint="ask its issuer for a new one", stage="time"
            )


def _times(token: wire.Token, issuer: str) -> _Times:
    issued, starts, ends = [], [], []
    for _, claims in token.statements:
        fields = Fields(claims, "token")
        if claims is not token.claims and claims.get("iss") != issuer:
            raise NotGenuine("identity_mismatch", "a part of the token has another issuer", stage="identity")
        issued.append(fields.integer("iat", 0, _LAST))
        starts.append(max(issued[-1], fields.integer("nbf", 0, _LAST, default=0)))
        ends.append(fields.integer("exp", 0, _LAST))
    if min(ends) <= max(starts):
        raise MalformedError("non_canonical", "the token ends before it begins")
    return _Times(min(issued), max(starts), min(ends))


def _audience(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud")
    values = [] if value is None else value if isinstance(value, list) else [value]
    if len(values) > MAX_AUDIENCES or any(not isinstance(one, str) for one in values):
        raise MalformedError("non_canonical", "the audience of the token is not text, or too many of them")
    return tuple(values)


def _check_revocation(
    signer: _Signer, endorsements: Endorsements, at: datetime, *, required: bool
) -> tuple[Check, list[datetime]]:
    """Step 8: the check, and until when the lists that were used are valid. A pinned key is revoked by whoever pins it:
    there is no list to ask.
    """
    if len(endorsements.crls) > MAX_CRLS:
        raise MalformedError("limit_exceeded", f"more than {MAX_CRLS} CRLs were given as endorsements")
    if not signer.chain:
        return Check(
            "revocation", "passed", "the policy pins the key itself; remove the pin to revoke it"
        ), []
    crls = [_crl(data) for data in endorsements.crls]
    updates: list[datetime] = []
    outdated: EndorsementsMissing | None = None
    for certificate, issuer in zip(signer.chain, signer.chain[1:], strict=False):
        passed: list[datetime] = []
        for crl in crls:
            if crl.issuer_der != issuer.subject_der:
                continue
            try:
                crl.check(certificate, issuer=issuer, at=at)
            except EndorsementsMissing as error:
                # Its signature is good: an old list still revokes what it names.
                if certificate.serial in crl.revoked:
                    raise NotGenuine(
                        "revoked", "an expired CRL revokes a certificate of the chain", stage="revocation"
                    ) from None
                outdated = outdated or error
            else:
                passed.append(crl.next_update or at)
        updates += [max(passed)] if passed else []
    if len(updates) == len(signer.chain) - 1:
        return Check("revocation", "passed", "no certificate of the chain is on its issuer's CRL"), updates
    if required:
        raise outdated or EndorsementsMissing(
            "crl",
            "the policy asks for revocation, and a CRL of the chain is missing",
            hint="give the CRL of each CA",
        )
    detail = f"CRLs for {len(updates)} of {len(signer.chain) - 1} certificates"
    return Check("revocation", "not checked", detail), updates


@functools.lru_cache(maxsize=32)
def _crl(data: bytes) -> x509.Crl:
    return x509.Crl.from_bytes(data)


def _date(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
