# SPDX-License-Identifier: Apache-2.0
"""cbor2 is the oracle here; docs/adr/0002-cbor.md says why the package does not use it."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.errors import MalformedError
from confide.wire import cbor
from support.refusal import code_of

KEYS = st.one_of(st.integers(-(1 << 64), (1 << 64) - 1), st.text(max_size=12), st.binary(max_size=12))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 64), (1 << 64) - 1),
    st.binary(max_size=40),
    st.text(max_size=40),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=24,
)


def decode(data: bytes, **options: Any) -> Any:
    return cbor.decode(data, what="document", max_size=1 << 20, **options)


@given(VALUES)
def test_encoding_agrees_with_cbor2_and_decodes_to_the_value(value: Any) -> None:
    data = cbor.encode(value)

    assert decode(data, max_depth=64) == value
    assert cbor2.loads(data) == value
    assert _bytewise(value) == data


def _bytewise(value: Any) -> bytes:
    """cbor2's encoding with every map put into the order of section 4.2.1, which is not the one it sorts by itself."""
    if isinstance(value, dict):
        entries = sorted((cbor2.dumps(key), _bytewise(element)) for key, element in value.items())
        head = bytearray(cbor2.dumps([0] * len(value)))[: len(cbor2.dumps([0] * len(value))) - len(value)]
        head[0] |= 0x20
        return bytes(head) + b"".join(key + element for key, element in entries)
    if isinstance(value, list):
        head = bytearray(cbor2.dumps([0] * len(value)))[: len(cbor2.dumps([0] * len(value))) - len(value)]
        return bytes(head) + b"".join(_bytewise(element) for element in value)
    return cbor2.dumps(value)


@given(st.binary(max_size=60))
@settings(max_examples=400)
def test_what_is_accepted_has_that_one_spelling(data: bytes) -> None:
    """Property: any bytes either raise MalformedError or are exactly what encode makes of their value."""
    try:
        value = decode(data, max_depth=64)
    except MalformedError:
        return

    assert cbor.encode(value) == data
    assert cbor2.loads(data) == value


@given(VALUES, st.data())
def test_a_changed_byte_never_gives_the_same_value(value: Any, draw: st.DataObject) -> None:
    data = bytearray(cbor.encode(value))
    index = draw.draw(st.integers(0, len(data) - 1))
    data[index] ^= draw.draw(st.integers(1, 255))
    try:
        changed = decode(bytes(data), max_depth=64)
    except MalformedError:
        return

    assert cbor.encode(changed) != cbor.encode(value)


@given(VALUES)
@settings(max_examples=50)
def test_every_cut_is_refused(value: Any) -> None:
    data = cbor.encode(value)

    for size in range(len(data)):
        assert code_of(decode, data[:size], max_depth=64) == "malformed.truncated"
    assert code_of(decode, data + b"\0", max_depth=64) == "malformed.trailing_data"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (256, "190100"),
        (65536, "1a00010000"),
        (1 << 32, "1b0000000100000000"),
        ((1 << 64) - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (-(1 << 64), "3bffffffffffffffff"),
        (b"\1\2\3\4", "4401020304"),
        ("IETF", "6449455446"),
        ("\u6c34", "63e6b0b4"),
        ([1, [2, 3], [4, 5]], "8301820203820405"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
        (True, "f5"),
        (None, "f6"),
        (cbor.Tagged(24, b"dIETF"), "d818456449455446"),
    ],
)
def test_the_examples_of_rfc_8949_appendix_a(value: Any, expected: str) -> None:
    assert cbor.encode(value).hex() == expected
    assert decode(bytes.fromhex(expected), tags=frozenset({24})) == value


def test_keys_are_in_bytewise_order_as_in_rfc_8949_section_4_2_1() -> None:
    """The section's own example: 10, 100, -1, "z", "aa" (its array and boolean keys have no place here)."""
    value = {"aa": 0, "z": 0, -1: 0, 100: 0, 10: 0}

    assert cbor.encode(value).hex() == "a5" + "0a00" + "186400" + "2000" + "617a00" + "62616100"


EV_25 = {
    "regex under tag 35": "d82363612b2b",
    "bignum under tag 2": "c249010000000000000000",
    "bignum under tag 3": "c349010000000000000000",
    "decimal under tag 4": "c4821a7fffffff01",
    "bigfloat under tag 5": "c5821a7fffffff01",
    "rational under tag 30": "d81e820100",
    "date under tag 0": "c074323031332d30332d32315432303a30343a30305a",
    "set under tag 258": "d9010280",
    "shared value": "d81c81d81d00",
    "string reference": "d9010080",
    "self-described": "d9d9f700",
    "indefinite array": "9f01ff",
    "indefinite map": "bf0101ff",
    "indefinite bytes": "5f4101ff",
    "indefinite text": "7f6161ff",
    "a lone break": "ff",
    "integer not shortest, 1 byte": "1817",
    "integer not shortest, 2 bytes": "1900ff",
    "integer not shortest, 4 bytes": "1a0000ffff",
    "integer not shortest, 8 bytes": "1b00000000ffffffff",
    "negative not shortest": "3817",
    "length not shortest": "5801aa",
    "array length not shortest": "980100",
    "map length not shortest": "b8010000",
    "tag not shortest": "d80100",
    "NaN": "f97e00",
    "NaN of 64 bits": "fb7ff8000000000000",
    "half float": "f93c00",
    "single float": "fa3f800000",
    "double float": "fb3ff0000000000000",
    "undefined": "f7",
    "simple value 255": "f8ff",
    "simple value 0": "e0",
    "false in two bytes": "f814",
    "reserved length 28": "1c",
    "reserved length 30": "5e",
    "text that is not UTF-8": "61ff",
    "text with a surrogate": "63eda080",
    "overlong text": "62c080",
}


@pytest.mark.parametrize("data", EV_25.values(), ids=EV_25.keys())
@pytest.mark.parametrize("deterministic", [True, False])
def test_ev_25_what_has_no_place_is_refused_before_it_is_made(data: str, deterministic: bool) -> None:
    assert decode(b"\x80", deterministic=deterministic) == []

    assert code_of(decode, bytes.fromhex(data), deterministic=deterministic) == "malformed.non_canonical"
    # And the same inside a container.
    assert (
        code_of(decode, b"\x81" + bytes.fromhex(data), deterministic=deterministic)
        == "malformed.non_canonical"
    )


@pytest.mark.parametrize("data", ["d82363612b2b", "c249010000000000000000", "d81c81d81d00"])
def test_ev_25_a_tag_that_is_allowed_gives_its_parts_and_no_meaning(data: str) -> None:
    """Even a caller who names such a tag gets no regular expression, bignum or shared value."""
    raw = bytes.fromhex(data)
    value = decode(raw, tags=frozenset({2, 28, 29, 35}))

    assert type(value) is cbor.Tagged
    assert cbor.encode(value) == raw


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("data", ["a201010102", "a2616101616102", "a241aa0041aa00", "a3010102020103"])
def test_ev_23_a_duplicate_key_is_refused(data: str, deterministic: bool) -> None:
    assert decode(bytes.fromhex("a201010202"), deterministic=deterministic) == {1: 1, 2: 2}

    assert code_of(decode, bytes.fromhex(data), deterministic=deterministic) == "malformed.non_canonical"


@pytest.mark.parametrize("key", ["f5", "f6", "80", "a0", "f90000", "c001", "f4"])
def test_ev_23_only_integers_and_strings_are_keys(key: str) -> None:
    """Else 1 and true, or 1 and 1.0, would be one key in Python and two on the wire."""
    assert code_of(decode, bytes.fromhex("a1" + key + "00")) == "malformed.non_canonical"


def test_maps_out_of_order_are_for_vendor_documents_only() -> None:
    data = bytes.fromhex("a202010101")

    assert code_of(decode, data) == "malformed.non_canonical"
    assert decode(data, deterministic=False) == {2: 1, 1: 1}


def test_the_old_canonical_order_is_another_one() -> None:
    """RFC 7049 sorted by length first: "z" before 1000. Section 4.2.1 sorts by bytes: 1000 (19...) before "z" (61...)."""
    old = bytes.fromhex("a2617a00" + "1903e800")

    assert code_of(decode, old) == "malformed.non_canonical"
    assert cbor.encode({"z": 0, 1000: 0}) == bytes.fromhex("a21903e800" + "617a00")


def test_nesting_stops_at_the_limit_and_not_in_the_interpreter() -> None:
    assert decode(b"\x81" * 16 + b"\0") == [[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]
    assert code_of(decode, b"\x81" * 17 + b"\0") == "malformed.limit_exceeded"
    assert code_of(decode, b"\x81" * 1_000_000) == "malformed.limit_exceeded"
    assert code_of(decode, b"\xc1" * 1_000_000, tags=frozenset({1})) == "malformed.limit_exceeded"
    assert code_of(decode, b"\xa1\0" * 500_000) == "malformed.limit_exceeded"


def test_a_map_of_indefinite_length_is_accepted_only_outermost_and_only_where_it_is_asked_for() -> None:
    data = bytes.fromhex("bf01024103a10405ff")

    assert decode(data, open_map=True, deterministic=False) == {1: 2, b"\x03": {4: 5}}
    assert decode(bytes.fromhex("bfff"), open_map=True) == {}
    assert decode(bytes.fromhex("a10102"), open_map=True) == {1: 2}
    assert code_of(decode, data) == "malformed.non_canonical"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("bf01bf0203ffff", "malformed.non_canonical"),  # A second one inside.
        ("bf019f02ffff", "malformed.non_canonical"),
        ("bf015f4102ffff", "malformed.non_canonical"),
        ("bf01020103ff", "malformed.non_canonical"),  # A duplicate key.
        ("bf02010102ff", "malformed.non_canonical"),  # Keys out of order.
        ("bf01ff", "malformed.non_canonical"),  # A key without a value.
        ("bf0102", "malformed.truncated"),
        ("bf", "malformed.truncated"),
        ("bf0102ff00", "malformed.trailing_data"),
        ("bf0102ffff", "malformed.trailing_data"),
        ("81bf0102ff", "malformed.non_canonical"),
    ],
)
def test_ev_25_a_map_of_indefinite_length_changes_nothing_else(data: str, code: str) -> None:
    assert code_of(decode, bytes.fromhex(data), open_map=True) == code


def test_ev_14_the_size_is_checked_first() -> None:
    assert cbor.decode(b"\x49" + bytes(9), what="document", max_size=10) == bytes(9)
    assert (
        code_of(cbor.decode, b"\x4a" + bytes(10), what="document", max_size=10) == "malformed.limit_exceeded"
    )


@pytest.mark.parametrize(
    "head", ["5a7fffffff", "9a7fffffff", "ba7fffffff", "7b7fffffffffffffff", "9bffffffffffffffff"]
)
def test_ev_13_a_declared_length_allocates_nothing(head: str) -> None:
    tracemalloc.start()
    try:
        assert code_of(decode, bytes.fromhex(head)) == "malformed.truncated"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_floats_only_where_they_are_asked_for() -> None:
    for number in (0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324):
        data = cbor.encode([number], floats=True)
        assert data[1] == 0xFB
        again = decode(data, floats=True)[0]
        assert math.copysign(1, again) == math.copysign(1, number)
        assert again == number
        assert code_of(decode, data) == "malformed.non_canonical"
        assert code_of(cbor.encode, [number]) == "malformed.non_canonical"
    assert code_of(cbor.encode, math.nan, floats=True) == "malformed.non_canonical"
    assert code_of(decode, bytes.fromhex("fb7ff8000000000001"), floats=True) == "malformed.non_canonical"
    assert code_of(decode, bytes.fromhex("f93c00"), floats=True) == "malformed.non_canonical"


@pytest.mark.parametrize(
    "value", [object(), {1.5}, 1j, {None: 1}, {True: 1}, {(1,): 1}, "\ud800", range(3), cbor.Tagged(-1, 0)]
)
def test_what_has_no_encoding_is_refused(value: Any) -> None:
    assert code_of(cbor.encode, value) == "malformed.non_canonical"


def test_what_is_too_large_to_encode_is_refused() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]

    assert code_of(cbor.encode, 1 << 64) == "malformed.limit_exceeded"
    assert code_of(cbor.encode, -(1 << 64) - 1) == "malformed.limit_exceeded"
    assert code_of(cbor.encode, deep) == "malformed.limit_exceeded"


def test_leak_02_the_error_carries_no_part_of_the_input() -> None:
    with pytest.raises(MalformedError) as caught:
        decode(b"\x78\x18" + b"canary-canary-canary-can"[:23] + b"\xff")

    assert "canary" not in repr(caught.value) + str(caught.value)
    assert caught.value.__context__ is None
