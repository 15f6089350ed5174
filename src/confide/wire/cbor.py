# SPDX-License-Identifier: Apache-2.0
"""CBOR with exactly one spelling for each value (RFC 8949, section 4.2.1).

The decoder is one strict pass over bounded bytes. It refuses duplicate keys, indefinite lengths, lengths and integers that
are not the shortest, keys out of order, bytes after the end, tags that the caller did not name, bignums, simple values
other than false, true and null, and floating-point numbers, before any value is made from them. `docs/adr/0002-cbor.md`
says why this is our own code.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from confide.errors import MalformedError

__all__ = ["MAX_DEPTH", "Tagged", "decode", "encode"]

MAX_DEPTH = 16
_LIMIT = 1 << 64
_FLOAT64 = struct.Struct(">d")
_OPEN_MAP = b"\xbf"
_BREAK = b"\xff"


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a tag; the tag's meaning is the caller's business."""

    tag: int
    value: Any


def decode(
    data: bytes | bytearray | memoryview,
    *,
    what: str,
    max_size: int,
    max_depth: int = MAX_DEPTH,
    deterministic: bool = True,
    tags: frozenset[int] = frozenset(),
    floats: bool = False,
    open_map: bool = False,
) -> Any:
    """The one value that ``data`` holds.

    ``max_size`` is in bytes, ``max_depth`` counts nested arrays, maps and tags. ``deterministic=False`` is for documents of
    vendors whose maps are not sorted; everything else is refused as before. ``floats`` accepts finite and infinite
    64-bit floating-point numbers (never NaN, which has many spellings). ``open_map`` accepts a map of indefinite length as
    the outermost item, and nowhere else: current firmware of AWS Nitro writes its documents so.

    Raises ``malformed.limit_exceeded``, ``malformed.truncated``, ``malformed.trailing_data`` and, for every other
    deviation, ``malformed.non_canonical``. Source: RFC 8949, sections 3 and 4.2.1.
    """
    if len(data) > max_size:
        raise MalformedError("limit_exceeded", f"{what} is longer than {max_size} bytes")
    reader = _Reader(bytes(data), what, deterministic=deterministic, tags=tags, floats=floats)
    value = reader.open_map(max_depth) if open_map and data[:1] == _OPEN_MAP else reader.item(max_depth)
    if reader.offset != len(reader.data):
        raise MalformedError("trailing_data", f"{what}: bytes after its end at offset {reader.offset}")
    return value


class _Reader:
    """The position in one document, and what its caller allows."""

    __slots__ = ("data", "deterministic", "floats", "offset", "tags", "what")

    def __init__(
        self, data: bytes, what: str, *, deterministic: bool, tags: frozenset[int], floats: bool
    ) -> None:
        self.data = data
        self.what = what
        self.deterministic = deterministic
        self.tags = tags
        self.floats = floats
        self.offset = 0

    def refuse(self, problem: str, at: int, leaf: str = "non_canonical") -> MalformedError:
        return MalformedError(leaf, f"{self.what}: {problem} at offset {at}")

    def take(self, count: int) -> bytes:
        start = self.offset
        end = start + count
        if end > len(self.data):
            raise self.refuse("cut off in the item", start, "truncated")
        self.offset = end
        return self.data[start:end]

    def argument(self, info: int, at: int) -> int:
        """The argument of an item's head, which must be written in the shortest form."""
        if info < 24:
            return info
        if info > 27:
            raise self.refuse("indefinite or reserved length", at)
        width = 1 << (info - 24)
        value = int.from_bytes(self.take(width), "big")
        if value < (24 if width == 1 else 1 << (4 * width)):
            raise self.refuse("number not in its shortest form", at)
        return value

    def count(self, info: int, at: int, each: int) -> int:
        """The length of a string or container, refused at once if the rest of the document cannot hold it."""
        value = self.argument(info, at)
        if value * each > len(self.data) - self.offset:
            raise self.refuse("length beyond the end", at, "truncated")
        return value

    def item(self, depth: int) -> Any:
        at = self.offset
        head = self.take(1)[0]
        major, info = head >> 5, head & 0x1F
        if major == 0:
            return self.argument(info, at)
        if major == 1:
            return -1 - self.argument(info, at)
        if major == 2:
            return self.take(self.count(info, at, 1))
        if major == 3:
            return self.text(info, at)
        if major == 7:
            return self.simple(info, at)
        if depth <= 0:
            raise self.refuse("nested too deeply", at, "limit_exceeded")
        if major == 4:
            return [self.item(depth - 1) for _ in range(self.count(info, at, 1))]
        if major == 5:
            return self.map_(info, at, depth - 1)
        tag = self.argument(info, at)
        if tag not in self.tags:
            raise self.refuse("a tag that has no place here", at)
        return Tagged(tag, self.item(depth - 1))

    def text(self, info: int, at: int) -> str:
        raw = self.take(self.count(info, at, 1))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass  # Raised below: the library's exception carries the bytes.
        raise self.refuse("text that is not UTF-8", at)

    def simple(self, info: int, at: int) -> Any:
        if info == 20:
            return False
        if info == 21:
            return True
        if info == 22:
            return None
        if info == 27 and self.floats:
            number = _FLOAT64.unpack(self.take(8))[0]
            if not math.isnan(number):
                return number
        raise self.refuse("a simple value or floating-point number that has no place here", at)

    def map_(self, info: int, at: int, depth: int) -> dict[Any, Any]:
        entries: dict[Any, Any] = {}
        last = b""
        for _ in range(self.count(info, at, 2)):
            last = self.entry(entries, last, depth)
        return entries

    def open_map(self, depth: int) -> dict[Any, Any]:
        """A map of indefinite length at the current place, which ends in a break."""
        self.take(1)
        entries: dict[Any, Any] = {}
        last = b""
        while self.data[self.offset : self.offset + 1] != _BREAK:
            last = self.entry(entries, last, depth - 1)
        self.take(1)
        return entries

    def entry(self, entries: dict[Any, Any], last: bytes, depth: int) -> bytes:
        """One key and its value, put into ``entries``; the key as it is spelled, to be compared with the next one."""
        start = self.offset
        # Only integers, byte strings and text strings are keys: a hash of anything else is not needed.
        if start < len(self.data) and self.data[start] >> 5 > 3:
            raise self.refuse("a map key that is neither integer nor string", start)
        key = self.item(0)
        spelled = self.data[start : self.offset]
        if key in entries:
            raise self.refuse("a duplicate map key", start)
        if self.deterministic and spelled <= last:
            raise self.refuse("map keys out of order", start)
        entries[key] = self.item(depth)
        return spelled


def encode(value: Any, *, floats: bool = False) -> bytes:
    """The deterministic encoding of ``value`` (RFC 8949, section 4.2.1): shortest heads, keys in bytewise order.

    Values are int (64 bits and a sign), bytes, str, bool, None, list or tuple, dict with int, str or bytes keys, and
    ``Tagged``; with ``floats`` also float, always written with 64 bits. Anything else raises
    ``malformed.non_canonical``, deeper nesting than 64 ``malformed.limit_exceeded``.
    """
    parts: list[bytes] = []
    _write(value, parts, 64, floats=floats)
    return b"".join(parts)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    if argument < 1 << 8:
        return bytes((major << 5 | 24, argument))
    if argument < 1 << 16:
        return bytes((major << 5 | 25,)) + argument.to_bytes(2, "big")
    if argument < 1 << 32:
        return bytes((major << 5 | 26,)) + argument.to_bytes(4, "big")
    if argument < _LIMIT:
        return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")
    raise MalformedError("limit_exceeded", "an integer of more than 64 bits has no encoding here")


def _write(value: Any, parts: list[bytes], depth: int, *, floats: bool) -> None:
    kind = type(value)
    if kind is bool:
        parts.append(b"\xf5" if value else b"\xf4")
    elif value is None:
        parts.append(b"\xf6")
    elif isinstance(value, int):
        number = int(value)
        parts.append(_head(0, number) if number >= 0 else _head(1, -1 - number))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        parts += (_head(2, len(raw)), raw)
    elif isinstance(value, str):
        parts += _text(value)
    elif kind is float and floats and not math.isnan(value):
        parts.append(b"\xfb" + _FLOAT64.pack(value))
    elif depth <= 0:
        raise MalformedError("limit_exceeded", "a value is nested too deeply to be encoded")
    elif isinstance(value, (list, tuple)):
        parts.append(_head(4, len(value)))
        for element in value:
            _write(element, parts, depth - 1, floats=floats)
    elif isinstance(value, dict):
        _write_map(value, parts, depth - 1, floats=floats)
    elif kind is Tagged:
        if type(value.tag) is not int or value.tag < 0:
            raise MalformedError("non_canonical", "a tag is an unsigned integer")
        parts.append(_head(6, value.tag))
        _write(value.value, parts, depth - 1, floats=floats)
    else:
        raise MalformedError("non_canonical", "a value of this type has no encoding here")


def _text(value: str) -> tuple[bytes, bytes]:
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raw = None
    if raw is None:
        raise MalformedError("non_canonical", "text with a lone surrogate has no encoding")
    return _head(3, len(raw)), raw


def _write_map(value: dict[Any, Any], parts: list[bytes], depth: int, *, floats: bool) -> None:
    entries: list[tuple[bytes, Any]] = []
    for key, element in value.items():
        if isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
            raise MalformedError("non_canonical", "map keys are integers, text or bytes")
        spelled: list[bytes] = []
        _write(key, spelled, 0, floats=floats)
        entries.append((b"".join(spelled), element))
    entries.sort(key=lambda entry: entry[0])
    parts.append(_head(5, len(entries)))
    for spelled_key, element in entries:
        parts.append(spelled_key)
        _write(element, parts, depth, floats=floats)
