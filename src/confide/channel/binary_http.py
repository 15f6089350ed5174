# SPDX-License-Identifier: Apache-2.0
"""Heads of HTTP messages as Binary HTTP, known-length form, in one spelling only.

Source: RFC 9292, sections 3.1, 3.5 and 3.7; RFC 9000, section 16; narrowed by ``docs/spec/envelope.md``, section 6.
Both directions apply the same checks, so that what one side refuses the other cannot send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MAX_HEAD",
    "Fields",
    "RequestHead",
    "ResponseHead",
    "authority",
    "carries_no_body",
    "content_length",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "field",
    "without_hop_fields",
]

MAX_HEAD = 65532
MAX_FIELDS = 256
MAX_PATH = 16384
BINDER_FIELD = b"confide-binder"

Fields = tuple[tuple[bytes, bytes], ...]

_METHOD = re.compile(rb"[A-Z-]{1,32}")
_PATH = re.compile(rb"/[!-\"$-~]*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]{1,256}")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
_REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE"})
REFUSED_FIELDS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
        b"host",
        b"expect",
        b"content-encoding",
        b"accept-encoding",
    }
)
"""Fields that belong to one hop, or that would compress secrets together with what an attacker chose."""
_REFUSED_PREFIXES = (b"proxy-", b"confide-")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_BODILESS = frozenset({204, 205, 304})


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Method, authority (the service's id, see ``authority``), path with query, and fields, all as bytes on the wire."""

    method: bytes
    authority: bytes
    path: bytes
    fields: Fields

    @property
    def binders(self) -> tuple[bytes, ...]:
        """The values of ``confide-binder``."""
        return tuple(value for name, value in self.fields if name == BINDER_FIELD)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status (200 to 599) and fields."""

    status: int
    fields: Fields


def authority(service_id: str) -> bytes:
    """A service's id as the authority of its requests: UTF-8, all but unreserved characters percent-encoded."""
    return b"".join(
        bytes((byte,)) if byte in _UNRESERVED else b"%%%02X" % byte for byte in service_id.encode("utf-8")
    )


def field(fields: Fields, name: bytes) -> bytes | None:
    """The value of the first field ``name``."""
    for key, value in fields:
        if key == name:
            return value
    return None


def content_length(fields: Fields) -> int | None:
    """The declared length of the body, if there is one; ``protocol`` if it is not well-formed."""
    value = field(fields, b"content-length")
    if value is None:
        return None
    if not _LENGTH.fullmatch(value):
        raise _refuse("the head has no single well-formed content-length")
    return int(value)


def carries_no_body(method: bytes, status: int) -> bool:
    """Whether a response has no data frames whatever its fields say (RFC 9110, sections 9.3.2, 15.3.5, 15.3.6, 15.4.5)."""
    return method == b"HEAD" or status in _BODILESS


def without_hop_fields(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of an ordinary HTTP message in the form that the envelope carries: names in lower case, values without
    space around them, and none that concern one hop only or ask for compression.

    ``content-encoding`` stays, and is refused later: to drop it would change what the body means.
    """
    kept = []
    for name, value in fields:
        lower = name.lower()
        if (lower in REFUSED_FIELDS and lower != b"content-encoding") or lower.startswith(b"proxy-"):
            continue
        kept.append((lower, value.strip(b" \t")))
    return tuple(kept)


def encode_request(head: RequestHead) -> bytes:
    """The content of a request's head frame; ``protocol`` if the head may not be sent."""
    _check_request(head)
    parts = [b"\x00"]
    for text in (head.method, b"https", head.authority, head.path):
        parts += (_varint(len(text)), text)
    return _encode_fields(parts, head.fields)


def encode_response(head: ResponseHead) -> bytes:
    """The content of a response's head frame; ``protocol`` if the head may not be sent."""
    _check_status(head.status)
    return _encode_fields([b"\x01", _varint(head.status)], head.fields)


def decode_request(data: bytes) -> RequestHead:
    """Read the content of a request's head frame; ``protocol`` for every deviation."""
    reader = _Reader(data)
    if reader.varint() != 0:
        raise _refuse("the head is not a known-length request")
    method, scheme, host, path = (reader.text() for _ in range(4))
    if scheme != b"https":
        raise _refuse("the scheme of the request is not https")
    head = RequestHead(method, host, path, reader.fields())
    _check_request(head)
    return head


def decode_response(data: bytes) -> ResponseHead:
    """Read the content of a response's head frame; ``protocol`` for every deviation."""
    reader = _Reader(data)
    if reader.varint() != 1:
        raise _refuse("the head is not a known-length response")
    status = reader.varint()
    _check_status(status)
    head = ResponseHead(status, reader.fields())
    _check_fields(head.fields, request=False)
    return head


def _refuse(problem: str) -> ChannelError:
    return ChannelError("protocol", problem)


def _varint(value: int) -> bytes:
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    return (value | 0x80000000).to_bytes(4, "big")  # A head is far below 2^30 bytes.


def _encode_fields(parts: list[bytes], fields: Fields) -> bytes:
    _check_fields(fields, request=parts[0] == b"\x00")
    section = b"".join(
        piece for name, value in fields for piece in (_varint(len(name)), name, _varint(len(value)), value)
    )
    data = b"".join((*parts, _varint(len(section)), section, b"\x00\x00"))
    if len(data) > MAX_HEAD:
        raise _refuse("the head is larger than 65,532 bytes")
    return data


def _check_request(head: RequestHead) -> None:
    if not _METHOD.fullmatch(head.method) or head.method in _REFUSED_METHODS:
        raise _refuse("the method of the request is not admitted")
    if len(head.path) > MAX_PATH or not (
        _PATH.fullmatch(head.path) or (head.path == b"*" and head.method == b"OPTIONS")
    ):
        raise _refuse("the path of the request is not admitted")
    _check_fields(head.fields, request=True)


def _check_status(status: int) -> None:
    if not 200 <= status <= 599:
        raise _refuse("the status of the response is not final")


def _check_fields(fields: Fields, *, request: bool) -> None:
    if len(fields) > MAX_FIELDS:
        raise _refuse("the head has more than 256 fields")
    lengths = 0
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _refuse("the head has a field that is not well-formed")
        if name in REFUSED_FIELDS or (
            name.startswith(_REFUSED_PREFIXES) and not (request and name == BINDER_FIELD)
        ):
            raise _refuse("the head has a field that has no place in the envelope")
        if name == b"content-length":
            lengths += 1
            if lengths > 1 or not _LENGTH.fullmatch(value):
                raise _refuse("the head has no single well-formed content-length")


class _Reader:
    """Bounds-checked reading of shortest-form variable-length integers and what they count."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_HEAD:
            raise _refuse("the head is larger than 65,532 bytes")
        self._data = data
        self._offset = 0

    def varint(self) -> int:
        data, offset = self._data, self._offset
        if offset >= len(data):
            raise _refuse("the head is cut off")
        first = data[offset]
        if first < 0x40:
            self._offset = offset + 1
            return first
        width = 1 << (first >> 6)
        end = offset + width
        if end > len(data):
            raise _refuse("the head is cut off")
        value = int.from_bytes(data[offset:end], "big") & ((1 << (8 * width - 2)) - 1)
        if value < 1 << (4 * width - 2):
            raise _refuse("the head has an integer that is not in its shortest form")
        self._offset = end
        return value

    def text(self) -> bytes:
        length = self.varint()
        start = self._offset
        end = start + length
        if end > len(self._data):
            raise _refuse("the head is cut off")
        self._offset = end
        return self._data[start:end]

    def fields(self) -> Fields:
        """The field section, the empty content and the empty trailers, which end the message."""
        length = self.varint()
        end = self._offset + length
        if end > len(self._data):
            raise _refuse("the head is cut off")
        found: list[tuple[bytes, bytes]] = []
        while self._offset < end:
            if len(found) == MAX_FIELDS:
                raise _refuse("the head has more than 256 fields")
            found.append((self.text(), self.text()))
        if self._offset != end:
            raise _refuse("a field reaches beyond the field section")
        if self._data[end:] != b"\x00\x00":
            raise _refuse("the head has content, trailers, padding or an early end")
        return tuple(found)
