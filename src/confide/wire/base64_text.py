# SPDX-License-Identifier: Apache-2.0
"""Base64 with one accepted spelling for each byte string (RFC 4648, sections 4 and 5, narrowed)."""

from __future__ import annotations

import base64
import re

from confide.errors import MalformedError

__all__ = ["decode"]

_STANDARD = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
_URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def decode(text: str, *, what: str, max_length: int, url: bool = False) -> bytes:
    """The bytes that ``text`` spells, at most ``max_length`` of them.

    The standard alphabet must be padded; with ``url`` the URL-safe alphabet must not be. Whitespace, the other alphabet and
    trailing bits that are not zero raise ``malformed.non_canonical``; a longer text raises ``malformed.limit_exceeded``.
    """
    if not isinstance(text, str):
        raise MalformedError("non_canonical", f"{what} is not base64 text")
    if len(text) > 4 * ((max_length + 2) // 3):
        raise MalformedError("limit_exceeded", f"{what} is longer than {max_length} bytes")
    if (_URL if url else _STANDARD).fullmatch(text) is None or (url and len(text) % 4 == 1):
        raise MalformedError("non_canonical", f"{what} is not canonical base64")
    if url:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        canonical = base64.urlsafe_b64encode(data).rstrip(b"=")
    else:
        data = base64.b64decode(text, validate=True)
        canonical = base64.b64encode(data)
    if canonical != text.encode("ascii"):
        raise MalformedError("non_canonical", f"{what} has base64 bits after its last byte")
    if len(data) > max_length:
        raise MalformedError("limit_exceeded", f"{what} is longer than {max_length} bytes")
    return data
