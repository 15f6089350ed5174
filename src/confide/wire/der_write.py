# SPDX-License-Identifier: Apache-2.0
"""Writing DER (X.690), for what confide itself makes: requests, and the certificates' extensions of simulated devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["generalized_time", "integer", "oid", "sequence", "tagged"]


def tagged(tag: int, content: bytes) -> bytes:
    """One element with the identifier octet ``tag`` and a length in its shortest form."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + content


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE of encoded elements."""
    return tagged(0x30, b"".join(parts))


def integer(value: int) -> bytes:
    """An INTEGER that is not negative."""
    return tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = b""
    for number in (40 * first + second, *rest):
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.append(0x80 | number & 0x7F)
        content += bytes(reversed(septets))
    return tagged(0x06, content)


def generalized_time(when: datetime) -> bytes:
    """A GeneralizedTime of whole seconds; ``when`` is in UTC."""
    return tagged(0x18, f"{when:%Y%m%d%H%M%S}Z".encode("ascii"))
