# SPDX-License-Identifier: Apache-2.0
"""What a simulated device reports for a manifest. Needs no key, so that anyone can predict it."""

from __future__ import annotations

import hashlib

__all__ = ["DIGEST_BYTES", "host_data", "measurement"]

DIGEST_BYTES = 48
_DOMAIN = b"confide/simulated/measurement/1\x00"


def measurement(manifest: bytes) -> bytes:
    """MEASUREMENT for an encoded manifest: SHA-384 under a domain of its own, 48 B."""
    return hashlib.sha384(_DOMAIN + manifest).digest()


def host_data(manifest: bytes) -> bytes:
    """HOST_DATA for an encoded manifest: its SHA-256, 32 B."""
    return hashlib.sha256(manifest).digest()
