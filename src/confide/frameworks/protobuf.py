# SPDX-License-Identifier: Apache-2.0
"""A strict reader of protobuf messages by table, for looking at a model before its framework does.

Stricter than protobuf itself, because two readers that disagree are how a check is passed by: an unknown field, a
field of another wire type, a singular field that comes twice (protobuf would merge them), a group, a varint of more
than ten bytes and a length that runs past its message are all refused. Nested messages are returned as views and read
by whoever knows their table, so nothing is copied and nesting is the caller's to bound.

Source: the Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

from confide.errors import ModelError

__all__ = ["Budget", "Field", "Table", "Wire", "count", "integers", "read", "signed64", "text"]

_MAX_VARINT: Final = 10
_CONTINUATION_RUN: Final = re.compile(rb"[\x80-\xff]{10}")
_CONTINUATION: Final = bytes(range(0x80, 0x100))


class Wire(IntEnum):
    """Wire types of the encoding; groups (3 and 4) are left out on purpose."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a message's table."""

    name: str
    wire: Wire
    repeated: bool = False

    @property
    def packable(self) -> bool:
        """Whether the values may also come packed in one length-delimited field."""
        return self.repeated and self.wire is not Wire.BYTES


Table: TypeAlias = Mapping[int, Field]


class Budget:
    """How many fields may still be read; shared by a whole model, so that no nesting multiplies the work."""

    __slots__ = ("left",)

    def __init__(self, fields: int) -> None:
        self.left = fields

    def spend(self) -> None:
        """Count one field. Raises ModelError ``limit`` when there have been too many."""
        self.left -= 1
        if self.left < 0:
            raise ModelError("limit", "the model has more fields than the limit allows")


def _malformed(what: str, offset: int, why: str) -> ModelError:
    return ModelError(
        "unsafe_format",
        f"{what} at offset {offset}: {why}",
        hint="the file is damaged, or it is not the format that it claims to be",
    )


def _varint(view: memoryview, at: int, what: str) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT):
        if at + index >= len(view):
            raise _malformed(what, at, "a number is cut off")
        byte = view[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at + index + 1
    raise _malformed(what, at, "a number is longer than 64 bits")


def read(view: memoryview, table: Table, *, what: str, budget: Budget) -> dict[str, Any]:
    """Read one message: name to value, or to the list of values where the field is repeated.

    Values are ints for varints, and views for everything else; a packed field contributes one view to its list.
    Every repeated field is present, if only as an empty list; singular fields are absent when they were not sent.
    Raises ModelError ``unsafe_format`` or ``limit``.
    """
    record: dict[str, Any] = {field.name: [] for field in table.values() if field.repeated}
    at, end = 0, len(view)
    while at < end:
        budget.spend()
        start = at
        key, at = _varint(view, at, what)
        field = table.get(key >> 3)
        wire = key & 7
        if field is None:
            raise _malformed(what, start, "an unknown field")
        value: int | memoryview
        if wire == Wire.VARINT:
            value, at = _varint(view, at, what)
        else:
            if wire == Wire.BYTES:
                size, at = _varint(view, at, what)
            elif wire == Wire.FIXED64:
                size = 8
            elif wire == Wire.FIXED32:
                size = 4
            else:
                raise _malformed(what, start, "a wire type that is not in use")
            if size > end - at:
                raise _malformed(what, start, "a length that runs past the end")
            value = view[at : at + size]
            at += size
        if wire != field.wire and not (field.packable and wire == Wire.BYTES):
            raise _malformed(what, start, "a field of the wrong wire type")
        if field.repeated:
            record[field.name].append(value)
        elif field.name in record:
            raise _malformed(what, start, "a field that may come once came twice")
        else:
            record[field.name] = value
    return record


def text(value: memoryview | None, *, what: str, max_bytes: int = 4096) -> str:
    """A string field: UTF-8, bounded; the empty string where the field is absent."""
    if value is None:
        return ""
    if len(value) > max_bytes:
        raise ModelError("limit", f"{what}: a name is longer than {max_bytes} bytes")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed(what, 0, "a name is not UTF-8") from None


def signed64(value: int) -> int:
    """An int64 that was sent as a varint: negative numbers travel as their two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def integers(values: list[int | memoryview], *, what: str, max_count: int) -> tuple[int, ...]:
    """The int64 values of a repeated varint field, packed or not."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(signed64(value))
        else:
            at = 0
            while at < len(value):
                number, at = _varint(value, at, what)
                numbers.append(signed64(number))
                if len(numbers) > max_count:
                    break
        if len(numbers) > max_count:
            raise ModelError("limit", f"{what}: more than {max_count} numbers")
    return tuple(numbers)


def count(values: list[int | memoryview], wire: Wire, *, what: str) -> int:
    """How many values a repeated numeric field holds, packed or not, without decoding them.

    A fixed-width value that came alone is a view too, of exactly its own width, so both count by length.
    """
    total = 0
    for value in values:
        if isinstance(value, int):
            total += 1
        elif wire is Wire.VARINT:
            raw = bytes(value)
            if raw and raw[-1] >= 0x80:
                raise _malformed(what, len(raw) - 1, "a number is cut off")
            if _CONTINUATION_RUN.search(raw):
                raise _malformed(what, 0, "a number is longer than 64 bits")
            total += len(raw.translate(None, delete=_CONTINUATION))
        else:
            width = 8 if wire is Wire.FIXED64 else 4
            if len(value) % width:
                raise _malformed(what, len(value), "packed numbers do not fill their field")
            total += len(value) // width
    return total
