# SPDX-License-Identifier: Apache-2.0
"""A strict reader of DER (X.690): definite and minimal lengths, low tag numbers, nothing after the end.

It reads structures; what they mean is for callers. Certificates and their vendor extensions go through it.
"""

from __future__ import annotations

import functools
import re
from itertools import pairwise

from confide.errors import MalformedError

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "ENUMERATED",
    "IA5_STRING",
    "INTEGER",
    "NULL",
    "OBJECT_IDENTIFIER",
    "OCTET_STRING",
    "PRINTABLE_STRING",
    "SEQUENCE",
    "SET",
    "UTF8_STRING",
    "Element",
    "decode",
]

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OBJECT_IDENTIFIER = 1, 2, 3, 4, 5, 6
ENUMERATED, UTF8_STRING, PRINTABLE_STRING, IA5_STRING = 10, 12, 19, 22
SEQUENCE, SET = 0x30, 0x31

_MAX_DEPTH = 24
# A list of 60,000 revoked certificates has about so many; each costs a hundred times its two bytes in memory.
_MAX_ELEMENTS = 200_000
# The longest in use have about 20. Making numbers of longer ones takes time in the square of their length.
_MAX_OID = 64
_UTC_TIME, _GENERALIZED_TIME = 23, 24
_PRINTABLE = re.compile(rb"[A-Za-z0-9 '()+,./:=?-]*")
_TIMES = {_UTC_TIME: re.compile(rb"\d{12}Z"), _GENERALIZED_TIME: re.compile(rb"\d{14}Z")}


class Element:
    """One element of a structure that has been checked to its leaves; it is a view of the bytes as they were."""

    __slots__ = ("_body", "_children", "_data", "_end", "_start", "tag", "what")

    def __init__(self, data: bytes, start: int, body: int, end: int, tag: int, what: str) -> None:
        self._data = data
        self._start = start
        self._body = body
        self._end = end
        self._children: tuple[Element, ...] = ()
        self.tag = tag
        """The identifier octet."""
        self.what = what

    @property
    def content(self) -> bytes:
        """The contents octets."""
        return self._data[self._body : self._end]

    @property
    def encoded(self) -> bytes:
        """All bytes of the element, as they were."""
        return self._data[self._start : self._end]

    def _refuse(self, problem: str) -> MalformedError:
        return MalformedError("non_canonical", f"{self.what}: {problem}")

    def expect(self, tag: int) -> Element:
        """The element itself, if it has the identifier octet ``tag``."""
        if self.tag != tag:
            raise self._refuse("an element of another type stands where one was expected")
        return self

    def children(self) -> tuple[Element, ...]:
        """The elements inside a constructed one."""
        if not self.tag & 0x20:
            raise self._refuse("a primitive element has nothing inside")
        return self._children

    def integer(self) -> int:
        """The value of an INTEGER of any sign."""
        return int.from_bytes(self.expect(INTEGER).content, "big", signed=True)

    def enumerated(self) -> int:
        """The value of an ENUMERATED."""
        return int.from_bytes(self.expect(ENUMERATED).content, "big", signed=True)

    def octets(self) -> bytes:
        """The contents of an OCTET STRING."""
        return self.expect(OCTET_STRING).content

    def bits(self) -> bytes:
        """The contents of a BIT STRING of whole bytes."""
        content = self.expect(BIT_STRING).content
        if content[0]:
            raise self._refuse("a bit string is not a whole number of bytes")
        return content[1:]

    def boolean(self) -> bool:
        """The value of a BOOLEAN."""
        return self.expect(BOOLEAN).content == b"\xff"

    def oid(self) -> str:
        """The dotted text of an OBJECT IDENTIFIER."""
        content = self.expect(OBJECT_IDENTIFIER).content
        if len(content) > _MAX_OID:
            raise MalformedError(
                "limit_exceeded", f"{self.what}: an object identifier of more than {_MAX_OID} bytes"
            )
        return _dotted(content)

    def ia5(self) -> str:
        """The text of an IA5String (ASCII)."""
        return self.expect(IA5_STRING).content.decode("ascii")


@functools.lru_cache(maxsize=512)
def _dotted(content: bytes) -> str:
    numbers: list[int] = []
    value = 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))


def decode(data: bytes, *, what: str, max_size: int) -> Element:
    """The one element that ``data`` holds, checked to its leaves.

    Raises ``malformed.limit_exceeded``, ``malformed.truncated``, ``malformed.trailing_data`` and, for BER that is not DER,
    ``malformed.non_canonical``.
    """
    if len(data) > max_size:
        raise MalformedError("limit_exceeded", f"{what} is longer than {max_size} bytes")
    parser = _Parser(bytes(data), what)
    top = parser.element(0, len(data), _MAX_DEPTH)
    if top._end != len(data):  # noqa: SLF001
        raise MalformedError("trailing_data", f"{what}: bytes after its end")
    return top


class _Parser:
    """One pass over one document, with the number of elements that it may still make."""

    __slots__ = ("budget", "data", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.budget = _MAX_ELEMENTS

    def refuse(self, leaf: str, problem: str) -> MalformedError:
        return MalformedError(leaf, f"{self.what}: {problem}")

    def element(self, start: int, limit: int, depth: int) -> Element:
        """The element at ``start``, which must end at ``limit`` or before, with all that is inside."""
        data = self.data
        body = start + 2
        if body > limit:
            raise self.refuse("truncated", "cut off in an element's head")
        self.budget -= 1
        if self.budget < 0 or depth <= 0:
            raise self.refuse("limit_exceeded", "too many elements, or nested too deeply")
        tag, length = data[start], data[start + 1]
        if tag & 0x1F == 0x1F:
            raise self.refuse("non_canonical", "an element with a long tag number")
        if length >= 0x80:
            length, body = self.long_length(length, body, limit)
        end = body + length
        if end > limit:
            raise self.refuse("truncated", "an element reaches beyond the end")
        found = Element(data, start, body, end, tag, self.what)
        if tag & 0x20:
            found._children = self.inside(tag, body, end, depth - 1)  # noqa: SLF001
        elif not _primitive_is_der(tag, data[body:end]):
            raise self.refuse("non_canonical", "a value that is not in its one DER form")
        return found

    def long_length(self, head: int, body: int, limit: int) -> tuple[int, int]:
        if head == 0x80 or head > 0x84:
            raise self.refuse("non_canonical", "an indefinite or oversized length")
        after = body + (head & 0x7F)
        if after > limit:
            raise self.refuse("truncated", "cut off in an element's length")
        length = int.from_bytes(self.data[body:after], "big")
        if self.data[body] == 0 or length < 0x80:
            raise self.refuse("non_canonical", "a length that is not in its shortest form")
        return length, after

    def inside(self, tag: int, body: int, end: int, depth: int) -> tuple[Element, ...]:
        if tag < 0x40 and tag not in {SEQUENCE, SET}:
            raise self.refuse("non_canonical", "a string in pieces")
        found: list[Element] = []
        while body < end:
            child = self.element(body, end, depth)
            found.append(child)
            body = child._end  # noqa: SLF001
        if tag == SET and any(first.encoded >= second.encoded for first, second in pairwise(found)):
            raise self.refuse("non_canonical", "a set out of order")
        return tuple(found)


def _primitive_is_der(tag: int, content: bytes) -> bool:
    if tag == BOOLEAN:
        return content in {b"\x00", b"\xff"}
    if tag in {INTEGER, ENUMERATED}:
        return bool(content) and not (
            len(content) > 1 and content[0] in {0, 0xFF} and content[0] >> 7 == content[1] >> 7
        )
    if tag == BIT_STRING:
        if not content or content[0] > 7:
            return False
        return not content[0] if len(content) == 1 else not content[-1] & ((1 << content[0]) - 1)
    if tag == NULL:
        return not content
    if tag == OBJECT_IDENTIFIER:
        if not content or content[-1] & 0x80 or content[0] == 0x80:
            return False
        return not any(a < 0x80 and b == 0x80 for a, b in pairwise(content))
    if tag == UTF8_STRING:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True
    if tag == PRINTABLE_STRING:
        return _PRINTABLE.fullmatch(content) is not None
    if tag == IA5_STRING:
        return content.isascii()
    if tag in _TIMES:
        return _TIMES[tag].fullmatch(content) is not None
    return tag not in {0x10, 0x11}  # SEQUENCE and SET are never primitive.
