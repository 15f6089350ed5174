# SPDX-License-Identifier: Apache-2.0
"""Where Intel's Provisioning Certification Service (version 4) has the collateral of a quote. Nothing here asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from confide.errors import EndorsementsMissing, MalformedError
from confide.tees._dcap import chain, pck

if TYPE_CHECKING:
    from confide.tees._dcap.quote import Quote

__all__ = ["ROOT_CRL", "SERVICE", "urls"]

SERVICE: Final = "https://api.trustedservices.intel.com"
ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_CAS: Final = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}


def urls(quote: Quote, tee: str) -> tuple[str, ...]:
    """The addresses of TCB info, enclave identity, the PCK CA's CRL and the root's, in this order; ``tee`` is "sgx" or "tdx".

    Only FMSPC and the kind of CA come from the quote, each in its own form, so that an address is never of its choosing.
    Raises ``endorsements_missing.certificate`` for a quote that does not hold its PCK certificate.
    """
    if quote.certification_type != pck.CHAIN_TYPE:
        raise EndorsementsMissing(
            "certificate",
            "the PCK certificate is not embedded in the quote, so that its platform is not known",
            hint="ask the cloud provider for the PCK certificate, and give it with --endorsements",
        )
    certificates = [one for one in pck.read_chain(quote.certification_data) if pck.is_pck(one)]
    if len(certificates) != 1:
        raise MalformedError("unknown_format", "the quote does not hold exactly one PCK certificate")
    fmspc = pck.read_pck(certificates[0]).fmspc.hex()
    authority = [ca for name, ca in _CAS.items() if chain.issuer_is_named(certificates[0], name)]
    if len(authority) != 1:
        raise MalformedError("unknown_format", "the PCK certificate is of neither of Intel's two PCK CAs")
    return (
        f"{SERVICE}/{tee}/certification/v4/tcb?fmspc={fmspc}",
        f"{SERVICE}/{tee}/certification/v4/qe/identity",
        f"{SERVICE}/sgx/certification/v4/pckcrl?ca={authority[0]}&encoding=der",
        ROOT_CRL,
    )
