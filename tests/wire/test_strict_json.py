# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.errors import MalformedError
from confide.wire import strict_json
from support.refusal import code_of, only_typed_errors

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXT, inner, max_size=5)),
    max_leaves=20,
)


def decode(data: bytes, **options: Any) -> Any:
    return strict_json.decode(data, what="document", max_size=1 << 22, **options)


@given(VALUES)
def test_what_is_encoded_decodes_to_the_value(value: Any) -> None:
    data = strict_json.encode(value)

    assert decode(data) == value
    assert json.loads(data) == value
    assert strict_json.encode(decode(data)) == data


@given(st.one_of(st.binary(max_size=80), st.text('[]{}":,\\0129eE+-. tfn/u', max_size=60).map(str.encode)))
@settings(max_examples=400)
def test_any_bytes_give_a_value_that_json_agrees_with_or_a_typed_error(data: bytes) -> None:
    try:
        value = decode(data)
    except MalformedError:
        return

    assert value == json.loads(data)


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":1}', b'{"a":1,"a":2}', b'[{"b":{"":0,"":0}}]', b'{"a":1,"\\u0061":2}']
)
def test_ev_23_a_duplicate_key_is_refused(data: bytes) -> None:
    assert decode(b'{"a":1,"b":1}') == {"a": 1, "b": 1}

    assert code_of(decode, data) == "malformed.non_canonical"


EV_24 = {
    "1e400": (b"1e400", "limit_exceeded"),
    "-1e400": (b"[-1e400]", "limit_exceeded"),
    "NaN": (b"NaN", "non_canonical"),
    "Infinity": (b"[Infinity]", "non_canonical"),
    "-Infinity": (b"-Infinity", "non_canonical"),
    "a million digits": (b"9" * 1_000_000, "limit_exceeded"),
    "a million digits after the point": (b"0." + b"1" * 1_000_000, "limit_exceeded"),
    "a million digits of exponent": (b"1e" + b"0" * 1_000_000, "limit_exceeded"),
    "65 bits": (b"18446744073709551616", "limit_exceeded"),
    "below 64 bits": (b"-9223372036854775809", "limit_exceeded"),
    "depth of lists": (b"[" * 100_000, "limit_exceeded"),
    "depth of objects": (b'{"a":' * 100_000, "limit_exceeded"),
    "depth 33": (b"[" * 33 + b"]" * 33, "limit_exceeded"),
    "lone surrogate": (b'"\\ud800"', "non_canonical"),
    "lone surrogate as key": (b'[{"\\udc00":1}]', "non_canonical"),
    "text after the end": (b"{} {}", "non_canonical"),
    "a letter after the end": (b"1x", "non_canonical"),
    "byte-order mark": (b"\xef\xbb\xbf{}", "non_canonical"),
    "UTF-16": ("{}".encode("utf-16"), "non_canonical"),
    "not UTF-8": (b'"\xff"', "non_canonical"),
    "control character": (b'"a\nb"', "non_canonical"),
    "leading zero": (b"01", "non_canonical"),
    "plus sign": (b"+1", "non_canonical"),
    "single quotes": (b"{'a':1}", "non_canonical"),
    "trailing comma": (b"[1,]", "non_canonical"),
    "comment": (b"/* */ 1", "non_canonical"),
    "empty": (b"", "non_canonical"),
    "unfinished string": (b'"abc', "non_canonical"),
    "unfinished escape": (b'"abc\\', "non_canonical"),
}


@pytest.mark.parametrize(("data", "leaf"), EV_24.values(), ids=EV_24.keys())
def test_ev_24_numbers_depth_and_text(data: bytes, leaf: str) -> None:
    assert code_of(decode, data) == f"malformed.{leaf}"


def test_ev_24_brackets_in_strings_are_not_depth() -> None:
    assert decode(b'["' + b"[" * 100 + b'\\"' + b"{" * 100 + b'"]') == ["[" * 100 + '"' + "{" * 100]
    assert decode(b"[" * 32 + b"]" * 32) is not None


@pytest.mark.parametrize("unit", [b'\\"', b'"', b"\\", b'"\\', b'["', b'"[\\"', b'{"a'])
@pytest.mark.parametrize("tail", [b"", b"\\", b'"', b"\n", b"\\\n"])
def test_ev_24_scanning_for_depth_is_linear(unit: bytes, tail: bytes) -> None:
    """A scan that started anew at every quote would take minutes on these."""
    assert code_of(decode, b'["' + unit * 400_000 + tail).startswith("malformed.")


def test_ev_14_the_size_is_checked_first() -> None:
    assert code_of(strict_json.decode, b" " * 11, what="document", max_size=10) == "malformed.limit_exceeded"


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), b"bytes", "\ud800", {(1, 2): 3}])
def test_what_json_cannot_hold_is_not_encoded(value: Any) -> None:
    assert code_of(strict_json.encode, value) == "malformed.non_canonical"


def test_encoding_is_sorted_and_compact() -> None:
    assert strict_json.encode({"b": [1, 2.5, None], "a": "\u00e9"}) == b'{"a":"\xc3\xa9","b":[1,2.5,null]}'


@pytest.mark.parametrize(
    "data", [b'{"canary": canary}', b'"canary\xff"', b'{"canary":1,"canary":2}', b"[1e400]"]
)
def test_leak_02_the_error_keeps_no_part_of_the_document(data: bytes) -> None:
    """JSONDecodeError.doc and UnicodeDecodeError.object hold all of it, so neither may hang on the error."""
    with pytest.raises(MalformedError) as caught:
        decode(data)

    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value) + repr(caught.value.args)


@given(st.binary(max_size=200))
def test_no_other_error_escapes(data: bytes) -> None:
    only_typed_errors(decode, data)
