# SPDX-License-Identifier: Apache-2.0
"""A host that starts a worker otherwise than it should, and a service that wants to outlive its host or speak to it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from confide.enclave.application import Application
from confide.enclave.control import Drain
from confide.errors import ChannelError, ConfideError, EnclaveError
from confide.host import directory, processes
from confide.host.egress import EgressServer
from confide.host.enclave import State
from confide.host.processes import Process
from support.enclaves import sample_application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.enclaves import Launcher

LIVING = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"alive"})
"""
"""What the hostile services below answer as long as they are asked nothing hostile."""


def _service(folder: Path, code: str) -> Application:
    (folder / "rogue.py").write_text(code)
    return Application("rogue:app", code=[folder / "rogue.py"])


def _spawned(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """From here on workers are started with other arguments of `Process.spawn`."""
    honest = Process.spawn

    def spawn(program: Path, **arguments: Any) -> Process:
        arguments["descriptors"] = dict(arguments["descriptors"])
        change(arguments)
        return honest(program, **arguments)

    monkeypatch.setattr(Process, "spawn", spawn)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [(("-O",), ()), (("-X", "dev"), ()), (("-W", "error"), ()), ((), ("--open-the-door",))],
)
def test_bnd_19_options_and_arguments_that_nobody_measured_are_refused(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    honest = processes.isolated_python

    def steered(program: Path) -> tuple[str, ...]:
        interpreter, *rest = honest(program)
        return (interpreter, *options, *rest, *arguments)

    monkeypatch.setattr(processes, "isolated_python", steered)
    with pytest.raises(EnclaveError) as caught, launcher.launch(sample_application()):
        pass
    assert caught.value.code == "enclave.unmeasured"


def test_leak_02_a_host_that_keeps_the_standard_streams_hears_nothing(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    hears, says = os.pipe()

    def listen(arguments: dict[str, Any]) -> None:
        arguments["errors"] = says
        arguments["descriptors"] |= {1: says, 900: says}

    _spawned(monkeypatch, listen)
    with launcher.launch(sample_application()) as enclave, launcher.connect(enclave) as client:
        os.close(says)
        assert client.post("/keep", content=b"secret-canary").content == b"kept"
        descriptors = client.post("/facts").json()["descriptors"]
        assert {descriptors[number] for number in ("0", "1", "2")} == {"/dev/null"}
        assert "900" not in descriptors, "what was not lent by name is closed"
    # Nobody in there holds the other end any more.
    assert os.read(hears, 4096) == b""
    os.close(hears)


def test_rt_04_a_file_that_was_not_lent_under_its_number_is_refused(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    with launcher.launch(sample_application(), data={"given": tmp_path / "data"}):
        pass
    _spawned(monkeypatch, lambda arguments: arguments["descriptors"].pop(7))
    with (
        pytest.raises(ConfideError) as caught,
        launcher.launch(sample_application(), data={"given": tmp_path / "data"}),
    ):
        pass
    assert caught.value.code == "malformed.non_canonical"


def _alive(pid: int) -> bool:
    return processes.start_time(pid) is not None


def test_rt_01_a_service_that_closes_the_control_socket_does_not_outlive_it(
    launcher: Launcher, tmp_path: Path
) -> None:
    """Also when it has asked not to die with its reaper, and has told its host that it is another process."""
    service = _service(
        tmp_path,
        """
import ctypes, os, socket, time
HELD = []
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    HELD.append(ctypes.CDLL(None).prctl(1, 0, 0, 0, 0))
    from confide.wire import cbor
    said = cbor.encode({"type": "forked", "pid": 1})
    os.write(3, len(said).to_bytes(4, "big") + said)
    socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
    while True:
        time.sleep(1)
""",
    )
    with launcher.launch(service) as enclave:
        worker = enclave.worker_pid
        with pytest.raises(ChannelError), launcher.connect(enclave) as client:
            client.post("/")
        assert enclave.wait(timeout=15)
        assert enclave.state is State.FAILED
        end = time.monotonic() + 5
        while _alive(worker) and time.monotonic() < end:
            time.sleep(0.02)
        assert not _alive(worker)


def test_rt_01_a_request_that_exits_ends_alone(launcher: Launcher, tmp_path: Path) -> None:
    service = _service(
        tmp_path,
        LIVING.replace(
            "    await send",
            '    if scope["path"] == "/exit":\n        raise SystemExit(3)\n    await send',
            1,
        ),
    )
    with launcher.launch(service) as enclave, launcher.connect(enclave) as client:
        assert client.get("/").content == b"alive"
        assert client.get("/exit").status_code == 500
        assert client.get("/").content == b"alive"
        assert enclave.state is State.RUNNING


def test_rt_05_a_module_that_exits_while_it_is_built_is_a_crash_and_no_stopped_enclave(
    launcher: Launcher, tmp_path: Path
) -> None:
    with (
        pytest.raises(EnclaveError) as caught,
        launcher.launch(_service(tmp_path, "raise SystemExit(0)\n")),
    ):
        pass
    assert caught.value.code == "enclave.crashed"


def test_the_record_follows_the_state(launcher: Launcher) -> None:
    with launcher.launch(sample_application(id="drained")) as enclave, launcher.connect(enclave) as client:
        assert directory.find("drained", launcher.state_directory).state == "running"
        # What is in flight keeps it draining.
        slow = threading.Thread(target=lambda: client.post("/slow", content=b"2"))
        slow.start()
        time.sleep(0.5)
        assert enclave._connection is not None
        enclave._connection.send(Drain(5))
        enclave.wait_until(State.DRAINING, timeout=5)
        end = time.monotonic() + 2
        state = ""
        while state != "draining" and time.monotonic() < end:
            state = directory.find("drained", launcher.state_directory).state
        assert state == "draining"
        slow.join()


@pytest.fixture
def egress() -> Iterator[tuple[socket.socket, EgressServer]]:
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = EgressServer(outside, ["allowed.example:443"])
    server.start()
    with inside:
        yield inside, server
    server.close()


def test_rt_04_an_enclave_that_does_not_read_its_answer_holds_no_thread_of_the_host(
    egress: tuple[socket.socket, EgressServer],
) -> None:
    inside, _server = egress
    full, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with full, other, ours, theirs:
        full.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                full.send(bytes(65_536))
        full.setblocking(True)
        socket.send_fds(inside, [b"not a request"], [full.fileno()])
        socket.send_fds(inside, [b"not a request"], [theirs.fileno()])
        ours.settimeout(5)
        assert ours.recv(2) == b"\x01", "the second one is answered though the first cannot be"
