# SPDX-License-Identifier: Apache-2.0
"""What AMD's, Intel's and NVIDIA's services say about the shared samples, from the files beside them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from confide.tees import fetch
from support import vendor_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    import pytest

    from confide.tees.fetch import Ask

Page = tuple[bytes, dict[str, str]]
RIMS = ("NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001")
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


def nvidia(folder: Path, log: list[str] | None = None) -> Ask:
    """NVIDIA's two services: RIMs by name, and the recorded response about the certificate in the question."""
    responses = [path.read_bytes() for path in sorted((folder / "ocsp").iterdir())]

    def ask(request: fetch.Request, /) -> fetch.Answer:
        if log is not None:
            log.append(request.url)
        if request.body is None:
            name = request.url.removeprefix("https://rim.attestation.nvidia.com/v1/rim/")
            assert name in RIMS
            xml = (folder / "rim" / f"{name}.xml").read_bytes()
            return fetch.Answer(json.dumps({"id": name, "rim": base64.b64encode(xml).decode()}).encode())
        assert request.url == "https://ocsp.ndis.nvidia.com/"
        assert request.content_type == "application/ocsp-request"
        # The hashes of the issuer and the serial number are the tail of a question, and stand in the response about it.
        asked = request.body[request.body.index(b"\x04\x30") :]
        return fetch.Answer(next(response for response in responses if asked in response))

    return ask
