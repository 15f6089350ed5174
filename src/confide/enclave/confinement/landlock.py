# SPDX-License-Identifier: Apache-2.0
"""Landlock: a read-only allow-list of files, no TCP, no way to signal or talk to a process outside.

Linux, Documentation/userspace-api/landlock.rst. The rules hold for the calling thread and its later children, so they
are applied while there is one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.enclave.confinement.levels import Primitive
from confide.enclave.confinement.syscalls import syscall

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from confide.enclave.confinement.syscalls import Architecture

__all__ = ["Grants", "abi", "restrict"]

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE_DIR: Final = 1 << 7
_MAKE_REG: Final = 1 << 8
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_FIRST_ABI_FILES: Final = (1 << 13) - 1
_FILES_ADDED: Final = {2: _REFER, 3: _TRUNCATE, 5: 1 << 15}
_ALL_TCP: Final = 0b11
_ALL_SCOPES: Final = 0b11
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | (1 << 15)


@dataclass(frozen=True, slots=True)
class Grants:
    """What stays reachable: paths to read, devices to read and write, and lent directories (by descriptor) to write in."""

    read: tuple[Path, ...] = ()
    read_write: tuple[Path, ...] = ()
    directories: tuple[int, ...] = ()


def abi(architecture: Architecture) -> int:
    """The kernel's Landlock version; 0 where there is none."""
    try:
        return syscall(architecture.numbers["landlock_create_ruleset"], None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(architecture: Architecture, grants: Grants) -> tuple[Primitive, ...]:
    """Keep to the grants from here on. Needs no_new_privs. A path that does not exist grants nothing."""
    version = abi(architecture)
    names = ("landlock.files", "landlock.tcp", "landlock.scope")
    if version == 0:
        return tuple(Primitive(name, applied=False, detail="the kernel has no Landlock") for name in names)
    handled = _FIRST_ABI_FILES
    for since, right in _FILES_ADDED.items():
        handled |= right if version >= since else 0
    attributes = handled.to_bytes(8, "little")
    if version >= 4:
        attributes += _ALL_TCP.to_bytes(8, "little")
    if version >= 6:
        attributes += _ALL_SCOPES.to_bytes(8, "little")
    try:
        ruleset = syscall(
            architecture.numbers["landlock_create_ruleset"], _buffer(attributes), len(attributes), 0
        )
    except OSError as error:
        detail = error.strerror or "refused"
        return tuple(Primitive(name, applied=False, detail=detail) for name in names)
    try:
        _grant(architecture, ruleset, grants, handled)
        syscall(architecture.numbers["landlock_restrict_self"], ruleset, 0)
    except OSError as error:
        detail = error.strerror or "refused"
        return tuple(Primitive(name, applied=False, detail=detail) for name in names)
    finally:
        os.close(ruleset)
    old = f"Landlock ABI {version} is too old"
    return (
        Primitive("landlock.files", applied=True, detail=f"ABI {version}"),
        Primitive("landlock.tcp", applied=version >= 4, detail="" if version >= 4 else old),
        Primitive("landlock.scope", applied=version >= 6, detail="" if version >= 6 else old),
    )


def _grant(architecture: Architecture, ruleset: int, grants: Grants, handled: int) -> None:
    read = _READ_FILE | _READ_DIR | _EXECUTE
    write = read | _WRITE_FILE | _TRUNCATE
    keep = (write | _MAKE_REG | _MAKE_DIR | _REMOVE_FILE | _REMOVE_DIR | _REFER) & ~_EXECUTE
    _grant_paths(architecture, ruleset, grants.read, read & handled)
    _grant_paths(architecture, ruleset, grants.read_write, write & handled)
    for descriptor in grants.directories:
        _add_rule(architecture, ruleset, descriptor, keep & handled)


def _grant_paths(architecture: Architecture, ruleset: int, paths: Sequence[Path], rights: int) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                _add_rule(architecture, ruleset, descriptor, rights)
            finally:
                os.close(descriptor)


def _add_rule(architecture: Architecture, ruleset: int, descriptor: int, rights: int) -> None:
    # The kernel refuses rights over directories in a rule for a file.
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _FILE_RIGHTS
    attributes = rights.to_bytes(8, "little") + descriptor.to_bytes(4, "little", signed=True)
    syscall(architecture.numbers["landlock_add_rule"], ruleset, _RULE_PATH_BENEATH, _buffer(attributes), 0)


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, len(data))
