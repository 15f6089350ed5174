# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from confide.wire.cursor import Cursor
from support.refusal import code_of


def test_integers_are_read_in_both_byte_orders() -> None:
    cursor = Cursor(bytes(range(1, 30)), "thing")

    assert cursor.u8() == 0x01
    assert cursor.u16() == 0x0203
    assert cursor.u32() == 0x04050607
    assert cursor.u64() == 0x08090A0B0C0D0E0F
    assert cursor.u16_le() == 0x1110
    assert cursor.u32_le() == 0x15141312
    assert cursor.u64_le() == 0x1D1C1B1A19181716
    assert cursor.remaining == 0
    cursor.expect_end()


def test_every_read_beyond_the_end_is_truncated_and_reads_nothing() -> None:
    for name, width in (
        ("u8", 1),
        ("u16", 2),
        ("u32", 4),
        ("u64", 8),
        ("u16_le", 2),
        ("u32_le", 4),
        ("u64_le", 8),
    ):
        cursor = Cursor(bytes(width - 1), "thing")

        assert code_of(getattr(cursor, name)) == "malformed.truncated"
        assert cursor.offset == 0


def test_a_negative_or_huge_length_is_refused() -> None:
    cursor = Cursor(bytes(8), "thing")

    assert code_of(cursor.take, -1) == "malformed.length_mismatch"
    assert code_of(cursor.take, 1 << 63) == "malformed.truncated"


def test_bytes_after_the_end_are_refused() -> None:
    cursor = Cursor(bytes(2), "thing")
    cursor.u8()

    assert code_of(cursor.expect_end) == "malformed.trailing_data"


def test_reserved_bytes_must_be_zero() -> None:
    Cursor(bytes(4), "thing").zero(4)

    assert code_of(Cursor(b"\0\0\0\1", "thing").zero, 4) == "malformed.reserved_not_zero"


@given(st.binary(max_size=64), st.lists(st.integers(0, 12), max_size=12))
def test_the_pieces_taken_are_the_data(data: bytes, cuts: list[int]) -> None:
    cursor = Cursor(data, "thing")
    pieces = [cursor.take(cut) for cut in cuts if cut <= cursor.remaining]

    assert b"".join(pieces) + cursor.take(cursor.remaining) == data
    cursor.expect_end()
