# SPDX-License-Identifier: Apache-2.0
"""How commands reach a TPM: the kernel's resource manager, or the Unix socket of swtpm."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final, Protocol, Self

from confide.errors import EnclaveError, TeeUnavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_RESPONSE", "DeviceFile", "Transport", "UnixSocket"]

MAX_RESPONSE: Final = 4096
_HEADER: Final = 10
_TIMEOUT: Final = 60.0


class Transport(Protocol):
    """One TPM, one command at a time."""

    def transact(self, command: bytes) -> bytes:
        """The response to a whole command. Raises ``enclave.bad_state`` if the TPM does not answer."""

    def close(self) -> None:
        """Let go of the TPM."""


def _failed(error: OSError | None = None) -> EnclaveError:
    detail = "" if error is None or error.errno is None else f" ({os.strerror(error.errno)})"
    return EnclaveError("bad_state", f"the TPM does not answer{detail}", stage="attest")


class DeviceFile:
    """/dev/tpmrm0: one write is a command, one read its response. The kernel swaps objects and sessions of several users."""

    __slots__ = ("_file",)

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise TeeUnavailable(
                "tee",
                f"there is no TPM at {path}",
                hint="enable the vTPM of this machine, or name the socket of a swtpm",
                stage="attest",
            ) from None
        except OSError as error:
            raise TeeUnavailable(
                "tee",
                f"the TPM at {path} cannot be opened ({os.strerror(error.errno or 0)})",
                hint="run as root or as a member of the group that owns it, mostly `tss`",
                stage="attest",
            ) from None

    def transact(self, command: bytes) -> bytes:
        """See ``Transport``."""
        try:
            if os.write(self._file, command) != len(command):
                raise _failed()
            return os.read(self._file, MAX_RESPONSE)
        except OSError as error:
            raise _failed(error) from None

    def close(self) -> None:
        """See ``Transport``."""
        os.close(self._file)


class UnixSocket:
    """The data channel of `swtpm socket --server type=unixio`, which carries bare commands and responses."""

    __slots__ = ("_socket",)

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_TIMEOUT)
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise TeeUnavailable(
                "tee",
                f"no swtpm answers at {path} ({os.strerror(error.errno or 0)})",
                hint="start it with `swtpm socket --tpm2 --server type=unixio,path=...`",
                stage="attest",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transact(self, command: bytes) -> bytes:
        """See ``Transport``."""
        try:
            self._socket.sendall(command)
            header = self._receive(_HEADER)
            size = int.from_bytes(header[2:6], "big")
            if not _HEADER <= size <= MAX_RESPONSE:
                raise _failed()
            return header + self._receive(size - _HEADER)
        except OSError as error:
            raise _failed(error) from None

    def _receive(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            more = self._socket.recv(count - len(found))
            if not more:
                raise _failed()
            found += more
        return bytes(found)

    def close(self) -> None:
        """See ``Transport``."""
        with contextlib.suppress(OSError):
            self._socket.close()
