# SPDX-License-Identifier: Apache-2.0
"""Hexadecimal text with one accepted spelling: lower case, even length, nothing else (RFC 4648, section 8, narrowed)."""

from __future__ import annotations

from confide.errors import MalformedError

__all__ = ["decode"]

_DIGITS = frozenset("0123456789abcdef")


def decode(text: str, *, what: str, length: int | None = None) -> bytes:
    """The bytes that ``text`` spells; ``length`` is the exact number of bytes expected.

    Raises ``malformed.non_canonical`` for upper case, whitespace, prefixes and odd lengths, ``malformed.length_mismatch``
    for another number of bytes.
    """
    if not isinstance(text, str):
        raise MalformedError("non_canonical", f"{what} is not hexadecimal text")
    if length is not None and len(text) != 2 * length:
        raise MalformedError("length_mismatch", f"{what} must be {2 * length} hexadecimal digits")
    if len(text) % 2 or not _DIGITS.issuperset(text):
        raise MalformedError(
            "non_canonical",
            f"{what} is not canonical hexadecimal",
            hint="write lower-case digits, two for each byte, without spaces or a prefix",
        )
    return bytes.fromhex(text)
