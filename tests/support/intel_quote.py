# SPDX-License-Identifier: Apache-2.0
"""Bytes in the form of a quote, written field by field and signed by nobody, for drivers that only look at report data."""

from __future__ import annotations

import struct

REPORT_DATA_AT = {"tdx": 48 + 520, "sgx": 48 + 320}


def unsigned(tee: str, report_data: bytes = bytes(64)) -> bytes:
    """A quote of version 4 (TDX) or 3 (SGX) over these 64 bytes."""
    vendor = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
    version, kind, size = (4, 0x81, 584) if tee == "tdx" else (3, 0, 384)
    header = struct.pack("<HHIHH", version, 2, kind, 0, 0) + vendor + bytes(20)
    body = bytes(size - 64) + report_data
    inner = bytes(384 + 64) + struct.pack("<H", 32) + bytes(32) + struct.pack("<HI", 5, 4) + b"PEM\n"
    if tee == "tdx":
        inner = struct.pack("<HI", 6, len(inner)) + inner
    tail = bytes(128) + inner
    return header + body + struct.pack("<I", len(tail)) + tail
