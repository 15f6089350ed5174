# SPDX-License-Identifier: Apache-2.0
"""What is this file? Bundles of confide and the files of vendors, as Evidence and Endorsements.

Reading decides nothing about trust: what comes out goes to a Verifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart, is_bundle
from confide.attestation.key_material import KeyMaterial, kid
from confide.crypto import x509
from confide.errors import ConfigurationError, MalformedError
from confide.tees.snp import endorse, wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["FORMATS", "endorsement_urls", "explain", "read", "read_certificate_table", "read_endorsements"]

FORMATS: Final = ("auto", "bundle", "snp", "snp-response")
MAX_EVIDENCE: Final = 1024 * 1024
MAX_FILE: Final = 4 * 1024 * 1024
MAX_FILES: Final = 64
SUFFIXES: Final = frozenset({".pem", ".der", ".crt", ".cer", ".crl"})


def read(data: bytes, *, format: str = "auto") -> Evidence:  # noqa: A002 - the word on the command line
    """Evidence from a file's bytes.

    ``bundle`` is confide's own, ``snp`` a raw report of 1184 bytes, ``snp-response`` the answer of the ioctl, whose header is
    taken off only when it is named. ``auto`` tells bundles and raw reports apart. Raises MalformedError.
    """
    if format not in FORMATS:
        raise ConfigurationError("format", "unknown evidence format", hint=f"known: {', '.join(FORMATS)}")
    if len(data) > MAX_EVIDENCE:
        raise MalformedError("limit_exceeded", f"the evidence is longer than {MAX_EVIDENCE // 1024} KiB")
    if format == "auto":
        format = _recognise(data)  # noqa: A001
    if format == "bundle":
        return Evidence.decode(data)
    report = wire.decode_report_response(data) if format == "snp-response" else bytes(data)
    wire.decode_report(report)
    return Evidence(EvidencePart("snp", report))


def _recognise(data: bytes) -> str:
    if is_bundle(data):
        return "bundle"
    # A report begins with its version as a little-endian word; so does the response, with its status, which is 0.
    if len(data) == wire.REPORT_BYTES or (
        data[1:4] == bytes(3) and data[:1] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    ):
        return "snp"
    raise MalformedError(
        "unknown_format",
        "this is no evidence that is known here",
        hint="name its format; `snp-response` is the answer of the ioctl, with its header of 32 bytes",
    )


def read_certificate_table(data: bytes) -> Endorsements:
    """The certificates that a host put beside an SNP report (the table of the extended request, ``auxblob``)."""
    found = Endorsements()
    for entry in wire.read_certificate_table(data):
        if entry.guid in {wire.VCEK_GUID, wire.VLEK_GUID, wire.ASK_GUID, wire.ARK_GUID}:
            found = found.merge(Endorsements(tuple(one.der for one in x509.parse_certificates(entry.data))))
        elif entry.guid == wire.CRL_GUID:
            found = found.merge(Endorsements(crls=(x509.Crl.from_bytes(entry.data).der,)))
    return found


def read_endorsements(paths: Iterable[Path]) -> Endorsements:
    """Certificates and CRLs, PEM or DER, from files and from folders (their files named .pem .der .crt .cer .crl)."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(
                inner for inner in path.iterdir() if inner.suffix.lower() in SUFFIXES and inner.is_file()
            )
        else:
            files.append(path)
    if len(files) > MAX_FILES:
        raise MalformedError("limit_exceeded", f"more than {MAX_FILES} files of endorsements were given")
    found = Endorsements()
    for file in files:
        found = found.merge(_read_endorsement(file))
    return found


def _read_endorsement(path: Path) -> Endorsements:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError:
        raise ConfigurationError(
            "endorsements", "a file of endorsements cannot be read", hint="check its path"
        ) from None
    if len(data) > MAX_FILE:
        raise MalformedError(
            "limit_exceeded", f"a file of endorsements is longer than {MAX_FILE // 1024} KiB"
        )
    if data[:1] != b"\x30":
        # What `confide endorse` writes holds both.
        certificates, crls = x509.parse_documents(data)
        return Endorsements(tuple(one.der for one in certificates), tuple(one.der for one in crls))
    try:
        return Endorsements((x509.Certificate.from_der(data).der,))
    except MalformedError as error:
        try:
            return Endorsements(crls=(x509.Crl.from_bytes(data).der,))
        except MalformedError:
            # Neither: the first error says what is wrong with it as a certificate, which it more likely is.
            raise error from None


def endorsement_urls(evidence: Evidence, *, product: str | None = None) -> tuple[str, ...]:
    """Where the vendor publishes what is needed to verify this evidence: the chip's certificate and the CRL."""
    if evidence.platform.format != "snp":
        raise MalformedError("unknown_format", "evidence of this TEE is not supported in this version")
    report = wire.decode_report(evidence.platform.data)
    address = endorse.certificate_url(report, product=product)
    line = address.split("/")[5]
    return (address, endorse.crl_url(line))


def explain(evidence: Evidence) -> Mapping[str, object]:
    """The fields of evidence for a person. Nothing of it is checked: whoever made the bytes may have written anything."""
    fields: dict[str, object] = {
        "format": evidence.platform.format,
        "platform bytes": len(evidence.platform.data),
    }
    if evidence.platform.format == "snp":
        fields |= _explain_snp(wire.decode_report(evidence.platform.data))
    fields |= {f"device {index}": part.format for index, part in enumerate(evidence.devices)}
    if evidence.key_material is not None:
        fields |= _explain_key_material(evidence.key_material)
    if evidence.proof is not None:
        fields["nonce proof"] = f"leaf {evidence.proof.index} of {evidence.proof.size}"
    if evidence.manifest is not None:
        fields["manifest bytes"] = len(evidence.manifest)
    for der in evidence.endorsements.certificates:
        certificate = x509.Certificate.from_der(der)
        fields[f"certificate {certificate.subject}"] = f"until {certificate.not_after:%Y-%m-%d}"
    fields["CRLs"] = len(evidence.endorsements.crls)
    return fields


def _explain_snp(report: wire.Report) -> dict[str, object]:
    policy, platform = wire.GuestPolicy(report.policy), wire.PlatformInfo(report.platform_info)
    key = {wire.KeyInfo.VCEK: "VCEK", wire.KeyInfo.VLEK: "VLEK"}.get(
        wire.KeyInfo(report.key_info).signing_key, "none"
    )
    fields: dict[str, object] = {
        "version": report.version,
        "signing key": key,
        "vmpl": report.vmpl,
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "guest policy": f"{report.policy:#x}: "
        + ", ".join(bit.name for bit in policy.BITS if policy.has(bit.name)),
        "platform": f"{report.platform_info:#x}: "
        + ", ".join(bit.name for bit in platform.BITS if platform.has(bit.name)),
        "guest_svn": report.guest_svn,
        "chip_id": report.chip_id.hex(),
        "report_id": report.report_id.hex(),
    }
    if isinstance(report, wire.ReportV2):
        return fields
    product = endorse.product_of_processor(report.cpuid_fam_id, report.cpuid_mod_id)
    fields["product"] = "unknown" if product is None else product.name
    if product is not None:
        tcb = endorse.read_tcb(report.reported_tcb, product).to_json()
        fields["reported TCB"] = ", ".join(f"{name} {level}" for name, level in tcb.items())
    if isinstance(report, wire.ReportV5):
        fields["mitigations"] = f"{report.launch_mit_vector:#x} at launch, {report.current_mit_vector:#x} now"
    return fields


def _explain_key_material(data: bytes) -> dict[str, object]:
    material = KeyMaterial.decode(data)
    return {
        "kid": kid(data).hex(),
        "purpose": material.purpose,
        "audience": material.audience,
        "service": f"{material.service.kind} {material.service.id}",
        "manifest": material.service.manifest.hex(),
        "instance": material.service.instance.hex(),
        "epoch": material.epoch,
        "issued at (claimed)": material.issued_at,
        "lifetime": material.lifetime,
        **{f"content {name}": digest.hex() for name, digest in material.content.items()},
    }
