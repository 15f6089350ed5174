# SPDX-License-Identifier: Apache-2.0
"""The way out: the measured list decides inside, and a hostile host cannot hand in anything but a connected stream."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from confide.enclave.egress import Egress
from confide.enclave.egress_messages import EgressRequest, Status
from confide.errors import ConfideError, EnclaveError, MalformedError
from confide.host.egress import EgressServer
from support.enclaves import sample_application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.enclaves import Launcher


@contextmanager
def echo_server() -> Iterator[int]:
    """A server on loopback that sends back what it gets; ends by itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    data = connection.recv(4096)
                    if data.startswith(b"GET "):
                        data = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\npage"
                    connection.sendall(data)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@contextmanager
def way_out(allowed_inside: list[str], allowed_outside: list[str]) -> Iterator[Egress]:
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = EgressServer(outside, allowed_outside)
    server.start()
    try:
        yield Egress(inside, allowed_inside)
    finally:
        inside.close()
        server.close()


def test_an_allowed_destination_is_reached() -> None:
    with (
        echo_server() as port,
        way_out([f"127.0.0.1:{port}"], [f"127.0.0.1:{port}"]) as egress,
        egress.connect("127.0.0.1", port) as connection,
    ):
        connection.sendall(b"hello")
        assert connection.recv(10) == b"hello"


@pytest.mark.parametrize(("inside", "outside"), [(False, True), (True, False), (False, False)])
def test_both_sides_check_the_list(inside: bool, outside: bool) -> None:
    with echo_server() as port:
        entry = [f"127.0.0.1:{port}"]
        with way_out(entry if inside else [], entry if outside else []) as egress:
            with pytest.raises(EnclaveError) as caught:
                egress.connect("127.0.0.1", port)
            assert caught.value.code == "enclave.sandbox"


def test_no_entry_matches_by_prefix_case_or_name() -> None:
    with way_out(["host.example:443"], ["host.example:443"]) as egress:
        for host, port in (
            ("host.example", 44),
            ("host.example.evil", 443),
            ("xhost.example", 443),
            ("*", 443),
            ("", 443),
        ):
            with pytest.raises(ConfideError) as caught:
                egress.connect(host, port)
            assert caught.value.code == "enclave.sandbox"


def test_a_closed_port_is_an_error_that_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        way_out([f"127.0.0.1:{port}"], [f"127.0.0.1:{port}"]) as egress,
        pytest.raises(EnclaveError) as caught,
    ):
        egress.connect("127.0.0.1", port)
    assert caught.value.retryable


def _send(end: socket.socket, data: bytes, *descriptors: int) -> None:
    rights = array.array("i", descriptors).tobytes()
    end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [])


def _connected() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname())


@contextmanager
def hostile_host(answer: Callable[[socket.socket], None]) -> Iterator[Egress]:
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        _data, ancillary, _flags, _ = outside.recvmsg(600, 64)
        received = array.array("i")
        for _level, _kind, content in ancillary:
            received.frombytes(content[:4])
        with socket.socket(fileno=received[0]) as end:
            answer(end)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Egress(inside, ["a.example:1"])
    finally:
        inside.close()
        outside.close()
        thread.join(5)


def _datagram(end: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.connect(("127.0.0.1", 9))
        _send(end, b"\0", datagram.fileno())


def _listening(end: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _send(end, b"\0", listener.fileno())


def _file(end: socket.socket) -> None:
    descriptor = os.open(os.devnull, os.O_RDWR)
    _send(end, b"\0", descriptor)
    os.close(descriptor)


def _two(end: socket.socket) -> None:
    with _connected() as one, _connected() as other:
        _send(end, b"\0", one.fileno(), other.fileno())


def _many(end: socket.socket) -> None:
    with _connected() as one:
        _send(end, b"\0", *[one.fileno()] * 40)


def _with_refusal(end: socket.socket) -> None:
    with _connected() as one:
        _send(end, b"\1", one.fileno())


def _long(end: socket.socket) -> None:
    with _connected() as one:
        _send(end, b"\0\0\0", one.fileno())


HOSTILE: dict[str, Callable[[socket.socket], None]] = {
    "no socket": lambda end: _send(end, b"\0"),
    "an unknown status": lambda end: _send(end, b"\x09"),
    "status 255": lambda end: _send(end, b"\xff"),
    "two bytes": lambda end: _send(end, b"\1\1"),
    "nothing, then the end": lambda end: end.close(),
    "a datagram socket": _datagram,
    "a listening socket": _listening,
    "a file": _file,
    "two sockets": _two,
    "forty sockets": _many,
    "a socket with a refusal": _with_refusal,
    "a long answer": _long,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_rt_04_a_hostile_answer_is_a_typed_error_and_leaves_no_descriptor(name: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with hostile_host(HOSTILE[name]) as egress, pytest.raises(ConfideError) as caught:
        egress.connect("a.example", 1, timeout=5)
    assert caught.value.code in {"malformed.unknown_format", "enclave.sandbox"}
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_rt_04_a_host_that_does_not_answer_is_a_deadline() -> None:
    release = threading.Event()

    def silent(_end: socket.socket) -> None:
        release.wait(5)

    with hostile_host(silent) as egress:
        with pytest.raises(EnclaveError) as caught:
            egress.connect("a.example", 1, timeout=0.1)
        release.set()
    assert caught.value.code == "enclave.deadline"


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.CONNECTED])
def test_each_refusal_has_a_code(status: Status) -> None:
    with (
        hostile_host(lambda end: _send(end, bytes([status]))) as egress,
        pytest.raises(EnclaveError) as caught,
    ):
        egress.connect("a.example", 1, timeout=5)
    assert caught.value.code in {"enclave.sandbox", "enclave.deadline", "enclave.overloaded"}


@pytest.mark.parametrize(
    "data", [b"", b"\xa0", b"\xff" * 20, EgressRequest("a", 1).encode() + b"\0", b"x" * 600]
)
def test_the_host_survives_a_hostile_worker(data: bytes) -> None:
    with echo_server() as port:
        inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = EgressServer(outside, [f"127.0.0.1:{port}"])
        server.start()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inside, ours:
            with theirs:
                _send(inside, data or b"\0", theirs.fileno(), *([theirs.fileno()] if not data else []))
                null = os.open(os.devnull, os.O_RDONLY)
                _send(inside, EgressRequest("127.0.0.1", port).encode(), null)
                os.close(null)
                _send(inside, EgressRequest("127.0.0.1", port).encode())
            with Egress(inside, [f"127.0.0.1:{port}"]).connect("127.0.0.1", port) as connection:
                connection.sendall(b"still there")
                assert connection.recv(20) == b"still there"
        server.close()


@pytest.mark.parametrize(
    "value",
    [{}, {"host": "a"}, {"host": "a", "port": 0}, {"host": "a", "port": 65536}, {"host": "ä", "port": 1}],
)
def test_requests_are_strict(value: dict[str, Any]) -> None:
    from confide.wire import cbor

    with pytest.raises(MalformedError):
        EgressRequest.decode(cbor.encode(value))


def test_from_a_real_enclave_only_the_measured_list_is_reached(launcher: Launcher) -> None:
    with echo_server() as port, echo_server() as other:
        service = sample_application(egress=[f"127.0.0.1:{port}"])
        with launcher.launch(service) as enclave, launcher.connect(enclave) as client:

            def fetch(where: int) -> bytes:
                return client.post("/fetch", content=json.dumps(["127.0.0.1", where]).encode()).content

            assert fetch(port) == b"hello"
            assert fetch(other) == b"enclave.sandbox"
            assert client.post("/get", content=f"http://127.0.0.1:{port}/".encode()).content == b"page"
            assert (
                client.post("/get", content=f"http://127.0.0.1:{other}/".encode()).content
                == b"enclave.sandbox"
            )
            assert client.post("/get", content=f"https://127.0.0.1:{port}/".encode()).content != b"page"
