# SPDX-License-Identifier: Apache-2.0
"""The filter as a program: run here on calls of both architectures, whatever machine the tests run on."""

from __future__ import annotations

import errno
import re
import socket
import struct
from pathlib import Path

import pytest

from confide.enclave.confinement import seccomp, syscalls
from confide.enclave.confinement.syscalls import AARCH64, X86_64, Architecture

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
OWN = 4711
CLONE_THREAD = 0x00010000


def evaluate(program: bytes, audit: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Run classic BPF on one ``struct seccomp_data``, as the kernel does."""
    words = {0: number, 4: audit}
    for index, value in enumerate(arguments):
        words[16 + 8 * index] = value & 0xFFFFFFFF
    accumulator, at = 0, 0
    instructions = list(struct.iter_unpack("=HBBI", program))
    while True:
        code, true, false, value = instructions[at]
        at += 1
        if code == 0x20:
            accumulator = words.get(value, 0)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            at += true if accumulator == value else false
        elif code == 0x35:
            at += true if accumulator >= value else false
        elif code == 0x06:
            return int(value)
        else:
            pytest.fail(f"an instruction that the filter has no use for: {code:#x}")


@pytest.fixture(params=[X86_64, AARCH64], ids=lambda table: table.name)
def table(request: pytest.FixtureRequest) -> Architecture:
    chosen: Architecture = request.param
    return chosen


def test_every_denied_call_is_refused_and_an_ordinary_one_is_not(table: Architecture) -> None:
    program = seccomp.build(table, pid=OWN)
    for name in seccomp.DENIED:
        if name in table.numbers:
            assert evaluate(program, table.audit, table.numbers[name]) == EPERM, name
    read = {"x86_64": 0, "aarch64": 63}[table.name]
    assert evaluate(program, table.audit, read) == ALLOW


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("clone", (CLONE_THREAD | 0x3D0F00,), ALLOW),
        ("clone", (17,), EPERM),
        ("clone3", (0,), ENOSYS),
        ("prctl", (4, 1), EPERM),
        ("prctl", (4, 0), EPERM),
        ("prctl", (0x59616D61, OWN), EPERM),
        ("prctl", (1, 0), EPERM),
        ("prctl", (15,), ALLOW),
        ("kill", (OWN, 9), ALLOW),
        ("kill", (-1 & 0xFFFFFFFF, 9), EPERM),
        ("kill", (0, 9), EPERM),
        ("kill", (1, 9), EPERM),
        ("tgkill", (OWN, OWN, 6), ALLOW),
        ("tgkill", (1, 1, 6), EPERM),
        ("socketpair", (socket.AF_UNIX, socket.SOCK_STREAM | 0o2000000), ALLOW),
        ("socketpair", (socket.AF_UNIX, socket.SOCK_SEQPACKET), ALLOW),
        ("socketpair", (socket.AF_UNIX, socket.SOCK_DGRAM | 0o2000000), EPERM),
        ("socketpair", (socket.AF_INET, socket.SOCK_STREAM), EPERM),
        ("sendto", (3, 0, 0, 0x4000), ALLOW),
        ("sendto", (3, 0, 0, 0x20004000), EPERM),
        ("sendmsg", (3, 0, 0x20000000), EPERM),
        ("fcntl", (3, 8, 1), EPERM),
        ("fcntl", (3, 10, 9), EPERM),
        ("fcntl", (3, 15, 0), EPERM),
        ("fcntl", (3, 4, 0x800), ALLOW),
        ("fcntl", (3, 1030, 5), ALLOW),
        ("ioctl", (3, 0x8901), EPERM),
        ("ioctl", (3, 0x8902), EPERM),
        ("prlimit64", (0, 7, 0), ALLOW),
        ("prlimit64", (1, 7, 0), EPERM),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x5413), ALLOW),
    ],
)
def test_arguments_decide_where_a_call_has_both_uses(
    table: Architecture, name: str, arguments: tuple[int, ...], verdict: int
) -> None:
    program = seccomp.build(table, pid=OWN)
    assert evaluate(program, table.audit, table.numbers[name], arguments) == verdict


def test_another_architecture_ends_the_process(table: Architecture) -> None:
    program = seccomp.build(table, pid=OWN)
    for audit in {0x40000003, 0x40000028, X86_64.audit, AARCH64.audit} - {table.audit}:
        assert evaluate(program, audit, 0) == KILL


def test_the_x32_numbers_are_refused() -> None:
    program = seccomp.build(X86_64, pid=OWN)
    assert evaluate(program, X86_64.audit, 0x40000000) == EPERM
    assert evaluate(program, X86_64.audit, 0x40000000 + X86_64.numbers["socket"]) == EPERM
    assert evaluate(program, X86_64.audit, 0xFFFFFFFF) == EPERM


def test_every_denied_name_is_a_call_of_some_architecture() -> None:
    known = set(X86_64.numbers) | set(AARCH64.numbers)
    assert set(seccomp.DENIED) <= known
    assert len(set(seccomp.DENIED)) == len(seccomp.DENIED)


@pytest.mark.parametrize(
    ("table", "header"),
    [
        (X86_64, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        (AARCH64, "/usr/include/asm-generic/unistd.h"),
    ],
    ids=["x86_64", "aarch64"],
)
def test_the_numbers_are_those_of_the_kernel_headers(table: Architecture, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed here")
    text = Path(header).read_text(encoding="utf-8")
    stated = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)\n", text)}
    common = set(stated) & set(table.numbers)
    assert len(common) > 70
    assert {name: table.numbers[name] for name in common} == {name: stated[name] for name in common}


def test_a_32_bit_interpreter_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.sizeof", lambda _kind: 4)
    assert syscalls.architecture() is None
