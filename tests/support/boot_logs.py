# SPDX-License-Identifier: Apache-2.0
"""Writers of event logs for tests, independent of the reader: TCG's crypto-agile form, field by field."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

IDS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
Row = tuple[int, int, bytes, bytes]
"""Register, type, what the digest is taken of, and the event's data."""


def header(
    algorithms: Sequence[str] = ("sha384",), *, index: int = 1, kind: int = 3, **fields: bytes
) -> bytes:
    """TCG_PCR_EVENT with TCG_EfiSpecIdEvent; ``fields`` replaces ``signature``, ``digest`` or ``tail``."""
    listed = b"".join(struct.pack("<HH", IDS[name], hashlib.new(name).digest_size) for name in algorithms)
    data = (
        fields.get("signature", b"Spec ID Event03\x00")
        + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms))
        + listed
        + fields.get("tail", b"\x00")
    )
    return (
        struct.pack("<II", index, kind)
        + fields.get("digest", bytes(20))
        + struct.pack("<I", len(data))
        + data
    )


def event(index: int, kind: int, digests: Sequence[tuple[int, bytes]], data: bytes) -> bytes:
    """TCG_PCR_EVENT2 with exactly these digests, by the algorithms' numbers."""
    listed = b"".join(struct.pack("<H", number) + digest for number, digest in digests)
    return struct.pack("<III", index, kind, len(digests)) + listed + struct.pack("<I", len(data)) + data


def log(rows: Sequence[Row], algorithms: Sequence[str] = ("sha384",), *, index: int = 1) -> bytes:
    """A whole log; the digest of each row is that of its third element."""
    return header(algorithms, index=index) + b"".join(
        event(
            register, kind, [(IDS[name], hashlib.new(name, measured).digest()) for name in algorithms], data
        )
        for register, kind, measured, data in rows
    )


def extended(*measured: bytes, algorithm: str = "sha384", start: bytes | None = None) -> bytes:
    """A register after extending it by the digests of ``measured``, one after another."""
    value = bytes(hashlib.new(algorithm).digest_size) if start is None else start
    for text in measured:
        value = hashlib.new(algorithm, value + hashlib.new(algorithm, text).digest()).digest()
    return value
