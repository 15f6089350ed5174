# SPDX-License-Identifier: Apache-2.0
"""UEFI device paths in text, as far as boot logs have them. Source: UEFI 2.10, sections 10.3 and 10.6."""

from __future__ import annotations

import uuid
from typing import Final

from confide.wire.cursor import Cursor

__all__ = ["guid", "nodes"]

_MAX_NODES: Final = 64
_HARDWARE, _ACPI, _MESSAGING, _MEDIA, _END = 1, 2, 3, 4, 0x7F
_PNP: Final = 0x41D0


def guid(data: bytes) -> str:
    """16 bytes as a GUID: the first three groups are little-endian."""
    return str(uuid.UUID(bytes_le=data))


def nodes(data: bytes) -> list[str]:
    """One text for each node before the end node; ``malformed`` errors for what is cut off or has impossible lengths."""
    cursor = Cursor(data, "device path")
    found: list[str] = []
    while cursor.remaining and len(found) < _MAX_NODES:
        kind, sub, length = cursor.u8(), cursor.u8(), cursor.u16_le()
        body = cursor.take(length - 4)
        if kind == _END:
            break
        found.append(_node(kind, sub, body))
    return found


def _node(kind: int, sub: int, body: bytes) -> str:
    if (kind, sub, len(body)) == (_HARDWARE, 1, 2):
        return f"Pci({body[1]:X},{body[0]:X})"
    if (kind, sub, len(body)) == (_ACPI, 1, 8):
        hid, uid = int.from_bytes(body[:4], "little"), int.from_bytes(body[4:], "little")
        name = f"PNP{hid >> 16:04X}" if hid & 0xFFFF == _PNP else f"{hid:#010x}"
        return f"ACPI({name},{uid:X})"
    if (kind, sub, len(body)) == (_MEDIA, 1, 38):
        return _disk(body)
    if (kind, sub) == (_MEDIA, 3) and len(body) >= 16:
        return f"VenMedia({guid(body[:16]).upper()},{body[16:].hex()})"
    if (kind, sub) == (_MEDIA, 4):
        text = body.decode("utf-16-le", "replace").rstrip("\x00")
        return "File(" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) + ")"
    if (kind, sub, len(body)) == (_MEDIA, 6, 16):
        return f"FvFile({guid(body).upper()})"
    if (kind, sub, len(body)) == (_MEDIA, 7, 16):
        return f"Fv({guid(body).upper()})"
    return f"Path({kind},{sub},{body.hex()})"


def _disk(body: bytes) -> str:
    """A partition: u32 number, u64 first block, u64 blocks, 16 bytes of signature, its format and type."""
    number = int.from_bytes(body[:4], "little")
    start, size = int.from_bytes(body[4:12], "little"), int.from_bytes(body[12:20], "little")
    signature, form = body[20:36], body[36]
    if form == 2:
        return f"HD({number},GPT,{guid(signature).upper()},{start:#x},{size:#x})"
    return f"HD({number},{'MBR' if form == 1 else form},{signature.hex()},{start:#x},{size:#x})"
