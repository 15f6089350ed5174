# SPDX-License-Identifier: Apache-2.0
"""A process of the same user that tries to read another one. Run as ``python attacker.py PID [UID]``; prints JSON."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from pathlib import Path

PTRACE_ATTACH = 16
PTRACE_SEIZE = 0x4206
PIDFD_OPEN, PIDFD_GETFD = 434, 438
PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}
KCMP = {"x86_64": 312, "aarch64": 272}


def outcome(result: int) -> str:
    return "succeeded" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")


def open_memory(pid: int) -> str:
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            start = int(Path(f"/proc/{pid}/maps").read_bytes().split(b"-")[0], 16)
            memory.seek(start)
            memory.read(4)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "succeeded"


def read(path: str) -> str:
    try:
        if Path(path).is_dir():
            # Listing may be allowed to root; following a link is what steals a file.
            for link in sorted(Path(path).iterdir()):
                link.readlink()
        else:
            Path(path).read_bytes()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "succeeded"


def read_memory(libc: ctypes.CDLL, pid: int) -> int:
    buffer = ctypes.create_string_buffer(8)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_size_t * 2)(4096, 8)
    number = PROCESS_VM_READV[os.uname().machine]
    words = (number, pid, ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0)
    return int(libc.syscall(*(ctypes.c_long(word) for word in words)))


def main() -> None:
    pid = int(sys.argv[1])
    if len(sys.argv) > 2:
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    machine = os.uname().machine
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    results = {
        name: read(f"/proc/{pid}/{name}")
        for name in ("maps", "environ", "fd", "auxv", "smaps", "cwd/.", "root/.")
    }
    results |= {
        "mem": open_memory(pid),
        "pidfd_getfd": outcome(libc.syscall(PIDFD_GETFD, pidfd, 0, 0)),
        "process_vm_readv": outcome(read_memory(libc, pid)),
        "kcmp": outcome(libc.syscall(KCMP[machine], os.getpid(), pid, 0, 0, 0)),
        "seize": outcome(libc.ptrace(PTRACE_SEIZE, pid, None, None)),
        "attach": outcome(libc.ptrace(PTRACE_ATTACH, pid, None, None)),
    }
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
