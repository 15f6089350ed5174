# SPDX-License-Identifier: Apache-2.0
"""Event logs of measured boot: what was extended into which register, and replay of those extensions.

Three forms are read: TCG's crypto-agile log of a TPM 2.0 (TCG PC Client Platform Firmware Profile, section 10), the same
form as CCEL beside TDX (UEFI 2.10, section 38.4: index 0 is MRTD, 1 to 4 are RTMR0 to RTMR3), and dstack's JSON list.
A log is an untrusted story: it counts only where its replay gives the registers that the hardware signed, and even then
the digests are proven and not the texts. ``Event.covered`` says whether a digest is that of the event's own data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from confide.errors import ConfigurationError, MalformedError
from confide.tees._tcg import dstack, events
from confide.tees._tcg.events import STRONG
from confide.wire.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.tees._tcg.events import Event

__all__ = ["MAX_EVENTS", "MAX_LOG", "STRONG", "EventLog", "read", "recognises", "trimmed"]

# A boot has tens of events and firmware gives them up to 256 KiB; reading what is allowed here takes a fraction of a second.
MAX_LOG: Final = 1 << 20
MAX_EVENTS: Final = 4096

_SIZES: Final = MappingProxyType({"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "sm3_256": 32})
_NAMES: Final = MappingProxyType(
    {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512", 0x0012: "sm3_256"}
)
_SIGNATURE: Final = b"Spec ID Event03\x00"
_LOCALITY: Final = b"StartupLocality\x00"
_HEADER_DATA: Final = 32
# Register, type, and the number of digests, which is never 0.
_RECORD_HEAD: Final = 12
_MAX_ALGORITHMS: Final = 8
_MAX_DIGEST: Final = 64
# TPMs have 24 PCRs; the profile leaves room for more, and CCEL needs five.
_MAX_INDEX: Final = 31


@dataclass(frozen=True, slots=True)
class EventLog:
    """A parsed log. ``form`` is ``"tcg"`` or ``"dstack"``; indices of a dstack log are those of CCEL (RTMR0 is 1)."""

    form: Literal["tcg", "dstack"]
    algorithms: tuple[str, ...]
    events: tuple[Event, ...]

    def replay(self, algorithm: str) -> Mapping[int, bytes]:
        """The value of every register that has an event which extends it, by the log's own index.

        ``algorithm`` is one of ``STRONG`` and must be a bank of the log; ``configuration.algorithm`` otherwise. PCR 0
        starts with the startup locality where the log has one (Platform Firmware Profile, section 10.4.5.3).
        """
        if algorithm not in STRONG or algorithm not in self.algorithms:
            raise ConfigurationError(
                "algorithm",
                "the log has no bank of this algorithm that counts",
                hint=f"this log can be replayed for: {', '.join(self.strong) or 'nothing'}",
            )
        registers: dict[int, bytes] = {}
        first = bytes(_SIZES[algorithm] - 1) + bytes((self.startup_locality,))
        for event in self.events:
            if not event.extends:
                continue
            before = registers.get(event.index, bytes(len(first)) if event.index else first)
            registers[event.index] = hashlib.new(algorithm, before + event.digests[algorithm]).digest()
        return MappingProxyType(registers)

    def rtmrs(self) -> Mapping[int, bytes]:
        """Replay with SHA-384, by RTMR number; what the log tells of MRTD, at index 0, is left out."""
        return MappingProxyType({index - 1: value for index, value in self.replay("sha384").items() if index})

    @property
    def strong(self) -> tuple[str, ...]:
        """The banks that can be replayed."""
        return tuple(name for name in self.algorithms if name in STRONG)

    @property
    def startup_locality(self) -> int:
        """The locality from which the TPM was started: 0, 3 or 4; 0 where the log does not say."""
        for event in self.events:
            if event.type == events.NO_ACTION and event.index == 0 and event.data.startswith(_LOCALITY):
                # Checked by the parser: one byte follows, of one of the three values.
                return event.data[len(_LOCALITY)]
        return 0

    def explain(self) -> dict[str, object]:
        """The log as a readable tree, one line for each event; nothing in it is proven by itself."""
        return {
            "form": self.form,
            "banks": list(self.algorithms),
            "startup locality": self.startup_locality,
            "replays to": {
                f"{bank} {index}": value.hex()
                for bank in self.strong
                for index, value in sorted(self.replay(bank).items())
            },
            **{
                f"event {number}": f"{event.index} {event.summary(self.strong[-1])}"
                for number, event in enumerate(self.events, start=1)
            },
        }


def recognises(data: bytes) -> bool:
    """Whether ``data`` is, by its first bytes, an event log in one of the three forms."""
    return data[_HEADER_DATA : _HEADER_DATA + len(_SIGNATURE)] == _SIGNATURE or dstack.recognises(data)


def read(data: bytes) -> EventLog:
    """The log in ``data``. Raises ``malformed`` errors; a log without a bank that counts is ``malformed.unsupported_version``.

    Bytes after the last event must be all 0xFF or all zero: firmware hands over an area larger than its log.
    """
    if len(data) > MAX_LOG:
        raise MalformedError("limit_exceeded", f"an event log has at most {MAX_LOG} bytes")
    if not data[_HEADER_DATA:].startswith(_SIGNATURE):
        if dstack.recognises(data):
            return EventLog("dstack", ("sha384",), dstack.read(data, max_size=MAX_LOG, max_events=MAX_EVENTS))
        raise MalformedError(
            "unknown_format",
            "this is no event log: neither TCG's crypto-agile form, nor dstack's JSON list",
            hint="a log in the older form of TPM 1.2 has SHA-1 digests only, which prove nothing",
        )
    return _read(data)[0]


def trimmed(data: bytes) -> bytes:
    """The log in ``data`` without the padding of the area that firmware hands over. Raises as ``read`` does."""
    if len(data) > MAX_LOG or not data[_HEADER_DATA:].startswith(_SIGNATURE):
        raise MalformedError("unknown_format", "this is no event log in TCG's crypto-agile form")
    return data[: _read(data)[1]]


def _read(data: bytes) -> tuple[EventLog, int]:
    """A log in TCG's form, and the number of bytes up to its padding."""
    cursor = Cursor(data, "event log")
    sizes = _header(cursor)
    names = {algorithm: _NAMES.get(algorithm, f"{algorithm:#06x}") for algorithm in sizes}
    if not any(name in STRONG for name in names.values()):
        raise MalformedError(
            "unsupported_version", "the event log has no SHA-256, SHA-384 or SHA-512 digests"
        )
    found: list[Event] = []
    while cursor.remaining and not _padding(data, cursor.offset):
        if len(found) >= MAX_EVENTS:
            raise MalformedError("limit_exceeded", f"an event log has at most {MAX_EVENTS} events")
        found.append(_event(cursor, sizes, names))
    return EventLog("tcg", tuple(names.values()), tuple(found)), cursor.offset


def _padding(data: bytes, offset: int) -> bool:
    """Whether the rest is fill. No record begins with this many bytes of it, so that the rest is counted only once."""
    head = data[offset : offset + _RECORD_HEAD]
    if head not in (bytes(len(head)), b"\xff" * len(head)):
        return False
    return data.count(head[:1], offset) == len(data) - offset


def _header(cursor: Cursor) -> dict[int, int]:
    """TCG_PCR_EVENT with a TCG_EfiSpecIdEvent: the algorithms of the log and the sizes of their digests."""
    index, kind = cursor.u32_le(), cursor.u32_le()
    cursor.zero(_SIZES["sha1"])
    size = cursor.u32_le()
    if kind != events.NO_ACTION or index > _MAX_INDEX:
        raise MalformedError("non_canonical", "the first record of an event log is not its header")
    header = Cursor(cursor.take(size), "event log header")
    header.take(len(_SIGNATURE))
    header.take(4)  # The class of the platform.
    header.take(4)  # The version and errata of the specification, and the size of UINTN.
    count = header.u32_le()
    if not 1 <= count <= _MAX_ALGORITHMS:
        raise MalformedError("limit_exceeded", f"an event log has 1 to {_MAX_ALGORITHMS} algorithms")
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm, width = header.u16_le(), header.u16_le()
        known = _SIZES.get(_NAMES.get(algorithm, ""), width)
        if algorithm in sizes or width != known or not 1 <= width <= _MAX_DIGEST:
            raise MalformedError(
                "non_canonical", "the header of the event log has an algorithm twice or of a wrong size"
            )
        sizes[algorithm] = width
    header.take(header.u8())
    header.expect_end()
    return sizes


def _event(cursor: Cursor, sizes: Mapping[int, int], names: Mapping[int, str]) -> Event:
    """TCG_PCR_EVENT2: every event has one digest of every algorithm of the header."""
    index, kind, count = cursor.u32_le(), cursor.u32_le(), cursor.u32_le()
    if index > _MAX_INDEX:
        raise MalformedError("limit_exceeded", f"the event log has a register above {_MAX_INDEX}")
    if count != len(sizes):
        raise MalformedError("non_canonical", "an event has not one digest of every algorithm of the log")
    digests: dict[str, bytes] = {}
    for _ in range(count):
        algorithm = cursor.u16_le()
        if algorithm not in sizes or names[algorithm] in digests:
            raise MalformedError("non_canonical", "an event has not one digest of every algorithm of the log")
        digests[names[algorithm]] = cursor.take(sizes[algorithm])
    data = cursor.take(cursor.u32_le())
    if kind == events.NO_ACTION and data.startswith(_LOCALITY):
        rest = data[len(_LOCALITY) :]
        if index != 0 or rest not in (b"\x00", b"\x03", b"\x04"):
            raise MalformedError("non_canonical", "the startup locality in the event log is none")
    return events.Event(index, kind, MappingProxyType(digests), data)
