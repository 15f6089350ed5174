# SPDX-License-Identifier: Apache-2.0
"""A second reader of protected files, written from docs/spec/protected-file.md alone; imports nothing of confide."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CONTEXT = b"confide/1 protected file"


def item(data: bytes, at: int) -> tuple[Any, int]:
    """One CBOR item and the offset after it; the format uses integers, strings, arrays, maps and booleans."""
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return {20: False, 21: True}[info], at
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
    number = int.from_bytes(data[at : at + width], "big") if width else info
    at += width
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in {2, 3}:
        raw = data[at : at + number]
        return (raw if major == 2 else raw.decode()), at + number
    values = []
    for _ in range(number * (major - 3)):
        value, at = item(data, at)
        values.append(value)
    return (values if major == 4 else dict(zip(values[::2], values[1::2], strict=True))), at


def read(file: bytes, data_key: bytes, owner: bytes, name: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The metadata and the entries; any deviation raises ValueError or the library's error."""
    length = int.from_bytes(file[8:12], "big")
    header, end = item(file, 12)
    if file[:8] != b"CFDFILE1" or end != 12 + length or header["suite"] != 1 or header["owner"] != owner:
        raise ValueError("header")
    Ed25519PublicKey.from_public_bytes(owner).verify(file[end : end + 64], CONTEXT + b"\0" + file[:end])
    if header["name"] != name or any(file[end + 64 : 4096]):
        raise ValueError("name or padding")

    spelled = name.encode()
    info = CONTEXT + b"\0" + len(spelled).to_bytes(4, "big") + spelled + header["version"].to_bytes(8, "big")
    extracted = hmac.digest(header["file"], data_key, "sha512")
    root = hmac.digest(extracted, info + b"\1", "sha512")
    key = hmac.digest(root, CONTEXT + b" key\0\1", "sha512")[:32]
    if hmac.digest(root, CONTEXT + b" commitment\0\1", "sha512")[:32] != header["commitment"]:
        raise ValueError("commitment")
    aead = AESGCM(key)

    def stream(number: int, ciphertext: bytes) -> bytes:
        step = header["chunk"] + 16
        chunks = [ciphertext[i : i + step] for i in range(0, len(ciphertext), step)]
        plain = b""
        for i, chunk in enumerate(chunks):
            last = bytes([i == len(chunks) - 1])
            plain += aead.decrypt(number.to_bytes(4, "big") + i.to_bytes(7, "big") + last, chunk, None)
        return plain

    start = 4096 + header["payload"]
    index_ciphertext = file[start : start + header["index"]]
    if len(file) != start + header["index"]:
        raise ValueError("length")
    if hashlib.sha256(index_ciphertext).digest() != header["index_digest"]:
        raise ValueError("index")
    plaintext = stream(0, index_ciphertext)
    index, _ = item(plaintext, 4)

    entries = {}
    at = 4096
    for number, entry in enumerate(index["entries"], 1):
        count = max(1, -(-entry["size"] // header["chunk"]))
        size = entry["size"] + 16 * count
        ciphertext, at = file[at : at + size], at + size
        step = header["chunk"] + 16
        digests = b"".join(
            hashlib.sha256(ciphertext[i * step : (i + 1) * step]).digest() for i in range(count)
        )
        if digests != entry["digests"]:
            raise ValueError("digests")
        entries[entry["name"]] = stream(number, ciphertext)
        if len(entries[entry["name"]]) != entry["size"]:
            raise ValueError("size")
    return index["metadata"], entries
