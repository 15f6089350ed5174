# SPDX-License-Identifier: Apache-2.0
"""System calls that Python has no function for, through libc's ``syscall`` and ``prctl``.

The numbers are those of the kernel's ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64). A name that
is absent from a column does not exist on that architecture.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AARCH64", "X86_64", "Architecture", "architecture", "prctl", "syscall"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture's AUDIT_ARCH value, system call numbers, and first number of a foreign table (x32), if any."""

    name: str
    audit: int
    numbers: Mapping[str, int]
    foreign_from: int | None


# name, x86_64, aarch64; None where the architecture has no such call.
_TABLE: Final[tuple[tuple[str, int | None, int | None], ...]] = (
    ("acct", 163, 89),
    ("add_key", 248, 217),
    ("adjtimex", 159, 171),
    ("bind", 49, 200),
    ("bpf", 321, 280),
    ("capset", 126, 91),
    ("chmod", 90, None),
    ("chown", 92, None),
    ("chroot", 161, 51),
    ("clock_adjtime", 305, 266),
    ("clock_settime", 227, 112),
    ("clone", 56, 220),
    ("clone3", 435, 435),
    ("connect", 42, 203),
    ("delete_module", 176, 106),
    ("execve", 59, 221),
    ("execveat", 322, 281),
    ("fanotify_init", 300, 262),
    ("fchmod", 91, 52),
    ("fchmodat", 268, 53),
    ("fchmodat2", 452, 452),
    ("fchown", 93, 55),
    ("fchownat", 260, 54),
    ("fcntl", 72, 25),
    ("file_setattr", 469, 469),
    ("finit_module", 313, 273),
    ("fork", 57, None),
    ("fremovexattr", 199, 16),
    ("fsconfig", 431, 431),
    ("fsetxattr", 190, 7),
    ("fsmount", 432, 432),
    ("fsopen", 430, 430),
    ("fspick", 433, 433),
    ("futimesat", 261, None),
    ("init_module", 175, 105),
    ("io_uring_enter", 426, 426),
    ("io_uring_register", 427, 427),
    ("io_uring_setup", 425, 425),
    ("ioctl", 16, 29),
    ("ioperm", 173, None),
    ("iopl", 172, None),
    ("kcmp", 312, 272),
    ("kexec_file_load", 320, 294),
    ("kexec_load", 246, 104),
    ("keyctl", 250, 219),
    ("kill", 62, 129),
    ("landlock_add_rule", 445, 445),
    ("landlock_create_ruleset", 444, 444),
    ("landlock_restrict_self", 446, 446),
    ("lchown", 94, None),
    ("listmount", 458, 458),
    ("lookup_dcookie", 212, 18),
    ("lremovexattr", 198, 15),
    ("lsetxattr", 189, 6),
    ("mbind", 237, 235),
    ("migrate_pages", 256, 238),
    ("modify_ldt", 154, None),
    ("mount", 165, 40),
    ("mount_setattr", 442, 442),
    ("move_mount", 429, 429),
    ("move_pages", 279, 239),
    ("mq_open", 240, 180),
    ("mq_unlink", 241, 181),
    ("msgctl", 71, 187),
    ("msgget", 68, 186),
    ("msgrcv", 70, 188),
    ("msgsnd", 69, 189),
    ("name_to_handle_at", 303, 264),
    ("nfsservctl", 180, 42),
    ("open_by_handle_at", 304, 265),
    ("open_tree", 428, 428),
    ("open_tree_attr", 467, 467),
    ("perf_event_open", 298, 241),
    ("personality", 135, 92),
    ("pidfd_getfd", 438, 438),
    ("pidfd_open", 434, 434),
    ("pidfd_send_signal", 424, 424),
    ("pivot_root", 155, 41),
    ("prctl", 157, 167),
    ("prlimit64", 302, 261),
    ("process_madvise", 440, 440),
    ("process_mrelease", 448, 448),
    ("process_vm_readv", 310, 270),
    ("process_vm_writev", 311, 271),
    ("ptrace", 101, 117),
    ("quotactl", 179, 60),
    ("quotactl_fd", 443, 443),
    ("reboot", 169, 142),
    ("removexattr", 197, 14),
    ("removexattrat", 466, 466),
    ("request_key", 249, 218),
    ("rt_sigqueueinfo", 129, 138),
    ("rt_tgsigqueueinfo", 297, 240),
    ("seccomp", 317, 277),
    ("semctl", 66, 191),
    ("semget", 64, 190),
    ("semop", 65, 193),
    ("semtimedop", 220, 192),
    ("sendmmsg", 307, 269),
    ("sendmsg", 46, 211),
    ("sendto", 44, 206),
    ("setdomainname", 171, 162),
    ("sethostname", 170, 161),
    ("setns", 308, 268),
    ("settimeofday", 164, 170),
    ("setxattr", 188, 5),
    ("setxattrat", 463, 463),
    ("shmat", 30, 196),
    ("shmctl", 31, 195),
    ("shmget", 29, 194),
    ("socket", 41, 198),
    ("socketpair", 53, 199),
    ("statmount", 457, 457),
    ("swapoff", 168, 225),
    ("swapon", 167, 224),
    ("syslog", 103, 116),
    ("tgkill", 234, 131),
    ("tkill", 200, 130),
    ("truncate", 76, 45),
    ("umount2", 166, 39),
    ("unshare", 272, 97),
    ("uselib", 134, None),
    ("userfaultfd", 323, 282),
    ("utime", 132, None),
    ("utimensat", 280, 88),
    ("utimes", 235, None),
    ("vfork", 58, None),
    ("vhangup", 153, 58),
)


def _column(index: int) -> Mapping[str, int]:
    numbers = {}
    for row in _TABLE:
        number = row[index]
        if isinstance(number, int):
            numbers[row[0]] = number
    return MappingProxyType(numbers)


X86_64: Final = Architecture("x86_64", 0xC000003E, _column(1), foreign_from=0x40000000)
AARCH64: Final = Architecture("aarch64", 0xC00000B7, _column(2), foreign_from=None)


def architecture() -> Architecture | None:
    """The architecture that this process runs on, or None where there is no table for it."""
    if platform.system() != "Linux":
        return None
    machine = platform.machine()
    # A 32-bit interpreter on a 64-bit kernel uses another table than the machine's name says.
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    return {"x86_64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}.get(machine)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make the system call; `OSError` with the kernel's errno when it fails. Buffers are ctypes arrays, by address."""
    function = _libc().syscall
    function.restype = ctypes.c_long
    words = [
        ctypes.c_void_p(ctypes.addressof(item))
        if isinstance(item, ctypes.Array)
        else ctypes.c_long(item or 0)
        for item in arguments
    ]
    result = function(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def prctl(option: int, *arguments: int) -> int:
    """``prctl(2)`` with integer arguments; unused ones are zero, as several options demand."""
    function = _libc().prctl
    function.restype = ctypes.c_int
    padded = (*arguments, 0, 0, 0, 0)[:4]
    result = function(ctypes.c_int(option), *(ctypes.c_ulong(item) for item in padded))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)
