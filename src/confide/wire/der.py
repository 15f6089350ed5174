# SPDX-License-Identifier: Apache-2.0
"""A strict reader of DER (X.690): definite and minimal lengths, low tag numbers, nothing after the end.

It reads structures; what they mean is for callers. Certificates and their vendor extensions go through it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    "SEQUENCE",
    "SET",
    "UTF8_STRING",
    "Element",
    "decode",
]

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OBJECT_IDENTIFIER = 1, 2, 3, 4, 5, 6
ENUMERATED, UTF8_STRING, IA5_STRING = 10, 12, 22
SEQUENCE, SET = 0x30, 0x31

_MAX_DEPTH = 24
# A list of 60,000 revoked certificates has about so many; each costs a hundred times its two bytes in memory.
_MAX_ELEMENTS = 200_000
_UTC_TIME, _GENERALIZED_TIME = 23, 24
_TIMES = {_UTC_TIME: re.compile(rb"\d{12}Z"), _GENERALIZED_TIME: re.compile(rb"\d{14}Z")}


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its identifier octet, its contents, and all its bytes as they were."""

    tag: int
    content: bytes
    encoded: bytes
    what: str

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
        found: list[Element] = []
        offset = 0
        while offset < len(self.content):
            child = _element(self.content, offset, self.what)
            found.append(child)
            offset += len(child.encoded)
            if len(found) > _MAX_ELEMENTS:
                raise MalformedError("limit_exceeded", f"{self.what}: too many elements")
        return tuple(found)

    def integer(self) -> int:
        """The value of an INTEGER (or ENUMERATED) of any sign, in its shortest form."""
        if self.tag not in {INTEGER, ENUMERATED}:
            raise self._refuse("an integer was expected")
        return int.from_bytes(self.content, "big", signed=True)

    def octets(self) -> bytes:
        """The contents of an OCTET STRING."""
        return self.expect(OCTET_STRING).content

    def bits(self) -> bytes:
        """The contents of a BIT STRING of whole bytes."""
        if self.expect(BIT_STRING).content[0]:
            raise self._refuse("a bit string is not a whole number of bytes")
        return self.content[1:]

    def boolean(self) -> bool:
        """The value of a BOOLEAN."""
        return self.expect(BOOLEAN).content == b"\xff"

    def oid(self) -> str:
        """The dotted text of an OBJECT IDENTIFIER."""
        numbers: list[int] = []
        value = 0
        for byte in self.expect(OBJECT_IDENTIFIER).content:
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(value)
                value = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))

    def ia5(self) -> str:
        """The text of an IA5String (ASCII)."""
        return self.expect(IA5_STRING).content.decode("ascii")


def decode(data: bytes, *, what: str, max_size: int) -> Element:
    """The one element that ``data`` holds, checked to its leaves.

    Raises ``malformed.limit_exceeded``, ``malformed.truncated``, ``malformed.trailing_data`` and, for BER that is not DER,
    ``malformed.non_canonical``.
    """
    if len(data) > max_size:
        raise MalformedError("limit_exceeded", f"{what} is longer than {max_size} bytes")
    top = _element(bytes(data), 0, what)
    if len(top.encoded) != len(data):
        raise MalformedError("trailing_data", f"{what}: bytes after its end at offset {len(top.encoded)}")
    _check(top, _MAX_DEPTH)
    return top


def _element(data: bytes, start: int, what: str) -> Element:
    if start + 2 > len(data):
        raise MalformedError("truncated", f"{what}: cut off in an element's head")
    tag, length = data[start], data[start + 1]
    body = start + 2
    if tag & 0x1F == 0x1F:
        raise MalformedError("non_canonical", f"{what}: an element with a long tag number")
    if length == 0x80 or length > 0x84:
        raise MalformedError("non_canonical", f"{what}: an indefinite or oversized length")
    if length > 0x80:
        width = length & 0x7F
        spelled = data[body : body + width]
        if len(spelled) < width:
            raise MalformedError("truncated", f"{what}: cut off in an element's length")
        length = int.from_bytes(spelled, "big")
        if spelled[0] == 0 or length < 0x80:
            raise MalformedError("non_canonical", f"{what}: a length that is not in its shortest form")
        body += width
    end = body + length
    if end > len(data):
        raise MalformedError("truncated", f"{what}: an element reaches beyond the end")
    return Element(tag, data[body:end], data[start:end], what)


def _check(element: Element, depth: int) -> None:
    """Refuse what DER does not allow anywhere below ``element``."""
    if depth <= 0:
        raise MalformedError("limit_exceeded", f"{element.what} is nested too deeply")
    tag, content = element.tag, element.content
    if tag & 0x20:
        if tag < 0x40 and tag not in {SEQUENCE, SET}:
            raise element._refuse("a string in pieces")  # noqa: SLF001
        children = element.children()
        for child in children:
            _check(child, depth - 1)
        if tag == SET and any(a.encoded >= b.encoded for a, b in pairwise(children)):
            raise element._refuse("a set out of order")  # noqa: SLF001
        return
    if not _primitive_is_der(tag, content):
        raise element._refuse("a value that is not in its one DER form")  # noqa: SLF001


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
    if tag == IA5_STRING:
        return content.isascii()
    if tag in _TIMES:
        return _TIMES[tag].fullmatch(content) is not None
    return tag not in {0x10, 0x11}  # SEQUENCE and SET are never primitive.
