# SPDX-License-Identifier: Apache-2.0
"""A process that has confined itself: what it can no longer do, and what others can no longer do to it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORT = Path(__file__).parents[2] / "support"
NOBODY = 65534
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")

STAYS_POSSIBLE = {
    "read own source",
    "read own maps",
    "write lent directory",
    "memfd",
    "thread",
    "stream pair",
    "signal itself",
}
FILES = {"read /etc/passwd", "read other user data", "list /", "list /proc", "write source", "write /dev/shm"}
SIGNALS = {"signal the host", "signal everybody"}
LIMITS = {"grow": "ENOMEM", "open many": "EMFILE", "big file": "EFBIG", "raise core limit": "ValueError"}
FACTS = {"dumpable", "core limit", "own number"}


def _user() -> list[str]:
    """Arguments that make a probe an ordinary user; none when the tests already run as one."""
    return [str(NOBODY)] if os.geteuid() == 0 else []


@cache
def _probe(folder: Path, mode: str, user: tuple[str, ...] = ()) -> Any:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "confined_probe.py"), mode, str(folder), *user],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stderr.decode()[-2000:])
    return json.loads(done.stdout)


@contextmanager
def _open_to_all() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own are closed again by every other run of pytest."""
    with tempfile.TemporaryDirectory(prefix="confide-test-") as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with _open_to_all() as made:
        yield made


@pytest.fixture(params=["as started", "as an ordinary user"])
def user(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "as started":
        return ()
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    return (str(NOBODY),)


def _require(report: Any, primitive: str) -> None:
    applied, detail = report["primitives"][primitive]
    if not applied:
        pytest.skip(f"{primitive} is not to be had here: {detail}")


def test_seccomp_refuses_every_call_that_reaches_outside(folder: Path, user: tuple[str, ...]) -> None:
    report = _probe(folder, "all", user)
    _require(report, "seccomp")
    results = report["results"]
    refused = set(results) - STAYS_POSSIBLE - FILES - SIGNALS - set(LIMITS) - FACTS - {"clone3"}
    assert {name: results[name] for name in sorted(refused)} == dict.fromkeys(sorted(refused), "EPERM")
    assert results["clone3"] == "ENOSYS", "glibc falls back to clone on ENOSYS only"


def test_landlock_leaves_only_what_was_granted(folder: Path) -> None:
    report = _probe(folder, "all")
    _require(report, "landlock.files")
    results = report["results"]
    assert {results[name] for name in FILES} == {"EACCES"}
    assert {name: results[name] for name in STAYS_POSSIBLE} == dict.fromkeys(STAYS_POSSIBLE, "succeeded")


def test_level_3_is_reached_where_every_primitive_is(folder: Path, user: tuple[str, ...]) -> None:
    report = _probe(folder, "all", user)
    for name, (applied, _detail) in report["primitives"].items():
        if not applied:
            pytest.skip(f"{name} is not to be had here")
    assert report["primitives"]["level"][1] == "L3"
    assert report["results"]["own number"] == "1", "process 1 of its own pid namespace"


def test_without_namespaces_the_same_things_are_refused_at_level_2(
    folder: Path, user: tuple[str, ...]
) -> None:
    report = _probe(folder, "no-namespaces", user)
    _require(report, "landlock.files")
    assert report["primitives"]["level"][1] == "L2"
    results = report["results"]
    for name in ("tcp socket", "unix socket", "exec", "fork", "pidfd_open", "ptrace", *sorted(SIGNALS)):
        assert results[name] == "EPERM", name
    assert {results[name] for name in FILES} == {"EACCES"}


def test_rt_03_limits_bound_memory_files_and_descriptors(folder: Path, user: tuple[str, ...]) -> None:
    report = _probe(folder, "all", user)
    _require(report, "limits")
    assert {name: report["results"][name] for name in LIMITS} == LIMITS


def test_leak_06_no_core_and_not_dumpable(folder: Path, user: tuple[str, ...]) -> None:
    report = _probe(folder, "all", user)
    _require(report, "not_dumpable")
    assert report["results"]["dumpable"] == "0"
    assert report["results"]["core limit"] == "(0, 0)"
    assert report["results"]["dumpable again"] == "EPERM"


@contextmanager
def _held(mode: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A process of an ordinary user that has (or has not) confined itself and waits."""

    def allow_core() -> None:
        _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "confined_probe.py"), mode, str(folder), *_user()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        preexec_fn=allow_core,  # noqa: PLW1509
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pid = int(process.stdout.readline())
        assert process.stdout.readline() == b"ready\n"
        yield pid, process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


def _attack(pid: int) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "attacker.py"), str(pid), *_user()],
        capture_output=True,
        timeout=30,
        check=True,
    )
    results: dict[str, str] = json.loads(done.stdout)
    return results


def test_leak_07_a_process_of_the_same_user_cannot_read_or_trace_the_worker(folder: Path) -> None:
    with _held("hold", folder) as (pid, _process):
        results = _attack(pid)
    assert set(results.values()) <= {"EACCES", "EPERM"}, results


def test_leak_07_the_same_attacks_do_read_a_process_that_is_not_confined(folder: Path) -> None:
    """The attacks are real: without confinement they succeed, unless the whole machine forbids tracing."""
    with _held("plain", folder) as (pid, _process):
        results = _attack(pid)
    assert results["maps"] == results["environ"] == results["fd"] == "succeeded", results
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text(encoding="ascii").strip() != "0":
        pytest.skip("Yama already forbids tracing on this machine")
    assert results["mem"] == results["process_vm_readv"] == results["seize"] == "succeeded" or (
        results["mem"] == results["seize"] == "succeeded" and results["process_vm_readv"] == "EFAULT"
    ), results


@pytest.mark.parametrize("mode", ["hold", "plain"])
def test_leak_06_a_crash_leaves_no_core_file(mode: str) -> None:
    """A confined process that dies of SIGSEGV writes nothing; a plain one shows that a core would have been seen."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8").strip()
    if pattern.startswith(("|", "/")) or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("cores do not go to the working directory here")
    with _open_to_all() as place:
        with _held(mode, place) as (_pid, process):
            if process.stdin is None:
                pytest.fail("no input")
            process.stdin.write(b"crash\n")
            process.stdin.flush()
            assert process.wait(timeout=20) in {-signal.SIGSEGV, 128 + signal.SIGSEGV}
        cores = [path.name for path in place.iterdir() if path.name.startswith("core")]
    assert bool(cores) == (mode == "plain"), cores
