# SPDX-License-Identifier: Apache-2.0
"""What stands where in a protected file, and its keys (``docs/spec/protected-file.md``, sections 1 to 4)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confide.crypto import kdf
from confide.crypto.aead import TAG
from confide.crypto.secret import Secret
from confide.errors import ConfideError, ConfigurationError, MalformedError, SealingError
from confide.sealing.names import MAX_VERSION, is_name, is_version
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DEFAULT_CHUNK",
    "HEADER_BLOCK",
    "MAX_INDEX",
    "Description",
    "FileKeys",
    "Header",
    "Stored",
    "ciphertext_size",
    "decode_index",
    "encode_index",
    "file_keys",
    "item_size",
    "nonce",
]

MAGIC: Final = b"CFDFILE1"
HEADER_BLOCK: Final = 4096
MAX_HEADER: Final = 1024
DEFAULT_CHUNK: Final = 1 << 20
MIN_CHUNK: Final = 1 << 12
MAX_CHUNK: Final = 1 << 22
MAX_INDEX: Final = 64 << 20
MAX_ENTRIES: Final = 65_536
MAX_METADATA: Final = 1024
MAX_CHUNKS: Final = 1 << 32
MAX_PAYLOAD: Final = 1 << 56
_SUITE = 1
_INDEX_PAD = 4096
_CONTEXT = b"confide/1 protected file\x00"
_ITEM_SIZES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "bool": 1,
        "i8": 1,
        "u8": 1,
        "i16": 2,
        "u16": 2,
        "f16": 2,
        "bf16": 2,
        "i32": 4,
        "u32": 4,
        "f32": 4,
        "i64": 8,
        "u64": 8,
        "f64": 8,
        "c64": 8,
        "c128": 16,
    }
)


def item_size(dtype: str) -> int | None:
    """Bytes of one item of a tensor, or None for a type that the format does not have."""
    return _ITEM_SIZES.get(dtype)


@dataclass(frozen=True, slots=True)
class Header:
    """The part of the file that a store may see. Sizes are in bytes."""

    file: bytes
    name: str
    version: int
    chunk: int
    payload: int
    index: int
    index_digest: bytes
    commitment: bytes
    owner: bytes

    def encode(self) -> bytes:
        """Magic, length and CBOR: what the owner signs after its context."""
        body = cbor.encode(
            {
                "suite": _SUITE,
                "file": self.file,
                "name": self.name,
                "version": self.version,
                "chunk": self.chunk,
                "payload": self.payload,
                "index": self.index,
                "index_digest": self.index_digest,
                "commitment": self.commitment,
                "owner": self.owner,
            }
        )
        return MAGIC + len(body).to_bytes(4, "big") + body

    @staticmethod
    def signed_message(encoded: bytes) -> bytes:
        """What the owner's signature is over."""
        return _CONTEXT + encoded

    @classmethod
    def split(cls, block: bytes) -> tuple[Header, bytes, bytes]:
        """Header, its encoded bytes and the signature (64 B, not yet checked) from the first 4096 bytes of a file.

        Raises ``sealing.unsupported_version`` for another format or suite, ``sealing.integrity`` for any other deviation.
        """
        if block[:8] != MAGIC:
            raise SealingError(
                "unsupported_version",
                "this is not a protected file of a version that is supported",
                hint="give the file that `confide protect` wrote",
            )
        try:
            return cls._split(block)
        except ConfideError as error:
            if isinstance(error, SealingError):
                raise
        raise SealingError("integrity", "the header of the protected file is malformed")

    @classmethod
    def _split(cls, block: bytes) -> tuple[Header, bytes, bytes]:
        if len(block) != HEADER_BLOCK:
            raise MalformedError("truncated", "a protected file has a header of 4096 bytes")
        length = int.from_bytes(block[8:12], "big")
        if not 0 < length <= MAX_HEADER:
            raise MalformedError("limit_exceeded", "the header's length is out of bounds")
        end = 12 + length
        if any(block[end + 64 :]):
            raise MalformedError("reserved_not_zero", "the header block is not zero after the signature")
        what = "header of a protected file"
        fields = Fields(cbor.decode(block[12:end], what=what, max_size=MAX_HEADER, max_depth=1), what)
        if fields.integer("suite", 0, MAX_VERSION) != _SUITE:
            raise SealingError("unsupported_version", "the file was made with a suite that is not supported")
        header = cls(
            file=fields.bytes_("file", 32),
            name=fields.text("name", 128),
            version=fields.integer("version", 1, MAX_VERSION),
            chunk=fields.integer("chunk", MIN_CHUNK, MAX_CHUNK),
            payload=fields.integer("payload", 0, MAX_PAYLOAD),
            index=fields.integer("index", TAG, MAX_INDEX + MAX_INDEX // MIN_CHUNK * TAG),
            index_digest=fields.bytes_("index_digest", 32),
            commitment=fields.bytes_("commitment", 32),
            owner=fields.bytes_("owner", 32),
        )
        fields.end()
        if not is_name(header.name) or header.chunk & (header.chunk - 1):
            raise MalformedError("non_canonical", "the header's name or chunk size is outside the format")
        return header, block[:end], block[end : end + 64]

    def block(self, signature: bytes) -> bytes:
        """The first 4096 bytes of the file."""
        encoded = self.encode()
        if len(encoded) > 12 + MAX_HEADER:
            raise MalformedError("limit_exceeded", "the header does not fit its place")
        return (encoded + signature).ljust(HEADER_BLOCK, b"\x00")


@dataclass(frozen=True, slots=True)
class FileKeys:
    """The AES-256 key of one file, and what the header shows of the data key."""

    key: Secret
    commitment: bytes


def file_keys(data_key: Secret, *, file: bytes, name: str, version: int) -> FileKeys:
    """Derive the keys of the file with the random id ``file`` (32 B) from a data key (32 B) of that name and version."""
    if len(data_key.reveal()) != 32 or not is_name(name) or not is_version(version):
        raise ConfigurationError(
            "invalid",
            "a data key has 32 bytes, a name and a version",
            hint="names are A-Z a-z 0-9 . _ -, versions from 1",
        )
    spelled = name.encode()
    info = _CONTEXT + len(spelled).to_bytes(4, "big") + spelled + version.to_bytes(8, "big")
    root = kdf.hkdf(data_key.reveal(), salt=file, info=info, length=64)
    return FileKeys(
        key=Secret(kdf.expand(root, b"confide/1 protected file key\x00", 32)),
        commitment=kdf.expand(root, b"confide/1 protected file commitment\x00", 32),
    )


def nonce(stream: int, chunk: int, *, last: bool) -> bytes:
    """The 12-byte nonce of one chunk of one stream; each is used once under a file's key."""
    return stream.to_bytes(4, "big") + chunk.to_bytes(7, "big") + (b"\x01" if last else b"\x00")


def chunk_count(size: int, chunk: int) -> int:
    """Into how many chunks ``size`` bytes of plaintext are cut; an empty stream has one, empty."""
    return max(1, -(-size // chunk))


def ciphertext_size(size: int, chunk: int) -> int:
    """Bytes of ciphertext of a stream with ``size`` bytes of plaintext."""
    return size + TAG * chunk_count(size, chunk)


def plaintext_size(ciphertext: int, chunk: int) -> int:
    """The inverse of ``ciphertext_size``; ``sealing.integrity`` if no stream has this size."""
    chunks = -(-ciphertext // (chunk + TAG))
    size = ciphertext - TAG * chunks
    if size < 0 or ciphertext_size(size, chunk) != ciphertext:
        raise SealingError("integrity", "the index of the protected file has an impossible size")
    return size


@dataclass(frozen=True, slots=True)
class Description:
    """What an entry is: a "blob" of ``size`` bytes, or a "tensor" with an item type and a shape (C order, little-endian)."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    def check(self) -> None:
        """Raise ``malformed`` if this describes nothing that the format can hold."""
        if not 1 <= len(self.name) <= 512 or not 0 <= self.size <= MAX_PAYLOAD:
            raise MalformedError("limit_exceeded", "an entry's name or size is out of bounds")
        if self.kind == "blob":
            if self.dtype or self.shape:
                raise MalformedError("non_canonical", "a blob has neither item type nor shape")
            return
        width = item_size(self.dtype)
        if self.kind != "tensor" or width is None:
            raise MalformedError("unknown_format", "an entry is of no kind or item type that is known")
        if len(self.shape) > 16 or any(type(n) is not int or not 0 <= n <= MAX_PAYLOAD for n in self.shape):
            raise MalformedError("limit_exceeded", "a tensor's shape is out of bounds")
        if math.prod(self.shape) * width != self.size:
            raise MalformedError("length_mismatch", "a tensor's shape does not fit its size")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an entry lies: its stream number, the offset of its first chunk in the file, its chunks' digests."""

    description: Description
    stream: int
    offset: int
    digests: bytes = field(repr=False)


def encode_index(entries: Sequence[tuple[Description, bytes]], metadata: Mapping[str, object]) -> bytes:
    """The padded plaintext of the index."""
    content = cbor.encode(
        {
            "v": 1,
            "metadata": dict(metadata),
            "entries": [
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "dtype": entry.dtype,
                    "shape": list(entry.shape),
                    "size": entry.size,
                    "digests": digests,
                }
                for entry, digests in entries
            ],
        }
    )
    plaintext = len(content).to_bytes(4, "big") + content
    plaintext += bytes(-len(plaintext) % _INDEX_PAD)
    if len(plaintext) > MAX_INDEX:
        raise MalformedError("limit_exceeded", "the index is too large; use larger chunks")
    return plaintext


def decode_index(plaintext: bytes, header: Header) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Entries by name, in order, and the metadata; ``malformed`` unless index and header agree about every byte."""
    what = "index of a protected file"
    length = int.from_bytes(plaintext[:4], "big")
    used = 4 + length
    if len(plaintext) % _INDEX_PAD or used > len(plaintext) or len(plaintext) - used >= _INDEX_PAD:
        raise MalformedError("length_mismatch", f"{what}: its length does not fit")
    if any(plaintext[used:]):
        raise MalformedError("reserved_not_zero", f"{what}: its padding is not zero")
    document = cbor.decode(plaintext[4:used], what=what, max_size=MAX_INDEX, max_depth=5)
    fields = Fields(document, what)
    if fields.integer("v", 0, MAX_VERSION) != 1:
        raise MalformedError("unsupported_version", f"{what}: a version that is not supported")
    metadata = fields.mapping("metadata")
    rows = fields.list_("entries")
    fields.end()
    check_metadata(metadata)
    if len(rows) > MAX_ENTRIES:
        raise MalformedError("limit_exceeded", f"{what}: too many entries")
    entries: dict[str, Stored] = {}
    offset = HEADER_BLOCK
    for stream, row in enumerate(rows, 1):
        entry = Fields(row, what)
        description = Description(
            name=entry.text("name", 512),
            kind=entry.text("kind", 16),
            dtype=entry.text("dtype", 16),
            shape=tuple(entry.list_("shape")),
            size=entry.integer("size", 0, MAX_PAYLOAD),
        )
        digests = entry.bytes_("digests")
        entry.end()
        description.check()
        if description.name in entries:
            raise MalformedError("non_canonical", f"{what}: two entries have one name")
        if len(digests) != 32 * chunk_count(description.size, header.chunk):
            raise MalformedError("length_mismatch", f"{what}: not one digest for each chunk")
        entries[description.name] = Stored(description, stream, offset, digests)
        offset += ciphertext_size(description.size, header.chunk)
    if offset != HEADER_BLOCK + header.payload:
        raise MalformedError("length_mismatch", f"{what}: its entries do not fill the payload")
    return entries, dict(metadata)


def check_metadata(metadata: Mapping[Any, Any]) -> None:
    """Raise ``malformed`` unless this is a flat map of names to text, bytes, integers and truth values."""
    if len(metadata) > MAX_METADATA:
        raise MalformedError("limit_exceeded", "a protected file has too many metadata")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, (str, bytes, int)):
            raise MalformedError("non_canonical", "metadata are names with text, bytes, integers or booleans")


def digest(data: memoryview | bytes | bytearray) -> bytes:
    """SHA-256 of ciphertext."""
    return hashlib.sha256(data).digest()
