# SPDX-License-Identifier: Apache-2.0
"""A program that confines itself as a worker does and then tries what a worker must not be able to do.

Run as ``python confined_probe.py MODE FOLDER [UID]``. MODE is ``all``, ``no-namespaces``, ``hold``
(confine, print the process number, wait for a line: ``crash`` ends it by SIGSEGV) or ``plain`` (the same, not confined); FOLDER is
lent. The first two print one JSON
document: the primitives, and for each attempt the errno's name, or "succeeded". With a UID it becomes that user first.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from confide.enclave.confinement import syscalls
from confide.enclave.confinement.apply import enclose, interpreter_paths, seal_off
from confide.enclave.confinement.landlock import Grants
from confide.enclave.confinement.limits import ResourceLimits

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_DUMPABLE = 4
PR_SET_PTRACER = 0x59616D61


def attempt(what: Callable[[], object]) -> str:
    """Do it, and say how it ended."""
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return "succeeded"


def raw(name: str, *arguments: int) -> Callable[[], object]:
    table = syscalls.architecture()
    number = -1 if table is None else table.numbers.get(name, -1)
    return lambda: syscalls.syscall(number, *arguments)


def read(path: str) -> Callable[[], object]:
    return lambda: Path(path).read_bytes()


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def thread() -> None:
    done = []
    worker = threading.Thread(target=lambda: done.append(1))
    worker.start()
    worker.join()
    if not done:
        raise OSError(errno.EAGAIN, "no thread")


def grow() -> None:
    # Private writable memory beyond the limit; 64 MiB pieces, at most 8 GiB.
    kept = [mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(128)]
    kept.clear()


def open_many() -> None:
    kept: list[int] = []
    try:
        kept.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(4096))
    finally:
        for descriptor in kept:
            os.close(descriptor)


def big_file() -> None:
    descriptor = os.memfd_create("big")
    try:
        os.ftruncate(descriptor, 100 << 30)
    finally:
        os.close(descriptor)


def own_descriptor_for(pid: int) -> Callable[[], object]:
    return lambda: fcntl.fcntl(0, fcntl.F_SETOWN, pid)


def stream_pair() -> None:
    for end in socket.socketpair():
        end.close()


def datagram_to_path() -> None:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pair:
        end.close()


def hold(*, confined: bool) -> None:
    def say(pid: int) -> None:
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()

    if confined:
        resources = ResourceLimits(memory=512 << 20, open_files=64, threads=32, file_size=64 << 20)
        done = enclose(say)
        if os.getpid() != 1:
            say(os.getpid())
        seal_off(done, resources, Grants(read=interpreter_paths()))
    else:
        say(os.getpid())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if sys.stdin.readline() == "crash\n":
        ctypes.string_at(0)


def main() -> None:
    mode, folder = sys.argv[1:3]
    if len(sys.argv) > 3:
        os.setgid(int(sys.argv[3]))
        os.setuid(int(sys.argv[3]))
        # Changing user clears this; a process that was exec'ed by the user has it.
        syscalls.prctl(PR_SET_DUMPABLE, 1)
    if mode in {"hold", "plain"}:
        hold(confined=mode == "hold")
        return
    results, confinement = run(mode, os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    sys.stdout.write(json.dumps({"primitives": confinement, "results": results}))


def run(mode: str, lent: int) -> tuple[dict[str, str], dict[object, object]]:
    outside = os.getppid()
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = () if mode == "no-namespaces" else enclose(lambda _pid: None)
    resources = ResourceLimits(memory=512 << 20, open_files=64, threads=32, file_size=64 << 20)
    grants = Grants(
        read=(*interpreter_paths(), Path(source)),
        read_write=(Path("/dev/null"),),
        directories=(lent,),
    )
    confinement = seal_off(done, resources, grants)
    table = syscalls.architecture()
    results = {
        "read /etc/passwd": attempt(read("/etc/passwd")),
        "read other user data": attempt(read("/proc/1/environ")),
        "list /": attempt(lambda: list(Path("/").iterdir())),
        "list /proc": attempt(lambda: list(Path("/proc").iterdir())),
        "write source": attempt(lambda: Path(source, "planted.py").write_bytes(b"")),
        "write /dev/shm": attempt(lambda: Path("/dev/shm", "confide-probe").write_bytes(b"")),  # noqa: S108
        "read own source": attempt(lambda: Path(source, "confide", "errors.py").read_bytes()),
        "read own maps": attempt(read("/proc/self/maps")),
        "write lent directory": attempt(
            lambda: os.close(os.open(f"kept-{os.geteuid()}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=lent))
        ),
        "memfd": attempt(lambda: os.close(os.memfd_create("x"))),
        "thread": attempt(thread),
        "stream pair": attempt(stream_pair),
        "datagram pair": attempt(datagram_to_path),
        "tcp socket": attempt(lambda: socket.socket().close()),
        "unix socket": attempt(lambda: socket.socket(socket.AF_UNIX).close()),
        "netlink socket": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
        "fork": attempt(fork),
        "exec": attempt(lambda: os.execv("/bin/true", ["true"])),  # noqa: S606
        "subprocess": attempt(lambda: subprocess.run(["/bin/true"], check=True)),
        "signal the host": attempt(lambda: os.kill(outside, 0)),
        "signal everybody": attempt(lambda: os.kill(-1, 0)),
        "signal the host by a descriptor": attempt(own_descriptor_for(outside)),
        "limit the host": attempt(lambda: resource.prlimit(outside, resource.RLIMIT_CPU, (1, 1))),
        "signal itself": attempt(lambda: signal.raise_signal(signal.SIGCHLD)),
        "open the host's file to everybody": attempt(lambda: Path("/dev/null").chmod(0o666)),
        "change the times of the host's file": attempt(lambda: os.utime("/dev/null")),
        "give the host's file away": attempt(lambda: os.chown("/dev/null", -1, -1)),
        "mark the host's file": attempt(lambda: os.setxattr("/proc/self", "user.x", b"")),
        "shorten the host's file": attempt(lambda: os.truncate("/dev/null", 0)),
        "change the mode of an open file": attempt(lambda: os.fchmod(lent, 0o777)),
        "read a queue by its number": attempt(raw("msgrcv", 0, 0, 0, 0, 0o4000)),
        "unshare": attempt(raw("unshare", 0x10000000)),
        "clone3": attempt(raw("clone3", 0, 0)),
        "io_uring": attempt(raw("io_uring_setup", 1, 0)),
        "bpf": attempt(raw("bpf", 0, 0, 0)),
        "ptrace": attempt(raw("ptrace", 0)),
        "process_vm_readv": attempt(raw("process_vm_readv", outside, 0, 0, 0, 0)),
        "pidfd_open": attempt(raw("pidfd_open", outside, 0)),
        "keyctl": attempt(raw("keyctl", 0)),
        "perf": attempt(raw("perf_event_open", 0)),
        "mount": attempt(raw("mount", 0, 0, 0, 0, 0)),
        "dumpable again": attempt(lambda: syscalls.prctl(PR_SET_DUMPABLE, 1)),
        "choose a tracer": attempt(lambda: syscalls.prctl(PR_SET_PTRACER, outside)),
        "raise core limit": attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))),
        "grow": attempt(grow),
        "open many": attempt(open_many),
        "big file": attempt(big_file),
        "x32 call": attempt(lambda: syscalls.syscall(0x40000000 + 39))
        if table is not None and table.foreign_from is not None
        else "EPERM",
        "dumpable": str(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)),
        "core limit": str(resource.getrlimit(resource.RLIMIT_CORE)),
        "own number": str(os.getpid()),
    }
    return results, confinement.to_value() | {"level": [True, confinement.level.name]}


if __name__ == "__main__":
    main()
