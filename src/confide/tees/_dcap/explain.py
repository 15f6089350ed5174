# SPDX-License-Identifier: Apache-2.0
"""Quotes as readable trees for `confide inspect`. Nothing here is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.errors import ConfideError
from confide.tees._dcap import pck

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.crypto import x509
    from confide.tees._dcap.quote import EnclaveReport, Quote

__all__ = ["enclave", "tree"]

_CERTIFICATION = {
    1: "PPID in the clear",
    2: "PPID encrypted to a key of 2048 bits",
    3: "PPID encrypted to a key of 3072 bits",
    4: "PCK certificate",
    5: "chain of the PCK certificate",
}


def enclave(report: EnclaveReport, flags: tuple[str, ...] | None = None) -> dict[str, object]:
    """The body of an enclave's report; ``flags`` are the names of the attributes that are set, where the caller knows them."""
    named = {} if flags is None else {"set": list(flags)}
    return {
        "cpusvn": report.cpusvn.hex(),
        "miscselect": f"{report.miscselect:#010x}",
        "attributes": {"flags": f"{report.flags:#018x}", **named, "xfrm": f"{report.xfrm:#018x}"},
        "mrenclave": report.mrenclave.hex(),
        "mrsigner": report.mrsigner.hex(),
        "isvprodid": report.isvprodid,
        "isvsvn": report.isvsvn,
        "isvextprodid": report.isvextprodid.hex(),
        "configid": report.configid.hex(),
        "configsvn": report.configsvn,
        "isvfamilyid": report.isvfamilyid.hex(),
        "report data": report.report_data.hex(),
    }


def tree(quote: Quote, body: Mapping[str, object]) -> dict[str, object]:
    """A whole quote around ``body``, which is the report that the TEE explains itself."""
    header = quote.header
    found: dict[str, object] = {
        "quote version": header.version,
        "attestation key": "ECDSA P-256",
        "user data": header.user_data.hex(),
        **body,
        "attestation public key": quote.attestation_key.hex(),
        "quoting enclave": {
            **enclave(quote.qe_report),
            "authentication data": quote.qe_auth_data.hex(),
        },
        "certification": {
            "type": quote.certification_type,
            "meaning": _CERTIFICATION[quote.certification_type],
            **_certification(quote),
        },
        "zero bytes after the end": quote.padding,
    }
    if quote.unproven:
        found["unproven on real bytes"] = "; ".join(quote.unproven)
    return found


def _certification(quote: Quote) -> dict[str, object]:
    if quote.certification_type != 5:
        return {"data": quote.certification_data.hex()}
    try:
        certificates = pck.read_chain(quote.certification_data)
    except ConfideError as error:
        return {"unreadable": error.message}
    return {
        f"certificate {index}": _certificate(certificate) for index, certificate in enumerate(certificates)
    }


def _certificate(certificate: x509.Certificate) -> dict[str, object]:
    found: dict[str, object] = {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": f"{certificate.serial:x}",
        "not before": certificate.not_before.isoformat(),
        "not after": certificate.not_after.isoformat(),
        "key sha256": certificate.spki_sha256.hex(),
    }
    if pck.is_pck(certificate):
        try:
            platform = pck.read_pck(certificate)
        except ConfideError as error:
            found["sgx extension"] = {"unreadable": error.message}
        else:
            found["sgx extension"] = {
                "fmspc": platform.fmspc.hex(),
                "pceid": platform.pceid.hex(),
                "ppid": platform.ppid.hex(),
                "cpusvn": platform.cpusvn.hex(),
                "pcesvn": platform.pcesvn,
                "type": platform.sgx_type,
                "platform instance id": None
                if platform.platform_instance_id is None
                else platform.platform_instance_id.hex(),
            }
    return found
