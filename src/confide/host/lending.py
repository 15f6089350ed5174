# SPDX-License-Identifier: Apache-2.0
"""What the host lends to an enclave: a listening socket, files of ciphertext, a directory for vaults."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from typing import TYPE_CHECKING

from confide.errors import ConfigurationError, EnclaveError

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

__all__ = ["bind", "open_directory", "open_file", "url_of"]


def bind(listen: tuple[str, int]) -> socket.socket:
    """A listening socket on a loopback address; `ConfigurationError` for any other."""
    host, port = listen
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ConfigurationError(
            "listen",
            "a simulated enclave listens on a loopback address only",
            hint="It protects nothing from the owner of this machine, so nobody else should rely on it. Use 127.0.0.1.",
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise EnclaveError(
            "bad_state", "the address cannot be listened on", hint="Is another process using the port?"
        ) from error
    return listener


def url_of(address: tuple[object, ...]) -> str:
    """The base URL of a listening socket."""
    host = str(address[0])
    return f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"


def open_file(ours: contextlib.ExitStack, path: Path) -> int:
    """Open a regular file to be lent, and close it with ``ours``; `ConfigurationError` for anything else."""
    try:
        # A FIFO would block without O_NONBLOCK, which means nothing to regular files.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(
            "data", "a file that should be lent cannot be opened", hint=f"{path}: {error.strerror}."
        ) from error
    ours.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ConfigurationError("data", "what should be lent is not a regular file", hint=str(path))
    return descriptor


def open_directory(ours: contextlib.ExitStack, path: Path) -> int:
    """Open the directory for vaults, made if it is not there, and close it with ``ours``."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            "storage", "the directory for vaults cannot be opened", hint=f"{path}: {error.strerror}."
        ) from error
    ours.callback(os.close, descriptor)
    return descriptor
