# SPDX-License-Identifier: Apache-2.0
"""`confide endorse`: everything that vendors have to say about one piece of evidence, asked for and put together.

What comes back is as untrusted as what came with the evidence; a Verifier judges both alike. Two things cannot be asked for:
the certificate of a VLEK, which only the cloud provider has, and the PCK certificate of a quote that names its platform by an
encrypted PPID instead of carrying the certificate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto import ocsp, x509
from confide.errors import ConfigurationError, EndorsementsMissing, MalformedError
from confide.tees import fetch, pcs
from confide.tees.fetch import Request
from confide.tees.nitro import endorse as nitro
from confide.tees.nitro import wire as nitro_wire
from confide.tees.nvidia import endorse as nvidia
from confide.tees.nvidia import rim as nvidia_rim
from confide.tees.sgx import endorse as sgx
from confide.tees.snp import endorse as snp
from confide.tees.snp import wire as snp_wire
from confide.tees.tdx import endorse as tdx

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from confide.attestation.evidence import Evidence
    from confide.tees.fetch import Answer, Ask

__all__ = ["as_file", "collect", "expires"]

# Formats about which no vendor publishes anything per machine: their certificates travel inside.
_SELF_CONTAINED: Final = frozenset({"tpm", "token"})
_NITRO_DEPTH: Final = 8


def collect(
    evidence: Evidence,
    *,
    product: str | None = None,
    ask: Ask = fetch.ask,
    progress: Callable[[str], None] | None = None,
) -> Endorsements:
    """What vendors say about the platform and every device of ``evidence``.

    ``product`` names AMD's product line for reports that do not (version 2). ``progress`` is told each host before it is
    asked. Raises ``configuration.nothing_to_fetch`` where no vendor has anything to add, ``configuration.*`` where
    something else must be named first, and ``endorsements_missing.*`` for everything that was not answered.
    """

    def asked(request: Request, /) -> Answer:
        if progress is not None:
            progress(request.url.split("/")[2])
        return ask(request)

    found = Endorsements()
    for part in (evidence.platform, *evidence.devices):
        found = found.merge(_collect_part(part, evidence.endorsements, product, asked))
    if found == Endorsements():
        raise ConfigurationError(
            "nothing_to_fetch",
            "no vendor publishes anything that this evidence needs",
            hint="verify it as it is: its certificates travel inside",
        )
    return found


def _collect_part(part: EvidencePart, stapled: Endorsements, product: str | None, ask: Ask) -> Endorsements:
    match part.format:
        case "snp":
            return _snp(part.data, stapled, product, ask)
        case "sgx":
            return _intel(sgx.urls(part.data), ask)
        case "tdx":
            return _intel(tdx.urls(part.data), ask)
        case "nvidia":
            return _nvidia(part.data, stapled, ask)
        case "nitro":
            return _nitro(part.data, ask)
        case format_ if format_ in _SELF_CONTAINED:
            return Endorsements()
        case _:
            raise MalformedError("unknown_format", "evidence of this kind is not known here")


def _snp(data: bytes, stapled: Endorsements, product: str | None, ask: Ask) -> Endorsements:
    """The chip's certificate, unless it came with the evidence, and the CRL of its product line."""
    report = snp_wire.decode_report(data)
    key = _stapled_key(stapled)
    if key is not None:
        crl = ask(Request(snp.crl_url(key.product.name, kind=key.kind), leaf="crl"))
        return Endorsements(crls=(_crl(crl),))
    address = snp.certificate_url(report, product=product)
    certificate = ask(Request(address))
    crl = ask(Request(snp.crl_url(address.split("/")[5]), leaf="crl"))
    try:
        der = x509.Certificate.from_der(certificate.body).der
    except MalformedError as error:
        raise _other_document("certificate", "AMD's service") from error
    return Endorsements((der,), (_crl(crl),))


def _stapled_key(stapled: Endorsements) -> snp.KeyCertificate | None:
    for der in stapled.certificates:
        certificate = x509.Certificate.from_der(der, long_times=True)
        if snp.is_key_certificate(certificate):
            return snp.read_key_certificate(certificate)
    return None


def _intel(urls: tuple[str, ...], ask: Ask) -> Endorsements:
    """TCB information, QE identity and both CRLs, as one document."""
    collateral = pcs.fetch_collateral(pcs.questions(urls), ask)
    return Endorsements(documents=(EvidencePart("intel-collateral", collateral),))


def _nitro(data: bytes, ask: Ask) -> Endorsements:
    """The CRLs that AWS's certificates name, once the chain is seen to be AWS's: evidence does not choose whom we ask."""
    document = nitro_wire.decode_document(nitro_wire.unframe(data))
    leaf, *others = (x509.Certificate.from_der(one) for one in (document.certificate, *document.cabundle))
    roots = tuple(x509.Certificate.from_der(one) for anchor in nitro.anchors() for one in anchor.certificates)
    x509.verify_chain(leaf, tuple(others), roots, at=leaf.not_before, max_depth=_NITRO_DEPTH)
    return Endorsements(crls=tuple(_crl(ask(Request(url, leaf="crl"))) for url in nitro.urls(data)))


def _nvidia(data: bytes, stapled: Endorsements, ask: Ask) -> Endorsements:
    """The RIMs of driver and VBIOS, and what the responder says about the CAs above the device's key and the RIMs' signers."""
    documents = []
    certificates = [one for one in stapled.certificates if _is_nvidias(one)]
    for url in nvidia.urls(data, tuple(certificates)):
        answer = ask(Request(url, leaf="rim"))
        try:
            xml = nvidia.read_rim_answer(answer.body)
            certificates += [one.der for one in nvidia_rim.parse(xml).certificates]
        except MalformedError as error:
            raise _other_document("rim", "NVIDIA's RIM service") from error
        documents.append(EvidencePart("nvidia-rim", xml))
    for question in nvidia.ocsp_questions(tuple(dict.fromkeys(certificates))):
        answer = ask(
            Request(question.url, body=question.body, content_type="application/ocsp-request", leaf="ocsp")
        )
        try:
            response = ocsp.Response.from_der(answer.body)
        except MalformedError as error:
            raise _other_document("ocsp", "NVIDIA's OCSP responder") from error
        documents.append(EvidencePart("ocsp", response.der))
    return Endorsements(documents=tuple(dict.fromkeys(documents)))


def _is_nvidias(der: bytes) -> bool:
    """Certificates of a CPU beside the GPU are no business of NVIDIA's responder."""
    return "NVIDIA" in x509.Certificate.from_der(der, long_times=True).issuer


def _crl(answer: Answer) -> bytes:
    try:
        return x509.Crl.from_bytes(answer.body).der
    except MalformedError as error:
        raise _other_document("crl", "the vendor's service") from error


def _other_document(leaf: str, who: str) -> EndorsementsMissing:
    return EndorsementsMissing(
        leaf,
        f"{who} answered with something other than the document that was asked for",
        hint="try again later, or give the documents with --endorsements",
    )


def as_file(endorsements: Endorsements) -> bytes:
    """What `confide endorse` prints: PEM where certificates and CRLs are all there is, the CBOR of ``Endorsements`` else."""
    if endorsements.documents:
        return endorsements.encode()
    return fetch.pem_text(endorsements.certificates, endorsements.crls).encode("ascii")


def expires(_: Request, answer: Answer) -> datetime | None:
    """Until when an answer is good by its own word; None for one that says nothing or cannot be read, which is not cached."""
    for read in (_certificate_end, _crl_end, _tcb_info_end, _identity_end, _ocsp_end, _rim_end):
        try:
            return read(answer.body)
        except MalformedError:
            continue
    return None


def _certificate_end(body: bytes) -> datetime:
    return x509.Certificate.from_der(body).not_after


def _crl_end(body: bytes) -> datetime | None:
    return x509.Crl.from_bytes(body).next_update


def _tcb_info_end(body: bytes) -> datetime:
    return pcs.next_update(body, "tcbInfo")


def _identity_end(body: bytes) -> datetime:
    return pcs.next_update(body, "enclaveIdentity")


def _ocsp_end(body: bytes) -> datetime | None:
    ends = [entry.next_update for entry in ocsp.Response.from_der(body).entries]
    return min((end for end in ends if end is not None), default=None)


def _rim_end(body: bytes) -> datetime:
    return min(one.not_after for one in nvidia_rim.parse(nvidia.read_rim_answer(body)).certificates)
