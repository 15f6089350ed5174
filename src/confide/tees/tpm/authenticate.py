# SPDX-License-Identifier: Apache-2.0
"""Is a TPM's quote genuine? A pure function of evidence, endorsements, trust anchors, time, and the platform's claims.

Source: "Trusted Platform Module Library" (TCG, family 2.0, revision 1.59), Part 1, 31 (attestation), Part 3, 18.4 (TPM2_Quote).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation import claims as claims_
from confide.attestation.claims import Check
from confide.attestation.findings import Findings
from confide.crypto import signing
from confide.errors import MalformedError, NotGenuine
from confide.tees.tpm import boot, public, trust, wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.tees.tpm.endorse import GceInstance
    from confide.tees.tpm.hcl import RuntimeClaims

__all__ = ["TpmDetails", "authenticate"]


_ATTRIBUTES: Final = ("fixedTPM", "restricted", "sign")
_SCHEME_UNPROVEN: Final = "quotes signed with RSAPSS or ECDSA have been seen from the software TPM swtpm only; those of clouds are RSASSA"


@dataclass(frozen=True, slots=True)
class TpmDetails:
    """The authenticated facts of a quote.

    ``trust`` says why the attestation key is trusted: "platform" (the CPU's report names it, through Azure's HCL report),
    "certificate" (a chain to a pinned root) or "pinned" (by the policy). ``ak_sha256`` is over its SubjectPublicKeyInfo.
    ``pcrs`` are the values that the TPM signed, by bank and index. ``azure``, ``instance`` and ``boot_log`` are None where the
    evidence has nothing of the kind. Counters of keys outside the endorsement hierarchy are obfuscated by the TPM: they can be
    compared with earlier ones of the same key only.
    """

    trust: str
    ak_sha256: bytes
    scheme: str
    hash_name: str
    clock: wire.ClockInfo
    firmware_version: int
    pcrs: Mapping[str, Mapping[int, bytes]]
    azure: RuntimeClaims | None
    instance: GceInstance | None
    boot_log: boot.BootLog | None


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,
    platform: Claims | None,
) -> Claims:
    """Claims over the quote in ``data`` (the evidence part `tpm`, see ``wire``), or an exception.

    1. Parse: TPMS_ATTEST has TPM_GENERATED_VALUE and is a quote; at most 24 PCRs of known banks, each with its value, and no
       value beside them; the public area, the signature and the HCL report are well formed (Part 2, 10.12).
    2. Trust in the attestation key (AK) comes from one of: the platform's report, beside which there is no other way
       (``trust.from_platform``: Azure's four links); a certificate in a chain to a pinned root; a key that the policy pins.
    3. Signature: by that AK over all of TPMS_ATTEST; RSASSA, RSAPSS or ECDSA with SHA-256, SHA-384 or SHA-512 (Part 2, 11.3).
    4. Attributes, where the public area is given: restricted, sign and fixedTPM are set, the signature is of its scheme, and
       the qualified name that the TPM signed is that of this very area (Part 1, 16): a restricted key signs no forged quote.
    5. PCRs: pcrDigest is the digest over the values given, by the hash of the signing scheme (Part 3, 18.4); a quote that
       covers PCRs of SHA-1 only is refused.
    6. Event logs of a TPM among the endorsements are replayed; what they say counts where the registers agree (``boot``).

    extraData, clockInfo and the firmware version become claims. Steps 2 to 5 all run, and what they find is raised together.
    Raises MalformedError (1, 2, 6), NotGenuine (1 to 5), EndorsementsMissing (2, if ``require_revocation``).
    """
    evidence = wire.TpmEvidence.decode(data)
    attest = wire.decode_attest(evidence.attest)
    signature = wire.decode_signature(evidence.signature)
    area = None if evidence.ak is None else public.decode_public(evidence.ak)
    _check_values(attest, evidence)
    claimed = evidence.spki if area is None else area.spki()
    found = Findings()
    trusted = found.run(
        lambda: trust.find(
            evidence,
            claimed,
            platform=platform,
            anchors=anchors,
            endorsements=endorsements,
            at=at,
            require_revocation=require_revocation,
        )
    )
    key = claimed if trusted is None else trusted.key
    if key is not None:
        found.run(lambda: _verify_signature(key, signature, evidence.attest))
    if area is not None:
        found.run(lambda: _check_area(area, evidence.parent, attest, signature))
    found.run(lambda: _check_pcrs(attest, evidence, signature))
    found.raise_any()
    if trusted is None:
        raise NotGenuine("untrusted_root", "a check gave no result", stage="endorsement")
    log = boot.replay(endorsements, evidence.pcrs)
    return claims_.authenticated(
        tee="tpm",
        simulated=trusted.simulated,
        report_data=attest.extra_data,
        measurements=_measurements(evidence.pcrs),
        details=TpmDetails(
            trust=trusted.kind,
            ak_sha256=hashlib.sha256(trusted.key).digest(),
            scheme=signature.scheme,
            hash_name=signature.hash_name,
            clock=attest.clock_info,
            firmware_version=attest.firmware_version,
            pcrs=MappingProxyType({bank: evidence.pcrs[bank] for bank in sorted(evidence.pcrs)}),
            azure=trusted.azure,
            instance=trusted.instance,
            boot_log=log,
        ),
        checks=(
            *trusted.checks,
            Check("signature", "passed", f"{signature.scheme} with {signature.hash_name}"),
            Check("attributes", "passed", "a restricted signing key of this TPM; its name is signed")
            if area is not None
            else Check("attributes", "passed", "the platform names it as the TPM's attestation key")
            if trusted.kind == "platform"
            else Check("attributes", "not checked", "no public area of the key was given"),
            Check("pcrs", "passed", "the values given are those that the TPM signed"),
            *(
                ()
                if log is None
                else (Check("event log", "passed" if not log.differs else "not checked", log.summary),)
            ),
        ),
        expires=trusted.expires or datetime.max.replace(tzinfo=UTC),
        chain=trusted.chain,
        unproven=() if signature.scheme == "rsassa" else (_SCHEME_UNPROVEN,),
    )


def _check_values(attest: wire.Attest, evidence: wire.TpmEvidence) -> None:
    """Step 1, the values: exactly those that the quote selects."""
    selected = {(one.bank, index) for one in attest.selections for index in one.pcrs}
    given = {(bank, index) for bank, values in evidence.pcrs.items() for index in values}
    if selected != given:
        raise MalformedError(
            "non_canonical", "the PCR values in the evidence are not of the PCRs that the quote selects"
        )


def _verify_signature(key: bytes, signature: wire.Signature, message: bytes) -> None:
    """Step 3."""
    if signature.scheme == "rsassa":
        signing.verify_rsa_pkcs1(key, signature.values[0], message, hash_name=signature.hash_name)
    elif signature.scheme == "rsapss":
        signing.verify_rsa_pss(key, signature.values[0], message, hash_name=signature.hash_name)
    else:
        r, s = (int.from_bytes(value, "big") for value in signature.values)
        signing.verify_ecdsa(key, r, s, message, curve=signing.key_kind(key), hash_name=signature.hash_name)


def _check_area(
    area: public.Public, parent: bytes | None, attest: wire.Attest, signature: wire.Signature
) -> None:
    """Step 4."""
    if not all(area.has(name) for name in _ATTRIBUTES) or area.has("decrypt"):
        raise NotGenuine(
            "identity_mismatch",
            "the key is not a restricted signing key fixed to its TPM, so that it signs whatever looks like a quote",
            hint="quote with an attestation key: restricted, sign and fixedTPM set",
            stage="identity",
        )
    if area.scheme is None or (area.scheme.name, area.scheme.hash_name) != (
        signature.scheme,
        signature.hash_name,
    ):
        raise NotGenuine(
            "algorithm_mismatch", "the signature is not of the scheme that the attestation key has"
        )
    above = (
        [parent]
        if parent is not None
        else [handle.to_bytes(4, "big") for handle in public.HIERARCHIES.values()]
    )
    names = [public.qualified_name(one, area.name) for one in above]
    if not any(hmac.compare_digest(name, attest.qualified_signer) for name in names):
        raise NotGenuine(
            "identity_mismatch",
            "the public area given is not the one whose name the TPM signed",
            hint="for a key that is not a primary key, give its parent's qualified name too",
            stage="identity",
        )


def _check_pcrs(attest: wire.Attest, evidence: wire.TpmEvidence, signature: wire.Signature) -> None:
    """Step 5."""
    digest = wire.pcr_digest(attest.selections, evidence.pcrs, signature.hash_name)
    if not hmac.compare_digest(digest, attest.pcr_digest):
        raise NotGenuine("bad_signature", "the PCR values given are not those that the TPM signed")
    banks = {one.bank for one in attest.selections if one.pcrs}
    if banks == {"sha1"}:
        raise NotGenuine(
            "unsupported_algorithm", "the quote covers PCRs of the SHA-1 bank only, which proves nothing"
        )


def _measurements(pcrs: Mapping[str, Mapping[int, bytes]]) -> dict[str, bytes]:
    """The registers by name: ``pcr4`` in the SHA-256 bank, ``pcr4.sha384`` in another that counts."""
    return {
        f"pcr{index}" if bank == "sha256" else f"pcr{index}.{bank}": values[index]
        for bank, values in sorted(pcrs.items())
        if bank != "sha1"
        for index in sorted(values)
    }
