# SPDX-License-Identifier: Apache-2.0
"""Values and arrays survive the way; everything else is refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from confide.enclave import values
from confide.errors import ConfideError, ConfigurationError, MalformedError
from confide.wire import cbor
from confide.wire.cbor import Tagged

LIMIT = 1 << 20
TYPES = ["u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"]

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_plain_values_survive(value: Any) -> None:
    assert values.decode(values.encode(value), max_size=LIMIT) == value


@given(
    st.sampled_from(TYPES).flatmap(
        lambda t: arrays.arrays(np.dtype(t), arrays.array_shapes(min_dims=0, min_side=0, max_dims=4))
    )
)
def test_arrays_survive_bit_for_bit(array: Any) -> None:
    back = values.decode(values.encode({"x": [array]}), max_size=LIMIT)["x"][0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


def test_other_layouts_and_byte_orders_arrive_as_row_major_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    for variant in (array, array.T.copy().T, np.asfortranarray(array), array[:, ::-1][:, ::-1]):
        back = values.decode(values.encode(variant), max_size=LIMIT)
        assert np.array_equal(back, array)
        assert back.dtype == np.dtype("<i4")


def test_numpy_scalars_and_tuples_become_plain() -> None:
    assert values.decode(values.encode((np.float32(1.5), np.int64(3), np.bool_(True))), max_size=LIMIT) == [
        1.5,
        3,
        True,
    ]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1: 2},
        1 << 64,
        math.nan,
        {1, 2},
        np.array([True]),
        np.array(["text"]),
        np.array([object()], dtype=object),
        np.array([1j]),
        len,
        [[[]]] and [object],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_place_in_a_message_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError):
        values.encode(value)


@pytest.mark.parametrize(
    "value",
    [
        Tagged(40, [[2], Tagged(85, b"\0" * 4)]),
        Tagged(40, [[1], Tagged(85, b"\0" * 5)]),
        Tagged(40, [[-1], Tagged(64, b"")]),
        Tagged(40, [[1 << 50, 1 << 50], Tagged(64, b"")]),
        Tagged(40, [[1] * 17, Tagged(64, b"\0")]),
        Tagged(40, [[True], Tagged(64, b"\0")]),
        Tagged(40, [["1"], Tagged(64, b"\0")]),
        Tagged(40, [[1], b"\0"]),
        Tagged(40, [[1], Tagged(40, b"\0")]),
        Tagged(40, [[1], Tagged(64, "x")]),
        Tagged(40, b""),
        Tagged(40, []),
        Tagged(64, b"\0"),
        Tagged(85, b"\0" * 4),
        {1: 2},
    ],
    ids=repr,
)
def test_a_hostile_array_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        values.decode(cbor.encode(value), max_size=LIMIT)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_a_typed_error(data: bytes) -> None:
    try:
        values.decode(data, max_size=LIMIT)
    except ConfideError:
        return
