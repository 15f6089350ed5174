# SPDX-License-Identifier: Apache-2.0
"""Who may speak in tokens: the one pinned root that comes with confide, that of Google Confidential Space.

It makes such a token genuine. Acceptable it is only under a policy that names this root, and the image that must run.
"""

from __future__ import annotations

import functools
from importlib import resources

from confide.attestation.anchors import TrustAnchor
from confide.attestation.tokens import google
from confide.crypto import x509

__all__ = ["anchors", "google_root"]


@functools.cache
def google_root() -> bytes:
    """The DER of Google's Confidential Space root, as Google publishes it."""
    pem = resources.files("confide.attestation.tokens").joinpath("roots", "google_confidential_space.pem")
    (root,) = x509.parse_pem(pem.read_bytes())
    return root.der


@functools.cache
def anchors() -> tuple[TrustAnchor, ...]:
    """The root of Google Confidential Space, which speaks for Google's issuer and for no other."""
    return (TrustAnchor("token", google.ISSUER, (google_root(),)),)
