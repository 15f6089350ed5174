# SPDX-License-Identifier: Apache-2.0
"""Protected files: what the holder of a data key can read and only its owner can have written.

    write("model.confide", [Entry("model.onnx", data)], key=key, signer=owner, name="model", version=1)
    with ProtectedFile.open("model.confide", key=key, owner_public=owner.public, name="model") as file:
        model = file.read("model.onnx")

The format and the order of checks are ``docs/spec/protected-file.md``. Plaintext goes into the caller's buffers or
anonymous memory, never to a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import mmap
import os
import stat
import threading
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Self

from confide.crypto import signing
from confide.crypto.aead import TAG, Aead, AuthenticationFailed
from confide.errors import ConfideError, ConfigurationError, SealingError
from confide.sealing import layout
from confide.sealing.durable import open_regular, storage_errors
from confide.sealing.layout import Description
from confide.sealing.names import is_name, is_version
from confide.sealing.writer import Entry, Progress, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from confide.crypto.secret import Secret

__all__ = ["Description", "Entry", "Progress", "ProtectedFile", "anonymous", "write"]

KeyHolders = Literal["many", "owner"]
MAX_THREADS: Final = 64


def anonymous(size: int) -> memoryview:
    """Fresh private memory of ``size`` bytes, in huge pages where the system has them; no file, no core dump holds it."""
    if not size:
        return memoryview(bytearray())
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in ("MADV_HUGEPAGE", "MADV_DONTDUMP"):
        if hasattr(mmap, advice):
            # A kernel without huge pages refuses the advice, which costs speed only.
            with contextlib.suppress(OSError):
                area.madvise(getattr(mmap, advice))
    return memoryview(area)


class _Source:
    """Ciphertext: a file, or bytes of this process."""

    def __init__(self, source: int | Path | str | bytes | bytearray | memoryview) -> None:
        self._view: memoryview | None = None
        self._descriptor = -1
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._view = memoryview(source).cast("B")
            self.size = len(self._view)
            return
        if isinstance(source, int):
            with storage_errors("use the descriptor of the protected file"):
                status = os.fstat(source)
                if not stat.S_ISREG(status.st_mode):
                    raise SealingError("storage_io", "the descriptor is not one of a regular file")
                self._descriptor = os.dup(source)
        else:
            self._descriptor = open_regular(Path(source))
        self.size = os.fstat(self._descriptor).st_size

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset``; ``sealing.integrity`` if the file is shorter by now."""
        if self._view is not None:
            piece = self._view[offset : offset + len(out)]
            if len(piece) != len(out):
                raise SealingError("integrity", "the protected file is cut off")
            out[:] = piece
            return
        with storage_errors("read the protected file"):
            while out:
                count = os.preadv(self._descriptor, [out], offset)
                if not count:
                    raise SealingError("integrity", "the protected file is cut off")
                offset += count
                out = out[count:]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._view = None


class ProtectedFile:
    """An opened protected file; a mapping-like view of its entries. Made by ``open``; close it, or use ``with``."""

    freshness: Final = "none"
    """Nothing tells an older file of the same owner, name and version from the newest (no anchor yet)."""

    def __init__(
        self,
        source: _Source,
        header: layout.Header,
        key: Secret,
        entries: Mapping[str, layout.Stored],
        metadata: Mapping[str, object],
        *,
        check_digests: bool,
    ) -> None:
        self._source = source
        self._header = header
        self._key = key
        self._entries = entries
        self._check_digests = check_digests
        self.metadata: Mapping[str, object] = MappingProxyType(dict(metadata))

    @classmethod
    def open(
        cls,
        source: int | Path | str | bytes | bytearray | memoryview,
        *,
        key: Secret,
        owner_public: bytes,
        name: str,
        version: int | None = None,
        minimum_version: int = 1,
        key_holders: KeyHolders = "many",
    ) -> Self:
        """Check header, signature, name, version, key and index, in the order of the specification, section 5.

        ``source`` is a path, a descriptor of a regular file (it stays the caller's) or bytes. ``key`` is the data key,
        ``owner_public`` (32 bytes) and ``name`` what the caller's own measured configuration says, ``version`` the version of
        ``key`` where the caller knows it. ``key_holders="owner"`` states that nobody but the file's owner and this process
        has the key; then the digests of the payload are not computed and decryption runs at the speed of AES.

        Raises ``sealing.unsupported_version``, ``signer``, ``policy_mismatch``, ``rollback``, ``integrity``, ``storage_io``.
        """
        if not is_name(name) or not is_version(minimum_version) or len(owner_public) != 32:
            raise ConfigurationError(
                "invalid", "a protected file is opened for a name, a version and an owner's key of 32 bytes"
            )
        if key_holders not in {"many", "owner"}:
            raise ConfigurationError("invalid", 'key_holders is "many" or "owner"')
        opened = _Source(source)
        try:
            return cls._open(
                opened,
                key=key,
                owner_public=owner_public,
                name=name,
                version=version,
                minimum_version=minimum_version,
                check_digests=key_holders == "many",
            )
        except BaseException:
            opened.close()
            raise

    @classmethod
    def _open(
        cls,
        source: _Source,
        *,
        key: Secret,
        owner_public: bytes,
        name: str,
        version: int | None,
        minimum_version: int,
        check_digests: bool,
    ) -> Self:
        block = bytearray(min(layout.HEADER_BLOCK, source.size))
        source.read_into(0, memoryview(block))
        header, encoded, signature = layout.Header.split(bytes(block))  # (1)
        if not hmac.compare_digest(header.owner, owner_public):  # (2)
            raise SealingError(
                "signer",
                "the protected file belongs to another owner",
                hint="compare the owner's fingerprint with the one in the service's configuration",
            )
        try:
            signing.verify(owner_public, signature, layout.Header.signed_message(encoded))
        except ConfideError:
            raise SealingError("integrity", "the owner's signature on the file does not verify") from None
        if header.name != name or (version is not None and header.version != version):  # (3)
            raise SealingError(
                "policy_mismatch", "the protected file was made under another name or version of the key"
            )
        if header.version < minimum_version:
            raise SealingError("rollback", "the protected file is older than the version asked for")
        keys = layout.file_keys(key, file=header.file, name=header.name, version=header.version)
        if not hmac.compare_digest(keys.commitment, header.commitment):  # (4)
            raise SealingError("policy_mismatch", "this data key is not the one that the file was made with")
        if source.size != layout.HEADER_BLOCK + header.payload + header.index:  # (5)
            raise SealingError("integrity", "the protected file has not the length that it says")
        try:
            index = _open_index(source, header, keys.key)
            entries, metadata = layout.decode_index(index, header)
        except SealingError:
            raise
        except ConfideError:
            entries = None
        if entries is None:
            raise SealingError("integrity", "the index of the protected file is malformed")
        return cls(source, header, keys.key, entries, metadata, check_digests=check_digests)

    @property
    def version(self) -> int:
        """The version of the data key that the file was made with."""
        return self._header.version

    @property
    def names(self) -> tuple[str, ...]:
        """The entries' names, in the order in which they were written."""
        return tuple(self._entries)

    def describe(self, name: str) -> Description:
        """Kind, item type, shape and size of an entry."""
        return self._stored(name).description

    @property
    def digest(self) -> bytes:
        """SHA-256 over the signed header: names this very file, content included (32 bytes)."""
        return layout.digest(self._header.encode())

    def _stored(self, name: str) -> layout.Stored:
        stored = self._entries.get(name)
        if stored is None:
            raise SealingError("policy_mismatch", "the protected file has no entry of this name")
        return stored

    def read(self, name: str, *, threads: int = 1) -> memoryview:
        """An entry in fresh anonymous memory."""
        memory = anonymous(self._stored(name).description.size)
        self.read_into(name, memory, threads=threads)
        return memory

    def read_memfd(self, name: str, *, threads: int = 1) -> int:
        """An entry in an anonymous file in memory, for libraries that read files only: a descriptor, at its start, that the
        caller closes. It is sealed against every change (Linux). Raises ``sealing.storage_io`` where there is no memfd.
        """
        size = self._stored(name).description.size
        if not hasattr(os, "memfd_create"):
            raise SealingError("storage_io", "this system has no anonymous files", hint="use `read`")
        with storage_errors("make an anonymous file"):
            descriptor = os.memfd_create("confide", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with storage_errors("fill an anonymous file"):
                os.ftruncate(descriptor, size)
            if size:
                # Closed on success only: after a failure the traceback still refers to it, zeroed as it is.
                area = mmap.mmap(descriptor, size)
                self.read_into(name, area, threads=threads)
                area.close()
            with storage_errors("seal an anonymous file"):
                seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read_into(self, name: str, buffer: object, *, threads: int = 1) -> None:
        """Decrypt an entry into ``buffer``, which is writable, contiguous and has exactly the entry's size in bytes.

        Every chunk is decrypted straight to its final place, by ``threads`` threads. On any failure the whole buffer is
        zeroed before the error is raised.
        """
        stored = self._stored(name)
        view = _writable(buffer)
        if len(view) != stored.description.size:
            raise ConfigurationError("invalid", "the buffer has not the size of the entry")
        chunk = self._header.chunk
        count = layout.chunk_count(len(view), chunk)

        def worker() -> Callable[[int], object]:
            aead = Aead(self._key)
            scratch = bytearray(min(chunk, len(view)) + TAG)
            return lambda index: self._open_chunk(
                stored, index, aead, scratch, view[index * chunk : (index + 1) * chunk]
            )

        try:
            _Crew(count, worker).run(min(max(threads, 1), MAX_THREADS, count))
        except BaseException:
            view[:] = bytes(len(view))
            raise

    def read_range_into(self, name: str, offset: int, buffer: object) -> None:
        """Decrypt a part of an entry, from byte ``offset``, into ``buffer``: only the chunks that it touches are read."""
        stored = self._stored(name)
        view = _writable(buffer)
        if offset < 0 or offset + len(view) > stored.description.size:
            raise ConfigurationError("invalid", "the range is not inside the entry")
        chunk = self._header.chunk
        scratch, plain = bytearray(chunk + TAG), bytearray(chunk)
        aead = Aead(self._key)
        done = 0
        try:
            while done < len(view):
                index, skip = divmod(offset + done, chunk)
                size = self._open_chunk(stored, index, aead, scratch, memoryview(plain))
                count = min(size - skip, len(view) - done)
                view[done : done + count] = memoryview(plain)[skip : skip + count]
                done += count
        except BaseException:
            view[:] = bytes(len(view))
            raise
        finally:
            plain[:] = bytes(chunk)

    def _open_chunk(
        self, stored: layout.Stored, index: int, aead: Aead, scratch: bytearray, out: memoryview
    ) -> int:
        """Read chunk ``index`` once into private memory, check its digest, decrypt it to the front of ``out``."""
        chunk = self._header.chunk
        size = min(chunk, stored.description.size - index * chunk)
        last = (index + 1) * chunk >= stored.description.size
        ciphertext = memoryview(scratch)[: size + TAG]
        self._source.read_into(stored.offset + index * (chunk + TAG), ciphertext)
        if self._check_digests and not hmac.compare_digest(
            layout.digest(ciphertext), stored.digests[32 * index : 32 * index + 32]
        ):
            raise SealingError("integrity", "a chunk of the protected file is not what its owner signed")
        try:
            return aead.open_into(layout.nonce(stored.stream, index, last=last), ciphertext, b"", out[:size])
        except AuthenticationFailed:
            raise SealingError("integrity", "a chunk of the protected file does not authenticate") from None

    def close(self) -> None:
        """Close the source and erase the file's key."""
        self._source.close()
        self._key.erase()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"ProtectedFile(version={self._header.version})"


class _Crew:
    """Threads that share the numbers from 0 to ``count``: each takes the next one that nobody has."""

    def __init__(self, count: int, worker: Callable[[], Callable[[int], object]]) -> None:
        self._count = count
        self._worker = worker
        self._next = 0
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, threads: int) -> None:
        """Do everything, in this thread and ``threads`` - 1 others; the first error is raised when all have stopped."""
        others = [threading.Thread(target=self._work, daemon=True) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        self._work()
        for thread in others:
            thread.join()
        if self._error is not None:
            raise self._error

    def _take(self) -> int | None:
        with self._lock:
            if self._error is not None or self._next >= self._count:
                return None
            self._next += 1
            return self._next - 1

    def _work(self) -> None:
        try:
            work = self._worker()
            while (number := self._take()) is not None:
                work(number)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            with self._lock:
                self._error = self._error or error


def _writable(buffer: object) -> memoryview:
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
    except TypeError:
        view = None
    if view is None or view.readonly or not view.c_contiguous:
        raise ConfigurationError("invalid", "a writable, contiguous buffer is needed")
    return view.cast("B") if view.nbytes else memoryview(bytearray())


def _open_index(source: _Source, header: layout.Header, key: Secret) -> bytes:
    size = layout.plaintext_size(header.index, header.chunk)
    ciphertext = memoryview(bytearray(header.index))
    source.read_into(layout.HEADER_BLOCK + header.payload, ciphertext)
    if not hmac.compare_digest(layout.digest(ciphertext), header.index_digest):
        raise SealingError("integrity", "the index of the protected file is not what its owner signed")
    aead = Aead(key)
    count = layout.chunk_count(size, header.chunk)
    step = header.chunk + TAG
    try:
        return b"".join(
            aead.open(layout.nonce(0, i, last=i == count - 1), ciphertext[i * step : (i + 1) * step], b"")
            for i in range(count)
        )
    except AuthenticationFailed:
        raise SealingError("integrity", "the index of the protected file does not authenticate") from None
