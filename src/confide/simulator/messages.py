# SPDX-License-Identifier: Apache-2.0
"""Messages to and from a simulated device: a 4-byte big-endian length, then one deterministic CBOR map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.errors import ConfigurationError, EnclaveError, MalformedError
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from confide.errors import ConfideError

__all__ = ["MAX_HOST", "MAX_WORKER", "call", "error_message", "raise_error", "receive", "send"]

MAX_HOST = 1024 * 1024
MAX_WORKER = 256 * 1024


def send(connection: socket.socket, message: Mapping[str, object]) -> None:
    """Send one message; raises ``enclave.crashed`` when the peer is gone, ``enclave.deadline`` when it does not read."""
    data = cbor.encode(dict(message))
    try:
        connection.sendall(len(data).to_bytes(4, "big") + data)
    except TimeoutError as error:
        raise EnclaveError("deadline", "the simulated device does not read", stage="device") from error
    except OSError as error:
        raise EnclaveError(
            "crashed", "the other end of the device's socket is gone", stage="device"
        ) from error


def receive(connection: socket.socket, *, limit: int) -> dict[Any, Any] | None:
    """The next message, or None at an orderly end.

    Raises ``malformed`` errors for bytes that are no message of at most ``limit`` bytes, ``enclave.deadline`` and
    ``enclave.crashed`` for a peer that is silent or gone in the middle of one.
    """
    head = _exactly(connection, 4, may_end=True)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if not 0 < length <= limit:
        raise MalformedError("limit_exceeded", "a device message is empty or too long")
    data = _exactly(connection, length, may_end=False)
    message = cbor.decode(data or b"", what="device message", max_size=limit)
    if not isinstance(message, dict):
        raise MalformedError("non_canonical", "a device message is not a map")
    return message


def _exactly(connection: socket.socket, count: int, *, may_end: bool) -> bytes | None:
    parts: list[bytes] = []
    missing = count
    while missing:
        try:
            part = connection.recv(min(missing, 65_536))
        except TimeoutError as error:
            raise EnclaveError(
                "deadline", "the simulated device did not answer in time", hint="launch again", stage="device"
            ) from error
        except OSError as error:
            raise EnclaveError(
                "crashed", "the other end of the device's socket is gone", stage="device"
            ) from error
        if not part:
            if may_end and missing == count:
                return None
            raise EnclaveError("crashed", "a device message ends in the middle", stage="device")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def call(
    connection: socket.socket, message: Mapping[str, object], *, number: int, limit: int
) -> dict[Any, Any]:
    """Send one message and return the answer to it, or raise the error that it carries.

    ``number`` is new for every question on a connection and comes back with the answer: one that belongs to another
    question is ``enclave.bad_state``.
    """
    send(connection, {**message, "number": number})
    answer = receive(connection, limit=limit)
    if answer is None:
        raise EnclaveError("crashed", "the simulated device has ended", hint="launch again", stage="device")
    if type(answer.get("number")) is not int or answer.pop("number") != number:
        raise EnclaveError(
            "bad_state", "the answer of the device belongs to another question", stage="device"
        )
    raise_error(answer)
    return answer


def error_message(error: ConfideError) -> dict[str, object]:
    """An error as an answer."""
    family, _, leaf = error.code.partition(".")
    return {"error": {"family": family, "hint": error.hint, "leaf": leaf, "message": error.message}}


def raise_error(answer: Mapping[str, object]) -> None:
    """Raise the error that an answer carries, if it does."""
    if "error" not in answer:
        return
    outer = Fields(answer, "device answer")
    fields = Fields(outer.mapping("error"), "error of a device")
    family, leaf = fields.text("family", 64), fields.text("leaf", 64)
    message, hint = fields.text("message", 4096), fields.text("hint", 4096)
    fields.end()
    outer.end()
    if family == "configuration":
        raise ConfigurationError(leaf, message, hint=hint, stage="manifest")
    raise EnclaveError(leaf if family == "enclave" else "bad_state", message, hint=hint, stage="device")
