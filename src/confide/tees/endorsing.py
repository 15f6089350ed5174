# SPDX-License-Identifier: Apache-2.0
"""`confide endorse`: everything that vendors have to say about one piece of evidence, asked for and put together.

What comes back is as untrusted as what came with the evidence; a Verifier judges both alike. Two things cannot be asked for:
the certificate of a VLEK, which only the cloud provider has, and the PCK certificate of a quote that names its platform by an
encrypted PPID instead of carrying the certificate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confide.attestation.evidence import Endorsements, EvidencePart
from confide.crypto import x509
from confide.errors import ConfigurationError, EndorsementsMissing, MalformedError
from confide.tees import fetch, pcs
from confide.tees._dcap import pck, quote
from confide.tees.fetch import Request
from confide.tees.snp import endorse as snp
from confide.tees.snp import wire as snp_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from confide.attestation.evidence import Evidence
    from confide.tees.fetch import Answer, Ask

__all__ = ["as_file", "collect", "expires"]

# Formats about which no vendor publishes anything per machine: their certificates travel inside.
_SELF_CONTAINED: Final = frozenset({"nitro", "tpm", "token"})
_PCK_CHAIN: Final = 5
_CAS: Final[Mapping[str, pcs.Ca]] = {
    "CN=Intel SGX PCK Processor CA": "processor",
    "CN=Intel SGX PCK Platform CA": "platform",
}


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
        case "sgx" | "tdx":
            return _intel(part.format, part.data, ask)
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
        certificate = x509.Certificate.from_der(der)
        if snp.is_key_certificate(certificate):
            return snp.read_key_certificate(certificate)
    return None


def _intel(tee: pcs.Tee, data: bytes, ask: Ask) -> Endorsements:
    """TCB information, QE identity and both CRLs, as one document."""
    parsed = quote.decode(data, {"sgx": quote.SGX, "tdx": quote.TDX}[tee])
    if parsed.certification_type != _PCK_CHAIN:
        raise ConfigurationError(
            "endorsement",
            "this quote names its platform by an encrypted identifier, for which nothing can be asked without Intel's key",
            hint="make quotes with the PCK certificate in them: certification data of type 5",
        )
    chain = pck.read_chain(parsed.certification_data)
    leaf = next((one for one in chain if pck.is_pck(one)), None)
    if leaf is None:
        raise MalformedError("unknown_format", "the quote's certificates have no PCK certificate among them")
    ca = _CAS.get(leaf.issuer.split(",")[0])
    if ca is None:
        raise ConfigurationError(
            "endorsement",
            "the PCK certificate is of a CA that Intel's service does not know",
            hint="evidence of a simulated TEE is verified with the simulator's own collateral",
        )
    asked = pcs.questions(tee, fmspc=pck.read_pck(leaf).fmspc, ca=ca)
    return Endorsements(documents=(EvidencePart("intel-collateral", pcs.fetch_collateral(asked, ask)),))


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
    for read in (_certificate_end, _crl_end, _tcb_info_end, _identity_end):
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
