# SPDX-License-Identifier: Apache-2.0
"""Writing a protected file in one pass and constant memory (``docs/spec/protected-file.md``, section 6)."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from confide.crypto.aead import TAG, Aead
from confide.errors import ConfigurationError, MalformedError
from confide.sealing import layout
from confide.sealing.durable import DurableFile, storage_errors, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from confide.crypto.secret import Secret
    from confide.crypto.signing import SigningKey

__all__ = ["Entry", "Progress", "write"]

Buffer = bytes | bytearray | memoryview
Progress = Callable[[int, int | None], None]
"""Called with the bytes of plaintext written so far, and the total where it is known beforehand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to protect.

    ``kind`` is "blob" (the default) or "tensor", which has a ``dtype`` of the format (``f32``, ``i64``, ...), a ``shape``,
    and data in C order, little-endian. ``data`` is anything with a contiguous buffer, or an iterable of such pieces.
    """

    name: str
    data: object = field(repr=False)
    kind: str = "blob"
    dtype: str = ""
    shape: tuple[int, ...] = ()


def write(
    path: Path | str,
    entries: Iterable[Entry],
    *,
    key: Secret,
    signer: SigningKey,
    name: str,
    version: int,
    metadata: Mapping[str, object] | None = None,
    chunk: int = layout.DEFAULT_CHUNK,
    threads: int = 1,
    progress: Progress | None = None,
    random: Callable[[int], bytes] = os.urandom,
    sync: bool = True,
) -> None:
    """Write ``entries``, encrypted under the data key ``key`` (32 bytes) and signed by their owner, to ``path``.

    ``name`` and ``version`` are those of the data key; a store can read them. ``metadata`` (flat: text, bytes, integers,
    booleans) goes into the encrypted index. ``chunk`` is a power of two from 4096 to 4,194,304 bytes. ``threads`` encrypt
    ahead of the disk. Memory is a few chunks, whatever the size. ``sync=False`` leaves flushing to the kernel.

    Raises ``sealing.storage_full`` or ``sealing.storage_io`` with the old file untouched, ``configuration.invalid`` for
    wrong arguments, ``malformed`` for an entry that the format cannot hold.
    """
    if not layout.MIN_CHUNK <= chunk <= layout.MAX_CHUNK or chunk & (chunk - 1) or not 1 <= threads <= 64:
        raise ConfigurationError("invalid", "the chunk size or the number of threads is out of bounds")
    metadata = metadata or {}
    layout.check_metadata(metadata)
    file = random(32)
    keys = layout.file_keys(key, file=file, name=name, version=version)
    entries = list(entries) if isinstance(entries, (list, tuple)) else entries
    total = _known_total(entries)
    with DurableFile(path, sync=sync) as target, _Sealer(target.descriptor, keys, chunk, threads) as sealer:
        described: list[tuple[layout.Description, bytes]] = []
        names: set[str] = set()
        for stream, entry in enumerate(entries, 1):
            if stream > layout.MAX_ENTRIES:
                raise MalformedError("limit_exceeded", "a protected file has too many entries")
            if entry.name in names:
                raise MalformedError("non_canonical", "two entries of a protected file have one name")
            names.add(entry.name)
            done = sealer.plaintext
            digests = sealer.stream(stream, entry.data, progress, total)
            description = layout.Description(
                entry.name, entry.kind, entry.dtype, tuple(entry.shape), sealer.plaintext - done
            )
            description.check()
            described.append((description, digests))
        payload = sealer.ciphertext
        index = layout.encode_index(described, metadata)
        index_ciphertext = _seal_index(keys, index, chunk)
        with storage_errors("write the protected file"):
            write_all(target.descriptor, index_ciphertext, offset=layout.HEADER_BLOCK + payload)
            header = layout.Header(
                file=file,
                name=name,
                version=version,
                chunk=chunk,
                payload=payload,
                index=len(index_ciphertext),
                index_digest=layout.digest(index_ciphertext),
                commitment=keys.commitment,
                owner=signer.public,
            )
            layout.decode_index(index, header)  # What could not be read back is not written.
            signature = signer.sign(layout.Header.signed_message(header.encode()))
            write_all(target.descriptor, header.block(signature), offset=0)
        target.commit()


def _seal_index(keys: layout.FileKeys, index: bytes, chunk: int) -> bytes:
    aead = Aead(keys.key)
    count = layout.chunk_count(len(index), chunk)
    return b"".join(
        aead.seal(layout.nonce(0, i, last=i == count - 1), index[i * chunk : (i + 1) * chunk], b"")
        for i in range(count)
    )


def _as_bytes(data: object) -> memoryview | None:
    """The bytes of a contiguous buffer, None for what is not a buffer."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return None
    if not view.c_contiguous:
        raise MalformedError("non_canonical", "an entry's buffer is not contiguous in C order")
    # A view without items cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _known_total(entries: Iterable[Entry]) -> int | None:
    if not isinstance(entries, (list, tuple)):
        return None
    views = [_as_bytes(entry.data) for entry in entries]
    return (
        None
        if any(view is None for view in views)
        else sum(view.nbytes for view in views if view is not None)
    )


class _Sealer:
    """Encrypts, digests and writes chunks. The place of every chunk is known beforehand, since all but the last are full, so
    that a thread can do all three for one chunk while it is in its cache.
    """

    def __init__(self, descriptor: int, keys: layout.FileKeys, chunk: int, threads: int) -> None:
        self._descriptor = descriptor
        self._aead = Aead(keys.key)
        self._chunk = chunk
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._window = threads + 1
        self._outputs = [bytearray(chunk + TAG) for _ in range(threads)]
        self._inputs: list[bytearray] = []
        self.plaintext = 0
        self.ciphertext = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for buffer in self._inputs:
            buffer[:] = bytes(len(buffer))

    def stream(self, number: int, data: object, progress: Progress | None, total: int | None) -> bytes:
        """Write one stream; its chunks' digests, one after the other."""
        digests: list[bytes] = []
        pending: collections.deque[tuple[Future[bytes], int, Callable[[], None]]] = collections.deque()
        start = layout.HEADER_BLOCK + self.ciphertext

        def finish(digest: bytes, size: int, release: Callable[[], None]) -> None:
            digests.append(digest)
            release()
            self.ciphertext += size + TAG
            self.plaintext += size
            if progress is not None:
                progress(self.plaintext, total)

        for index, (piece, last, release) in enumerate(self._pieces(data)):
            if index >= layout.MAX_CHUNKS:
                raise MalformedError("limit_exceeded", "an entry has too many chunks")
            nonce = layout.nonce(number, index, last=last)
            offset = start + index * (self._chunk + TAG)
            if self._pool is None:
                finish(self._seal(nonce, piece, offset), len(piece), release)
                continue
            if len(pending) >= self._window:
                future, size, done = pending.popleft()
                finish(future.result(), size, done)
            pending.append((self._pool.submit(self._seal, nonce, piece, offset), len(piece), release))
        for future, size, done in pending:
            finish(future.result(), size, done)
        return b"".join(digests)

    def _seal(self, nonce: bytes, piece: memoryview, offset: int) -> bytes:
        """Encrypt one chunk, write it to its place, give its digest. Runs in as many threads as there are outputs."""
        output = self._outputs.pop()
        try:
            ciphertext = memoryview(output)[: self._aead.seal_into(nonce, piece, b"", output)]
            digest = layout.digest(ciphertext)
            with storage_errors("write the protected file"):
                write_all(self._descriptor, ciphertext, offset=offset)
        finally:
            self._outputs.append(output)
        return digest

    def _pieces(self, data: object) -> Iterator[tuple[memoryview, bool, Callable[[], None]]]:
        """Chunks of plaintext, whether each is the last, and what to call once it may be overwritten."""
        view = _as_bytes(data)
        if view is not None:
            count = layout.chunk_count(len(view), self._chunk)
            for i in range(count):
                yield view[i * self._chunk : (i + 1) * self._chunk], i == count - 1, _nothing
            return
        if not isinstance(data, Iterable) or isinstance(data, str):
            raise MalformedError("unknown_format", "an entry's data is neither a buffer nor pieces of one")
        held: tuple[memoryview, Callable[[], None]] | None = None
        buffer, filled = self._take(), 0
        for piece in data:
            rest = _as_bytes(piece)
            if rest is None:
                raise MalformedError("unknown_format", "an entry's pieces are not buffers")
            while rest:
                if filled == self._chunk:
                    if held is not None:
                        yield held[0], False, held[1]
                    held = memoryview(buffer), self._giver(buffer)
                    buffer, filled = self._take(), 0
                count = min(len(rest), self._chunk - filled)
                buffer[filled : filled + count] = rest[:count]
                filled += count
                rest = rest[count:]
        if held is not None:
            yield held[0], False, held[1]
        yield memoryview(buffer)[:filled], True, self._giver(buffer)

    def _take(self) -> bytearray:
        return self._inputs.pop() if self._inputs else bytearray(self._chunk)

    def _giver(self, buffer: bytearray) -> Callable[[], None]:
        return lambda: self._inputs.append(buffer)


def _nothing() -> None:
    """A slice of the caller's buffer is not ours to reuse."""
