# SPDX-License-Identifier: Apache-2.0
"""A seccomp filter: the system calls that a worker has no use for and an attacker has.

Linux, Documentation/userspace-api/seccomp_filter.rst; instructions are classic BPF over ``struct seccomp_data``
(number at 0, architecture at 4, arguments of 8 bytes from 16). The filter looks at the low half of an argument only
where the kernel itself takes an ``int``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.enclave.confinement.levels import Primitive
from confide.enclave.confinement.syscalls import syscall

if TYPE_CHECKING:
    from confide.enclave.confinement.syscalls import Architecture

__all__ = ["DENIED", "build", "install"]

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL: Final = 0x80000000
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1

_CLONE_THREAD: Final = 0x00010000
_MSG_FASTOPEN: Final = 0x20000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_PTRACER: Final = 0x59616D61
_F_SETOWN: Final = 8
_F_SETSIG: Final = 10
_F_SETOWN_EX: Final = 15
_FIOSETOWN: Final = 0x8901
_SIOCSPGRP: Final = 0x8902
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_SOCKET_TYPE_MASK: Final = 0xF

DENIED: Final[tuple[str, ...]] = (
    # Reaching a network, a path or another process's socket.
    *("socket", "connect", "bind", "sendmmsg"),
    # Becoming or making another program.
    *("execve", "execveat", "fork", "vfork", "uselib", "personality"),
    # Other processes.
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("move_pages", "migrate_pages", "mbind"),
    *("shmget", "shmat", "shmctl", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink"),
    *("semget", "semop", "semtimedop", "semctl"),
    # Modes, owners, attributes and times of files, and their length by path: Landlock does not look at these (the last
    # one since ABI 3), so that code inside could open a private file of the user to everybody.
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr"),
    *("removexattrat", "file_setattr", "utime", "utimes", "futimesat", "utimensat", "truncate"),
    # Another view of the machine.
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "mount_setattr", "move_mount"),
    *("open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "statmount", "listmount"),
    *("name_to_handle_at", "open_by_handle_at", "fanotify_init", "quotactl", "quotactl_fd"),
    # Large kernel surfaces, among them one that goes around this filter.
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd"),
    *("add_key", "request_key", "keyctl", "modify_ldt", "lookup_dcookie", "nfsservctl"),
    # The machine itself.
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "acct"),
    *("swapon", "swapoff", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname"),
    *("setdomainname", "syslog", "ioperm", "iopl", "vhangup"),
)
"""Refused with EPERM whatever the arguments are."""


@dataclass(frozen=True, slots=True)
class _Condition:
    """Refuse when ``(argument & mask) == value`` is as ``equal`` says."""

    argument: int
    mask: int
    value: int
    equal: bool


def _conditions(pid: int) -> tuple[tuple[str, _Condition], ...]:
    everything = 0xFFFFFFFF
    return (
        # Threads, yes; processes, no.
        ("clone", _Condition(0, _CLONE_THREAD, _CLONE_THREAD, equal=False)),
        # Nobody makes the process traceable again, or names a tracer.
        ("prctl", _Condition(0, everything, _PR_SET_DUMPABLE, equal=True)),
        # It dies with its reaper, whose number is the one that the host knows for sure.
        ("prctl", _Condition(0, everything, _PR_SET_PDEATHSIG, equal=True)),
        ("prctl", _Condition(0, everything, _PR_SET_PTRACER, equal=True)),
        # Signals to itself only: without a pid namespace the numbers of other processes are at hand.
        ("kill", _Condition(0, everything, pid, equal=False)),
        ("tgkill", _Condition(0, everything, pid, equal=False)),
        # The kernel would send SIGIO, or any other signal, to whoever is named as a descriptor's owner.
        ("fcntl", _Condition(1, everything, _F_SETOWN, equal=True)),
        ("fcntl", _Condition(1, everything, _F_SETSIG, equal=True)),
        ("fcntl", _Condition(1, everything, _F_SETOWN_EX, equal=True)),
        ("ioctl", _Condition(1, everything, _FIOSETOWN, equal=True)),
        ("ioctl", _Condition(1, everything, _SIOCSPGRP, equal=True)),
        # Limits of another process of the user.
        ("prlimit64", _Condition(0, everything, 0, equal=False)),
        # Pairs for event loops; a datagram pair could send to any path or abstract name.
        ("socketpair", _Condition(0, everything, socket.AF_UNIX, equal=False)),
        ("socketpair", _Condition(1, _SOCKET_TYPE_MASK, socket.SOCK_DGRAM, equal=True)),
        ("socketpair", _Condition(1, _SOCKET_TYPE_MASK, socket.SOCK_RAW, equal=True)),
        # TCP Fast Open is a connect under another name.
        ("sendto", _Condition(3, _MSG_FASTOPEN, _MSG_FASTOPEN, equal=True)),
        ("sendmsg", _Condition(2, _MSG_FASTOPEN, _MSG_FASTOPEN, equal=True)),
        # Typing into the terminal that started the host.
        ("ioctl", _Condition(1, everything, _TIOCSTI, equal=True)),
        ("ioctl", _Condition(1, everything, _TIOCLINUX, equal=True)),
    )


def _instruction(code: int, true: int, false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def build(architecture: Architecture, *, pid: int) -> bytes:
    """The filter for a process whose own number is ``pid``, as packed ``struct sock_filter``."""
    refuse = _instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM)
    number = _instruction(_LOAD, 0, 0, 0)
    program = [
        _instruction(_LOAD, 0, 0, 4),
        _instruction(_EQUAL, 1, 0, architecture.audit),
        _instruction(_RETURN, 0, 0, _KILL),
        number,
    ]
    if architecture.foreign_from is not None:
        program += [_instruction(_AT_LEAST, 0, 1, architecture.foreign_from), refuse]
    # glibc falls back from clone3, whose flags a filter cannot see, to clone only on ENOSYS.
    program += [
        _instruction(_EQUAL, 0, 1, architecture.numbers["clone3"]),
        _instruction(_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for name in DENIED:
        if name in architecture.numbers:
            program += [_instruction(_EQUAL, 0, 1, architecture.numbers[name]), refuse]
    for name, condition in _conditions(pid):
        program += [
            _instruction(_EQUAL, 0, 5, architecture.numbers[name]),
            _instruction(_LOAD, 0, 0, 16 + 8 * condition.argument),
            _instruction(_AND, 0, 0, condition.mask),
            _instruction(_EQUAL, 0, 1, condition.value)
            if condition.equal
            else _instruction(_EQUAL, 1, 0, condition.value),
            refuse,
            number,
        ]
    program.append(_instruction(_RETURN, 0, 0, _ALLOW))
    return b"".join(program)


def install(architecture: Architecture) -> Primitive:
    """Load the filter for every thread of this process. Needs no_new_privs; cannot be undone."""
    program = build(architecture, pid=os.getpid())
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)), struct.calcsize("@HP")
    )
    try:
        result = syscall(architecture.numbers["seccomp"], _SET_MODE_FILTER, _FLAG_TSYNC, header)
    except OSError as error:
        return Primitive("seccomp", applied=False, detail=error.strerror or "refused")
    if result != 0:
        return Primitive("seccomp", applied=False, detail="a thread could not take the filter")
    return Primitive(
        "seccomp", applied=True, detail=f"{architecture.name}, {_count(architecture)} calls refused"
    )


def _count(architecture: Architecture) -> int:
    return sum(name in architecture.numbers for name in DENIED)
