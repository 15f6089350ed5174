# SPDX-License-Identifier: Apache-2.0
"""Is the report of an NVIDIA GPU or NVSwitch genuine? A pure function of report, endorsements, trust anchors and time.

Source: DMTF DSP0274, "Security Protocol and Data Model" 1.1; TCG, "DICE Attestation Architecture" 1.1; NVIDIA's attestation SDK,
whose checks these are. What a policy makes of the comparison with RIM documents is in ``appraise``.
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
from confide.errors import EndorsementsMissing, MalformedError, NotGenuine
from confide.tees.nvidia import endorse, wire
from confide.tees.nvidia.compare import RimComparison, compare
from confide.tees.nvidia.revocation import Revocation, check_chain

if TYPE_CHECKING:
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements

__all__ = ["NvidiaDetails", "authenticate"]


MAX_CERTIFICATES: Final = 64
MAX_CHAIN: Final = 7


@dataclass(frozen=True, slots=True)
class NvidiaDetails:
    """The authenticated facts of a report.

    ``kind`` is ``gpu`` or ``switch``; ``device_id`` is the serial number (hexadecimal) of the certificate of the device's own key,
    which no firmware update changes, ``ueid`` that of the firmware's key in decimal, as NVIDIA's verifiers give it. ``mode`` is
    ``spt``, ``mpt`` or ``ppcie``, None where the firmware does not say; ``protected_pcie`` likewise. ``attached`` says that the
    report came beside the evidence of a CPU's TEE.
    """

    kind: str
    architecture: str
    model: str
    device_id: str
    ueid: str
    udi: str
    driver_version: str | None
    vbios_version: str
    board: str | None
    fwid: bytes | None
    mode: str | None
    protected_pcie: bool | None
    debug: bool
    unfit: tuple[str, ...]
    device_nonce: bytes
    switch_pdis: tuple[bytes, ...]
    rim_names: tuple[tuple[str, str], ...]
    rim: RimComparison
    attached: bool


def authenticate(
    data: bytes,
    *,
    endorsements: Endorsements,
    anchors: tuple[TrustAnchor, ...],
    at: datetime,
    require_revocation: bool,
    platform: Claims | None = None,
) -> Claims:
    """Claims over the report in ``data``, or an exception.

    1. Parse: GET_MEASUREMENTS for all measurements with a signature, and the MEASUREMENTS that answer it; every length exact,
       zero bytes at the end allowed and reported (DSP0274, 10.11).
    2. Find the certificate of the device's firmware among the endorsements: not a CA's, with a DICE extension. Of several
       (of several devices) it is the one whose key verifies the signature.
    3. Signature: ECDSA P-384 with SHA-384 over everything before it, r and s big-endian.
    4. Chain: firmware, device, provisioner, ..., NVIDIA's device identity root, ECDSA throughout; the root is one of ``anchors``
       byte for byte; every certificate is valid at ``at``. Where the firmware's certificate repeats the device's key
       (CompositeDeviceID), that is the key of the certificate above it.
    5. Revocation: OCSP responses, where given, say that each CA of the chain is good. The firmware's certificate is issued by
       the device itself, and no responder knows it.
    6. Firmware: the FWID in the report, where there is one, equals the certificate's (DICE, FWID). Older firmware reports none.
    7. Kind: a report of a GPU is signed by the certificate of a GPU, that of a switch by a switch's.
    8. RIM: each document given for this driver or VBIOS is verified up to NVIDIA's RIM root and its values compared; the
       outcome is in ``details.rim``, for the policy to judge.

    Steps 3 to 7 are independent of each other and all run; what they find is raised together. A GPU's report names no platform, so
    that of ``platform`` only its presence matters; what binds the two is the nonce, which the Verifier compares. Raises MalformedError (1, 2, and
    endorsements that are no certificates, OCSP responses or RIM documents), NotGenuine (2 to 7), EndorsementsMissing (2, and 5
    if ``require_revocation``).
    """
    report = wire.decode_report(data)
    roots = _roots(anchors)
    signed = data[: report.signed_bytes]
    device, others = _find_device_certificate(report, signed, endorsements)
    found = Findings()
    found.run(lambda: _verify_signature(device.certificate, signed, report))
    chain = found.run(lambda: _verify_chain(device, others, roots, at))
    revocation: Revocation | None = None
    if chain is not None:
        # The firmware's certificate is skipped, and that of the device above it is asked about.
        revocation = found.run(
            lambda: check_chain(
                chain, endorsements, at, required=require_revocation, whose="the device", skip=1
            )
        )
    fwid = found.run(lambda: _check_firmware(device, report))
    found.run(lambda: _check_kind(device, report))
    found.raise_any()
    if chain is None or revocation is None or fwid is None:
        raise NotGenuine("chain_invalid", "a check gave no result", stage="endorsement")
    anchor = roots.device[chain[-1].der]
    names = endorse.rim_names(report, device.model)
    comparison = compare(
        report,
        product=device.model.name,
        names=names,
        endorsements=endorsements,
        roots=roots.rim(simulated=anchor.simulated),
        at=at,
        require_revocation=require_revocation,
    )
    checks = [
        Check("signature", "passed", "ECDSA P-384 with SHA-384"),
        Check("chain", "passed", "a pinned root, valid at the given time"),
        Check("revocation", "passed" if revocation.checked else "not checked", revocation.detail),
        fwid,
        *_rim_checks(comparison),
    ]
    if report.padding:
        checks.append(Check("padding", "passed", f"{report.padding} zero bytes after the report"))
    expires = [certificate.not_after for certificate in chain]
    expires += [] if revocation.until is None else [revocation.until]
    for document in comparison.documents:
        expires.append(document.expires)
        expires += [] if document.revocation.until is None else [document.revocation.until]
    return claims_.authenticated(
        tee="nvidia",
        simulated=anchor.simulated,
        report_data=report.request.nonce,
        measurements={str(one.index - 1): one.value for one in report.measurements},
        details=_details(report, device, chain, names, comparison, attached=platform is not None),
        checks=tuple(checks),
        expires=min(expires),
        chain=tuple(Voucher(one.subject, one.spki_sha256) for one in chain),
        unproven=_unproven(device, report),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Roots:
    """Pinned roots by what they stand for: an anchor named ``device`` or ``rim`` for one of both, any other name for both."""

    device: dict[bytes, TrustAnchor]
    manifests: dict[bytes, TrustAnchor]

    def rim(self, *, simulated: bool) -> tuple[x509.Certificate, ...]:
        """Roots of RIM documents; a simulated one counts only for a simulated device."""
        return tuple(
            _root(der) for der, anchor in self.manifests.items() if simulated or not anchor.simulated
        )

    @property
    def device_roots(self) -> tuple[x509.Certificate, ...]:
        return tuple(_root(der) for der in self.device)


@functools.lru_cache(maxsize=64)
def _root(der: bytes) -> x509.Certificate:
    return x509.Certificate.from_der(der, long_times=True)


@functools.lru_cache(maxsize=16)
def _roots(anchors: tuple[TrustAnchor, ...]) -> _Roots:
    # Simulated ones last: a root that stands in both kinds of anchor counts as simulated.
    of_nvidia = sorted((one for one in anchors if one.tee == "nvidia"), key=lambda anchor: anchor.simulated)
    roots = _Roots(
        {der: anchor for anchor in of_nvidia if anchor.name != "rim" for der in anchor.certificates},
        {der: anchor for anchor in of_nvidia if anchor.name != "device" for der in anchor.certificates},
    )
    if not roots.device:
        raise NotGenuine(
            "no_trusted_roots", "there is no trusted root for NVIDIA devices", stage="endorsement"
        )
    return roots


def _find_device_certificate(
    report: wire.Report, signed: bytes, endorsements: Endorsements
) -> tuple[endorse.DeviceCertificate, list[x509.Certificate]]:
    """Step 2: the certificate of the key that signed, and the other certificates given."""
    if len(endorsements.certificates) > MAX_CERTIFICATES:
        raise MalformedError(
            "limit_exceeded", f"more than {MAX_CERTIFICATES} certificates were given as endorsements"
        )
    given = [
        x509.Certificate.from_der(der, long_times=True) for der in dict.fromkeys(endorsements.certificates)
    ]
    leaves = sorted((one for one in given if endorse.is_device_certificate(one)), key=lambda one: one.der)
    others = [one for one in given if one.is_ca]
    if not leaves:
        raise EndorsementsMissing(
            "certificate",
            "the certificate of the device's firmware is missing",
            hint="NVML gives the chain with the report; give it with --endorsements",
        )
    # Only a report with several devices' certificates beside it has to be tried against each of them.
    right = leaves if len(leaves) == 1 else [one for one in leaves if _has_signed(one, signed, report)]
    return endorse.read_device_certificate((right or leaves)[0]), others


def _has_signed(certificate: x509.Certificate, signed: bytes, report: wire.Report) -> bool:
    try:
        _verify_signature(certificate, signed, report)
    except NotGenuine:
        return False
    return True


def _verify_signature(certificate: x509.Certificate, signed: bytes, report: wire.Report) -> None:
    """Step 3."""
    r, s = (int.from_bytes(part, "big") for part in (report.signature[:48], report.signature[48:]))
    try:
        certificate.verify_signature(signed, r, s, curve="p384", hash_name="sha384")
    except NotGenuine as error:
        leaf = error.code.partition(".")[2]
        hint = "the report was altered, or the certificates given are another device's"
        raise NotGenuine(leaf, error.message, hint=hint) from None


def _verify_chain(
    device: endorse.DeviceCertificate, others: list[x509.Certificate], roots: _Roots, at: datetime
) -> tuple[x509.Certificate, ...]:
    """Step 4."""
    digests = tuple(hashlib.sha256(one.der).digest() for one in (device.certificate, *others))
    known = _known(digests, tuple(roots.device))
    # Each path is read once and judged: another thread may put that of another time in its place meanwhile.
    chain = next((path for path, first, last in tuple(known) if first <= at <= last), ())
    if not chain:
        chain = x509.verify_chain(
            device.certificate,
            others,
            roots.device_roots,
            at=at,
            max_depth=MAX_CHAIN,
            signatures=frozenset({"ecdsa"}),
        )
        first = max(certificate.not_before for certificate in chain)
        last = min(certificate.not_after for certificate in chain)
        known[:] = [(chain, first, last)]
    if len(chain) < 3:
        raise NotGenuine(
            "chain_invalid",
            "the certificate of the device's firmware is not issued by a device",
            stage="endorsement",
        )
    if device.device_key is not None and device.device_key != chain[1].public_key_der:
        raise NotGenuine(
            "identity_mismatch",
            "the firmware's certificate names the key of another device than has issued it",
            stage="identity",
        )
    return chain


@functools.lru_cache(maxsize=256)
def _known(
    _digests: tuple[bytes, ...], _roots: tuple[bytes, ...]
) -> list[tuple[tuple[x509.Certificate, ...], datetime, datetime]]:
    """The memory of one question about a chain: the path found, and when all of it is valid, or nothing yet.

    Signatures do not change with time; validity is judged anew for each time that is asked about.
    """
    return []


def _check_firmware(device: endorse.DeviceCertificate, report: wire.Report) -> Check:
    """Step 6."""
    fwid = report.field("fwid")
    if fwid is None:
        return Check("firmware id", "not checked", "the report carries none; only its certificate does")
    if fwid != device.fwid:
        raise NotGenuine(
            "identity_mismatch",
            "the firmware in the report is not that of the certificate whose key signed it",
            hint="the certificates must be those that the device gave with this report: firmware updates change them",
            stage="identity",
        )
    return Check("firmware id", "passed", "the report's equals the certificate's")


def _check_kind(device: endorse.DeviceCertificate, report: wire.Report) -> None:
    """Step 7."""
    if device.model.kind != report.kind:
        raise NotGenuine(
            "identity_mismatch",
            "the report is of another kind of device than its certificate",
            stage="identity",
        )


def _rim_checks(comparison: RimComparison) -> list[Check]:
    """What the comparison established; a document that did not count leaves the step not checked."""
    if not comparison.complete:
        wrong = len(comparison.mismatched) + len(comparison.conflicts)
        detail = (
            f"{wrong} measurements differ from NVIDIA's documents"
            if wrong
            else "not every document that NVIDIA signs for this firmware was given and in force"
        )
        return [Check("rim", "not checked", detail)]
    found = [
        Check("rim", "passed", f"{len(comparison.matched)} measurements equal those in NVIDIA's documents")
    ]
    for document in comparison.documents:
        outcome = document.revocation
        found.append(
            Check(
                f"{document.kind} RIM revocation",
                "passed" if outcome.checked else "not checked",
                outcome.detail,
            )
        )
    return found


def _details(
    report: wire.Report,
    device: endorse.DeviceCertificate,
    chain: tuple[x509.Certificate, ...],
    names: dict[str, str],
    comparison: RimComparison,
    *,
    attached: bool,
) -> NvidiaDetails:
    board = [report.text(name) for name in ("project", "project_sku", "chip_sku")]
    pdis = report.field("switch_pdi") or b""
    return NvidiaDetails(
        kind=report.kind,
        architecture=device.model.architecture,
        model=device.model.name,
        device_id=f"{chain[1].serial:X}",
        ueid=device.ueid,
        udi=device.udi,
        driver_version=report.text("driver_version"),
        vbios_version=report.vbios_version or "",
        board=None if None in board else " ".join(part or "" for part in board),
        fwid=report.field("fwid"),
        mode=report.mode,
        protected_pcie=report.flag("protected_pcie_status"),
        debug=device.debug,
        unfit=device.unfit,
        device_nonce=report.nonce,
        switch_pdis=tuple(pdis[start : start + 8] for start in range(0, len(pdis), 8)),
        rim_names=tuple(names.items()),
        rim=comparison,
        attached=attached,
    )


def _unproven(device: endorse.DeviceCertificate, report: wire.Report) -> tuple[str, ...]:
    found = []
    if not device.model.proven:
        found.append(f"no report of {device.model.name} is among the samples that the tests verify")
    if report.mode in {"mpt", "ppcie"}:
        found.append(
            f"no genuine report of the mode {report.mode} is among the samples that the tests verify"
        )
    return tuple(found)
