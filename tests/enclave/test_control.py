# SPDX-License-Identifier: Apache-2.0
"""RT-04: control messages from a hostile other side are typed errors, whatever they are."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.enclave.confinement.levels import PRIMITIVES, Confinement, Primitive
from confide.enclave.control import (
    LOG_FIELDS,
    Confined,
    Connection,
    Drain,
    Failed,
    Forked,
    LogLine,
    Message,
    Start,
    StateChanged,
)
from confide.errors import ConfideError, EnclaveError, MalformedError
from confide.wire import cbor

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES: list[Message] = [
    Start(b"manifest", {"app": "/x/app.py"}, ("/site",), {"weights": 7}, 8),
    Start(b"", {}, (), {}),
    Drain(10),
    Forked(4711),
    Confined(
        Confinement(
            (
                Primitive("seccomp", applied=True, detail="x86_64"),
                *(Primitive(n, False) for n in PRIMITIVES[:3]),
            )
        )
    ),
    StateChanged("running"),
    Failed("enclave.unmeasured", "a file differs", "launch again"),
    LogLine("done", {"count": 3, "code": "broker.denied"}),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, Connection(theirs, start=True)


def receive(data: bytes, *, start: bool = True) -> Message | None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            with contextlib.suppress(OSError):  # The receiver may have refused and closed.
                ours.sendall(data)
                ours.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        theirs.settimeout(5)
        try:
            return Connection(theirs, start=start).receive()
        finally:
            theirs.close()
            sender.join(5)


def framed(value: Any) -> bytes:
    body = cbor.encode(value)
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(pair: tuple[socket.socket, Connection], message: Message) -> None:
    ours, connection = pair
    Connection(ours, start=True).send(message)
    received = connection.receive()
    if isinstance(message, Confined):
        assert isinstance(received, Confined)
        assert set(received.confinement.primitives) == set(message.confinement.primitives)
    else:
        assert received == message


def test_an_orderly_end_is_none_and_a_cut_message_is_an_error(pair: tuple[socket.socket, Connection]) -> None:
    assert receive(b"") is None
    whole = framed({"type": "drain", "seconds": 1})
    for length in range(1, len(whole)):
        with pytest.raises(EnclaveError) as caught:
            receive(whole[:length])
        assert caught.value.code == "enclave.crashed"


@pytest.mark.parametrize("length", [0, (1 << 20) + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_rt_04_impossible_lengths_are_refused_before_anything_is_read(length: int) -> None:
    with pytest.raises(MalformedError) as caught:
        receive(length.to_bytes(4, "big") + b"x" * 16)
    assert caught.value.code == "malformed.limit_exceeded"


def test_rt_04_a_worker_cannot_send_the_host_more_than_a_report() -> None:
    data = framed({"type": "failed", "code": "enclave.crashed", "message": "x" * 70_000, "hint": ""})
    with pytest.raises(MalformedError):
        receive(data, start=False)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"type": "start"},
        {"type": "reboot"},
        {"type": "drain"},
        {"type": "drain", "seconds": -1},
        {"type": "drain", "seconds": True},
        {"type": "drain", "seconds": 1, "more": 1},
        {"type": "forked", "pid": 0},
        {"type": "forked", "pid": 1 << 40},
        {"type": "state", "state": "measured"},
        {"type": "state", "state": "failed"},
        {"type": "failed", "code": "Enclave crashed\n", "message": "", "hint": ""},
        {"type": "failed", "code": "enclave.crashed", "message": "\x1b[2J", "hint": ""},
        {"type": "log", "event": "UPPER", "fields": {}},
        {"type": "log", "event": "ok", "fields": {"name": 1}},
        {"type": "log", "event": "ok", "fields": {"count": 1 << 60}},
        {"type": "log", "event": "ok", "fields": {"code": "a b"}},
        {"type": "log", "event": "ok", "fields": {"code": b"a"}},
        {"type": "log", "event": "ok\n", "fields": {}},
        {"type": "confined", "primitives": {"magic": [True, ""]}},
        {"type": "start", "manifest": b"", "code": {"a": "relative"}, "sites": [], "data": {}, "storage": 0},
        {"type": "start", "manifest": b"", "code": {}, "sites": ["x"], "data": {}, "storage": 0},
        {"type": "start", "manifest": b"", "code": {}, "sites": [], "data": {"a": 3}, "storage": 0},
        {"type": "start", "manifest": b"", "code": {}, "sites": [], "data": {"a": 7, "b": 7}, "storage": 0},
        {"type": "start", "manifest": b"", "code": {}, "sites": [], "data": {"a": 7}, "storage": 7},
        {"type": "start", "manifest": b"", "code": {}, "sites": [], "data": {}, "storage": 3},
        {"type": "start", "manifest": "", "code": {}, "sites": [], "data": {}, "storage": 0},
        {"type": "start", "manifest": b"", "code": {1: "/a"}, "sites": [], "data": {}, "storage": 0},
    ],
)
def test_rt_04_what_is_not_exactly_a_message_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        receive(framed(value))


@given(st.binary(max_size=200))
def test_rt_04_any_bytes_are_a_message_or_a_typed_error(data: bytes) -> None:
    try:
        receive(len(data).to_bytes(4, "big") + data)
    except ConfideError:
        return


def test_a_log_line_holds_only_identifiers_and_numbers() -> None:
    assert str(LogLine("done", {"count": 3, "code": "a.b"})) == "done code=a.b count=3"
    assert "message" not in LOG_FIELDS
    assert "name" not in LOG_FIELDS
    for event, fields in (
        ("Done", {}),
        ("", {}),
        ("a b", {}),
        ("ok", {"count": 2.5}),
        ("ok", {"code": "x\n"}),
    ):
        with pytest.raises(MalformedError):
            LogLine(event, fields)  # type: ignore[arg-type]
