# SPDX-License-Identifier: Apache-2.0
"""What AMD's, Intel's and NVIDIA's services say about the shared samples, from the files beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from confide.tees import fetch
from support import vendor_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.server import BaseHTTPRequestHandler

    import pytest

    from confide.tees.fetch import Ask

Page = tuple[bytes, dict[str, str]]
HOSTS = tuple(sorted(fetch.ALLOWED_HOSTS))


def pcs_pages(tee: str, fmspc: str, ca: str, collateral: Mapping[str, Any]) -> dict[str, Page]:
    """Intel's answers, by host and path, of which the collateral document was once made."""
    api = "api.trustedservices.intel.com"

    def signed(name: str, key: str) -> bytes:
        return f'{{"{name}":{collateral[key]},"signature":"{collateral[key + "_signature"]}"}}'.encode()

    return {
        f"{api}/{tee}/certification/v4/tcb?fmspc={fmspc}": (
            signed("tcbInfo", "tcb_info"),
            {"TCB-Info-Issuer-Chain": quote(collateral["tcb_info_issuer_chain"])},
        ),
        f"{api}/{tee}/certification/v4/qe/identity": (
            signed("enclaveIdentity", "qe_identity"),
            {"SGX-Enclave-Identity-Issuer-Chain": quote(collateral["qe_identity_issuer_chain"])},
        ),
        f"{api}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": (
            bytes.fromhex(collateral["pck_crl"]),
            {"SGX-PCK-CRL-Issuer-Chain": quote(collateral["pck_crl_issuer_chain"])},
        ),
        "certificates.trustedservices.intel.com/IntelSGXRootCA.der": (
            bytes.fromhex(collateral["root_ca_crl"]),
            {},
        ),
    }


def answering(pages: Mapping[str, Page]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers with the page of the host and path that were asked for, or with 404."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        page = pages.get(f"{handler.headers['host']}{handler.path}")
        if page is None:
            vendor_service.respond(404, b"<html>not here</html>")(handler)
        else:
            handler.send_response(200)
            for name, value in page[1].items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(page[0])))
            handler.end_headers()
            handler.wfile.write(page[0])

    return answer


def asker(service: vendor_service.Service, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The real getter with its real list of hosts, led to ``service``."""
    vendor_service.reached(service, monkeypatch)

    def ask(request: fetch.Request, /) -> fetch.Answer:
        return fetch.ask(request, timeout=10, transport=vendor_service.transport())

    return ask


def serving(pages: Mapping[str, Page]) -> Any:
    """A service that is every vendor at once."""
    return vendor_service.serving(answering(pages), hosts=HOSTS)


def in_memory(pages: Mapping[str, Page], log: list[str] | None = None) -> Ask:
    """The same answers without a network, for tests that are not about it."""

    def ask(request: fetch.Request, /) -> fetch.Answer:
        parts = urlsplit(request.url)
        address = request.url.removeprefix("https://")
        if log is not None:
            log.append(request.url)
        if parts.scheme != "https" or address not in pages:
            raise fetch._failed(request, "the vendor's service did not answer with a document")
        body, headers = pages[address]
        lower = {name.lower(): value for name, value in headers.items()}
        return fetch.Answer(body, {name: lower[name] for name in request.headers})

    return ask


def json_of(document: bytes) -> Any:
    return json.loads(document)


__all__ = ["HOSTS", "answering", "asker", "in_memory", "json_of", "pcs_pages", "serving"]
