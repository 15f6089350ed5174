# SPDX-License-Identifier: Apache-2.0
"""Bits that may be turned over without a refusal, and why. Everything that is not here has to be refused (EV-03)."""

from __future__ import annotations

# Report: none. The signature covers every byte before it, and of the signature every bit counts.
REPORT: frozenset[int] = frozenset()

# OCSP response: none. What the responder's signature does not cover are identifiers with one accepted value, and a certificate
# that its issuer has signed.
OCSP: frozenset[int] = frozenset()


def in_embedded_root(document: bytes, bit: int) -> bool:
    """RIM document: the copy of the root at the end of its certificates. The pinned root is used in its place, and a
    certificate that stands above nothing changes no verdict, as long as it is still a certificate."""
    start = document.rindex(b"<ds:X509Certificate>") + len(b"<ds:X509Certificate>")
    end = document.rindex(b"</ds:X509Certificate>")
    return start <= bit // 8 < end
