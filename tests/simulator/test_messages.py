# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.errors import ConfideError
from confide.simulator import messages
from confide.simulator.client import SimulatedDevice
from confide.wire import cbor
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = bytes(32)


def framed(message: Any) -> bytes:
    data = cbor.encode(message)
    return len(data).to_bytes(4, "big") + data


def asked_of(reply: bytes, *, pieces: int = 1) -> SimulatedDevice:
    """A client whose device sends ``reply`` to whatever it is asked, in pieces, and then ends."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs:
            theirs.recv(4096)
            step = max(1, -(-len(reply) // pieces))
            for start in range(0, len(reply), step):
                theirs.sendall(reply[start : start + step])
                if pieces > 1:
                    time.sleep(0.002)

    threading.Thread(target=answer, daemon=True).start()
    return SimulatedDevice(ours, timeout=5)


@pytest.fixture(autouse=True)
def _sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[SimulatedDevice] = []
    original = SimulatedDevice.__init__

    def remember(self: SimulatedDevice, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(SimulatedDevice, "__init__", remember)
    yield
    for device in made:
        device._connection.close()


def test_an_answer_in_many_pieces_is_read_whole() -> None:
    assert asked_of(framed({"key": KEY, "number": 1}), pieces=50).derive_key(b"x") == KEY


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x80\0\0\0" + bytes(100),
        framed({"key": KEY, "number": 1})[:-1],
        (99).to_bytes(4, "big") + cbor.encode({"key": KEY, "number": 1}),
        (3).to_bytes(4, "big") + cbor.encode({"key": KEY, "number": 1}),
        framed([1]),
        framed({}),
        framed({"number": 1}),
        framed({"key": KEY}),
        framed({"key": KEY, "number": 2}),
        framed({"key": KEY, "number": True}),
        framed({"key": KEY, "number": -1}),
        framed({"key": KEY[:31], "number": 1}),
        framed({"key": "x" * 32, "number": 1}),
        framed({"key": KEY, "number": 1, "more": 1}),
        framed({"error": 1, "number": 1}),
        framed({"error": {}, "number": 1}),
        framed({"error": {"family": "x", "leaf": "y", "message": "z", "hint": ""}, "number": 1, "key": KEY}),
    ],
    ids=lambda reply: reply[:24].hex(),
)
def test_rt_04_a_hostile_answer_is_a_typed_error(reply: bytes) -> None:
    """Short, long, negative, huge, mistyped, of another question: never a key, never an IndexError."""
    assert asked_of(framed({"key": KEY, "number": 1})).derive_key(b"x") == KEY
    with pytest.raises(ConfideError):
        asked_of(reply).derive_key(b"x")


def test_rt_04_a_duplicated_answer_is_not_taken_for_the_next_question() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        device = SimulatedDevice(ours, timeout=5)
        theirs.sendall(framed({"key": KEY, "number": 1}) * 2)
        assert device.derive_key(b"a") == KEY
        assert code_of(device.derive_key, b"b") == "enclave.bad_state"


def test_rt_04_evidence_over_other_report_data_is_not_handed_on() -> None:
    from support import snp

    asked, other = bytes(64), bytes(range(64))
    for data, accepted in ((asked, True), (other, False)):
        report = snp.mint(report={"report_data": data}).report
        device = asked_of(framed({"certificates": [], "crls": [], "number": 1, "report": report}))
        if accepted:
            assert device.attest(asked).platform.data == report
        else:
            assert code_of(device.attest, asked) == "enclave.bad_state"


@given(st.binary(max_size=60))
def test_no_bytes_of_a_peer_raise_anything_but_typed_errors(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.sendall(data)
        theirs.close()
        only_typed_errors(messages.receive, ours, limit=messages.MAX_WORKER)


def test_an_error_that_travels_keeps_its_code_and_its_hint() -> None:
    from confide.errors import ConfigurationError, EnclaveError

    for error in (EnclaveError("unmeasured", "a", hint="b"), ConfigurationError("requires", "c", hint="d")):
        with pytest.raises(type(error)) as caught:
            messages.raise_error(
                cbor.decode(cbor.encode(messages.error_message(error)), what="x", max_size=1000)
            )
        assert (caught.value.code, caught.value.message, caught.value.hint) == (
            error.code,
            error.message,
            error.hint,
        )
