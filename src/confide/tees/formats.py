# SPDX-License-Identifier: Apache-2.0
"""What is this file? Bundles of confide and the files of vendors, as Evidence and Endorsements.

Reading decides nothing about trust: what comes out goes to a Verifier.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from confide.attestation import schemes
from confide.attestation.evidence import (
    Endorsements,
    Evidence,
    EvidencePart,
    is_bundle,
    is_endorsements,
)
from confide.attestation.key_material import KeyMaterial, kid
from confide.crypto import x509
from confide.errors import ConfideError, ConfigurationError, MalformedError, NotAcceptable
from confide.tees._tcg import log as event_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["FORMATS", "explain", "read", "read_certificate_table", "read_endorsements"]

FORMATS: Final = ("auto", "bundle", *schemes.CPU, *schemes.DEVICES, "token", "snp-response")
MAX_EVIDENCE: Final = 1024 * 1024
MAX_FILE: Final = 4 * 1024 * 1024
MAX_FILES: Final = 64
SUFFIXES: Final = frozenset(
    {".pem", ".der", ".crt", ".cer", ".crl", ".json", ".xml", ".cbor", ".jwks", ".log"}
)

# An attestation report of SEV before SNP: 208 bytes, the usage and algorithm of its signature at 0x34 and 0x38 (AMD, "SEV
# API" 55766, ATTESTATION).
_SEV_BYTES: Final = 208
_SNP_REPORT_BYTES: Final = 1184
_SEV_USAGE: Final = frozenset({0x1001, 0x1002, 0x1003})
_SEV_ALGORITHM: Final = frozenset({0x0002, 0x0102})


def read(data: bytes, *, format: str = "auto") -> Evidence:  # noqa: A002 - the word on the command line
    """Evidence from a file's bytes.

    ``bundle`` is confide's own; the others are what a vendor's device or service gives: an SNP report, a quote, a COSE
    document, a TPM's quote or Azure's JSON around one, a GPU's report, a token. ``snp-response`` is the answer of the ioctl,
    whose header is taken off only when it is named. ``auto`` tells the rest apart. Raises MalformedError, and
    ``not_acceptable.sev_without_snp`` for a report of AMD SEV or SEV-ES.
    """
    if format not in FORMATS:
        raise ConfigurationError("format", "unknown evidence format", hint=f"known: {', '.join(FORMATS)}")
    if len(data) > MAX_EVIDENCE:
        raise MalformedError("limit_exceeded", f"the evidence is longer than {MAX_EVIDENCE // 1024} KiB")
    data = bytes(data)
    if format == "auto":
        format = _recognise(data)  # noqa: A001
    if format == "bundle":
        return Evidence.decode(data)
    if format == "snp-response":
        return read(_module("snp", "wire").decode_report_response(data), format="snp")
    if format == "tpm":
        azure = _module("tpm", "azure")
        if azure.recognises(data):
            read_azure: Evidence = azure.read_azure(data)
            return read_azure
    if format == "tdx":
        report = _module("tdx", "quote_report")
        if report.recognises(data):
            of_dstack: Evidence = report.read(data)
            _explain_part(of_dstack.platform)
            return of_dstack
    if format == "nvidia":
        collected = _module("nvidia", "collected")
        if collected.recognises(data):
            of_gpus: Evidence = collected.read(data)
            return of_gpus
    if format == "nitro":
        # Real documents come inside a file of dstack's, of which nothing but the document is signed or kept.
        data = _module("nitro", "wire").unframe(data)
    evidence = Evidence(EvidencePart(format, data))
    _explain_part(
        evidence.platform
    )  # A file that cannot be decoded is refused here, before anything is asked of it.
    return evidence


def _recognise(data: bytes) -> str:
    if is_bundle(data):
        return "bundle"
    for tee in schemes.PACKAGES:
        if _module(tee, "wire").recognises(data):
            return tee
    if _module("tpm", "azure").recognises(data):
        return "tpm"
    if _module("tdx", "quote_report").recognises(data):
        return "tdx"
    if _module("nvidia", "collected").recognises(data):
        return "nvidia"
    if _is_legacy_sev(data):
        raise NotAcceptable(
            "sev_without_snp",
            "this is a report of AMD SEV or SEV-ES without SNP",
            hint="memory has no integrity there and the guest cannot ask for a report itself: use a machine with SEV-SNP",
            stage="parse",
        )
    if len(data) == _SNP_REPORT_BYTES:
        return "snp"  # Of a version that is not known, which its decoder will say.
    raise MalformedError(
        "unknown_format",
        "this is no evidence that is known here",
        hint="name its format; `snp-response` is the answer of the ioctl, with its header of 32 bytes",
    )


def _is_legacy_sev(data: bytes) -> bool:
    usage, algorithm = data[0x34:0x38], data[0x38:0x3C]
    return (
        len(data) == _SEV_BYTES
        and int.from_bytes(usage, "little") in _SEV_USAGE
        and int.from_bytes(algorithm, "little") in _SEV_ALGORITHM
    )


def _module(tee: str, name: str) -> Any:
    """One of a TEE's modules, loaded when a file of that TEE comes up."""
    return importlib.import_module(f"{schemes.PACKAGES[tee]}.{name}")


def read_certificate_table(data: bytes) -> Endorsements:
    """The certificates that a host put beside an SNP report (the table of the extended request, ``auxblob``)."""
    wire = _module("snp", "wire")
    found = Endorsements()
    for entry in wire.read_certificate_table(data):
        if entry.guid in {wire.VCEK_GUID, wire.VLEK_GUID, wire.ASK_GUID, wire.ARK_GUID}:
            found = found.merge(Endorsements(tuple(one.der for one in x509.parse_certificates(entry.data))))
        elif entry.guid == wire.CRL_GUID:
            found = found.merge(Endorsements(crls=(x509.Crl.from_bytes(entry.data).der,)))
    return found


def read_endorsements(paths: Iterable[Path]) -> Endorsements:
    """What vendors say, from files and from folders of them: certificates and CRLs (PEM or DER), Intel's collateral (JSON),
    NVIDIA's RIMs (XML), OCSP responses (DER), key sets (JWKS), event logs, and what `confide endorse` writes.

    In a folder the files count whose names end in one of ``SUFFIXES``.
    """
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
    if is_endorsements(data):
        return Endorsements.decode(data)
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start in {b"{", b"["}:
        return Endorsements(documents=(EvidencePart(_json_format(data), data),))
    if start == b"<":
        return Endorsements(documents=(EvidencePart("nvidia-rim", data),))
    if _is_event_log(data):
        return Endorsements(documents=(EvidencePart("event-log", data),))
    if data[:1] != b"\x30":
        # What `confide endorse` writes holds both.
        certificates, crls = x509.parse_documents(data)
        return Endorsements(tuple(one.der for one in certificates), tuple(one.der for one in crls))
    return _read_der(data)


def _json_format(data: bytes) -> str:
    """Which of the JSON documents this is, by the first of its member names that tells; its reader judges the rest."""
    head = data[: 64 * 1024]
    for member, name in (
        (b'"tcb_info"', "intel-collateral"),
        (b'"tcbInfo"', "intel-tcb-info"),
        (b'"enclaveIdentity"', "intel-qe-identity"),
        (b'"kty"', "jwks"),
        (b'"imr"', "event-log"),
    ):
        if member in head:
            return name
    raise MalformedError("unknown_format", "a JSON file of endorsements is of no kind that is known here")


def _is_event_log(data: bytes) -> bool:
    # The first event of every crypto-agile log names its specification (TCG PC Client PFP, 10.4.5.1).
    return data[32:47] == b"Spec ID Event03"


def _read_der(data: bytes) -> Endorsements:
    try:
        return Endorsements((x509.Certificate.from_der(data).der,))
    except MalformedError as error:
        try:
            return Endorsements(crls=(x509.Crl.from_bytes(data).der,))
        except MalformedError:
            from confide.crypto import ocsp

            try:
                ocsp.Response.from_der(data)
            except ConfideError:
                # None of them: the first error says what is wrong with it as a certificate, which it more likely is.
                raise error from None
            return Endorsements(documents=(EvidencePart("ocsp", data),))


def explain(evidence: Evidence) -> Mapping[str, object]:
    """The fields of evidence for a person, as a tree of JSON values. Nothing of it is checked: whoever made the bytes may
    have written anything.
    """
    fields: dict[str, object] = {"platform": _explain_part(evidence.platform)}
    if evidence.devices:
        fields["devices"] = [_explain_part(part) for part in evidence.devices]
    if evidence.key_material is not None:
        fields["key material"] = _explain_key_material(evidence.key_material)
    if evidence.proof is not None:
        fields["nonce proof"] = f"leaf {evidence.proof.index} of {evidence.proof.size}"
    if evidence.manifest is not None:
        fields["manifest bytes"] = len(evidence.manifest)
    fields["endorsements"] = _explain_endorsements(evidence.endorsements)
    return fields


def _explain_part(part: EvidencePart) -> dict[str, object]:
    if part.format not in schemes.PACKAGES:
        raise MalformedError("unknown_format", "the evidence has a part of a format that is not known here")
    module = _module(part.format, "endorse" if part.format == "snp" else "wire")
    return {"format": part.format, "bytes": len(part.data), **module.explain(part.data)}


def _explain_endorsements(endorsements: Endorsements) -> dict[str, object]:
    certificates = [x509.Certificate.from_der(der) for der in endorsements.certificates]
    return {
        "certificates": [
            f"{one.subject}, {one.not_before:%Y-%m-%d} to {one.not_after:%Y-%m-%d}" for one in certificates
        ],
        "CRLs": len(endorsements.crls),
        "documents": [f"{part.format}, {len(part.data)} bytes" for part in endorsements.documents],
        **{
            f"event log {number}": event_log.read(part.data).explain()
            for number, part in enumerate(
                (part for part in endorsements.documents if part.format == "event-log"), start=1
            )
        },
    }


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
