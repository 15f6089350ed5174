# SPDX-License-Identifier: Apache-2.0
"""A bounds-checked reader for the variable parts of wire formats."""

from __future__ import annotations

from confide.errors import MalformedError

__all__ = ["Cursor"]


class Cursor:
    """Reads ``data`` from front to back; every step says whether enough bytes are left before it touches them.

    Integers are big-endian; the methods ending in ``_le`` are their little-endian twins. Errors name the structure ``what``
    and the offset, never the bytes.
    """

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes | bytearray | memoryview, what: str) -> None:
        self._data = bytes(data)
        self._what = what
        self._offset = 0

    @property
    def offset(self) -> int:
        """The number of bytes read so far."""
        return self._offset

    @property
    def remaining(self) -> int:
        """The number of bytes not yet read."""
        return len(self._data) - self._offset

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes; ``malformed.truncated`` if there are fewer."""
        if count < 0:
            raise MalformedError("length_mismatch", f"{self._what}: negative length at offset {self._offset}")
        start = self._offset
        end = start + count
        if end > len(self._data):
            raise MalformedError("truncated", f"{self._what}: cut off in the field at offset {start}")
        self._offset = end
        return self._data[start:end]

    def u8(self) -> int:
        """One byte as an integer."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Two bytes, big-endian."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """Four bytes, big-endian."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Eight bytes, big-endian."""
        return int.from_bytes(self.take(8), "big")

    def u16_le(self) -> int:
        """Two bytes, little-endian."""
        return int.from_bytes(self.take(2), "little")

    def u32_le(self) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.take(4), "little")

    def u64_le(self) -> int:
        """Eight bytes, little-endian."""
        return int.from_bytes(self.take(8), "little")

    def zero(self, count: int) -> None:
        """Skip ``count`` reserved bytes; ``malformed.reserved_not_zero`` if one of them is not zero."""
        start = self._offset
        if any(self.take(count)):
            raise MalformedError(
                "reserved_not_zero", f"{self._what}: reserved bytes at offset {start} are not zero"
            )

    def expect_end(self) -> None:
        """``malformed.trailing_data`` unless every byte has been read."""
        if self._offset != len(self._data):
            raise MalformedError(
                "trailing_data", f"{self._what}: bytes after its end at offset {self._offset}"
            )
