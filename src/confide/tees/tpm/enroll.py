# SPDX-License-Identifier: Apache-2.0
"""Make sure that an attestation key (AK) lives in a TPM that its maker certified, before a policy pins it.

The AK's own statements prove nothing yet. The verifier encrypts a secret to the TPM's endorsement key (EK), which the maker
certified, together with the AK's name; the TPM gives the secret only if it holds an object of that name, and the name covers the
attributes. Source: "Trusted Platform Module Library", Part 1, 24; TCG EK Credential Profile, 2.4; TCG "TPM 2.0 Keys for Device
Identity and Attestation", 5. One protocol run, in which every message may be forged but the answer:

    machine: Device.enrollment() -> Enrollment          owner: challenge(enrollment, ...) -> Challenge
    machine: Device.activate(challenge.credential)      owner: challenge.confirm(answer) -> what to pin as `ak`
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from confide.crypto import credential as credential_
from confide.crypto import x509
from confide.errors import MalformedError, NotGenuine
from confide.tees.tpm import endorse, public
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor

__all__ = ["Challenge", "Enrollment", "challenge", "ek_template"]

MAX_CERTIFICATES: Final = 8
_MAX: Final = 64 * 1024
_SECRET: Final = 32
_AK: Final = ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign")
_EK: Final = ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "adminWithPolicy", "restricted", "decrypt")
_EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_SIGNATURES: Final = frozenset({"ecdsa", "rsa-pss", "rsa-pkcs1"})


def ek_template() -> bytes:
    """TCG's template L-1 of an endorsement key: RSA-2048, used with the policy PolicySecret(endorsement) only."""
    return public.encode_public(
        attributes=public.attributes(*_EK),
        scheme=None,
        unique=bytes(256),
        auth_policy=_EK_POLICY,
        storage=True,
    )


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What a machine says about its keys, none of it believed: public areas, and the EK's certificates with those above it."""

    ek: bytes
    ak: bytes
    certificates: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Deterministic CBOR."""
        return cbor.encode({"ek": self.ek, "ak": self.ak, "certificates": list(self.certificates)})

    @classmethod
    def decode(cls, data: bytes) -> Enrollment:
        """Read what ``encode`` wrote; MalformedError for anything else."""
        what = "TPM enrollment"
        fields = Fields(cbor.decode(data, what=what, max_size=_MAX, max_depth=3), what)
        ek, ak = (fields.bytes_(name, max_length=public.MAX_PUBLIC) for name in ("ek", "ak"))
        certificates = fields.list_("certificates", MAX_CERTIFICATES)
        fields.end()
        if any(not isinstance(one, bytes) for one in certificates):
            raise MalformedError("non_canonical", f"{what}: a certificate that is not bytes")
        return cls(ek, ak, tuple(certificates))


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge to one machine: what to send, and what is kept."""

    credential: tuple[bytes, bytes]
    fingerprint: bytes
    _secret: bytes = field(repr=False)

    def confirm(self, answer: bytes) -> bytes:
        """SHA-256 of the AK's SubjectPublicKeyInfo, for `ak` in a policy; ``not_genuine.identity_mismatch`` for a wrong answer."""
        if not hmac.compare_digest(answer, self._secret):
            raise NotGenuine(
                "identity_mismatch",
                "the TPM did not show that it holds the attestation key",
                stage="identity",
            )
        return self.fingerprint

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a challenge is neither copied nor serialised")


def challenge(
    enrollment: Enrollment,
    *,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    random: Callable[[int], bytes],
) -> Challenge:
    """A challenge for the keys of ``enrollment``, made anew for each run.

    1. The EK is TCG's L-1, to the letter but for its modulus; the AK is a restricted signing key that this TPM made and keeps.
    2. A certificate for exactly this EK, for encryption, leads to a root of ``anchors`` (the TPM's maker, or Google's for its
       virtual machines), every certificate valid at ``at``.
    3. A fresh secret is encrypted to the EK under the AK's name.

    Raises MalformedError and NotGenuine.
    """
    ek, ak = public.decode_public(enrollment.ek), public.decode_public(enrollment.ak)
    template = public.decode_public(ek_template())
    if (
        ek.kind != "rsa"
        or enrollment.ek[: -len(ek.unique)] != ek_template()[: -len(template.unique)]
        or len(ek.unique) != len(template.unique)
    ):
        raise NotGenuine(
            "identity_mismatch", "the endorsement key is not one of TCG's profile L-1", stage="identity"
        )
    if not all(ak.has(name) for name in _AK) or ak.has("decrypt") or ak.scheme is None:
        raise NotGenuine(
            "identity_mismatch",
            "the key is not a restricted signing key that its TPM made and keeps",
            hint="quote with an attestation key: restricted, sign, fixedTPM and fixedParent set",
            stage="identity",
        )
    key = ek.spki()
    _check_certificate(key, enrollment.certificates, anchors, at)
    secret = random(_SECRET)
    made = credential_.make_credential(key, ak.name, secret, random=random)
    return Challenge(made, hashlib.sha256(ak.spki()).digest(), secret)


def _check_certificate(
    key: bytes, given: tuple[bytes, ...], anchors: tuple[TrustAnchor, ...], at: datetime
) -> None:
    """Step 2."""
    pinned = [
        x509.Certificate.from_der(der)
        for anchor in anchors
        if anchor.tee == "tpm"
        for der in anchor.certificates
    ]
    roots = [one for one in pinned if one.subject_der == one.issuer_der]
    if not roots:
        raise NotGenuine(
            "no_trusted_roots", "there is no root of a TPM's maker to trust", stage="endorsement"
        )
    certificates = [x509.Certificate.from_der(der) for der in given[:MAX_CERTIFICATES]]
    leaves = [one for one in certificates if one.public_key_der == key]
    if not leaves:
        raise NotGenuine(
            "untrusted_root", "no certificate was given for the endorsement key", stage="endorsement"
        )
    if leaves[0].key_usage is None:
        raise NotGenuine("wrong_usage", "the endorsement key's certificate names no use", stage="endorsement")
    x509.verify_chain(
        leaves[0],
        [*(one for one in pinned if one not in roots), *certificates],
        roots,
        at=at,
        allowed_critical=frozenset({endorse.OID_SUBJECT_ALT_NAME}),
        signatures=_SIGNATURES,
        usage="key_encipherment",
    )
