# SPDX-License-Identifier: Apache-2.0
"""Makes docs/spec/vectors/protected-file.json: ``python tests/support/protected_file_vectors.py``. Its keys are for tests only."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.sealing import layout
from confide.sealing.protected_file import Entry, write

PLACE = Path(__file__).parents[2] / "docs" / "spec" / "vectors" / "protected-file.json"
OWNER_SEED, DATA_KEY, FILE_ID = bytes([0x11]) * 32, bytes(range(32)), bytes([0x22]) * 32
NAME, VERSION, CHUNK = "weights", 2, 4096
ENTRIES = {
    "empty": (b"", "blob", "", ()),
    "one full chunk": (bytes(range(256)) * 16, "blob", "", ()),
    "layer.0": (bytes(i % 251 for i in range(4096 + 512)), "tensor", "f32", (2, 576)),
}


def sealed() -> bytes:
    """The same bytes each time, since the only random input is the file's id."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(
            path,
            [Entry(name, data, kind, dtype, shape) for name, (data, kind, dtype, shape) in ENTRIES.items()],
            key=Secret(DATA_KEY), signer=SigningKey.from_bytes(OWNER_SEED), name=NAME, version=VERSION, chunk=CHUNK,
            metadata={"architecture": "tiny"}, random=lambda n: FILE_ID[:n],
        )  # fmt: skip
        return path.read_bytes()


def changed(data: bytes, at: int, piece: bytes) -> dict[str, object]:
    """A change as the vector file spells it: what stands at ``at`` becomes ``piece``."""
    return {"at": at, "bytes": piece.hex(), "size": len(data)}


def make() -> dict[str, Any]:
    data = sealed()
    owner = SigningKey.from_bytes(OWNER_SEED)
    header = layout.Header.split(data[: layout.HEADER_BLOCK])[0]
    encoded = header.encode()
    first = layout.HEADER_BLOCK + 16  # Entry 1 is a tag only.
    step = CHUNK + 16
    index = layout.HEADER_BLOCK + header.payload

    def signed(**fields: Any) -> bytes:
        other = dataclasses.replace(header, **fields)
        return other.block(owner.sign(layout.Header.signed_message(other.encode())))

    mallory = SigningKey.from_bytes(bytes(32))
    stranger = dataclasses.replace(header, owner=mallory.public)
    refuse = [
        ("another magic", changed(data, 7, b"2"), "sealing.unsupported_version"),
        ("a bit of the header", changed(data, 40, bytes([data[40] ^ 1])), "sealing.integrity"),
        ("a bit of the signature", changed(data, len(encoded), bytes([data[len(encoded)] ^ 1])), "sealing.integrity"),
        ("a bit of the padding", changed(data, 4095, b"\x01"), "sealing.integrity"),
        ("a bit of a chunk", changed(data, first, bytes([data[first] ^ 1])), "sealing.integrity"),
        ("a bit of a tag", changed(data, first + CHUNK, bytes([data[first + CHUNK] ^ 1])), "sealing.integrity"),
        ("a chunk in another's place", changed(data, first, data[first + step :][:step]), "sealing.integrity"),
        ("a bit of the index", changed(data, index, bytes([data[index] ^ 1])), "sealing.integrity"),
        ("one byte less", changed(data[:-1], 0, b""), "sealing.integrity"),
        ("one byte more", changed(data + b"\0", 0, b""), "sealing.integrity"),
        ("the version raised and signed", changed(data, 0, signed(version=3)), "sealing.policy_mismatch"),
        ("another commitment, signed", changed(data, 0, signed(commitment=bytes(32))), "sealing.policy_mismatch"),
        ("signed by somebody else", changed(data, 0, stranger.block(mallory.sign(layout.Header.signed_message(stranger.encode())))), "sealing.signer"),
    ]  # fmt: skip
    return {
        "about": "docs/spec/protected-file.md; all byte strings in hexadecimal; the keys are for tests only",
        "owner_seed": OWNER_SEED.hex(),
        "owner_public": owner.public.hex(),
        "data_key": DATA_KEY.hex(),
        "name": NAME,
        "version": VERSION,
        "metadata": {"architecture": "tiny"},
        "entries": [
            {"name": name, "kind": kind, "dtype": dtype, "shape": list(shape), "data": content.hex()}
            for name, (content, kind, dtype, shape) in ENTRIES.items()
        ],
        "file": data.hex(),
        "refuse": [{"what": what, **change, "code": code} for what, change, code in refuse],
    }


if __name__ == "__main__":
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_text(json.dumps(make(), indent=1) + "\n")
