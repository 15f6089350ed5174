# SPDX-License-Identifier: Apache-2.0
"""The key schedule of the envelope: one HKDF-Expand for each direction of each request.

Source: ``docs/spec/envelope.md``, sections 0, 3, 4, 7 and 8.
"""

from __future__ import annotations

import hashlib

from confide.crypto import kdf

__all__ = [
    "NONCE_BYTES",
    "SALT_BYTES",
    "SECRET_BYTES",
    "WRAP_BYTES",
    "binder",
    "receipt_secret",
    "request_key",
    "response_key",
    "session_info",
    "sid",
    "transcript",
]

SECRET_BYTES = 64
WRAP_BYTES = 1200
SALT_BYTES = 16
NONCE_BYTES = 32
MAX_SEQ = 1 << 63

_PREFIX = b"confide/1 "
_REQUEST = _PREFIX + b"request\x00"
_RESPONSE = _PREFIX + b"response\x00"
_BINDER = _PREFIX + b"binder\x00"
_RECEIPT = _PREFIX + b"receipt\x00"
_SESSION = _PREFIX + b"session\x00"
_KEY_AND_IV = 44


def session_info(kid: bytes) -> bytes:
    """The HPKE info under which a session secret is wrapped to the key ``kid`` (32 bytes)."""
    return _SESSION + kid


def sid(wrap: bytes) -> bytes:
    """The name of a session: SHA-256 of its wrapped secret."""
    return hashlib.sha256(wrap).digest()


def transcript(flags: int, session: bytes, seq: int, salt: bytes) -> bytes:
    """T, the 57 bytes that name one request: flags, sid, number and salt."""
    return b"".join((bytes((flags,)), session, seq.to_bytes(8, "big"), salt))


def request_key(secret: bytes, t: bytes) -> bytes:
    """Key (32) and iv (12) of the request named by ``t``."""
    return kdf.expand(secret, _REQUEST + t, _KEY_AND_IV)


def response_key(secret: bytes, t: bytes, nonce: bytes) -> bytes:
    """Key (32) and iv (12) of the response to ``t`` that carries ``nonce`` (32 bytes)."""
    return kdf.expand(secret, _RESPONSE + t + nonce, _KEY_AND_IV)


def binder(secret: bytes, t: bytes) -> bytes:
    """32 bytes that a caller's signature covers, so that it is good for this request only."""
    return kdf.expand(secret, _BINDER + t, 32)


def receipt_secret(secret: bytes, t: bytes) -> bytes:
    """32 bytes that blind the hashes in the receipt for ``t``."""
    return kdf.expand(secret, _RECEIPT + t, 32)
