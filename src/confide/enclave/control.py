# SPDX-License-Identifier: Apache-2.0
"""What the host and the worker say to each other over the control socket. `host`-safe: data only.

One message is a u32 big-endian length and a deterministic CBOR map with a ``type``. Each side treats the other as hostile:
lengths are checked before anything is allocated, unknown types and keys are refused, and text that will be shown to a
person is made of identifiers. The host sends `Start` once and `Drain` at most once; all else comes from the worker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from confide.enclave.confinement.levels import Confinement
from confide.errors import EnclaveError, MalformedError
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

__all__ = [
    "CONTROL",
    "DATA",
    "DEVICE",
    "EGRESS",
    "LISTEN",
    "LOG_FIELDS",
    "STATES",
    "Confined",
    "Connection",
    "Drain",
    "Failed",
    "Forked",
    "LogLine",
    "Message",
    "Start",
    "StateChanged",
]

CONTROL: Final = 3
DEVICE: Final = 4
LISTEN: Final = 5
EGRESS: Final = 6
DATA: Final = 7
"""Descriptors that the worker inherits; data files and the lent directory come from `DATA` on."""

STATES: Final = ("waiting", "running", "draining", "stopped")
LOG_FIELDS: Final = frozenset(
    {
        "attempt",
        "bytes",
        "code",
        "count",
        "epoch",
        "level",
        "milliseconds",
        "seconds",
        "state",
        "status",
        "version",
    }
)
"""What a log line that leaves the enclave may carry beside its event: numbers, truth values, and dotted codes."""

_MAX_START: Final = 1 << 20
_MAX_REPORT: Final = 64 << 10
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}(?:\.[a-z0-9_]{1,32}){0,3}\Z", re.ASCII)
_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.]{1,64}\Z", re.ASCII)
_BIGGEST: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Start:
    """The host's one instruction: the manifest's bytes, where its code and distributions lie, and what was lent.

    ``data`` gives each lent file's descriptor, ``storage`` that of a directory for vaults. Places are not trusted: what
    is loaded from them is checked against the manifest.
    """

    manifest: bytes
    code: Mapping[str, str]
    sites: tuple[str, ...]
    data: Mapping[str, int]
    storage: int | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish what is in flight within ``seconds`` and end."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Forked:
    """The worker goes on as this process, numbered as the host sees it."""

    pid: int


@dataclass(frozen=True, slots=True)
class Confined:
    """What the worker applied to itself."""

    confinement: Confinement


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The worker entered one of `STATES`."""

    state: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot go on: the error's code, message and hint, which hold no values."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that may leave the enclave: an event's name, and numbers or codes under names from `LOG_FIELDS`."""

    event: str
    fields: Mapping[str, int | str]

    def __post_init__(self) -> None:
        if not isinstance(self.event, str) or _EVENT.match(self.event) is None:
            raise MalformedError("non_canonical", "a log line's event is a lower-case identifier")
        for name, value in self.fields.items():
            if name not in LOG_FIELDS:
                raise MalformedError("non_canonical", "a log line has a field that may not leave the enclave")
            if isinstance(value, str):
                if _WORD.match(value) is None:
                    raise MalformedError("non_canonical", "text in a log line is one word")
            elif not isinstance(value, int) or not -_BIGGEST <= value <= _BIGGEST:
                raise MalformedError("non_canonical", "a log line's field is a number or one word")
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def __str__(self) -> str:
        return " ".join([self.event, *(f"{name}={value}" for name, value in sorted(self.fields.items()))])


Message = Start | Drain | Forked | Confined | StateChanged | Failed | LogLine


class Connection:
    """One end of the control socket. Not thread-safe for receiving; a message is sent whole by one call."""

    __slots__ = ("_limit", "_socket")

    def __init__(self, end: socket.socket, *, start: bool) -> None:
        """``start`` is for the end that awaits a `Start`, which may be large."""
        self._socket = end
        self._limit = _MAX_START if start else _MAX_REPORT

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send, or raise ``enclave.crashed`` when the other side is gone."""
        body = _encode(message)
        try:
            self._socket.sendall(len(body).to_bytes(4, "big") + body)
        except OSError as error:
            raise _gone() from error

    def receive(self) -> Message | None:
        """The next message, or None when the other side has closed between two messages.

        Raises ``MalformedError`` for anything that is not a message and ``enclave.crashed`` for one that was cut off.
        """
        head = self._exactly(4, optional=True)
        if head is None:
            return None
        length = int.from_bytes(head, "big")
        if not 0 < length <= self._limit:
            raise MalformedError("limit_exceeded", "a control message is empty or too long")
        body = self._exactly(length, optional=False)
        return None if body is None else _decode(body, self._limit)

    def close(self) -> None:
        """Close this end; the other one sees it."""
        self._socket.close()

    def _exactly(self, count: int, *, optional: bool) -> bytes | None:
        kept = bytearray()
        while len(kept) < count:
            try:
                piece = self._socket.recv(min(count - len(kept), 1 << 16))
            except TimeoutError as error:
                raise EnclaveError("deadline", "the other process did not answer in time") from error
            except OSError as error:
                raise _gone() from error
            if not piece:
                if optional and not kept:
                    return None
                raise _gone()
            kept += piece
        return bytes(kept)


def _gone() -> EnclaveError:
    return EnclaveError("crashed", "the other process closed the control connection")


def _encode(message: Message) -> bytes:
    match message:
        case Start():
            value: dict[str, object] = {
                "type": "start",
                "manifest": message.manifest,
                "code": dict(message.code),
                "sites": list(message.sites),
                "data": dict(message.data),
                "storage": message.storage or 0,
            }
        case Drain():
            value = {"type": "drain", "seconds": message.seconds}
        case Forked():
            value = {"type": "forked", "pid": message.pid}
        case Confined():
            value = {"type": "confined", "primitives": message.confinement.to_value()}
        case StateChanged():
            value = {"type": "state", "state": message.state}
        case Failed():
            value = {
                "type": "failed",
                "code": message.code,
                "message": message.message[:400],
                "hint": message.hint[:400],
            }
        case LogLine():
            value = {"type": "log", "event": message.event, "fields": dict(message.fields)}
    return cbor.encode(value)


def _decode(body: bytes, limit: int) -> Message:
    fields = Fields(cbor.decode(body, what="control message", max_size=limit, max_depth=4), "control message")
    kind = fields.text("type", 16)
    message: Message
    match kind:
        case "start":
            message = _start(fields)
        case "drain":
            message = Drain(fields.integer("seconds", 0, 3600))
        case "forked":
            message = Forked(fields.integer("pid", 1, (1 << 31) - 1))
        case "confined":
            message = Confined(Confinement.from_value(fields.mapping("primitives")))
        case "state":
            state = fields.text("state", 16)
            if state not in STATES:
                raise MalformedError("unknown_format", "a worker reports an unknown state")
            message = StateChanged(state)
        case "failed":
            code = fields.text("code", 128)
            if _CODE.match(code) is None:
                raise MalformedError("non_canonical", "an error's code is not a dotted name")
            message = Failed(
                code, fields.text("message", 2000, multiline=True), fields.text("hint", 2000, multiline=True)
            )
        case "log":
            message = LogLine(fields.text("event", 64), _text_keys(fields.mapping("fields")))
        case _:
            raise MalformedError("unknown_format", "a control message of an unknown type")
    fields.end()
    return message


def _start(fields: Fields) -> Start:
    manifest = fields.bytes_("manifest", max_length=_MAX_START)
    code = _text_keys(fields.mapping("code"))
    sites = fields.list_("sites", 64)
    data = _text_keys(fields.mapping("data"))
    storage = fields.integer("storage", 0, 4096) or None
    if not all(isinstance(place, str) and place.startswith("/") for place in (*code.values(), *sites)):
        raise MalformedError("non_canonical", "a place of code is not an absolute path")
    numbers = list(data.values())
    if not all(type(number) is int and DATA <= number <= 4096 for number in numbers):
        raise MalformedError("non_canonical", "a lent file is not a descriptor that is passed on")
    if storage is not None and storage < DATA:
        raise MalformedError("non_canonical", "the lent directory is not a descriptor that is passed on")
    if len({*numbers, storage}) != len(numbers) + 1:
        raise MalformedError("non_canonical", "one descriptor is lent under two names")
    return Start(manifest, code, tuple(sites), data, storage)


def _text_keys(mapping: dict[Any, Any]) -> dict[str, Any]:
    if not all(isinstance(key, str) for key in mapping):
        raise MalformedError("non_canonical", "a key of a control message is not text")
    return mapping
