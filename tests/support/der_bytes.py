# SPDX-License-Identifier: Apache-2.0
"""Writing DER by hand, to make what no library would make."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confide.crypto.issue import IssuingKey


def tagged(tag: int, content: bytes) -> bytes:
    """One element with a length in its shortest form."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    width = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 | width]) + size.to_bytes(width, "big") + content


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE of encoded elements."""
    return tagged(0x30, b"".join(parts))


def integer(value: int) -> bytes:
    """An INTEGER that is not negative."""
    return tagged(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def signed(tbs: bytes, algorithm: bytes, key: IssuingKey) -> bytes:
    """A certificate or CRL of the encoded parts `tbs` and `algorithm`, signed with ECDSA and SHA-384."""
    r, s = key.sign_ecdsa(tbs)
    return sequence(tbs, algorithm, tagged(3, b"\0" + sequence(integer(r), integer(s))))
