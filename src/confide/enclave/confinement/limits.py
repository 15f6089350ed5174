# SPDX-License-Identifier: Apache-2.0
"""Resource limits of a worker, and what keeps its memory from other processes of the same user."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

from confide.enclave.confinement.levels import Primitive
from confide.enclave.confinement.syscalls import prctl

__all__ = ["ResourceLimits", "apply", "forbid_new_privileges", "hide_memory", "write_xor_execute"]

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_MDWE: Final = 65
_PR_MDWE_REFUSE_EXEC_GAIN: Final = 1
_ADDRESS_SPACE_HEADROOM: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Ceilings for one worker: private writable memory and any one file in bytes, open descriptors, threads."""

    memory: int
    open_files: int
    threads: int
    file_size: int


def apply(limits: ResourceLimits, *, own_users: bool) -> Primitive:
    """Set the limits, soft and hard. Memory counts private writable pages, so mapped libraries do not use it up.

    Reserved address space is much larger than what is used (thread stacks, arenas), so it has headroom of its own. The
    kernel counts threads per user: outside a user namespace of its own a worker would be charged for every other
    process of the user, so there the memory that a thread's stack takes is what bounds them.
    """
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, limits.memory),
        (resource.RLIMIT_AS, 2 * limits.memory + _ADDRESS_SPACE_HEADROOM),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_size),
    ]
    for name, value in (("RLIMIT_NPROC", limits.threads if own_users else None), ("RLIMIT_MSGQUEUE", 0)):
        if value is not None and hasattr(resource, name):
            wanted.append((getattr(resource, name), value))
    refused = []
    for which, value in wanted:
        _, hard = resource.getrlimit(which)
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (ceiling, ceiling))
        except (OSError, ValueError):
            refused.append(which)
    if refused:
        # Part of a limit is no limit: what is missing must not count.
        return Primitive("limits", applied=False, detail=f"{len(refused)} limits were refused")
    return Primitive("limits", applied=True, detail=f"{limits.memory >> 20} MiB, no core dump")


def hide_memory() -> Primitive:
    """No core dump, no ptrace and no /proc/PID/mem for processes of the same user."""
    try:
        prctl(_PR_SET_DUMPABLE, 0)
    except OSError as error:
        return Primitive("not_dumpable", applied=False, detail=error.strerror or "refused")
    return Primitive("not_dumpable", applied=True)


def forbid_new_privileges() -> Primitive:
    """No later exec can gain anything; Landlock and seccomp demand it."""
    try:
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        return Primitive("no_new_privileges", applied=False, detail=error.strerror or "refused")
    return Primitive("no_new_privileges", applied=True)


def write_xor_execute() -> Primitive:
    """Memory that was writable never becomes executable (Linux 6.3 and later)."""
    try:
        prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN)
    except OSError as error:
        return Primitive("write_xor_execute", applied=False, detail=error.strerror or "refused")
    return Primitive("write_xor_execute", applied=True)
