# SPDX-License-Identifier: Apache-2.0
"""A process confines itself, in the one order that is safe.

    1  unshare namespaces, write the maps       while dumpable and single-threaded, never followed by an exec
    2  fork                                     the child is process 1 of the pid namespace; the parent only reaps
    3  resource limits                          no core file from here on
    4  no capabilities, not dumpable, W^X       other processes of the user lose sight of the memory
    5  no_new_privs, Landlock, seccomp          Landlock needs calls that seccomp then refuses

Secrets are fetched after step 5, never before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.enclave.confinement import landlock, limits, namespaces, seccomp
from confide.enclave.confinement.levels import PRIMITIVES, Confinement, Primitive
from confide.enclave.confinement.syscalls import architecture, prctl

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.enclave.confinement.landlock import Grants
    from confide.enclave.confinement.limits import ResourceLimits

__all__ = ["enclose", "interpreter_paths", "seal_off"]

_PR_SET_PDEATHSIG: Final = 1
_THREADS_END: Final = 2.0


def enclose(on_fork: Callable[[int], None]) -> tuple[Primitive, ...]:
    """Steps 1 and 2. Returns in the process that goes on; where a pid namespace was made, that is a child.

    The parent calls ``on_fork`` with the child's number as the outside sees it, waits, and ends with the child's exit status, or
    128 + n after signal n. It never returns.
    """
    table = architecture()
    if table is None:
        return ()
    _await_single_thread()
    done = namespaces.enter(table)
    if any(item.applied for item in done if item.name == "namespace.pid"):
        _fork_first_process(on_fork)
    return done


def seal_off(done: tuple[Primitive, ...], resources: ResourceLimits, grants: Grants) -> Confinement:
    """Steps 3 to 5. The caller is single-threaded; what could not be had is reported, not hidden."""
    table = architecture()
    if table is None:
        missing = "no confinement on this platform"
        return Confinement(tuple(Primitive(name, applied=False, detail=missing) for name in PRIMITIVES))
    own_users = any(item.applied for item in done if item.name == "namespace.user")
    return Confinement(
        (
            *done,
            namespaces.drop_capabilities(table),
            limits.apply(resources, own_users=own_users),
            limits.hide_memory(),
            limits.forbid_new_privileges(),
            limits.write_xor_execute(),
            *landlock.restrict(table, grants),
            seccomp.install(table),
        )
    )


def _await_single_thread() -> None:
    """A joined thread may still be on its way out of the kernel, which refuses a user namespace to a process of two."""
    end = time.monotonic() + _THREADS_END
    tasks = Path("/proc/self/task")
    while time.monotonic() < end:
        try:
            if len(list(tasks.iterdir())) == 1:
                return
        except OSError:
            return
        time.sleep(0.001)


def _fork_first_process(on_fork: Callable[[int], None]) -> None:
    ready_to_go, go = os.pipe()
    child = os.fork()
    if child == 0:
        # If the reaper dies, nobody could stop this process by its number any more: die with it.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(go)
        started = os.read(ready_to_go, 1)
        os.close(ready_to_go)
        if not started:
            os._exit(1)
        return
    os.close(ready_to_go)
    _reap(child, go, on_fork)


def _reap(child: int, go: int, on_fork: Callable[[int], None]) -> None:
    """Be the parent: hold nothing, pass on a request to end, and end as the child does."""
    code = 1
    try:
        limits.hide_memory()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: _forward(child, number))
        on_fork(child)
        os.write(go, b"1")
        # An end of the control socket or of the listening socket here would keep them open after the child's death.
        os.closerange(0, 65_536)
        code = os.waitstatus_to_exitcode(_wait(child))
    finally:
        os._exit(code if code >= 0 else 128 - code)


def _forward(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _wait(child: int) -> int:
    while True:
        with contextlib.suppress(InterruptedError):
            return os.waitpid(child, 0)[1]


def interpreter_paths() -> tuple[Path, ...]:
    """What every Python process reads: the interpreter's own library, shared libraries, and a few facts of the machine."""
    library = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = {
        Path(sys.base_prefix) / "lib" / library,
        Path(sys.base_exec_prefix) / "lib" / library,
        Path(sys.base_prefix) / "lib" / f"lib{library}.so.1.0",
    }
    # Under a system interpreter the standard library lies inside one of these anyway.
    places.update(Path(name) for name in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"))
    places.update(
        Path(name)
        for name in (
            "/proc/self",
            "/proc/cpuinfo",
            "/proc/meminfo",
            "/sys/devices/system/cpu",
            "/dev/urandom",
        )
    )
    return tuple(sorted(places))
