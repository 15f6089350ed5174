# SPDX-License-Identifier: Apache-2.0
"""An outgoing message: its clear head, its head frame, its body in padded frames, its end.

Requests and responses differ in their keys only, so client and enclave share this.
Source: ``docs/spec/envelope.md``, sections 5 and 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.channel import padding
from confide.channel.frames import HEADER, FrameSealer, Kind
from confide.crypto.aead import TAG
from confide.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confide.channel.receipt import Transcript

__all__ = ["OutgoingMessage", "sealed_length"]

_FULL = padding.MAX_CONTENT


def sealed_length(prefix: int, head: int, length: int) -> int:
    """Bytes on the wire of a message without receipt: a clear head of ``prefix`` bytes, ``head`` bytes of Binary HTTP, a
    body of known ``length``.
    """
    frame = HEADER + TAG
    total = prefix + frame + padding.small(head)
    if length:
        full, rest = divmod(length - 1, _FULL)
        total += full * (frame + padding.MAX_PLAINTEXT) + frame + padding.body(rest + 1)
    return total


class OutgoingMessage:
    """Turns one message into bytes for the wire.

    ``length`` is the body's length if it is known before its first byte, else ``None``: that decides the padding. With
    ``receipt`` the message ends with the frame that it makes; ``transcript`` hashes the body for it.
    """

    __slots__ = (
        "_ended",
        "_kept",
        "_left",
        "_prefix",
        "_receipt",
        "_sealer",
        "_size",
        "_started",
        "_transcript",
        "head",
    )

    def __init__(
        self,
        prefix: bytes,
        key_and_iv: bytes,
        head: bytes,
        *,
        length: int | None,
        transcript: Transcript | None = None,
        receipt: Callable[[], bytes] | None = None,
    ) -> None:
        self.head = head
        self._prefix = prefix
        self._sealer = FrameSealer(key_and_iv)
        self._left = length
        self._transcript = transcript
        self._receipt = receipt
        self._kept: list[bytes] = []
        self._size = 0
        self._started = False
        self._ended = False

    @property
    def wire_length(self) -> int:
        """Bytes of the whole message on the wire, for a body of known length and without receipt."""
        if self._left is None or self._receipt is not None:
            raise ChannelError("protocol", "the length of this message is not known beforehand")
        return sealed_length(len(self._prefix), len(self.head), self._left)

    @property
    def ended(self) -> bool:
        """Whether the final frame has been made."""
        return self._ended

    @property
    def waiting(self) -> int:
        """Bytes of body that are not in a frame yet."""
        return self._size

    def start(self) -> bytes:
        """The clear head and the head frame."""
        self._started = True
        final = self._left == 0 and self._receipt is None
        self._ended = final
        frame = self._sealer.seal(Kind.HEAD, self.head, padding.small(len(self.head)), final=final)
        return self._prefix + frame

    def write(self, content: bytes) -> Iterator[bytes]:
        """Add bytes to the body; the frames that are full, each sealed when it is asked for, all to be taken before the
        next call. Raises ``protocol`` beyond a known length.
        """
        if self._left is not None:
            if len(content) > self._left:
                raise ChannelError("protocol", "the body is longer than its declared length")
            self._left -= len(content)
        if content:
            if self._transcript is not None:
                self._transcript.update(content)
            self._kept.append(content)
            self._size += len(content)
        # A full frame waits for one more byte: until then it may be the last, and the last one is marked.
        if self._size <= _FULL:
            return iter(())
        joined = self._take()
        count = (len(joined) - 1) // _FULL
        rest = joined[count * _FULL :]
        self._kept = [rest]
        self._size = len(rest)
        return self._full(joined, count)

    def _full(self, joined: bytes, count: int) -> Iterator[bytes]:
        with memoryview(joined) as view:
            for at in range(0, count * _FULL, _FULL):
                yield self._sealer.seal(Kind.DATA, view[at : at + _FULL], padding.MAX_PLAINTEXT)

    def pieces(self, content: bytes) -> Iterator[bytes]:
        """``write``, then ``flush``: what is to be sent now."""
        yield from self.write(content)
        if flushed := self.flush():
            yield flushed

    def flush(self) -> bytes:
        """What a stream holds back, as one frame; nothing for a body of known length, whose frames are always full."""
        if self._left is not None or not self._size:
            return b""
        content = self._take()
        return self._sealer.seal(Kind.DATA, content, padding.stream(len(content)))

    def finish(self) -> bytes:
        """The last frames. Raises ``protocol`` if less than the known length was written."""
        if self._ended:
            return b""
        if self._left:
            raise ChannelError("protocol", "the body is shorter than its declared length")
        self._ended = True
        known = self._left is not None
        content = self._take()
        size = (padding.body if known else padding.stream)(len(content))
        if self._receipt is None:
            return self._sealer.seal(Kind.DATA, content, size, final=True)
        data = self._sealer.seal(Kind.DATA, content, size) if content else b""
        signed = self._receipt()
        return data + self._sealer.seal(Kind.RECEIPT, signed, padding.small(len(signed)), final=True)

    def abort(self, code: bytes) -> bytes:
        """End the message as failed, with an ASCII code that the peer authenticates."""
        if self._ended:
            return b""
        self._ended = True
        self._kept.clear()
        prefix = b"" if self._started else self._prefix
        return prefix + self._sealer.seal(Kind.ABORT, code, padding.small(len(code)), final=True)

    def _take(self) -> bytes:
        content = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        self._kept = []
        self._size = 0
        return content
