# SPDX-License-Identifier: Apache-2.0
"""A small protected file to start attacks from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.sealing import layout
from confide.sealing.protected_file import Entry, ProtectedFile, write

if TYPE_CHECKING:
    from pathlib import Path

NAME, VERSION, CHUNK = "model", 3, 4096
OWNER = SigningKey.from_bytes(bytes(range(32)))
KEY = bytes(range(32, 64))
WEIGHTS = bytes(i * 7 % 251 for i in range(2 * CHUNK + 512))
ENTRIES = (
    Entry("graph", b"MatMul(canary_layer_0)"),
    Entry("canary_layer_0.weight", WEIGHTS, "tensor", "f32", (len(WEIGHTS) // 4,)),
    Entry("empty", b""),
)


@dataclass
class Sealed:
    """The bytes of the file, and how to open it."""

    data: bytes
    key: Secret = field(default_factory=lambda: Secret(KEY))
    owner_public: bytes = OWNER.public
    name: str = NAME

    def open(self, data: bytes | None = None, **changed: Any) -> ProtectedFile:
        arguments: dict[str, Any] = {"key": self.key, "owner_public": self.owner_public, "name": self.name}
        arguments.update(changed)
        return ProtectedFile.open(self.data if data is None else data, **arguments)

    def read_all(self, data: bytes | None = None, **changed: Any) -> dict[str, bytes]:
        with self.open(data, **changed) as file:
            return {name: bytes(file.read(name)) for name in file.names}

    @property
    def header(self) -> layout.Header:
        return layout.Header.split(self.data[: layout.HEADER_BLOCK])[0]


def signed(header: layout.Header, signer: SigningKey = OWNER) -> bytes:
    """A header block with a right signature."""
    return header.block(signer.sign(layout.Header.signed_message(header.encode())))


def sealed(folder: Path, entries: tuple[Entry, ...] = ENTRIES, **changed: Any) -> Sealed:
    path = folder / "sealed.confide"
    arguments: dict[str, Any] = {
        "key": Secret(KEY), "signer": OWNER, "name": NAME, "version": VERSION, "chunk": CHUNK,
        "metadata": {"architecture": "canary_architecture"},
    }  # fmt: skip
    arguments.update(changed)
    write(path, entries, **arguments)
    return Sealed(path.read_bytes())
