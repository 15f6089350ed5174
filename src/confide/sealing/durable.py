# SPDX-License-Identifier: Apache-2.0
"""Files that are whole after any crash, written into folders that somebody else may be poking at.

A file is made under a random name in the target's folder, flushed, and renamed over the target; the folder is opened once and
everything happens relative to that descriptor, so that swapping the path changes nothing. Source:
``docs/spec/protected-file.md``, section 6.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from confide.errors import SealingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = [
    "TEMPORARY_SUFFIX",
    "DurableFile",
    "make_private_directory",
    "open_regular",
    "read_private",
    "storage_errors",
    "write_all",
    "write_public",
]

MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o700
TEMPORARY_SUFFIX: Final = ".tmp"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn an OSError into ``sealing.storage_full`` or ``sealing.storage_io``; ``what`` says what could not be done."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        cause = "the disk or the quota is full" if full else os.strerror(error.errno or errno.EIO)
        # Without the cause: an OSError carries paths, which may carry names.
        raise SealingError(
            "storage_full" if full else "storage_io",
            f"could not {what}: {cause}",
            hint="make room and try again" if full else "check the folder, its owner and its permissions",
            retryable=full,
        ) from None


def _refuse(message: str, hint: str) -> SealingError:
    return SealingError("storage_io", message, hint=hint)


def write_all(descriptor: int, data: memoryview | bytes, *, offset: int | None = None) -> None:
    """Write all of ``data``, at the descriptor's position or at ``offset``, whatever the kernel takes at a time."""
    view = memoryview(data)
    while view:
        count = os.write(descriptor, view) if offset is None else os.pwrite(descriptor, view, offset)
        view = view[count:]
        if offset is not None:
            offset += count


def open_directory(path: Path) -> int:
    """A descriptor of a folder in which names that we make stay ours. Raises ``sealing.storage_io``."""
    with storage_errors("open the folder"):
        descriptor = os.open(path, _O_DIRECTORY)
    status = os.fstat(descriptor)
    # The owner's group is trusted: many systems give each user a group of his own and let it write.
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        os.close(descriptor)
        raise _refuse(
            "the folder may be written to by everybody", "choose another folder, or take that permission away"
        )
    if status.st_uid not in {os.geteuid(), 0} and not status.st_mode & stat.S_ISVTX:
        os.close(descriptor)
        raise _refuse("the folder belongs to another user", "choose a folder of your own")
    return descriptor


def make_private_directory(path: Path) -> None:
    """Make ``path`` and what is missing above it, 0700; an existing folder must be ours and nobody else's to enter."""
    with storage_errors("make the folder"):
        missing = []
        folder = path
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, DIRECTORY_MODE)  # noqa: PTH102 - the mode is fixed below, whatever the umask
                # Only where the umask took something away: a confined process may change no modes, and has a good umask.
                if stat.S_IMODE(os.lstat(folder).st_mode) != DIRECTORY_MODE:
                    os.chmod(folder, DIRECTORY_MODE)  # noqa: PTH101
                # What is made durable in the folder is lost with it, unless its own name is durable first.
                _sync_directory(folder.parent)
        status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise _refuse("what should be a folder is a link or a file", "move it away")
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise _refuse(
            "the folder is open to other users", "give it mode 0700 and make sure that it belongs to you"
        )


def _sync_directory(path: Path) -> None:
    try:
        descriptor = os.open(path, _O_DIRECTORY)
    except PermissionError:
        return  # A folder that one may write to but not list: nobody can flush it.
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path | str, *, directory: int | None = None) -> int:
    """A read-only descriptor of a regular file that is not reached through a symbolic link. FIFOs do not block."""
    with storage_errors("open the file"):
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refuse("this is not a regular file", "give the file itself")
    return descriptor


def read_private(path: Path, *, max_bytes: int, what: str) -> bytes | None:
    """The content of a file with a secret in it, or None where there is none.

    Refuses (``sealing.storage_io``) a link, another user's file, and one that others may read or write.
    """
    with storage_errors(f"open {what}"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refuse(f"{what} is not a regular file", "move it away")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise _refuse(
                f"{what} can be read by other users",
                "replace the key that is in it, it may be known; keep such files at mode 0600",
            )
        if status.st_size > max_bytes:
            raise SealingError("integrity", f"{what} is too long")
        with storage_errors(f"read {what}"):
            data = bytearray()
            while len(data) <= max_bytes:
                piece = os.read(descriptor, max_bytes + 1 - len(data))
                if not piece:
                    return bytes(data)
                data += piece
        raise SealingError("integrity", f"{what} is too long")
    finally:
        os.close(descriptor)


def write_public(path: Path, text: str) -> None:
    """Write a file that everybody may read (0644), whole or not at all: the first half of a policy asks for less."""
    with DurableFile(path) as file:
        with storage_errors("write the file"):
            os.fchmod(file.descriptor, PUBLIC_MODE)
            write_all(file.descriptor, text.encode())
        file.commit()


class DurableFile:
    """A new file for ``path``: write to ``descriptor``, then ``commit``. Without ``commit`` nothing has happened.

    ``replace=False`` never touches an existing file: ``commit`` returns False if there is one by then.
    """

    def __init__(self, path: Path | str, *, replace: bool = True, sync: bool = True) -> None:
        path = Path(path)
        if not path.name:
            raise _refuse("this path names no file", "end it with a file's name")
        self._name = path.name
        self._replace = replace
        self._sync = sync
        self._directory = open_directory(path.parent)
        self._temporary = f".{self._name[:100]}.{os.urandom(16).hex()}{TEMPORARY_SUFFIX}"
        self._done = False
        self.descriptor = -1
        try:
            if replace:
                self._check_target()
            with storage_errors("make the file"):
                self.descriptor = os.open(
                    self._temporary,
                    os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                    MODE,
                    dir_fd=self._directory,
                )
                if stat.S_IMODE(os.fstat(self.descriptor).st_mode) != MODE:
                    os.fchmod(self.descriptor, MODE)
        except BaseException:
            self.close()
            raise

    def _check_target(self) -> None:
        try:
            status = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError:
            raise _refuse("the target cannot be looked at", "choose another name") from None
        if not stat.S_ISREG(status.st_mode):
            raise _refuse(
                "the target exists and is not a regular file", "choose another name, or move it away"
            )
        if status.st_nlink > 1:
            raise _refuse(
                "the target has more than one name", "choose another name, or remove the other link"
            )

    def commit(self) -> bool:
        """Flush, give the file its name, flush the folder. True unless ``replace=False`` found a file there."""
        with storage_errors("write the file"):
            if self._sync:
                os.fsync(self.descriptor)
            if self._replace:
                self._check_target()
                os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                self._done = True
            else:
                try:
                    os.link(
                        self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory
                    )
                except FileExistsError:
                    return False
            if self._sync:
                os.fsync(self._directory)
        return True

    def close(self) -> None:
        """Take the temporary name away, if it is still there, and close everything."""
        if not self._done and self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        self._done = True
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
