# SPDX-License-Identifier: Apache-2.0
"""Sealing and opening the frames of one message.

    L u32 | kind u8 | ciphertext[L]        plaintext = n u32 | content[n] | zeros

``FrameOpener`` enforces the grammar as well, so that whoever holds a frame holds it in its right place. Plaintext lives in
a private buffer until its tag has been checked. Source: ``docs/spec/envelope.md``, section 5.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from confide.channel import padding
from confide.crypto.aead import TAG, Aead, AuthenticationFailed
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

__all__ = ["FINAL", "Direction", "Frame", "FrameOpener", "FrameSealer", "Kind"]

FINAL = 0x80
HEADER = 5
MIN_CIPHERTEXT = padding.LENGTH_BYTES + TAG
MAX_CIPHERTEXT = padding.MAX_PLAINTEXT + TAG
MAX_SMALL = 65536 + TAG  # A head or a receipt: what an unauthenticated peer can make us hold.
MAX_ABORT = 256 + TAG
MAX_FRAMES = 1 << 32

_POOLED = 65536  # Frames above this size are opened and sealed in buffers that are used again.
_ZEROS = bytes(65536)


class Kind(enum.IntEnum):
    """What a frame carries."""

    HEAD = 1
    DATA = 2
    RECEIPT = 3
    ABORT = 4


class Direction(enum.Enum):
    """Whose message it is."""

    REQUEST = "request"
    RESPONSE = "response"


class Frame(NamedTuple):
    """One authenticated frame."""

    kind: Kind
    final: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one kind byte means."""

    kind: Kind
    final: bool
    limit: int
    aad: bytes


_LIMITS = {
    Kind.HEAD: MAX_SMALL,
    Kind.DATA: MAX_CIPHERTEXT,
    Kind.RECEIPT: MAX_SMALL,
    Kind.ABORT: MAX_ABORT,
}
_RULES = {
    kind.value | final: _Rule(kind, bool(final), _LIMITS[kind], bytes((kind.value | final,)))
    for kind in Kind
    for final in (0, FINAL)
}
_FIRST = {
    Direction.REQUEST: frozenset({Kind.HEAD, Kind.HEAD | FINAL}),
    Direction.RESPONSE: frozenset({Kind.HEAD, Kind.HEAD | FINAL, Kind.ABORT | FINAL}),
}
_LATER = {
    Direction.REQUEST: frozenset({Kind.DATA, Kind.DATA | FINAL, Kind.ABORT | FINAL}),
    Direction.RESPONSE: frozenset({Kind.DATA, Kind.DATA | FINAL, Kind.RECEIPT | FINAL, Kind.ABORT | FINAL}),
}
"""The grammar: which kind bytes may come first, and which after the first."""

_pool: deque[bytearray] = deque(maxlen=16)


def _borrow() -> bytearray:
    try:
        return _pool.pop()
    except IndexError:
        return bytearray(HEADER + MAX_CIPHERTEXT)


def _refuse(leaf: str, index: int, problem: str) -> ChannelError:
    return ChannelError(leaf, f"frame {index}: {problem}")


class FrameSealer:
    """Seals the frames of one message, in order, under its own key; ``key_and_iv`` is 44 bytes."""

    __slots__ = ("_aead", "_index", "_iv")

    def __init__(self, key_and_iv: bytes) -> None:
        self._aead = Aead(key_and_iv[:32])
        self._iv = int.from_bytes(key_and_iv[32:], "big")
        self._index = 0

    @property
    def index(self) -> int:
        """The number of frames sealed so far."""
        return self._index

    def seal(self, kind: Kind, content: Buffer, size: int, *, final: bool = False) -> bytes:
        """One frame with ``content``, its plaintext padded to ``size`` bytes (4 + content at least)."""
        index = self._index
        length = len(content)
        if index >= MAX_FRAMES:
            raise _refuse("protocol", index, "the message has too many frames")
        if not length + padding.LENGTH_BYTES <= size <= padding.MAX_PLAINTEXT:
            raise _refuse("frame_too_large", index, "the content does not fit its frame")
        self._index = index + 1
        aad = _RULES[kind | FINAL if final else kind].aad
        nonce = (self._iv ^ index).to_bytes(12, "big")
        if size <= _POOLED:
            plaintext = b"".join(
                (length.to_bytes(4, "big"), content, _ZEROS[: size - length - padding.LENGTH_BYTES])
            )
            return b"".join(((size + TAG).to_bytes(4, "big"), aad, self._aead.seal(nonce, plaintext, aad)))
        buffer = _borrow()
        view = memoryview(buffer)
        view[:4] = (size + TAG).to_bytes(4, "big")
        view[4:5] = aad
        view[5:9] = length.to_bytes(4, "big")
        view[9 : 9 + length] = content
        pad = size - length - padding.LENGTH_BYTES
        if pad:
            view[9 + length : HEADER + size] = bytes(pad)
        self._aead.seal_into(nonce, view[HEADER : HEADER + size], aad, view[HEADER : HEADER + size + TAG])
        frame = bytes(view[: HEADER + size + TAG])
        _pool.append(buffer)
        return frame


class FrameOpener:
    """Opens the frames of one message as its bytes arrive.

    ``push`` gives it bytes, ``next`` takes frames out until it returns ``None``, ``end`` says that no more bytes come.
    Every deviation raises ``ChannelError`` (``truncated``, ``protocol``, ``frame_too_large``, ``record_auth``,
    ``too_large``); after that the opener gives nothing any more. ``max_body`` bounds the sum of the data contents.
    """

    __slots__ = (
        "_aead",
        "_allowed",
        "_broken",
        "_buffer",
        "_chunk",
        "_filled",
        "_finished",
        "_index",
        "_iv",
        "_later",
        "_length",
        "_max_body",
        "_position",
        "_received",
        "_rule",
    )

    def __init__(self, key_and_iv: bytes, direction: Direction, *, max_body: int | None = None) -> None:
        self._aead = Aead(key_and_iv[:32])
        self._iv = int.from_bytes(key_and_iv[32:], "big")
        self._allowed = _FIRST[direction]
        self._later = _LATER[direction]
        self._max_body = max_body
        self._index = 0
        self._received = 0
        self._finished = False
        self._chunk: bytes = b""
        self._position = 0
        self._rule: _Rule | None = None  # That of the frame whose ciphertext is being gathered.
        self._length = 0
        self._buffer: bytearray | None = None
        self._filled = 0
        self._broken = False

    @property
    def index(self) -> int:
        """The index of the frame that is opened next."""
        return self._index

    @property
    def finished(self) -> bool:
        """Whether the final frame has been opened."""
        return self._finished

    def push(self, data: bytes) -> None:
        """Take the next bytes of the message."""
        if self._finished and data:
            raise _refuse("protocol", self._index, "bytes after the final frame")
        if self._position < len(self._chunk):
            data = self._chunk[self._position :] + data
        self._chunk = data
        self._position = 0

    def end(self) -> None:
        """Say that the stream has ended: ``truncated`` unless the final frame was there."""
        if not self._finished:
            raise _refuse("truncated", self._index, "the message ends before its final frame")

    def next(self) -> Frame | None:
        """The next whole frame, or ``None`` until more bytes are pushed."""
        if self._broken:
            raise _refuse("closed", self._index, "an earlier frame was refused")
        try:
            return self._next()
        except ChannelError:
            self._broken = True
            raise

    def _next(self) -> Frame | None:
        if self._finished:
            return None
        chunk, position = self._chunk, self._position
        rule = self._rule
        if rule is None:
            begin = position + HEADER
            if len(chunk) < begin:
                return None
            rule = self._check_header(chunk[begin - 1], int.from_bytes(chunk[position : begin - 1], "big"))
            position = begin
        length = self._length
        end = position + length
        buffer = self._buffer
        if buffer is None and len(chunk) >= end:
            # The whole frame is at hand: open it straight from the chunk.
            self._position = end
            return self._open(rule, memoryview(chunk)[position:end], bytearray(length - TAG))
        self._rule = rule
        if buffer is None:
            buffer = self._buffer = _borrow() if length > _POOLED else bytearray(length)
            self._filled = 0
        count = min(len(chunk) - position, length - self._filled)
        # Through a view: a slice assigned to a bytearray is copied twice.
        memoryview(buffer)[self._filled : self._filled + count] = memoryview(chunk)[
            position : position + count
        ]
        self._position = position + count
        self._filled += count
        if self._filled < length:
            return None
        self._buffer = self._rule = None
        frame = self._open(rule, memoryview(buffer)[:length], buffer)
        if length > _POOLED:
            _pool.append(buffer)
        return frame

    def _check_header(self, byte: int, length: int) -> _Rule:
        if byte not in self._allowed:
            raise _refuse("protocol", self._index, "a frame of this kind has no place here")
        rule = _RULES[byte]
        if not MIN_CIPHERTEXT <= length <= rule.limit:
            raise _refuse("frame_too_large", self._index, "its length is outside the limits")
        if self._index >= MAX_FRAMES:
            raise _refuse("protocol", self._index, "the message has too many frames")
        self._length = length
        return rule

    def _open(self, rule: _Rule, source: memoryview, out: bytearray) -> Frame:
        """Check the tag, then the inside. ``source`` may lie in ``out``: the cipher works in place."""
        index = self._index
        size = self._length - TAG
        nonce = (self._iv ^ index).to_bytes(12, "big")
        try:
            self._aead.open_into(nonce, source, rule.aad, out)
        except AuthenticationFailed:
            raise _refuse("record_auth", index, "it does not authenticate") from None
        length = int.from_bytes(out[:4], "big")
        end = padding.LENGTH_BYTES + length
        if end > size:
            raise _refuse("protocol", index, "its content is longer than the frame")
        if end < size and out.count(0, end, size) != size - end:
            raise _refuse("protocol", index, "its padding is not zero")
        final = rule.final
        if rule.kind is Kind.DATA:
            if not length and not final:
                raise _refuse("protocol", index, "an empty frame that is not final")
            self._received += length
            if self._max_body is not None and self._received > self._max_body:
                raise _refuse("too_large", index, "the body is larger than the service admits")
        if final:
            if self._position < len(self._chunk):
                raise _refuse("protocol", index, "bytes after the final frame")
            self._finished = True
        self._index = index + 1
        self._allowed = self._later
        return Frame(rule.kind, final, bytes(memoryview(out)[padding.LENGTH_BYTES : end]))
