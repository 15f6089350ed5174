# SPDX-License-Identifier: Apache-2.0
"""Namespaces that a process makes around itself, and the capabilities that it gives up with them.

The process calls unshare(2) and never exec's afterwards: a process that was exec'ed inside a user namespace can be
traced by whoever owns that namespace, dumpable or not. The maps are written while the process is still dumpable,
because a non-dumpable process's ``/proc/self`` belongs to root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.enclave.confinement.levels import Primitive
from confide.enclave.confinement.syscalls import prctl, syscall

if TYPE_CHECKING:
    from confide.enclave.confinement.syscalls import Architecture

__all__ = ["FLAGS", "drop_capabilities", "enter"]

FLAGS: Final = {
    "user": 0x10000000,
    "network": 0x40000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_MAX_CAPABILITY: Final = 63


def enter(architecture: Architecture) -> tuple[Primitive, ...]:
    """Unshare every namespace that this machine grants. The caller must be single-threaded, and forks afterwards.

    A new user namespace is what lets the rest be had without root; where it is refused, root tries the others alone.
    """
    user, group = os.geteuid(), os.getegid()
    done = [_unshare(architecture, "user")]
    if done[0].applied:
        _write_maps(user, group)
    done.extend(_unshare(architecture, name) for name in FLAGS if name != "user")
    if any(item.applied for item in done if item.name == "namespace.mount"):
        _make_mounts_private(architecture)
    return tuple(done)


def _unshare(architecture: Architecture, name: str) -> Primitive:
    try:
        syscall(architecture.numbers["unshare"], FLAGS[name])
    except OSError as error:
        return Primitive(f"namespace.{name}", applied=False, detail=error.strerror or "refused")
    return Primitive(f"namespace.{name}", applied=True)


def _write_maps(user: int, group: int) -> None:
    # Without the maps the process would have no user at all: opening its own files would fail later and obscurely.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with (
            contextlib.suppress(FileNotFoundError),
            Path(f"/proc/self/{name}").open("wb", buffering=0) as file,
        ):
            file.write(text.encode())


def _make_mounts_private(architecture: Architecture) -> None:
    # A mount made by the host later must not appear inside, and the other way round.
    root = ctypes.create_string_buffer(b"/")
    with contextlib.suppress(OSError):
        syscall(architecture.numbers["mount"], None, root, None, _MS_REC | _MS_PRIVATE, None)


def drop_capabilities(architecture: Architecture) -> Primitive:
    """Give up every capability, also those that a new user namespace has just handed out."""
    for capability in range(_MAX_CAPABILITY + 1):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            break  # Past the last capability of this kernel, or none to drop.
    with contextlib.suppress(OSError):
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(
        _CAPABILITY_VERSION_3.to_bytes(4, "little") + (0).to_bytes(4, "little"), 8
    )
    data = ctypes.create_string_buffer(24)
    try:
        syscall(architecture.numbers["capset"], header, data)
    except OSError as error:
        return Primitive("capabilities", applied=False, detail=error.strerror or "refused")
    return Primitive("capabilities", applied=True, detail="none left")
