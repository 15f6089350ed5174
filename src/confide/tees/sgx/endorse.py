# SPDX-License-Identifier: Apache-2.0
"""What Intel says about SGX platforms: the pinned root, and where to ask for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.tees._dcap import chain, service
from confide.tees.sgx import wire

if TYPE_CHECKING:
    from confide.attestation.anchors import TrustAnchor

__all__ = ["anchors", "urls"]


def anchors() -> tuple[TrustAnchor, ...]:
    """Intel's root for SGX and TDX, as shipped."""
    return chain.anchors("sgx")


def urls(data: bytes) -> tuple[str, ...]:
    """The addresses of the collateral for the quote in ``data``: TCB info, enclave identity, and two CRLs.

    Raises ``malformed`` errors for what is no quote, ``endorsements_missing.certificate`` for one that only names its platform.
    """
    return service.urls(wire.decode(data)[0], "sgx")
