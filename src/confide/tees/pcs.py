# SPDX-License-Identifier: Apache-2.0
"""Intel's provisioning certification service: the answers about a quote as one collateral document.

The document has the field names that DCAP verifiers share: the texts that Intel signed byte for byte, CRLs as hex, issuer
chains as PEM. Nothing here judges a signature; ``tees.sgx`` and ``tees.tdx`` do. Source: Intel SGX and TDX
Provisioning Certification Service API, version 4.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from confide.crypto import x509
from confide.errors import EndorsementsMissing, MalformedError
from confide.tees.fetch import Answer, Ask, Request
from confide.wire import strict_json

__all__ = ["Questions", "collateral", "fetch_collateral", "next_update", "questions"]

MAX_DOCUMENT: Final = 512 * 1024
_SIGNATURE = re.compile(rb',"signature":"([0-9a-f]{128})"}\s*', re.ASCII)


@dataclass(frozen=True, slots=True)
class Questions:
    """The four requests of one quote, each with the header that holds the chain of its signer."""

    tcb_info: Request
    identity: Request
    pck_crl: Request
    root_crl: Request


def questions(urls: tuple[str, ...]) -> Questions:
    """What to ask for at the addresses that ``endorse.urls`` of ``tees.sgx`` and ``tees.tdx`` name: TCB information, the quoting
    enclave's identity, the CRL of the CA that issued the PCK certificate, and the root's CRL.
    """
    tcb_info, identity, pck_crl, root_crl = urls
    return Questions(
        tcb_info=Request(tcb_info, ("tcb-info-issuer-chain",), leaf="collateral"),
        identity=Request(identity, ("sgx-enclave-identity-issuer-chain",), leaf="collateral"),
        pck_crl=Request(pck_crl, ("sgx-pck-crl-issuer-chain",), leaf="crl"),
        root_crl=Request(root_crl, leaf="crl"),
    )


def fetch_collateral(asked: Questions, ask: Ask) -> bytes:
    """Ask all four, and put what came into one document. Raises ``endorsements_missing.*``, also for answers of another form."""
    answers = [ask(request) for request in (asked.tcb_info, asked.identity, asked.pck_crl, asked.root_crl)]
    try:
        return collateral(*answers)
    except MalformedError as error:
        raise EndorsementsMissing(
            "collateral",
            "Intel's service answered with something other than the documents that were asked for",
            hint="try again later, or give the collateral with --endorsements",
        ) from error


def collateral(tcb_info: Answer, identity: Answer, pck_crl: Answer, root_crl: Answer) -> bytes:
    """The collateral document of four answers; ``malformed`` if one of them does not have its form."""
    signed_tcb, tcb_signature = _signed(tcb_info.body, "tcbInfo", "TCB information")
    signed_identity, identity_signature = _signed(identity.body, "enclaveIdentity", "QE identity")
    document = {
        "pck_crl_issuer_chain": _chain(pck_crl, "sgx-pck-crl-issuer-chain"),
        "root_ca_crl": x509.Crl.from_bytes(root_crl.body).der.hex(),
        "pck_crl": x509.Crl.from_bytes(pck_crl.body).der.hex(),
        "tcb_info_issuer_chain": _chain(tcb_info, "tcb-info-issuer-chain"),
        "tcb_info": signed_tcb,
        "tcb_info_signature": tcb_signature,
        "qe_identity_issuer_chain": _chain(identity, "sgx-enclave-identity-issuer-chain"),
        "qe_identity": signed_identity,
        "qe_identity_signature": identity_signature,
    }
    return json.dumps(document).encode("ascii")


def next_update(body: bytes, name: Literal["tcbInfo", "enclaveIdentity"]) -> datetime:
    """Until when a signed document says that it is good."""
    text, _ = _signed(body, name, "Intel's document")
    value = strict_json.decode(text.encode(), what="Intel's document", max_size=MAX_DOCUMENT)
    until = value.get("nextUpdate") if isinstance(value, dict) else None
    try:
        return datetime.strptime(str(until), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise MalformedError("non_canonical", "Intel's document does not say until when it is good") from None


def _signed(body: bytes, name: str, what: str) -> tuple[str, str]:
    """The text that Intel signed, cut out byte for byte, and its signature as hex.

    The signature is over the text as it was sent, so that parsing and writing it again would lose it.
    """
    start = f'{{"{name}":'.encode()
    end = _SIGNATURE.search(body, max(0, len(body) - 256))
    if len(body) > MAX_DOCUMENT or not body.startswith(start) or end is None or end.end() != len(body):
        raise MalformedError("unknown_format", f"{what} does not have the form that Intel's service gives it")
    text = body[len(start) : end.start()]
    if not isinstance(strict_json.decode(text, what=what, max_size=MAX_DOCUMENT), dict):
        raise MalformedError("unknown_format", f"{what} is not a JSON object")
    return text.decode("utf-8"), end[1].decode("ascii")


def _chain(answer: Answer, header: str) -> str:
    """The PEM chain that the service puts percent-encoded into a header."""
    pem = unquote_to_bytes(answer.headers[header])
    x509.parse_pem(pem)
    return pem.decode("ascii")
