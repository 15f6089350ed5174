# SPDX-License-Identifier: Apache-2.0
"""Trust anchors: the certificates at which a chain must end, and the keys that are trusted by themselves."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TrustAnchor"]


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """One vendor's root with its pinned intermediates.

    ``tee`` names the scheme (``snp``), ``name`` what the anchor stands for there (for SNP the product line), and
    ``certificates`` are DER, self-signed roots and the CAs below them in any order. ``simulated`` marks the root of a
    simulated device: evidence under it is refused unless the Verifier was told to allow it, and is never affirming.
    ``keys`` are public keys that a policy pins by SHA-256 of their SubjectPublicKeyInfo (a TPM's AK, a token's signer).
    ``archival`` judges certificates at the time that the evidence itself states and signs, for documents out of an archive.
    """

    tee: str
    name: str
    certificates: tuple[bytes, ...]
    simulated: bool = False
    keys: tuple[bytes, ...] = ()
    archival: bool = False
