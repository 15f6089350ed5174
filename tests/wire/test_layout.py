# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.errors import MalformedError
from confide.wire.layout import U8, U16, U32, U64, Array, Layout, Raw, Zero
from support.refusal import code_of


class Version(Layout, size=3):
    major: U8
    build: U16


class Header(Layout, size=47):
    version: U32
    reserved_04: Annotated[bytes, Zero(2)] = bytes(2)
    wide: U64
    name: Annotated[bytes, Raw(8)]
    inner: Version
    versions: Annotated[tuple[Version, ...], Array(Version, 2)]
    numbers: Annotated[tuple[int, ...], Array(U16, 4)]
    blocks: Annotated[tuple[bytes, ...], Array(Raw(4), 2)]


def example() -> Header:
    return Header(
        version=0x01020304,
        wide=0x1122334455667788,
        name=b"abcdefgh",
        inner=Version(major=9, build=0xABCD),
        versions=(Version(major=1, build=2), Version(major=3, build=4)),
        numbers=(1, 2, 3, 0xFFFF),
        blocks=(b"wxyz", b"1234"),
    )


def test_the_bytes_are_those_written_by_hand() -> None:
    expected = bytes.fromhex(
        "04030201 0000 8877665544332211 6162636465666768 09cdab 010200 030400 010002000300ffff 7778797a 31323334"
    )

    assert example().encode() == expected
    assert Header.decode(expected) == example()
    assert Header.SIZE == len(expected) == 47


def test_offsets_follow_the_declaration() -> None:
    assert [Header.offset(field.name) for field in dataclasses.fields(Header)] == [
        0,
        4,
        6,
        14,
        22,
        25,
        31,
        39,
    ]


@given(st.binary(min_size=47, max_size=47))
def test_what_decodes_encodes_to_the_same_bytes(data: bytes) -> None:
    data = data[:4] + bytes(2) + data[6:]

    assert Header.decode(data).encode() == data
    assert Header.decode(memoryview(bytearray(data))) == Header.decode(data)


@given(st.binary(max_size=100))
def test_any_bytes_decode_or_are_malformed(data: bytes) -> None:
    try:
        decoded = Header.decode(data)
    except MalformedError:
        return

    assert decoded.encode() == data


def test_the_length_is_exact() -> None:
    data = example().encode()

    for size in range(len(data)):
        assert code_of(Header.decode, data[:size]) == "malformed.truncated"
    assert code_of(Header.decode, data + b"\0") == "malformed.trailing_data"


def test_each_bit_of_a_reserved_field_is_refused_in_both_directions() -> None:
    data = example().encode()

    for bit in range(32, 48):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert code_of(Header.decode, bytes(flipped)) == "malformed.reserved_not_zero"
    assert (
        code_of(dataclasses.replace(example(), reserved_04=b"\0\1").encode) == "malformed.reserved_not_zero"
    )


def test_the_error_names_structure_field_and_offset_and_no_bytes() -> None:
    data = bytearray(example().encode())
    data[5] = 0xA7

    with pytest.raises(MalformedError) as caught:
        Header.decode(data)
    assert "Header.reserved_04" in caught.value.message
    assert "0x4" in caught.value.message
    assert "a7" not in caught.value.message.lower()


@pytest.mark.parametrize(
    "change",
    [
        {"version": -1},
        {"version": 1 << 32},
        {"version": True},
        {"wide": 1.5},
        {"name": b"short"},
        {"name": "abcdefgh"},
        {"inner": b"abc"},
        {"versions": (Version(major=1, build=1),)},
        {"numbers": [1, 2, 3, 4]},
        {"numbers": (1, 2, 3, 70_000)},
        {"blocks": (b"wxyz", b"12345")},
    ],
)
def test_a_value_that_does_not_fit_its_place_is_not_encoded(change: dict[str, Any]) -> None:
    assert code_of(dataclasses.replace(example(), **change).encode) == "malformed.length_mismatch"


def test_a_structure_is_frozen_slotted_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().version = 5  # type: ignore[misc]
    assert not hasattr(example(), "__dict__")
    with pytest.raises(TypeError):
        Version(1, 2)  # type: ignore[call-arg]


def test_a_wrong_total_size_is_an_error_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="take 3 bytes, not 4"):

        class Wrong(Layout, size=4):
            major: U8
            build: U16


def test_a_field_without_a_wire_form_is_an_error_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="not a field"):

        class Wrong(Layout, size=4):
            number: int


def test_the_size_must_be_said() -> None:
    with pytest.raises(TypeError, match="size"):

        class Wrong(Layout):
            number: U8
